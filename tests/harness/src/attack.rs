//! The attack suite's rows: what is sent, byte by byte, and what may come of it.
//!
//! Rows are data, in `tests/attack/rows/*.yaml`; `tests/attack/README.md` is their manual.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use standin::Rule;

use crate::corpus;

/// One attack.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its name, unique in its file.
    pub name: String,
    /// The findings and rules of `tests/cases/README.md` that it shows.
    #[serde(default)]
    pub covers: Vec<String>,
    /// On the listener without what Envoy normalises and refuses.
    #[serde(default)]
    pub raw: bool,
    /// On both listeners; the expectation is the same.
    #[serde(default)]
    pub both: bool,
    /// Never byte by byte: what comes of it depends on the first packet.
    #[serde(default)]
    pub at_once: bool,
    /// The body that `{signed}` signs.
    #[serde(default)]
    pub sign: String,
    /// What the provider does.
    #[serde(default)]
    pub provider_does: Vec<Rule>,
    /// What is sent, in order.
    pub send: Vec<Act>,
    /// How often, one connection each; by default once.
    #[serde(default)]
    pub times: Times,
    /// What comes of it.
    #[serde(rename = "want")]
    pub outcome: Outcome,
    /// What comes of it without `allow_on_headers_stop_iteration`, where that differs.
    #[serde(default)]
    pub without_the_knob: Option<Outcome>,
    /// The file and the name.
    #[serde(skip)]
    pub id: String,
}

/// How often a row is played.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Times {
    /// In `make test`.
    pub short: usize,
    /// In `make attack`.
    pub whole: usize,
}

impl Default for Times {
    fn default() -> Self {
        Self { short: 1, whole: 1 }
    }
}

/// What the client got, what the service saw, which calls the provider saw.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outcome {
    /// HTTP/1: the answers in order.
    pub answers: Vec<String>,
    /// HTTP/2: the answer of each stream.
    pub streams: BTreeMap<u32, String>,
    /// What the service saw, in any order.
    pub service: Vec<String>,
    /// What the provider was asked, in any order.
    pub provider: Vec<String>,
    /// What becomes of the connection.
    pub then: Then,
}

/// What becomes of a connection after a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// It takes one more request and answers it, with nothing in between.
    #[default]
    Open,
    /// It ends without a further answer.
    Closed,
    /// The client leaves first.
    Left,
}

/// One thing that the client does. Exactly one member is set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Act {
    /// HTTP/1 bytes.
    pub h1: Option<String>,
    /// A HEADERS frame.
    pub head: Option<Head>,
    /// DATA frames.
    pub data: Option<Data>,
    /// Any frame.
    pub frame: Option<Frame>,
    /// Wait until the provider was asked so often.
    pub until_asked: Option<usize>,
    /// Wait until so many requests of this row have reached Envoy's filters.
    pub until_arrived: Option<u64>,
    /// Wait until Envoy has no request of this listener in progress.
    pub until_idle: bool,
    /// HTTP/1: wait for this answer before going on.
    pub answer: Option<String>,
    /// HTTP/2: wait for the answer of this stream before going on.
    pub until_answered: Option<u32>,
    /// End the connection: `reset`, `close`, or `write` for the sending side alone.
    pub leave: Option<Leave>,
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Leave {
    /// A reset of the connection.
    Reset,
    /// An orderly end.
    Close,
    /// The sending side ends, the receiving side stays.
    Write,
}

/// A HEADERS frame, and its CONTINUATIONs where the block is long.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The stream.
    pub stream: u32,
    /// END_STREAM.
    #[serde(default)]
    pub end: bool,
    /// Method and path; absent, the fields are all there is.
    #[serde(default)]
    pub request: Option<String>,
    /// A bearer token.
    #[serde(default)]
    pub token: Option<String>,
    /// Add the webhook's signature over the row's `sign`.
    #[serde(default)]
    pub signed: bool,
    /// Further fields, pseudo-headers too.
    #[serde(default)]
    pub fields: Vec<(String, corpus::Text)>,
    /// On this many streams, from `stream` upwards.
    #[serde(default = "one")]
    pub count: u32,
    /// Cut the block into this many frames.
    #[serde(default = "one")]
    pub frames: u32,
}

