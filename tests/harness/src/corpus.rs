//! The corpus: behaviour as files, the same for every driver.
//!
//! A case states what the gate must do; a driver sends the requests and returns what it observed.
//! What an expectation means is decided here, in [`Expect::check`], so that no driver can read a
//! case more leniently than another. `tests/cases/README.md` is the format's manual.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use semver::VersionReq;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use standin::{Rule, Seed};

mod check;
mod sign;
mod wire;

pub use check::{Observation, UpstreamSaw, folded, is_override, is_owned, sent_secrets};
pub use sign::{Sign, When};
pub use wire::{Outgoing, sha256, unescape};

/// The secrets that every gate under test finds in its environment, whichever driver runs it.
pub const ENVIRONMENT: [(&str, &str); 3] = [
    ("AVNOLOGY_CLIENT_SECRET", "cs_gate_secret_for_trials"),
    ("AVNOLOGY_API_KEY", "ak_test_gate_key_for_trials"),
    ("AVNOLOGY_WEBHOOK_SECRET", WEBHOOK_SECRET),
];

/// The secret that signs webhooks, unless a case sets another.
pub const WEBHOOK_SECRET: &str = "whsec_gate_webhook_secret_for_trials";

/// The directories under `tests/cases`, one per subject.
pub const FAMILIES: [&str; 12] = [
    "answers",
    "authn",
    "authz",
    "budgets",
    "cache",
    "config",
    "failure",
    "headers",
    "lifecycle",
    "routes",
    "shadow",
    "webhook",
];

/// Everything a case may cover, in the order in which `tests/cases/README.md` explains it.
pub fn coverable() -> Vec<String> {
    [("P", 20), ("S11.", 13), ("R", 10), ("A", 15)]
        .into_iter()
        .flat_map(|(prefix, count)| (1..=count).map(move |n| format!("{prefix}{n}")))
        .collect()
}

/// One behaviour.
#[derive(Clone, Debug)]
pub struct Case {
    /// `family/name`, from the file's place.
    pub id: String,
    /// One sentence: the expected behaviour.
    pub about: String,
    /// Which platform findings, safety rules and answers this case proves.
    pub covers: Vec<String>,
    /// Which drivers can run it.
    pub drivers: Vec<Driver>,
    /// With which versions of Envoy; all, unless set. With another one the case must fail.
    pub envoy: Option<VersionReq>,
    /// The first configuration.
    pub config: Config,
    /// Added to [`ENVIRONMENT`]; `None` unsets a variable. Only the core driver can do that.
    pub env: BTreeMap<String, Option<String>>,
    /// How the listener differs from the hardened one.
    pub listener: Listener,
    /// A merge patch over the stand-in's seed.
    pub seed: Option<Value>,
    /// The first configuration is refused, and the problems name all of these.
    pub refused: Vec<String>,
    /// The first configuration is accepted, with warnings that name all of these.
    pub warns: Vec<String>,
    /// What happens, in order.
    pub steps: Vec<Step>,
    dir: PathBuf,
}

/// What can run a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// The core, in virtual time.
    Core,
    /// A real Envoy.
    Envoy,
}

/// A case as written; steps are read one by one, after `each` has been expanded.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    about: String,
    covers: Vec<String>,
    #[serde(default = "both")]
    drivers: Vec<Driver>,
    envoy: Option<VersionReq>,
    why: Option<String>,
    #[serde(default)]
    config: Config,
    #[serde(default)]
    env: BTreeMap<String, Option<String>>,
    #[serde(default)]
    listener: Listener,
    seed: Option<Value>,
    #[serde(default)]
    refused: Vec<String>,
    #[serde(default)]
    warns: Vec<String>,
    #[serde(default)]
    steps: Vec<Value>,
}

fn both() -> Vec<Driver> {
    vec![Driver::Core, Driver::Envoy]
}

