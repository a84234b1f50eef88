//! The problems of a configuration: all of them, each with its path, what was found and what was
//! expected.

use std::fmt;

/// Why a configuration is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    lines: Vec<Problem>,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    path: String,
    found: String,
    expected: String,
}

impl Problems {
    /// Adds a problem. `path` looks like `routes[2].match.path`, and is empty for the document
    /// itself.
    pub(super) fn push(
        &mut self,
        path: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) {
        self.lines.push(Problem { path: path.into(), found: found.into(), expected: expected.into() });
    }

    /// Whether there is a problem at this place already.
    pub(super) fn has(&self, path: &str) -> bool {
        self.lines.iter().any(|problem| problem.path == path)
    }

    /// Whether there is no problem.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// One line per problem.
    pub fn lines(&self) -> Vec<String> {
        self.lines.iter().map(ToString::to_string).collect()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "found {}, expected {}", self.found, self.expected)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl std::error::Error for Problems {}
