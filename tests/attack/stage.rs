//! A listener with and without the knob, hardened and not, and the watch over its workers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use harness::attack::{Outcome as Wanted, Row};
use harness::client::{Ask, Connection, Version};
use harness::control::until;
use harness::corpus::ENVIRONMENT;
use harness::envoy::{Envoy, Options, Refused};
use harness::sample;
use harness::scene::Scene;
use harness::standin;
use harness::upstream::Seen;
use serde_json::{Value, json};

use crate::play::{self, Pace};
use crate::{Outcome, ensure};

/// How many workers there are. Both must serve after each attack.
const WORKERS: u32 = 2;
/// The host of every request.
pub(crate) const HOST: &str = "api.example.com";
/// Where the watch and the last request of a connection go: the rows' own lists leave them out.
const WATCH: &str = "/watch";
pub(crate) const LAST: &str = "/public/last";

/// The Envoy and its listeners; each starts when the first trial needs it.
#[derive(Clone, Default)]
pub(crate) struct Stages(Arc<Mutex<Started>>);

/// A listener, or why there is none.
type Shared = Result<Arc<Mutex<Stage>>, String>;

#[derive(Default)]
struct Started {
    envoy: Option<Result<Arc<Envoy>, String>>,
    /// By: hardened or not, with the knob or not, and which of several.
    stages: BTreeMap<(bool, bool, usize), Shared>,
}

impl Stages {
    fn started(&self) -> MutexGuard<'_, Started> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The Envoy.
    pub(crate) fn envoy(&self) -> Result<Arc<Envoy>, String> {
        self.started().envoy.get_or_insert_with(|| start().map(Arc::new)).clone()
    }

    /// The listener of this kind; there are several, since each runs one row at a time.
    pub(crate) fn get(&self, raw: bool, knob: bool, lane: usize) -> Result<Locked, String> {
        let envoy = self.envoy()?;
        let mut started = self.started();
        let stage = started
            .stages
            .entry((raw, knob, lane))
            .or_insert_with(|| Stage::new(&envoy, raw, knob).map(|stage| Arc::new(Mutex::new(stage))));
        stage.clone().map(Locked)
    }

    /// Checks the process after all trials.
    pub(crate) fn verify_shutdown(&self) -> Outcome {
        match &self.started().envoy {
            Some(Ok(envoy)) => envoy.sound(),
            _ => Ok(()),
        }
    }
}

fn start() -> Result<Envoy, String> {
    let environment = ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Envoy::start(Options { workers: WORKERS, environment, module: sample::module()?, narrate: false })
}

/// A listener that one trial uses at a time.
pub(crate) struct Locked(Arc<Mutex<Stage>>);

impl Locked {
    /// Plays a row so many times and checks the workers.
    pub(crate) fn run(&self, row: &Row, times: usize, pace: Pace) -> Outcome {
        let mut stage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stage.run(row, times, pace)
    }
}

/// A listener.
pub(crate) struct Stage {
    pub(crate) scene: Scene,
    watch: Vec<Connection>,
    knob: bool,
    /// What the service had seen when the row before ended, and that row's name.
    before: (usize, String),
}

/// What the attacks meet: a public and a protected wildcard beside each other, a permission, a
/// webhook, and nothing kept, so that each row shows its own calls.
pub(crate) fn policy() -> Value {
    let mut policy = sample::forgetful_policy();
    policy["provider"]["timeout"] = json!("10s");
    policy["filter_state"] = json!("all");
    policy["routes"] = json!([
        {"name": "public", "match": {"path": "/public/{*rest}"}, "access": "public"},
        {"name": "watch", "match": {"path": WATCH}},
        {"name": "any", "match": {"path": "/any"}},
        {"name": "optional", "match": {"path": "/optional"}, "access": "optional"},
        {"name": "admin", "match": {"path": "/admin/{*rest}"}},
        {"name": "project", "match": {"methods": ["PUT"], "path": "/api/projects/{project_id}"},
         "require": {"permissions": {"all": [{"relation": "editor", "object": "project:{path.project_id}"}]}}},
        {"name": "hooks", "match": {"methods": ["POST"], "path": "/webhooks/avnology"}, "webhook": "avnology"}
    ]);
    policy["webhooks"]["avnology"]["max_body_bytes"] = json!(65_536);
    policy["webhooks"]["avnology"]["body_timeout"] = json!("2s");
    policy
}

impl Stage {
    fn new(envoy: &Arc<Envoy>, raw: bool, knob: bool) -> Result<Self, String> {
        let name =
            format!("attack-{}-{}", if raw { "raw" } else { "shipped" }, if knob { "knob" } else { "no" });
        let mut scene = Scene::new(envoy, &name, standin::Seed::embedded())?;
        scene.shape.raw = raw;
        scene.shape.knob = knob;
        scene.configure(&policy()).map_err(|Refused(text)| text)?;
        let watch = (0..WORKERS).map(|worker| scene.connect(Version::Http1, Some(worker)));
        let watch = watch.collect::<Result<_, _>>()?;
        let mut stage = Self { scene, watch, knob, before: (0, "the start".to_owned()) };
        stage.workers_serve()?;
        Ok(stage)
    }