/// A plugin document: exactly one of a base with a patch, a whole document, and raw text.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A file in `tests/cases`; `base.json` unless set.
    pub base: Option<String>,
    /// A merge patch (RFC 7396): over `base`; in a step without `base`, over the document in force.
    pub patch: Option<Value>,
    /// The whole document.
    pub document: Option<Value>,
    /// The whole document's bytes, `\xNN` for one that is not text.
    pub raw: Option<String>,
}

/// A plugin document, ready for the gate.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// What the gate is given.
    pub bytes: Vec<u8>,
    /// The document as JSON, if it is JSON.
    pub value: Option<Value>,
}

/// How a case's listener differs from the hardened one; Envoy only, but for `knob`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listener {
    /// `allow_on_headers_stop_iteration`.
    pub knob: bool,
    /// Nothing normalises, refuses or strips before the gate: no path normalisation, slashes and
    /// underscores as they come, no `use_remote_address`, no port and dot stripping.
    pub raw: bool,
    /// `per_connection_buffer_limit_bytes`.
    pub buffer_limit: Option<u32>,
    /// How many workers the case needs; more if a step names a higher one.
    pub workers: Option<usize>,
    /// Further cluster names that the policy may call and that have no endpoint.
    pub empty_clusters: Vec<String>,
}

impl Default for Listener {
    fn default() -> Self {
        Self { knob: true, raw: false, buffer_limit: None, workers: None, empty_clusters: Vec::new() }
    }
}

/// One action, and its expected result.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    /// The name for messages.
    pub name: Option<String>,
    /// Which worker takes the request; any, unless set.
    pub worker: Option<usize>,
    /// Swap the configuration.
    pub configure: Option<Config>,
    /// The configuration is refused, the one in force stays, and the problems name all of these.
    pub refused: Vec<String>,
    /// Stand-in rules, appended before the request.
    pub provider: Vec<Rule>,
    /// Forget earlier stand-in rules and calls first.
    pub provider_clear: bool,
    /// The provider stops taking connections, or takes them again.
    pub provider_down: Option<bool>,
    /// The request.
    pub request: Option<Request>,
    /// Sign the request's body as a webhook.
    pub sign: Option<Sign>,
    /// Send the same request this many times in parallel; every answer must meet `expect`.
    pub parallel: Option<usize>,
    /// The first of the parallel clients goes away while the provider is being asked; nothing is
    /// expected of it.
    pub disconnect_first: bool,
    /// Every client goes away while the provider is being asked; only the calls can be expected.
    pub disconnect_all: bool,
    /// The case goes on once the provider has been asked, or an incomplete body has been sent; the
    /// answer must meet `expect` at the next `join`, or at the case's end.
    pub background: bool,
    /// Wait for the background requests; `expect` may state how often the provider was asked since
    /// the first of them began.
    pub join: bool,
    /// Time passes (`250ms`, `31s`).
    #[serde(deserialize_with = "duration")]
    pub wait: Option<Duration>,
    /// Send the request again until its answer meets `expect`, at most so long.
    #[serde(deserialize_with = "duration")]
    pub eventually: Option<Duration>,
    /// The host never reports how a callout ended. Core driver only.
    pub lose_callouts: bool,
    /// The host calls body and trailer callbacks while the request waits, which it should not. Core
    /// driver only.
    pub eager: bool,
    /// The expected result.
    pub expect: Option<Expect>,
}

/// A request, as written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The target.
    pub path: Text,
    /// `Host` or `:authority`, `\xNN` escapes allowed.
    pub authority: String,
    /// Pseudo-headers to leave out (`:path`, `:authority`).
    pub omit: Vec<String>,
    /// Further headers, in order.
    pub headers: Vec<(String, Text)>,
    /// The body; none unless set.
    pub body: Option<Text>,
    /// Send the body in this many pieces, without a content-length.
    pub chunks: Option<usize>,
    /// Trailers, in order.
    pub trailers: Vec<(String, Text)>,
    /// One HTTP version only; both unless set.
    pub version: Option<Version>,
    /// The last byte of the body is withheld.
    pub incomplete: bool,
    /// The exact bytes on an HTTP/1 connection instead of all of the above, `\xNN`, `\r` and `\n`
    /// as escapes. Envoy only.
    pub bytes: Option<String>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            path: Text::Plain("/".to_owned()),
            authority: "api.example.com".to_owned(),
            omit: Vec::new(),
            headers: Vec::new(),
            body: None,
            chunks: None,
            trailers: Vec::new(),
            version: None,
            incomplete: false,
            bytes: None,
        }
    }
}

