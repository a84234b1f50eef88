//! Which lines of the files under `envoy/` protect somebody, what happens without each, and which
//! test shows it: `tests/envoy/shipped.yaml`, where every other line is named as one that does not.

use std::fs;

use semver::VersionReq;
use serde::Deserialize;
use serde_json::Value;

use crate::sample;

/// A part of the shipped files. Pointers are relative to it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The listener.
    Listener,
    /// Its HTTP connection manager.
    Manager,
    /// The gate's plugin entry, among the manager's filters.
    Plugin,
    /// The bootstrap.
    Bootstrap,
    /// The bootstrap's cluster of the provider.
    Provider,
    /// The bootstrap's cluster of the service.
    Service,
    /// The containers.
    Containers,
}

impl Part {
    /// The file's name.
    pub fn file(self) -> &'static str {
        match self {
            Self::Listener | Self::Manager | Self::Plugin => "listener.yaml",
            Self::Bootstrap | Self::Provider | Self::Service => "envoy.yaml",
            Self::Containers => "docker-compose.yaml",
        }
    }

    /// Where it stands in the file, as a JSON pointer.
    pub fn base(self) -> &'static str {
        match self {
            Self::Listener => "/resources/0",
            Self::Manager => "/resources/0/filter_chains/0/filters/0/typed_config",
            Self::Plugin => {
                "/resources/0/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config"
            }
            Self::Bootstrap | Self::Containers => "",
            Self::Provider => "/static_resources/clusters/0",
            Self::Service => "/static_resources/clusters/1",
        }
    }

    /// Where it stands below the listener, or in the cluster or the file that it is.
    pub fn pointer(self) -> &'static str {
        match self {
            Self::Provider | Self::Service => "",
            other => other.base().strip_prefix(Self::Listener.base()).unwrap_or(other.base()),
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Listener | Self::Manager | Self::Plugin => "listener",
            Self::Bootstrap => "bootstrap",
            Self::Provider => "cluster `avnology`",
            Self::Service => "cluster `upstream`",
            Self::Containers => "containers",
        }
    }
}

/// A line that protects.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The part that it stands in.
    #[serde(rename = "in")]
    pub part: Part,
    /// Where it stands there, as a JSON pointer.
    pub at: String,
    /// What happens without it.
    pub harm: String,
    /// The test that fails without it.
    pub test: String,
    /// What the test has in its place; nothing, if there is nothing.
    #[serde(default)]
    pub weaker: Option<Value>,
    /// A stricter value that the test tries in place of the shipped one: nobody waits for minutes.
    #[serde(default)]
    pub tried: Option<Value>,
    /// The most that the shipped number may be.
    #[serde(default)]
    pub at_most: Option<f64>,
    /// The versions of Envoy with which the line protects; all, unless set.
    #[serde(default)]
    pub envoy: Option<VersionReq>,
}

/// A line that protects nobody.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plain {
    /// The part that it stands in.
    #[serde(rename = "in")]
    pub part: Part,
    /// Where it stands there: it, and everything below it.
    pub at: Vec<String>,
    /// What it is for.
    pub why: String,
}

/// Both kinds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lines {
    /// Those that protect.
    pub lines: Vec<Line>,
    /// Those that do not.
    pub plain: Vec<Plain>,
}

/// The tests that play a line's attack twice: with the line, and without it.
pub const TRIALS: &str = "shipped/protects_by::";

impl Lines {
    /// Reads the list.
    ///
    /// # Panics
    /// If it is not there, or is no such list.
    pub fn load() -> Self {
        let path = sample::root().join("tests/envoy/shipped.yaml");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_norway::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The table of the documentation.
    pub fn table(&self) -> String {
        let rows: Vec<String> = self.lines.iter().map(Line::row).collect();
        format!("| in | line | without it | shown by |\n|---|---|---|---|\n{}", rows.join("\n"))
    }
}

impl Line {
    /// The value that is shipped.
    ///
    /// # Panics
    /// If the file has no such line.
    pub fn shipped(&self) -> Value {
        let pointer = format!("{}{}", self.part.base(), self.at);
        let value = sample::shipped(self.part.file()).pointer(&pointer).cloned();
        value.unwrap_or_else(|| panic!("{} has no {pointer}", self.part.file()))
    }