    fn run(&mut self, row: &Row, times: usize, pace: Pace) -> Outcome {
        let outcome = self.judge(row, times, pace);
        self.before = (self.seen()?.len(), row.id.clone());
        outcome
    }

    fn judge(&mut self, row: &Row, times: usize, pace: Pace) -> Outcome {
        let late = self.seen()?;
        ensure!(
            late.len() == self.before.0,
            "before this row: the service saw something only after {} had ended: {:?}",
            self.before.1,
            late.iter().map(describe).collect::<Vec<_>>()
        );
        let wanted = match (&row.without_the_knob, self.knob) {
            (Some(wanted), false) => wanted,
            _ => &row.outcome,
        };
        for number in 0..times {
            self.scene.upstream.clear()?;
            self.scene.provider.clear()?;
            self.scene.provider.script(&row.provider_does)?;
            let played = play::play(self, row, wanted, pace, number);
            // Waits in any case: what goes on would disturb the next row.
            let idle = self.nothing_in_progress();
            let played = played.and(idle);
            self.compare(wanted, played, number)?;
        }
        self.scene.provider.clear()?;
        self.workers_serve()
    }

    /// Compares what the service and the provider saw, and adds that to what is wrong already.
    fn compare(&self, wanted: &Wanted, played: Outcome, number: usize) -> Outcome {
        let mut problems: Vec<String> = played.err().into_iter().collect();
        let service: Vec<String> = self.seen()?.iter().map(describe).collect();
        let calls = self.scene.provider.calls()?;
        let provider: Vec<String> = calls
            .iter()
            .map(|call| match (&call.token, &call.check) {
                (_, Some(check)) => format!("check {}:{} {}", check.namespace, check.object, check.relation),
                (Some(token), None) => format!("introspect {token}"),
                (None, None) => format!("{} {}", call.method, call.path),
            })
            .collect();
        for (who, saw, wanted) in
            [("the service", service, &wanted.service), ("the provider", provider, &wanted.provider)]
        {
            let sorted = |list: &[String]| {
                let mut list = list.to_vec();
                list.sort();
                list
            };
            let wanted: Vec<String> =
                wanted.iter().map(|wanted| wanted.replace('#', &number.to_string())).collect();
            let (saw, wanted) = (sorted(&saw), sorted(&wanted));
            if saw != wanted {
                problems.push(format!("{who} saw {saw:?}, expected {wanted:?}"));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
    }

    /// What the service saw of a row's own requests.
    fn seen(&self) -> Result<Vec<Seen>, String> {
        let own = |seen: &Seen| seen.path != WATCH && seen.path != LAST;
        Ok(self.scene.upstream.seen()?.into_iter().filter(own).collect())
    }

    /// Waits until no request of this listener is active in Envoy, and no call to its provider: what
    /// nobody answers is left behind, and the next row would join a call that goes on.
    pub(crate) fn nothing_in_progress(&self) -> Outcome {
        let (name, cluster) = (&self.scene.shape.name, &self.scene.cluster);
        let filter = format!(
            "%5E(http%5C.{name}%5C.downstream_rq_active%7Ccluster%5C.{cluster}%5C.upstream_rq_active)%24"
        );
        // Used since the first watch, so it is there unless nobody answers.
        let first = format!("http.{name}.downstream_rq_active");
        let idle = |stats: BTreeMap<String, u64>| {
            stats.contains_key(&first) && stats.values().all(|active| *active == 0)
        };
        until(|| Ok(idle(self.scene.envoy.stats(&filter))))
            .map_err(|error| format!("requests are left behind: {error}"))
    }

    /// Checks that each worker still decides, both ways, and that no VM has failed.
    fn workers_serve(&mut self) -> Outcome {
        for (worker, connection) in self.watch.iter_mut().enumerate() {
            for (ask, status) in
                [(Ask::new("GET", WATCH, HOST).bearer("tok_alice"), 200), (Ask::new("GET", WATCH, HOST), 401)]
            {
                let answer = connection
                    .ask(&ask)
                    .map_err(|failure| format!("worker {worker} does not serve: {failure}"))?;
                ensure!(
                    answer.status == status,
                    "worker {worker} answers {} {}, expected {status}",
                    answer.status,
                    answer.text()
                );
            }
        }
        let failures = self.scene.envoy.stats("vm_reload%7Cwasm_fail");
        ensure!(failures.values().all(|count| *count == 0), "a worker's module failed: {failures:?}");
        Ok(())
    }
}

/// `METHOD path user`, the length of the body, the names of trailers, and whether the end is
/// missing.
fn describe(seen: &Seen) -> String {
    let users: Vec<&str> = seen
        .headers
        .iter()
        .filter(|(name, _)| name == "x-avnology-user-id")
        .map(|(_, value)| value.as_str())
        .collect();
    let mut text = format!("{} {}", seen.method, seen.path);
    for user in users {
        text += &format!(" {user}");
    }
    if seen.body_bytes > 0 {
        text += &format!(" +{}", seen.body_bytes);
    }
    for (name, _) in &seen.trailers {
        text += &format!(" ~{name}");
    }
    if !seen.complete {
        text += " cut";
    }
    text
}