/// The HTTP version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

/// Bytes, as written: text with `\xNN` escapes, or repeated text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// Verbatim, except for `\xNN`.
    Plain(String),
    /// Repeated, between two fixed parts.
    Repeated(Repeated),
}

/// Repeated text, between two fixed parts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeated {
    /// What is repeated.
    pub repeat: String,
    /// How often.
    pub count: usize,
    /// The text before.
    #[serde(default)]
    pub before: String,
    /// The text after.
    #[serde(default)]
    pub after: String,
}

/// What the gate decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The rules are met.
    Allow,
    /// The rules are not met.
    Deny,
    /// The rules are not met, and shadow mode lets the request pass.
    ShadowDeny,
    /// The provider is away, and the route lets the request pass.
    FailOpen,
    /// The request never reached the gate.
    None,
}

/// The expected result of a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// The status on the wire (200 for a refused gRPC request).
    pub status: Option<u16>,
    /// The `error` member of the JSON body.
    pub error: Option<String>,
    /// Answer headers: exact value, list of all values in order, or null for absent.
    pub headers: BTreeMap<String, Wanted>,
    /// Text in the answer's body.
    pub body_contains: Option<String>,
    /// The answer's whole body.
    pub body: Option<String>,
    /// `grpc-status`.
    pub grpc_status: Option<u8>,
    /// The reason's id.
    pub reason: Option<String>,
    /// The decision; unless set, `deny` if the upstream must not see the request and `allow` if it
    /// must.
    pub decision: Option<Decision>,
    /// The route's name.
    pub route: Option<String>,
    /// Whose request it was.
    pub subject: Option<String>,
    /// Whether the filter state is set; for refusals it always must be.
    pub filter_state: Option<bool>,
    /// Members of the filter state; null for one that is not there.
    pub state: BTreeMap<String, Value>,
    /// Whether the upstream sees the request; unless set, it must if the decision lets it through
    /// or the status is a 2xx without a gRPC refusal, and must not otherwise.
    pub upstream: Option<bool>,
    /// Headers at the upstream, as `headers`.
    pub upstream_headers: BTreeMap<String, Wanted>,
    /// The target at the upstream.
    pub upstream_path: Option<String>,
    /// The method at the upstream.
    pub upstream_method: Option<String>,
    /// Trailers at the upstream, as `headers`.
    pub upstream_trailers: BTreeMap<String, Wanted>,
    /// How often the provider was asked since the step began.
    pub provider_calls: Option<Counts>,
    /// Each of these describes a call that the provider saw since the step began.
    pub provider_saw: Vec<SawCall>,
    /// The answer arrived within this time (`2200ms`, `2s`).
    #[serde(deserialize_with = "duration")]
    pub within: Option<Duration>,
    /// The connection ended without an answer.
    pub closed: bool,
}

/// The expected values of a name: one value, all values in order, or (null) none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Wanted {
    /// Exactly this value.
    One(String),
    /// Exactly these, in order.
    Many(Vec<String>),
    /// None.
    Absent(()),
}

/// How often the provider was asked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Counts {
    /// In all.
    Total(usize),
    /// By endpoint; one that is not named was not asked.
    By(ByEndpoint),
}

/// Calls by endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ByEndpoint {
    /// Token introspections.
    pub introspect: usize,
    /// Permission checks.
    pub permissions: usize,
    /// Session look-ups.
    pub whoami: usize,
    /// Anything else.
    pub other: usize,
}

/// A call that the provider must have seen: every field that is set must match it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SawCall {
    /// The path, with the query.
    pub path: Option<String>,
    /// The token that was introspected.
    pub token: Option<String>,
    /// The permission check's body.
    pub check: Option<Value>,
    /// The form in the body: these pairs, in any order, and no others.
    pub form: Option<BTreeMap<String, String>>,
    /// Headers, as those of answers.
    pub headers: BTreeMap<String, Wanted>,
}