    /// The name of the trial that plays its attack, if one does.
    pub fn trial(&self) -> Option<&str> {
        self.test.strip_prefix(TRIALS)
    }

    /// Makes a listener, a cluster or a bootstrap look as the trial has it with the line.
    ///
    /// # Errors
    /// If the line is not there, or the shipped number is too large.
    pub fn strengthen(&self, whole: &mut Value) -> Result<(), String> {
        let pointer = format!("{}{}", self.part.pointer(), self.at);
        let there = whole.pointer_mut(&pointer).ok_or_else(|| format!("no {pointer}"))?;
        if let Some(most) = self.at_most {
            let shipped = number(there).ok_or_else(|| format!("{pointer} is no number"))?;
            let tried = self.tried.as_ref().map_or(Some(shipped), number);
            if shipped <= 0.0 || shipped > most || tried.is_none_or(|tried| tried > shipped) {
                return Err(format!("{pointer} is {there}, which is not at most {most}"));
            }
        }
        if let Some(tried) = &self.tried {
            *there = tried.clone();
        }
        Ok(())
    }

    /// Makes it look as the trial has it without the line.
    ///
    /// # Errors
    /// If the line is not there.
    pub fn weaken(&self, whole: &mut Value) -> Result<(), String> {
        let pointer = format!("{}{}", self.part.pointer(), self.at);
        let there = whole.pointer_mut(&pointer).ok_or_else(|| format!("no {pointer}"))?;
        if let Some(weaker) = &self.weaker {
            *there = weaker.clone();
            return Ok(());
        }
        let (parent, name) = pointer.rsplit_once('/').ok_or("a pointer begins with a slash")?;
        let parent = whole.pointer_mut(parent).and_then(Value::as_object_mut);
        parent.and_then(|parent| parent.remove(name)).ok_or_else(|| format!("{pointer} is in no object"))?;
        Ok(())
    }

    /// Its row in the documentation.
    fn row(&self) -> String {
        let names: Vec<&str> =
            self.at.split('/').skip(1).filter(|name| name.parse::<u8>().is_err()).collect();
        let value = match self.shipped() {
            Value::String(text) => text,
            other => other.to_string().replace('"', ""),
        };
        let value = if value.len() > 60 { "…".to_owned() } else { value };
        let name = names.last().copied().unwrap_or_default();
        let of = if self.part == Part::Containers { names.get(1).copied() } else { None };
        let part = of.map_or(self.part.title().to_owned(), |of| format!("container `{of}`"));
        format!("| {part} | `{name}: {value}` | {} | `{}` |", self.harm, self.test)
    }
}

/// A number, or a duration's seconds.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.strip_suffix('s').and_then(|text| text.parse().ok()),
        other => other.as_f64(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The pointers of everything that has no members.
    fn leaves(value: &Value, pointer: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                for (name, member) in members {
                    leaves(
                        member,
                        &format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1")),
                        found,
                    );
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for (nth, item) in items.iter().enumerate() {
                    leaves(item, &format!("{pointer}/{nth}"), found);
                }
            }
            _ => found.push(pointer.to_owned()),
        }
    }

