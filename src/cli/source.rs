//! What a person wrote, as JSON, as YAML or in a listener of Envoy's, and where in it things are.

use super::{envoy, place};
use serde_json::Value;
use std::ops::Range;

/// A policy, and the text in which a person sees it.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The file's name, for messages.
    pub(crate) name: String,
    /// The text that is shown.
    pub(crate) text: String,
    /// The policy as JSON, as the module would get it.
    pub(crate) document: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Json,
    Yaml,
    /// The document's lines are those of the text from this one on, each indented by so many bytes.
    Block {
        first: usize,
        indent: usize,
    },
}

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// The parser's reason.
    pub(crate) reason: String,
    /// Where it stopped, as a byte of the text.
    pub(crate) at: Option<usize>,
    /// What to do about it.
    pub(crate) help: Option<&'static str>,
}

impl Source {
    /// Reads the policy of a file of any kind; the first one of several.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn first(name: &str, bytes: &[u8]) -> Result<Self, Unreadable> {
        let Some(file) = envoy::File::read(bytes) else { return Self::read(name, bytes) };
        let none = |reason: String| Unreadable { reason, at: None, help: None };
        let file = file.map_err(none)?;
        let plugins = file.plugins();
        let plugin = plugins.first().ok_or_else(|| none("found no plugin entry of the gate's".to_owned()))?;
        let document = plugin.document.clone().map_err(none)?;
        let (source, problem) = Self::of_plugin(name, plugin.name, utf8(bytes)?, document);
        problem.map_or(Ok(source), Err)
    }

    /// Reads a policy that stands in a file of its own. What begins with `{` is JSON, and so is a
    /// file that is called so; the rest is YAML.
    ///
    /// # Errors
    /// Why it is neither.
    pub(crate) fn read(name: &str, bytes: &[u8]) -> Result<Self, Unreadable> {
        let text = utf8(bytes)?.to_owned();
        let start = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
        let is_json = start.starts_with(['{', '[']) || name.ends_with(".json") || start.is_empty();
        let (document, kind) = if is_json {
            json(&text)?;
            (text.clone(), Kind::Json)
        } else {
            (yaml(&text)?.to_string(), Kind::Yaml)
        };
        Ok(Self { name: name.to_owned(), text, document, kind })
    }

    /// A policy that stands in a file of Envoy's.
    ///
    /// # Errors
    /// Why it is no JSON. It is returned beside the source, in which the reason can be shown.
    pub(crate) fn of_plugin(
        file: &str,
        plugin: &str,
        text: &str,
        document: &str,
    ) -> (Self, Option<Unreadable>) {
        let source = match block(text, document) {
            Some(kind) => {
                Self { name: file.to_owned(), text: text.to_owned(), document: document.to_owned(), kind }
            }
            None => Self {
                name: format!("{file} (configuration of `{plugin}`)"),
                text: document.to_owned(),
                document: document.to_owned(),
                kind: Kind::Json,
            },
        };
        let unreadable = json(document)
            .err()
            .map(|problem| Unreadable { at: problem.at.and_then(|at| source.outer(at)), ..problem });
        (source, unreadable)
    }

    /// The policy as data.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_str(&self.document).unwrap_or_default()
    }

    /// The bytes of the text that a path of the policy stands for: of the value, or with `is_name`
    /// of the field's name. For what is not there, those of what should contain it.
    pub(crate) fn find(&self, value: &Value, path: &str, is_name: bool) -> Option<Range<usize>> {
        let (segments, is_whole) = place::resolve(value, path);
        let is_name = is_name || !is_whole;
        match self.kind {
            Kind::Json => place::in_json(&self.text, &segments, is_name),
            Kind::Block { .. } => {
                let inner = place::in_json(&self.document, &segments, is_name)?;
                Some(self.outer(inner.start)?..self.outer(inner.end)?)
            }
            Kind::Yaml => place::in_yaml(&self.text, &segments, is_name),
        }
    }

    /// The text's byte that a byte of the document is.
    fn outer(&self, at: usize) -> Option<usize> {
        let Kind::Block { first, indent } = self.kind else { return Some(at) };
        let before = self.document.get(..at)?;
        let line = before.matches('\n').count();
        let column = at.saturating_sub(before.rfind('\n').map_or(0, |end| end.saturating_add(1)));
        let start = place::line_start(&self.text, first.saturating_add(line));
        let found = start.saturating_add(indent).saturating_add(column);
        Some(found.min(self.text.len()))
    }
}

/// The text of a file.
///
/// # Errors
/// What it is instead.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, Unreadable> {
    let is_utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    std::str::from_utf8(bytes).map_err(|error| Unreadable {
        reason: format!("not UTF-8 at byte {}", error.valid_up_to()),
        at: None,
        help: is_utf16.then_some("the file looks like UTF-16: save it as UTF-8"),
    })
}

fn json(text: &str) -> Result<Value, Unreadable> {
    serde_json::from_str(text).map_err(|error| {
        let at = place::offset(text, error.line(), error.column());
        let reason = error.to_string();
        let reason = reason.rsplit_once(" at line ").map_or(reason.as_str(), |(reason, _)| reason);
        let here = text.get(at..).unwrap_or_default();
        let help = if text.starts_with('\u{feff}') {
            Some("the file begins with a byte order mark: save it without")
        } else if here.starts_with(['/', '#']) {
            Some("JSON has no comments: leave it out, or write the policy as YAML")
        } else if text.trim().is_empty() {
            Some("the file is empty")
        } else if error.is_eof() {
            Some("the document is cut off: something that was opened is not closed")
        } else {
            None
        };
        Unreadable { reason: format!("not JSON: {reason}"), at: Some(at), help }
    })
}

/// A YAML document as JSON, with its merge keys applied.
///
/// # Errors
/// The parser's reason, and where.
pub(crate) fn yaml(text: &str) -> Result<Value, Unreadable> {
    let read = || {
        let mut value: serde_norway::Value = serde_norway::from_str(text)?;
        value.apply_merge()?;
        serde_norway::from_value::<Value>(value)
    };
    read().map_err(|error: serde_norway::Error| {
        let at = error.location().map(|at| place::offset_of_char(text, at.line(), at.column()));
        let reason = error.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default();
        Unreadable { reason: format!("not YAML: {reason}"), at, help: None }
    })
}

/// Where a document stands in a text as a block of lines.
fn block(text: &str, document: &str) -> Option<Kind> {
    let wanted: Vec<&str> = document.lines().collect();
    let lines: Vec<&str> = text.lines().collect();
    let first = wanted.first().filter(|_| wanted.len() > 1)?;
    lines.windows(wanted.len()).enumerate().find_map(|(nth, window)| {
        let indent = window.first()?.strip_suffix(first)?.len();
        let is_same = |(line, wanted): (&&str, &&str)| {
            line.get(indent..).map_or(wanted.is_empty(), |line| line == *wanted)
        };
        window.iter().zip(&wanted).all(is_same).then_some(Kind::Block { first: nth, indent })
    })
}