/// Loads every case under `dir`, in the order of their ids.
///
/// # Errors
/// One line per file that is not a valid case.
pub fn load(dir: &Path) -> Result<Vec<Case>, Vec<String>> {
    let mut cases = Vec::new();
    let mut problems = Vec::new();
    for (family, path) in files(dir, &mut problems) {
        match read(dir, &family, &path) {
            Ok(case) => cases.push(case),
            Err(problem) => problems.push(format!("{}: {problem}", path.display())),
        }
    }
    cases.sort_by(|a, b| a.id.cmp(&b.id));
    if problems.is_empty() { Ok(cases) } else { Err(problems) }
}

fn files(dir: &Path, problems: &mut Vec<String>) -> Vec<(String, PathBuf)> {
    let mut out = Vec::new();
    for family in FAMILIES {
        let Ok(entries) = std::fs::read_dir(dir.join(family)) else {
            problems.push(format!("{}: no such directory", dir.join(family).display()));
            continue;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            match path.extension().and_then(|e| e.to_str()) {
                Some("yaml") => out.push((family.to_owned(), path)),
                _ => problems.push(format!("{}: expected a .yaml file", path.display())),
            }
        }
    }
    for path in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if path.is_dir() && !FAMILIES.contains(&name) {
            problems.push(format!("{}: not a family", path.display()));
        }
    }
    out
}

fn read(dir: &Path, family: &str, path: &Path) -> Result<Case, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let written: Written = serde_norway::from_str(&text).map_err(|error| error.to_string())?;
    let mut steps = Vec::new();
    for (nth, value) in written.steps.into_iter().enumerate() {
        for (name, value) in expand(value, nth)? {
            let step: Step = serde_json::from_value(value).map_err(|error| format!("{name}: {error}"))?;
            steps.push(Step { name: Some(name), ..step });
        }
    }
    let stem = path.file_stem().and_then(|n| n.to_str()).unwrap_or_default();
    let case = Case {
        id: format!("{family}/{stem}"),
        about: written.about,
        covers: written.covers,
        drivers: written.drivers,
        envoy: written.envoy,
        config: written.config,
        env: written.env,
        listener: written.listener,
        seed: written.seed,
        refused: written.refused,
        warns: written.warns,
        steps,
        dir: dir.to_owned(),
    };
    case.sense(written.why.as_deref())?;
    Ok(case)
}

/// A step with `each` is expanded to one step per entry, each with the entry laid over the step.
fn expand(mut step: Value, nth: usize) -> Result<Vec<(String, Value)>, String> {
    let named = |value: &Value| match value.get("name").and_then(Value::as_str) {
        Some(name) => format!("steps[{nth}] ({name})"),
        None => format!("steps[{nth}]"),
    };
    let Some(each) = step.as_object_mut().and_then(|members| members.remove("each")) else {
        return Ok(vec![(named(&step), step)]);
    };
    let entries = each
        .as_array()
        .filter(|entries| !entries.is_empty())
        .ok_or(format!("steps[{nth}].each: expected a list"))?;
    Ok(entries
        .iter()
        .enumerate()
        .map(|(at, entry)| {
            let mut one = step.clone();
            overlay(&mut one, entry);
            (format!("{}.each[{at}]", named(&one)), one)
        })
        .collect())
}

