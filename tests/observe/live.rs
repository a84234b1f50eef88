//! A gate that is put through a scripted run, and a Prometheus that scrapes it meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use harness::client::{self, Ask, Connection, PATIENCE, Version};
use harness::control::{Provider, until};
use harness::corpus::WEBHOOK_SECRET;
use harness::demo::Demo;
use harness::envoy::{Envoy, Options, Refused};
use harness::port::Reserved;
use harness::prometheus::Prometheus;
use harness::sample::{self, Policy, Shape};
use harness::standin;
use libtest_mimic::Trial;
use serde_json::json;

use crate::page::{self, Shell};
use crate::{Outcome, ensure, names, trial};

pub(crate) fn trials(tools: &Path) -> Vec<Trial> {
    type Run = fn(&Live, &Path) -> Outcome;
    let all: [(&str, Run); 4] = [
        ("live/prometheus_has_the_numbers_of_the_run", numbers),
        ("live/every_query_is_answered", answered),
        ("live/the_alerts_of_the_run_fire_and_no_others", alerts),
        ("live/the_page_shows_what_its_commands_print", shown),
    ];
    let mut trials: Vec<Trial> = all
        .map(|(name, run)| {
            let tools = tools.to_owned();
            trial(name, move || live(&tools).and_then(|live| run(&live, &tools)))
        })
        .into();
    trials.push(trial("live/envoy_counts_a_module_that_fails", failing));
    trials
}

/// The gate after its run.
struct Live {
    demo: Demo,
    prometheus: Prometheus,
}

/// One that is there for every trial, or why there is none.
type Shared = Result<Arc<Live>, String>;

/// The one of this process.
static LIVE: Mutex<Option<Shared>> = Mutex::new(None);

/// Starts with the trial that needs it first.
fn live(tools: &Path) -> Shared {
    let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
    live.get_or_insert_with(|| Live::start(tools).map(Arc::new)).clone()
}

/// Ends it, after all trials.
pub(crate) fn end() {
    drop(LIVE.lock().unwrap_or_else(PoisonError::into_inner).take());
}

const HOST: &str = "api.example.com";
const POLICY: &str = "tests/observe/policy.json";
/// The first secret of the policy's webhook; the other is the harness's.
const NEW_SECRET: &str = "whsec_the_new_one_for_trials";

/// What the run decides, by decision and reason.
const DECISIONS: &[(&str, &str, f64)] = &[
    ("allow", "authenticated", 6.0),
    ("allow", "authenticated_stale", 1.0),
    ("allow", "webhook_verified", 3.0),
    ("deny", "circuit_open", 1.0),
    ("deny", "claim_mismatch", 1.0),
    ("deny", "insufficient_scope", 1.0),
    ("deny", "invalid_signature", 1.0),
    ("deny", "missing_token", 1.0),
    ("deny", "no_route", 1.0),
    ("deny", "permission_denied", 1.0),
    ("deny", "token_inactive", 1.0),
    ("fail_open", "circuit_open", 1.0),
    ("shadow_deny", "insufficient_scope", 2.0),
];

impl Live {
    fn start(tools: &Path) -> Result<Self, String> {
        let policy = page::read(POLICY)?;
        // One worker: with more, the kernel chooses who looks into which cache.
        let demo = Demo::start_with(0, false, Some(policy.into_bytes()), 1)?;
        let folder = demo.envoy().directory().join("prometheus");
        let prometheus = Prometheus::start(tools, demo.admin(), &folder)?;
        let mut live = Self { demo, prometheus };
        live.put_through()?;
        Ok(live)
    }

    /// Sends a request, which has to end so.
    fn send(&self, ask: &Ask, status: u16) -> Outcome {
        let answer = client::ask(self.demo.gate, Version::Http1, ask).map_err(|f| f.to_string())?;
        ensure!(answer.status == status, "{}, not {status}: {}", answer.status, answer.text());
        Ok(())
    }

    /// Waits until a query has this value.
    fn wait_for(&self, query: &str, value: f64) -> Outcome {
        let is = |found: Option<f64>| found.is_some_and(|found| (found - value).abs() < 1e-6);
        until(|| Ok(is(self.prometheus.number(query)?)))
            .map_err(|_| format!("{query} is {:?}, not {value}", self.prometheus.query(query)))
    }

