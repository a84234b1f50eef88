//! Every metric, label and value that the rules, the dashboard and the page read is one that the
//! gate or Envoy writes; every alert has its section of the page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use avnology_gate::refusal::Reason;
use avnology_gate::telemetry::{
    CacheOutcome, Configuration, Decision, Eviction, FactLabel, METRICS, MetricKind, ProbeLabel,
    PurposeLabel, WaitingLabel,
};
use harness::sample;
use libtest_mimic::Trial;
use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, Expr};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value;

use crate::{Outcome, ensure, page, trial};

/// What Envoy itself writes, as the trial with a real one shows.
pub(crate) const ENVOY: [&str; 6] = [
    "envoy_server_concurrency",
    "envoy_server_uptime",
    "envoy_server_total_connections",
    "envoy_server_memory_allocated",
    "envoy_wasm_avnology_gate_vm_reload_success",
    "envoy_wasm_avnology_gate_vm_reload_failure",
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("names/every_query_reads_what_is_written", || known(&queries()?)),
        trial("names/an_unknown_name_is_found", unknown),
        trial("names/every_alert_has_its_section", sections),
        trial("names/every_rule_and_alert_is_read_or_tested", used),
        trial("names/the_containers_change_nothing_and_mount_what_is_there", containers),
    ]
}

/// A query, and where it stands.
pub(crate) struct Query {
    pub(crate) place: String,
    pub(crate) text: String,
}

/// The rules of a shipped file.
fn rules(file: &str) -> Vec<Value> {
    let groups = sample::shipped(&format!("prometheus/{file}"))["groups"].take();
    let groups = groups.as_array().into_iter().flatten();
    groups.flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
}

/// Every query of the rules, of the alerts, of the dashboard and of the page.
pub(crate) fn queries() -> Result<Vec<Query>, String> {
    let mut all = Vec::new();
    for file in ["rules.yml", "alerts.yml"] {
        for rule in rules(file) {
            let name = rule["record"].as_str().or(rule["alert"].as_str()).unwrap_or_default();
            let text = rule["expr"].as_str().unwrap_or_default().to_owned();
            all.push(Query { place: format!("{file}, {name}"), text });
        }
    }
    let dashboard = sample::shipped("grafana/dashboard.json");
    for panel in dashboard["panels"].as_array().ok_or("no panels")? {
        for target in panel["targets"].as_array().ok_or("a panel without targets")? {
            let text = target["expr"].as_str().ok_or("a target without a query")?;
            let text = text.replace("$instance", ".+").replace("$__rate_interval", "5m");
            all.push(Query { place: format!("dashboard.json, {}", panel["title"]), text });
        }
    }
    for text in page::queries()? {
        all.push(Query { place: page::PAGE.to_owned(), text });
    }
    ensure!(all.len() > 60, "{} queries", all.len());
    Ok(all)
}

/// The series of the gate that a recorded one is made of.
fn recorded() -> BTreeMap<String, String> {
    let of = |rule: &Value| {
        let (record, expression) = (rule["record"].as_str()?, rule["expr"].as_str()?);
        let found = selectors(expression).ok()?.0;
        let base = found.iter().find(|selector| METRICS.iter().any(|metric| selector.is(metric.name)));
        Some((record.to_owned(), base.map(|selector| selector.name.clone()).unwrap_or_default()))
    };
    rules("rules.yml").iter().filter_map(of).collect()
}

/// What a query reads: a metric, under conditions.
struct Selector {
    name: String,
    matchers: Vec<Matcher>,
}

impl Selector {
    /// Whether it is of this metric of the gate: a histogram has three names.
    fn is(&self, metric: &str) -> bool {
        let rest = self.name.strip_prefix(metric);
        rest.is_some_and(|rest| ["", "_bucket", "_count", "_sum"].contains(&rest))
    }
}

/// Collects selectors, and the labels by which is grouped.
#[derive(Default)]
struct Found(Vec<Selector>, BTreeSet<String>);