/// Lays one value over another: objects are merged member by member, everything else (a null too)
/// is replaced.
///
/// This is not a merge patch, since a step contains patches itself, whose nulls must stay.
fn overlay(target: &mut Value, over: &Value) {
    match (target, over) {
        (Value::Object(target), Value::Object(over)) => {
            for (name, value) in over {
                overlay(target.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (target, over) => target.clone_from(over),
    }
}

/// Applies a merge patch (RFC 7396).
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

impl Case {
    /// The first plugin document.
    ///
    /// # Errors
    /// If the case's own `config` is invalid.
    pub fn document(&self) -> Result<Document, String> {
        self.resolve(&self.config, None)
    }

    /// A step's plugin document; a patch without a base applies to the document in force.
    ///
    /// # Errors
    /// If the step's `configure` is invalid.
    pub fn resolve(&self, config: &Config, in_force: Option<&Value>) -> Result<Document, String> {
        let value = match config {
            Config { raw: Some(raw), base: None, patch: None, document: None } => {
                return Ok(Document { bytes: unescape(raw), value: None });
            }
            Config { document: Some(document), base: None, patch: None, raw: None } => document.clone(),
            Config { base, patch, document: None, raw: None } => {
                let mut value = match (base, in_force) {
                    (None, Some(in_force)) => in_force.clone(),
                    (base, _) => self.base(base.as_deref().unwrap_or("base.json"))?,
                };
                if let Some(patch) = patch {
                    merge(&mut value, patch);
                }
                value
            }
            _ => return Err("a configuration is one of base and patch, document, raw".to_owned()),
        };
        Ok(Document {
            bytes: serde_json::to_vec_pretty(&value).map_err(|e| e.to_string())?,
            value: Some(value),
        })
    }

    fn base(&self, name: &str) -> Result<Value, String> {
        let path = self.dir.join(name);
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The stand-in's seed.
    ///
    /// # Errors
    /// If the patched seed is invalid.
    pub fn seeded(&self) -> Result<Seed, String> {
        let Some(patch) = &self.seed else { return Ok(Seed::embedded()) };
        let mut value = serde_json::to_value(Seed::embedded()).map_err(|error| error.to_string())?;
        merge(&mut value, patch);
        serde_json::from_value(value).map_err(|error| format!("seed: {error}"))
    }

    /// The environment of the gate.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let mut out: BTreeMap<String, String> =
            ENVIRONMENT.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        for (name, value) in &self.env {
            match value {
                Some(value) => out.insert(name.clone(), value.clone()),
                None => out.remove(name),
            };
        }
        out
    }

    /// How many workers the case needs, if it states that.
    pub fn workers(&self) -> Option<usize> {
        self.steps
            .iter()
            .filter_map(|step| step.worker.map(|worker| worker + 1))
            .chain(self.listener.workers)
            .max()
    }

    /// Refuses a case that could not fail, or that a driver would have to guess about.
    fn sense(&self, why: Option<&str>) -> Result<(), String> {
        if self.about.trim().is_empty() {
            return Err("`about` is empty".to_owned());
        }
        let known: BTreeSet<String> = coverable().into_iter().collect();
        if let Some(unknown) = self.covers.iter().find(|id| !known.contains(*id)) {
            return Err(format!("`covers` names {unknown}, which is not explained"));
        }
        if self.drivers.is_empty() {
            return Err("no driver".to_owned());
        }
        if self.envoy.is_some() && !self.drivers.contains(&Driver::Envoy) {
            return Err("`envoy` names versions, and no Envoy runs it".to_owned());
        }
        if (self.drivers.len() == 1) != why.is_some_and(|why| !why.trim().is_empty()) {
            return Err("`why` goes with a missing driver, and with nothing else".to_owned());
        }
        let core_only = self.drivers == [Driver::Core];
        if !self.env.is_empty() && !core_only {
            return Err("`env` needs `drivers: [core]`: an Envoy process has one environment".to_owned());
        }
        if self.steps.is_empty() && self.refused.is_empty() && self.warns.is_empty() {
            return Err("nothing is expected".to_owned());
        }
        let serves = !self.steps.is_empty() || !self.warns.is_empty();
        if !self.refused.is_empty() && serves {
            return Err("a refused configuration has no steps and no warnings".to_owned());
        }
        self.document()?;
        self.seeded()?;
        for step in &self.steps {
            if step.request.as_ref().is_some_and(|request| request.bytes.is_some())
                && self.drivers != [Driver::Envoy]
            {
                return Err(format!("{}: `bytes` needs `drivers: [envoy]`", step.label()));
            }
            step.sense(core_only).map_err(|problem| format!("{}: {problem}", step.label()))?;
        }
        Ok(())
    }
}

impl Step {
    /// The step's name.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    fn sense(&self, core_only: bool) -> Result<(), String> {
        let acts = [self.request.is_some(), self.configure.is_some(), self.join, self.wait.is_some()]
            .into_iter()
            .filter(|act| *act)
            .count();
        if acts > 1 {
            return Err("one of `request`, `configure`, `join` and `wait`".to_owned());
        }
        if self.wait.is_some_and(|wait| wait > LONGEST_WAIT) && !core_only {
            return Err(format!(
                "a `wait` beyond {LONGEST_WAIT:?} needs `drivers: [core]`, where it takes no time"
            ));
        }
        if acts == 0 && self.provider.is_empty() && !self.provider_clear && self.provider_down.is_none() {
            return Err("nothing happens".to_owned());
        }
        if self.request.is_some() && self.expect.is_none() {
            return Err("a request without `expect`".to_owned());
        }
        if self.request.is_none() && (self.sign.is_some() || self.parallel.is_some() || self.background) {
            return Err("`sign`, `parallel` and `background` go with a `request`".to_owned());
        }
        self.sign.as_ref().map_or(Ok(()), Sign::sense)?;
        if !self.refused.is_empty() && self.configure.is_none() {
            return Err("`refused` goes with `configure`".to_owned());
        }
        if (self.lose_callouts || self.eager) && !core_only {
            return Err(
                "`lose_callouts` and `eager` need `drivers: [core]`: a real host does neither".to_owned()
            );
        }
        if self.request.as_ref().is_some_and(|r| r.omit.iter().any(|o| o != ":path" && o != ":authority")) {
            return Err("only `:path` and `:authority` can be left out".to_owned());
        }
        let Some(expect) = &self.expect else { return Ok(()) };
        let counts_calls = expect.provider_calls.is_some() || !expect.provider_saw.is_empty();
        if self.background && counts_calls {
            return Err("calls of requests in the background are counted at `join`".to_owned());
        }
        if self.request.is_some() && !self.disconnect_all && expect.status.is_none() && !expect.closed {
            return Err("`expect` without `status`".to_owned());
        }
        if self.disconnect_all && !counts_calls {
            return Err("`disconnect_all` leaves nothing but the calls to expect".to_owned());
        }
        Ok(())
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let number = |unit: &str| text.strip_suffix(unit).and_then(|n| n.parse::<u64>().ok());
    match (number("ms"), number("s")) {
        (Some(ms), _) => Ok(Some(Duration::from_millis(ms))),
        (None, Some(s)) => Ok(Some(Duration::from_secs(s))),
        (None, None) => Err(serde::de::Error::custom(format!("{text}: expected e.g. 250ms or 2s"))),
    }
}

/// The longest wait that a case may ask for in a real Envoy.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_merge_patch_removes_by_null_and_replaces_lists() {
        let mut value = json!({"a": {"b": 1, "c": 2}, "d": [1, 2]});
        merge(&mut value, &json!({"a": {"b": null, "e": 3}, "d": [3], "f": {"g": null}}));
        assert_eq!(value, json!({"a": {"c": 2, "e": 3}, "d": [3], "f": {}}));
    }

    #[test]
    fn each_is_one_step_per_entry() {
        let steps =
            expand(json!({"request": {"path": "/a"}, "each": [{}, {"request": {"path": "/b"}}]}), 3).unwrap();
        assert_eq!(steps[0], ("steps[3].each[0]".to_owned(), json!({"request": {"path": "/a"}})));
        assert_eq!(steps[1].1, json!({"request": {"path": "/b"}}));
        let steps =
            expand(json!({"configure": {}, "each": [{"configure": {"patch": {"a": null}}}]}), 0).unwrap();
        assert_eq!(steps[0].1, json!({"configure": {"patch": {"a": null}}}));
        assert!(expand(json!({"each": []}), 0).is_err());
    }
}