    fn put_through(&mut self) -> Outcome {
        let get = |path: &str, token: &str| Ask::new("GET", path, HOST).bearer(token);
        let put = |path: &str, token: &str| Ask::new("PUT", path, HOST).bearer(token).body("{}");
        let provider = Provider(self.demo.control);
        // Prometheus sees an Envoy that has done nothing yet.
        self.wait_for("up", 1.0)?;
        // A call that is under way long enough to be seen so.
        provider.rule(json!({"on": "introspect", "delay": "4s", "times": 1}))?;
        let mut slow = Connection::open(self.demo.gate, Version::Http1).map_err(|e| e.to_string())?;
        slow.send(&get("/api/profile", "tok_alice")).map_err(|failure| failure.to_string())?;
        self.wait_for("sum(avnology_gate_requests_waiting)", 1.0)?;
        self.wait_for("sum(avnology_gate_callouts_in_flight)", 1.0)?;
        let answer = slow.answer(PATIENCE).map_err(|failure| failure.to_string())?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        self.send(&get("/api/profile", "tok_alice"), 200)?;
        self.send(&get("/api/profile", "tok_alice"), 200)?;
        self.send(&put("/api/projects/proj_1", "tok_alice"), 200)?;
        // Rates need two looks at a counter; Envoy sums up its histograms every five seconds.
        let checks =
            "sum(avnology_gate_callout_duration_microseconds_count{endpoint=\"permission@avnology\"})";
        self.wait_for(checks, 1.0)?;
        self.send(&put("/api/projects/proj_2", "tok_alice"), 403)?;
        self.send(&get("/api/profile", "tok_noscope"), 403)?;
        self.send(&get("/api/profile", "tok_unknown"), 401)?;
        self.send(&Ask::new("GET", "/api/profile", HOST), 401)?;
        self.send(&get("/orgs/org_other/members", "tok_alice"), 403)?;
        self.send(&get("/nowhere", "tok_alice"), 403)?;
        self.send(&get("/reports", "tok_alice"), 200)?;
        self.send(&get("/reports", "tok_alice"), 200)?;
        self.send(&get("/feed", "tok_alice"), 200)?;
        self.send(&get("/status", "tok_alice"), 200)?;
        for (body, secret, status) in [
            ("{\"n\":1}", NEW_SECRET, 200),
            ("{\"n\":2}", WEBHOOK_SECRET, 200),
            ("{\"n\":3}", WEBHOOK_SECRET, 200),
            ("{\"n\":4}", "whsec_of_somebody_else", 401),
        ] {
            self.send(&delivery(body, secret), status)?;
        }
        // The provider goes away, and comes back.
        provider.down(true)?;
        self.send(&get("/feed", "tok_alice"), 200)?;
        self.wait_for("max(avnology_gate_endpoint_away)", 1.0)?;
        self.send(&get("/status", "tok_bob"), 200)?;
        self.send(&get("/api/profile", "tok_bob"), 503)?;
        provider.down(false)?;
        self.wait_for("max(avnology_gate_endpoint_away)", 0.0)?;
        // And somebody makes a mistake.
        ensure!(self.demo.configure(b"{\"routes\": []}").is_err(), "an empty policy is taken");
        self.wait_for("sum(avnology_gate_configurations_total{outcome=\"refused\"})", 1.0)?;
        self.wait_for(checks, 2.0)?;
        for over in ["max(avnology_gate:requests_waiting:ratio)", "sum(avnology_gate_callouts_in_flight)"] {
            self.wait_for(over, 0.0)?;
        }
        self.wait_for("count(avnology_gate:callout_seconds:p99_5m > 0)", 2.0)?;
        let sum: f64 = DECISIONS.iter().map(|(_, _, count)| count).sum();
        self.wait_for("sum(avnology_gate:decisions:increase5m)", sum)
    }
}

fn delivery(body: &str, secret: &str) -> Ask {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ask::new("POST", "/webhooks/avnology", HOST)
        .header("x-avnology-timestamp", now.to_string())
        .header("x-avnology-signature", standin::sign(secret, now, body.as_bytes()))
        .body(body)
}

fn numbers(live: &Live, _: &Path) -> Outcome {
    for (decision, reason, count) in DECISIONS {
        for metric in ["avnology_gate_decisions_total", "avnology_gate:decisions:increase5m"] {
            let query = format!("sum({metric}{{decision=\"{decision}\", reason=\"{reason}\"}})");
            let found = live.prometheus.number(&query)?;
            ensure!(found == Some(*count), "{query} is {found:?}, not {count}");
        }
    }
    for (query, value) in [
        ("avnology_gate_webhooks_total{secret=\"0\"}", 1.0),
        ("avnology_gate_webhooks_total{secret=\"1\"}", 2.0),
        ("sum(avnology_gate_cache_total{kind=\"permission\", outcome=\"miss\"})", 2.0),
        ("sum(avnology_gate_callouts_total{endpoint=\"permission@avnology\", outcome=\"answered\"})", 2.0),
        ("sum(avnology_gate_policy_info)", 2.0),
        ("envoy_server_concurrency", 1.0),
        ("max(avnology_gate:requests_waiting:ratio)", 0.0),
    ] {
        let found = live.prometheus.number(query)?;
        ensure!(found == Some(value), "{query} is {found:?}, not {value}");
    }
    Ok(())
}

