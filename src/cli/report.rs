//! What there is to say of a file: for a person, with the line it is about, or as JSON.

use super::place;
use super::source::{Source, Unreadable};
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::io::IsTerminal as _;
use std::ops::Range;

/// How a verb prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON document, for programs.
    Json,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The module would refuse the policy.
    Problem,
    /// Allowed, but probably not intended.
    Warning,
}

/// Something to say of a file.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    /// How bad it is.
    pub(crate) severity: Severity,
    /// The file, and the plugin entry in it if there are several.
    pub(crate) file: String,
    /// Where in the policy, such as `routes[2].access`; empty for the whole.
    pub(crate) path: String,
    /// The sentence.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) help: Vec<String>,
    /// The text, and the bytes of it that this is about.
    pub(crate) at: Option<(String, Range<usize>)>,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Warning => "warning",
        }
    }
}

impl Finding {
    /// About a file as a whole.
    pub(crate) fn of_file(severity: Severity, file: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { severity, file: file.to_owned(), path: String::new(), message, help: Vec::new(), at: None }
    }

    /// About a text that no parser takes.
    pub(crate) fn unreadable(file: &str, text: &str, problem: Unreadable) -> Self {
        let end = |at: usize| {
            let width = text.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
            at.saturating_add(width)
        };
        let at = problem.at.map(|at| (text.to_owned(), at..end(at)));
        let help = problem.help.into_iter().map(str::to_owned).collect();
        Self { help, at, ..Self::of_file(Severity::Problem, file, problem.reason) }
    }

    /// About a place of a policy.
    pub(crate) fn at(self, source: &Source, value: &Value, path: &str, is_name: bool) -> Self {
        let at = source.find(value, path, is_name).map(|range| (source.text.clone(), range));
        Self { at, path: path.to_owned(), ..self }
    }

    fn json(&self) -> Value {
        let place = self.at.as_ref().map(|(text, range)| place::line_and_column(text, range.start));
        json!({
            "severity": self.severity.word(), "file": self.file, "path": self.path,
            "line": place.map(|(line, _)| line), "column": place.map(|(_, column)| column),
            "message": self.message, "help": self.help,
        })
    }

    fn group(&self) -> Group<'_> {
        let level = match self.severity {
            Severity::Problem => Level::ERROR.with_name("problem"),
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(self.message.as_str());
        let group = match &self.at {
            Some((text, range)) => {
                let annotation = AnnotationKind::Primary.span(range.clone());
                title.element(Snippet::source(text.as_str()).path(self.file.as_str()).annotation(annotation))
            }
            None => title.element(Origin::path(self.file.as_str())),
        };
        group.elements(self.help.iter().map(|help| Level::HELP.message(help.as_str())))
    }
}

/// The findings as text.
pub(crate) fn text(findings: &[Finding], is_styled: bool) -> String {
    let renderer = if is_styled { Renderer::styled() } else { Renderer::plain() };
    let one = |finding: &Finding| renderer.render(&[finding.group()]).trim_end().to_owned();
    findings.iter().map(one).collect::<Vec<_>>().join("\n\n")
}

/// The findings as JSON.
pub(crate) fn json(findings: &[Finding]) -> Vec<Value> {
    findings.iter().map(Finding::json).collect()
}

/// Whether standard error is read by a person who wants colours (<https://no-color.org>).
pub(crate) fn is_styled() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