fn one() -> u32 {
    1
}

/// DATA frames.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The stream.
    pub stream: u32,
    /// END_STREAM on the last.
    #[serde(default)]
    pub end: bool,
    /// The payload of each.
    pub text: corpus::Text,
    /// How many.
    #[serde(default = "one")]
    pub count: u32,
}

/// A frame as it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    /// The stream.
    #[serde(default)]
    pub stream: u32,
    /// The type's number (RFC 9113 section 6).
    pub kind: u8,
    /// The flags.
    #[serde(default)]
    pub flags: u8,
    /// The payload, `\xNN` for any byte.
    #[serde(default)]
    pub payload: Option<corpus::Text>,
    /// How many.
    #[serde(default = "one")]
    pub count: u32,
    /// On this many streams, from `stream` upwards.
    #[serde(default = "one")]
    pub streams: u32,
}

/// A request to the framework behind the gate.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// Its name.
    pub name: String,
    /// The target; `/public/x` unless written.
    #[serde(default = "public")]
    pub target: String,
    /// The method.
    #[serde(default = "get")]
    pub method: String,
    /// The `Host` line.
    #[serde(default = "host")]
    pub host: String,
    /// Further header lines, as they are.
    #[serde(default)]
    pub headers: Vec<String>,
    /// What reaches the framework on the shipped listener: `refused`, or what differs from the
    /// plain reading.
    pub shipped: Value,
    /// The same on the listener without hardening.
    pub raw: Value,
    /// What the framework reads without the gate, where that differs from the plain reading: a row
    /// about a header that nobody reads shows nothing.
    #[serde(default)]
    pub unguarded: Value,
    /// The file and the name.
    #[serde(skip)]
    pub id: String,
}

fn public() -> String {
    "/public/x".to_owned()
}

fn get() -> String {
    "GET".to_owned()
}

fn host() -> String {
    "api.example.com".to_owned()
}

/// The file of the requests to the framework.
const READINGS: &str = "framework.yaml";

/// Reads all rows of a folder.
///
/// # Errors
/// Every file that does not parse, and every row that is wrong in itself.
pub fn load(folder: &Path) -> Result<Vec<Row>, String> {
    let mut rows: Vec<Row> = Vec::new();
    let listed = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<_> = listed.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files {
        if file.extension().is_none_or(|extension| extension != "yaml") || file.ends_with(READINGS) {
            continue;
        }
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let read: Vec<Row> =
            serde_norway::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        rows.extend(read.into_iter().map(|mut row| {
            row.id = format!("{stem}/{}", row.name);
            row
        }));
    }
    let known: BTreeSet<String> = corpus::coverable().into_iter().collect();
    let mut names = BTreeSet::new();
    for row in &rows {
        let wrong = |what: &str| Err(format!("{}: {what}", row.id));
        if !names.insert(&row.id) {
            return wrong("the name occurs twice");
        }
        if let Some(id) = row.covers.iter().find(|id| !known.contains(*id)) {
            return wrong(&format!("covers {id}, which is not explained"));
        }
        if row.outcome.answers.is_empty() && row.outcome.streams.is_empty() && row.outcome.then == Then::Open
        {
            return wrong("expects nothing of the client's");
        }
        if row.without_the_knob.as_ref() == Some(&row.outcome) {
            return wrong("says the same twice");
        }
    }
    Ok(rows)
}

/// Reads the requests to the framework.
///
/// # Errors
/// If the file does not parse.
pub fn readings(folder: &Path) -> Result<Vec<Reading>, String> {
    let file = folder.join(READINGS);
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut readings: Vec<Reading> =
        serde_norway::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    for reading in &mut readings {
        reading.id = format!("framework/{}", reading.name);
    }
    Ok(readings)
}