/// Every query, as Prometheus reads it; and what each of the gate's own rules has become.
fn answered(live: &Live, _: &Path) -> Outcome {
    for query in names::queries()? {
        live.prometheus.query(&query.text).map_err(|error| format!("{}: {error}", query.place))?;
    }
    let groups = live.prometheus.data("/api/v1/rules")?["groups"].take();
    let rules: Vec<_> = groups
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|group| group["rules"].as_array())
        .flatten()
        .collect();
    ensure!(rules.len() > 25, "{} rules", rules.len());
    for rule in rules {
        ensure!(rule["health"] == "ok", "{rule}");
    }
    // Envoy writes what the queries take to be Envoy's; how a module's failure is counted, only a
    // module that fails can show.
    for name in names::ENVOY.iter().filter(|name| !name.contains("vm_reload")) {
        ensure!(live.prometheus.number(name)?.is_some(), "Envoy does not write {name}");
    }
    Ok(())
}

/// What the run has brought about, and that the texts of the alerts can be filled in.
fn alerts(live: &Live, _: &Path) -> Outcome {
    let expected = BTreeSet::from(
        [
            "AvnologyGateFailOpen",
            "AvnologyGateConfigurationRefused",
            "AvnologyGateStaleAnswers",
            "AvnologyGateOldWebhookSecret",
            "AvnologyGateShadowDenials",
            "AvnologyGateUnavailable",
            // One call took four seconds.
            "AvnologyGateProviderSlow",
        ]
        .map(str::to_owned),
    );
    let mut found = BTreeSet::new();
    until(|| {
        found.clear();
        let alerts = live.prometheus.data("/api/v1/alerts")?["alerts"].take();
        for alert in alerts.as_array().into_iter().flatten() {
            let summary = alert["annotations"]["summary"].as_str().unwrap_or_default();
            ensure!(!summary.is_empty() && !summary.contains("error"), "{alert}");
            found.insert(alert["labels"]["alertname"].as_str().unwrap_or_default().to_owned());
        }
        Ok(found == expected)
    })
    .map_err(|_| format!("active are {found:?}"))
}

/// A module that fails at its second request, under the shipped plugin's name.
fn failing() -> Outcome {
    let module = wat::parse_str(
        r#"(module
            (memory (export "memory") 1)
            (global $requests (mut i32) (i32.const 0))
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
            (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
            (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (global.set $requests (i32.add (global.get $requests) (i32.const 1)))
                (if (i32.eq (global.get $requests) (i32.const 2)) (then (unreachable)))
                (i32.const 0)))"#,
    );
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("observe-failing.wasm");
    fs::write(&path, module.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    let envoy = Envoy::start(Options { workers: 1, environment: Vec::new(), module: path, narrate: false })?;
    let refused = |Refused(text): Refused| text;
    let port = Reserved::new(0).map_err(|error| error.to_string())?;
    let plugin = sample::shipped("listener.yaml")
        .pointer(
            "/resources/0/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config/name",
        )
        .and_then(|name| name.as_str().map(str::to_owned));
    let log = envoy.directory().join("access.log");
    let mut shape = Shape::new(&plugin.ok_or("no plugin")?, Policy::Shipped, "upstream", log);
    shape.address = port.address;
    envoy.put_clusters(vec![sample::cluster("upstream", "upstream", None)]).map_err(refused)?;
    envoy.put_listener(&shape).map_err(refused)?;
    let ask = || client::ask(shape.address, Version::Http1, &Ask::new("GET", "/", HOST));
    for _ in 0..2 {
        ask().map_err(|failure| failure.to_string())?;
    }
    // The next request makes Envoy start a fresh module, once a pause is over.
    until(|| {
        ask().map_err(|failure| failure.to_string())?;
        let metrics = envoy.get("/stats/prometheus?filter=vm_reload")?;
        let value = |name: &str| {
            let of = metrics.lines().find(|line| line.starts_with(&format!("{name}{{")));
            of.and_then(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        };
        let [success, failure] =
            ["success", "failure"].map(|how| value(&format!("envoy_wasm_avnology_gate_vm_reload_{how}")));
        Ok(success.is_some_and(|count| count > 0) && failure.is_some())
    })
    .map_err(|error| {
        format!("{error}: {}", envoy.get("/stats/prometheus?filter=vm_reload").unwrap_or_default())
    })
}

fn shown(live: &Live, tools: &Path) -> Outcome {
    let mut shell = Shell::new("operate", tools)?;
    let copy = |from: &Path, name: &str| {
        fs::copy(from, shell.folder.join(name)).map_err(|error| format!("{}: {error}", from.display()))
    };
    copy(&sample::root().join(POLICY), "policy.json")?;
    // Envoy writes a line when it has finished the request, too.
    let lines = || Ok(fs::read_to_string(live.demo.access_log()).is_ok_and(|log| log.lines().count() >= 21));
    until(lines).map_err(|error| format!("the access log: {error}"))?;
    copy(live.demo.access_log(), "access.log")?;
    copy(&live.demo.envoy().directory().join("envoy.log"), "envoy.log")?;
    shell.names = vec![
        ("127.0.0.1:9090".to_owned(), live.prometheus.address.to_string()),
        ("127.0.0.1:10001".to_owned(), live.demo.control.to_string()),
    ];
    let count = page::play(page::PAGE, &mut shell, |_, _| Ok(false))?;
    ensure!(count >= 10, "{count} commands");
    Ok(())
}
