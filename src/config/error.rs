//! The problems of a configuration: all of them, each with its path, what was found and what was
//! expected.

use std::fmt;

/// What is found in the place of a field that there is not.
pub(super) const UNKNOWN_FIELD: &str = "an unknown field";

/// The most problems that are kept: who has more reads no more of them.
const MAX_PROBLEMS: usize = 100;

/// Why a configuration is refused: the first 100 problems, and how many there are beside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    kept: Vec<Problem>,
    beyond: usize,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    path: String,
    found: String,
    expected: String,
    alike: u32,
}

#[cfg(not(target_family = "wasm"))]
impl Problem {
    /// Where it is, as `routes[2].match.path`; empty for the document itself.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What stands there.
    pub fn found(&self) -> &str {
        &self.found
    }

    /// What was expected there.
    pub fn expected(&self) -> &str {
        &self.expected
    }

    /// How many more there are of the same mistake, such as for other routes that need what is
    /// missing.
    pub fn alike(&self) -> u32 {
        self.alike
    }

    /// Whether the field is none that there is; [`Problem::expected`] then lists those there are.
    pub fn is_unknown_field(&self) -> bool {
        self.found == UNKNOWN_FIELD
    }
}

impl Problems {
    /// Adds a problem. `path` looks like `routes[2].match.path`, and is empty for the document
    /// itself. What is missing at one place is missing once, whoever needs it.
    pub(super) fn push(
        &mut self,
        path: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) {
        let (path, found) = (path.into(), found.into());
        if let Some(known) = self.kept.iter_mut().find(|known| known.path == path && known.found == found) {
            known.alike = known.alike.saturating_add(1);
        } else if self.kept.len() < MAX_PROBLEMS {
            self.kept.push(Problem { path, found, expected: expected.into(), alike: 0 });
        } else {
            self.beyond = self.beyond.saturating_add(1);
        }
    }

    /// Whether there is a problem at this place already.
    pub(super) fn has(&self, path: &str) -> bool {
        self.kept.iter().any(|problem| problem.path == path)
    }

    /// Whether there is no problem.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// One line per problem, and one for those that are not kept.
    pub fn lines(&self) -> Vec<String> {
        let beyond = (self.beyond > 0).then(|| format!("… and {} more problems", self.beyond));
        self.kept.iter().map(ToString::to_string).chain(beyond).collect()
    }

    /// The problems that are kept, in the order in which they were found.
    #[cfg(not(target_family = "wasm"))]
    pub fn kept(&self) -> &[Problem] {
        &self.kept
    }

    /// How many problems there are beside those.
    #[cfg(not(target_family = "wasm"))]
    pub fn beyond(&self) -> usize {
        self.beyond
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "found {}, expected {}", self.found, self.expected)?;
        if self.alike > 0 {
            write!(f, " (and {} more like it)", self.alike)?;
        }
        Ok(())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl std::error::Error for Problems {}