impl ExprVisitor for Found {
    type Error = String;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, String> {
        match expression {
            Expr::VectorSelector(selector) => self.take(selector),
            Expr::MatrixSelector(matrix) => self.take(&matrix.vs),
            Expr::Aggregate(aggregate) => {
                let labels = aggregate.modifier.iter().flat_map(|modifier| modifier.labels().labels.iter());
                self.1.extend(labels.cloned());
            }
            _ => {}
        }
        Ok(true)
    }
}

impl Found {
    fn take(&mut self, selector: &parser::VectorSelector) {
        let name = selector.name.clone().unwrap_or_default();
        self.0.push(Selector { name, matchers: selector.matchers.matchers.clone() });
    }
}

fn selectors(query: &str) -> Result<Found, String> {
    let expression = parser::parse(query)?;
    let mut found = Found::default();
    walk_expr(&mut found, &expression)?;
    Ok(found)
}

/// Every value that a label of a metric may have; `None` where an operator chooses them.
fn values(metric: &str, label: &str) -> Option<Vec<&'static str>> {
    let reasons = || Reason::ALL.iter().map(|reason| reason.id());
    let decisions = [Decision::Allow, Decision::Deny, Decision::ShadowDeny, Decision::FailOpen];
    Some(match (metric, label) {
        (_, "decision") => decisions.map(Decision::id).to_vec(),
        (_, "reason") | ("avnology_gate_webhooks_total", "outcome") => reasons().collect(),
        ("avnology_gate_callouts_total", "outcome") => reasons().chain(["answered"]).collect(),
        ("avnology_gate_cache_total", "outcome") => CacheOutcome::ALL.iter().map(|one| one.id()).collect(),
        ("avnology_gate_probes_total", "outcome") => ProbeLabel::ALL.iter().map(|one| one.id()).collect(),
        ("avnology_gate_evictions_total", "outcome") => {
            vec![Eviction::Done.id(), Eviction::Unmapped.id()]
        }
        ("avnology_gate_configurations_total", "outcome") => {
            Configuration::ALL.iter().map(|one| one.id()).collect()
        }
        (_, "kind") => FactLabel::ALL.iter().map(|one| one.id()).collect(),
        (_, "class") => WaitingLabel::ALL.iter().map(|one| one.id()).collect(),
        (_, "purpose") => PurposeLabel::ALL.iter().map(|one| one.id()).collect(),
        _ => return None,
    })
}

/// What is wrong with a condition.
fn judge(metric: &str, labels: &[&str], matcher: &Matcher) -> Outcome {
    let label = matcher.name.as_str();
    if ["job", "instance"].contains(&label) {
        return Ok(());
    }
    ensure!(labels.contains(&label), "{metric} has no label {label}");
    let Some(values) = values(metric, label) else { return Ok(()) };
    let wanted: Vec<&str> = match matcher.op {
        MatchOp::Equal | MatchOp::NotEqual => vec![&matcher.value],
        MatchOp::Re(_) | MatchOp::NotRe(_) => matcher.value.split('|').collect(),
    };
    for wanted in wanted {
        // Of patterns, the rules have `.*` alone.
        let fits = |value: &&&str| match wanted.split_once(".*") {
            Some((before, after)) => value.starts_with(before) && value.ends_with(after),
            None => **value == wanted,
        };
        ensure!(values.iter().find(fits).is_some(), "{label} of {metric} is never {wanted}");
    }
    Ok(())
}