    #[test]
    fn every_shipped_line_is_known_to_protect_or_not() {
        let lines = Lines::load();
        let mut problems = Vec::new();
        for file in ["listener.yaml", "envoy.yaml", "docker-compose.yaml"] {
            let of = |part: Part, at: &str| (part.file() == file).then(|| format!("{}{at}", part.base()));
            let protect: BTreeSet<String> =
                lines.lines.iter().filter_map(|line| of(line.part, &line.at)).collect();
            let plain: BTreeSet<String> = lines
                .plain
                .iter()
                .flat_map(|plain| plain.at.iter().filter_map(|at| of(plain.part, at)))
                .collect();
            let mut found = Vec::new();
            leaves(&sample::shipped(file), "", &mut found);
            assert!(found.len() > 20, "{file}: {found:?}");
            let covers = |at: &String, leaf: &String| {
                leaf.strip_prefix(at.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            for leaf in &found {
                let known = [&protect, &plain].map(|kind| kind.iter().any(|at| covers(at, leaf)));
                match known {
                    [false, false] => problems.push(format!("{file}: nobody has judged {leaf}")),
                    [true, true] => problems.push(format!("{file}: {leaf} is said to protect and not to")),
                    _ => {}
                }
            }
            for at in protect.iter().chain(&plain) {
                if !found.iter().any(|leaf| covers(at, leaf)) {
                    problems.push(format!("{file} has no {at}"));
                }
            }
        }
        assert!(problems.is_empty(), "tests/envoy/shipped.yaml:\n{}", problems.join("\n"));
    }

    #[test]
    fn a_protection_that_is_taken_away_is_gone() {
        for line in Lines::load().lines.iter().filter(|line| line.trial().is_some()) {
            let mut whole = match line.part {
                Part::Listener | Part::Manager | Part::Plugin => {
                    sample::shipped("listener.yaml")["resources"][0].take()
                }
                Part::Provider => sample::cluster("avnology", "n", None),
                Part::Service => sample::cluster("upstream", "n", None),
                Part::Bootstrap | Part::Containers => sample::shipped(line.part.file()),
            };
            let mut strong = whole.clone();
            line.strengthen(&mut strong).unwrap();
            assert_eq!(strong == whole, line.tried.is_none(), "{}", line.at);
            line.weaken(&mut whole).unwrap();
            assert_ne!(strong, whole, "{}", line.at);
        }
    }

    #[test]
    fn the_limits_of_the_gate_end_before_those_around_it() {
        let seconds = |value: &Value| number(value).unwrap();
        let listener = sample::shipped("listener.yaml");
        let manager = listener.pointer(Part::Manager.base()).unwrap();
        let policy = sample::policy();
        let webhook = &policy["webhooks"]["avnology"];
        assert!(seconds(&webhook["body_timeout"]) * 2.0 < seconds(&manager["request_timeout"]));
        assert!(seconds(&policy["provider"]["timeout"]) * 10.0 < seconds(&manager["stream_idle_timeout"]));
        let body = seconds(&webhook["max_body_bytes"]);
        assert!(body < seconds(&listener["resources"][0]["per_connection_buffer_limit_bytes"]));
        assert!(body < seconds(&manager["http2_protocol_options"]["initial_stream_window_size"]));
        let provider = sample::cluster("avnology", "n", None);
        assert!(seconds(&provider["connect_timeout"]) * 2.0 < seconds(&policy["provider"]["timeout"]));
    }

    /// What `make compose-test` asks of the containers themselves, of the file.
    #[test]
    fn the_containers_can_change_nothing() {
        let file = sample::shipped("docker-compose.yaml");
        let services = file["services"].as_object().unwrap();
        assert_eq!(services.len(), 3);
        for (name, service) in services {
            assert_eq!(service["read_only"], true, "{name}");
            assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]), "{name}");
            assert_eq!(service["security_opt"], serde_json::json!(["no-new-privileges:true"]), "{name}");
            for port in service["ports"].as_array().unwrap() {
                assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: {port}");
            }
            for volume in service["volumes"].as_array().into_iter().flatten() {
                assert_eq!(volume["read_only"], true, "{name}: {volume}");
            }
        }
        let envoy = &services["envoy"];
        assert_eq!(envoy["user"], "101:101");
        assert_eq!(envoy["tmpfs"], serde_json::json!(["/tmp:size=16m"]));
    }
}