fn known(queries: &[Query]) -> Outcome {
    let recorded = recorded();
    let mut labels: BTreeSet<&str> = METRICS.iter().flat_map(|metric| metric.labels).copied().collect();
    labels.extend(["job", "instance", "le"]);
    let mut problems = Vec::new();
    for Query { place, text } in queries {
        let Found(selectors, grouped) =
            selectors(text).map_err(|error| format!("{place}: {text}: {error}"))?;
        let unknown = grouped.iter().filter(|label| !labels.contains(label.as_str()));
        problems.extend(unknown.map(|label| format!("{place}: groups by {label}")));
        for selector in selectors {
            let base = Selector {
                name: recorded.get(&selector.name).unwrap_or(&selector.name).clone(),
                matchers: selector.matchers.clone(),
            };
            let others = ["up", ""].iter().chain(&ENVOY).any(|known| *known == base.name);
            match METRICS.iter().find(|metric| base.is(metric.name)) {
                Some(metric) => {
                    let of_buckets: &[&str] =
                        if metric.kind == MetricKind::Histogram { &["le"] } else { &[] };
                    let labels = [metric.labels, of_buckets].concat();
                    let wrong = base.matchers.iter().filter_map(|one| judge(metric.name, &labels, one).err());
                    problems.extend(wrong.map(|problem| format!("{place}: {problem}")));
                }
                None if !others => problems.push(format!("{place}: nobody writes {}", base.name)),
                None => {}
            }
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

/// The trial above can fail.
fn unknown() -> Outcome {
    for wrong in [
        "avnology_gate_decision_total",
        "avnology_gate_decisions_total{decisoin=\"deny\"}",
        "avnology_gate_decisions_total{decision=\"denied\"}",
        "avnology_gate:decisions:increase5m{reason=~\"circuit_open|budget\"}",
        "avnology_gate_cache_total{outcome=\"answered\"}",
        "avnology_gate_endpoint_away{le=\"1\"}",
        "sum by (rout) (avnology_gate_decisions_total)",
        "envoy_server_concurency",
        "sum by (",
    ] {
        let query = Query { place: String::new(), text: wrong.to_owned() };
        ensure!(known(&[query]).is_err(), "{wrong} is taken");
    }
    Ok(())
}

fn sections() -> Outcome {
    let page = page::text()?;
    let headings: BTreeSet<String> =
        page.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect();
    let mut alerts = BTreeSet::new();
    for alert in rules("alerts.yml") {
        let name = alert["alert"].as_str().ok_or("a rule that is no alert")?;
        let expected = format!("{}#{}", page::PAGE, name.to_lowercase());
        ensure!(alert["annotations"]["runbook_url"] == expected.as_str(), "{name} leads not to {expected}");
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default();
        ensure!(["page", "ticket", "info"].contains(&severity), "{name} is {severity}");
        let begins = format!("### {name}\n\nSeverity: {severity}.");
        ensure!(page.contains(&begins), "{} has no {begins:?}", page::PAGE);
        alerts.insert(name.to_owned());
    }
    ensure!(headings == alerts, "{} has sections of other alerts: {headings:?}", page::PAGE);
    Ok(())
}

fn used() -> Outcome {
    let tests = fs::read_to_string(sample::root().join("tests/observe/alerts.yml"));
    let tests = tests.map_err(|error| error.to_string())?;
    for alert in rules("alerts.yml") {
        let name = alert["alert"].as_str().unwrap_or_default();
        ensure!(tests.contains(&format!("- name: \"{name}: ")), "no test of {name}");
    }
    let queries = queries()?;
    for record in recorded().keys() {
        let reads = queries.iter().filter(|query| query.text.contains(record));
        ensure!(reads.count() > 0, "nobody reads {record}");
    }
    Ok(())
}

/// What `docker-compose.yaml` promises of its containers, for those beside them.
fn containers() -> Outcome {
    let services = sample::shipped("observe.yaml")["services"].take();
    let services = services.as_object().ok_or("no services")?;
    let mut mounts = 0;
    for (name, service) in services {
        for port in service["ports"].as_array().into_iter().flatten() {
            ensure!(port.as_str().is_some_and(|port| port.starts_with("127.0.0.1:")), "{name}: {port}");
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume["source"].as_str().unwrap_or_default();
            ensure!(volume["read_only"] == true, "{name}: {source} can be written");
            ensure!(sample::root().join("envoy").join(source).exists(), "{name}: no {source}");
            mounts += 1;
        }
        if name != "envoy" {
            ensure!(service["read_only"] == true, "{name} can be written");
            ensure!(service["cap_drop"] == serde_json::json!(["ALL"]), "{name} has capabilities");
            let options = serde_json::json!(["no-new-privileges:true"]);
            ensure!(service["security_opt"] == options, "{name} may get privileges");
        }
    }
    ensure!(mounts == 4 && services.len() == 3, "{mounts} mounts");
    Ok(())
}
