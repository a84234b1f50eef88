//! What two workers know of each other, under a flood.

use crate::config;
use crate::flow::store::tests::Map;
use crate::flow::{Engine, Output, RootId, Seed, Step, StreamId};
use crate::http::head::head_of;
use crate::http::{CallFailure, Response};
use crate::refusal::Reason;
use crate::time::Timestamp;
use std::rc::Rc;

const ROOT: RootId = RootId(1);

fn configure(engine: &mut Engine, secret: &str, ttl: &str, stale: &str) {
    let document = serde_json::json!({
        "provider": {
            "cluster": "avnology", "authority": "id.example", "retries": 0,
            "circuit_breaker": "off",
            "introspection": {"credentials":
                {"method": "client_secret_post", "client_id": "c", "client_secret": secret}}
        },
        "cache": {"introspection": {"ttl": ttl, "negative_ttl": "5s", "stale_if_error": stale}},
        "budgets": {"new_tokens": "off"},
        "routes": [{"match": {"path": "/"}}]
    });
    engine.configure(
        ROOT,
        config::load(document.to_string().as_bytes(), &|_| None).unwrap(),
        Timestamp::from_secs(1),
    );
}

/// The workers of one process, and how the provider answers.
struct Workers {
    engines: Vec<Engine>,
    provider: fn(token: &str) -> Option<&'static str>,
    introspections: usize,
    next: u32,
    now: u64,
}

impl Workers {
    fn new() -> Self {
        let store = Rc::new(Map::default());
        let engine = |nth| {
            let mut engine = Engine::new(Seed([nth; 16]), store.clone());
            configure(&mut engine, "secret", "30s", "1h");
            engine
        };
        Self {
            engines: vec![engine(1), engine(2)],
            provider: |token| Some(if token.starts_with("good") { ACTIVE } else { INACTIVE }),
            introspections: 0,
            next: 0,
            now: 1_700_000_000,
        }
    }

    /// How a request with this token is decided at a worker.
    fn request(&mut self, worker: usize, token: &str) -> Reason {
        let now = Timestamp::from_secs(self.now);
        self.next += 1;
        let stream = StreamId(self.next);
        let authorization = format!("Bearer {token}");
        let headers =
            [(":method", "GET"), (":path", "/"), (":authority", "a"), ("authorization", &authorization)];
        let engine = &mut self.engines[worker];
        let mut decided = match engine.begin(stream, ROOT, &head_of(&headers, true), now) {
            Step::Decided(verdict) => Some(verdict.event().reason()),
            _ => None,
        };
        while let Some(output) = engine.poll() {
            match output {
                Output::Dispatch { flight, .. } => {
                    self.introspections += 1;
                    let body = (self.provider)(token);
                    let answer =
                        body.map(|body| Response { status: 200, retry_after: None, body: body.as_bytes() });
                    engine.landed(flight, answer.ok_or(CallFailure::Unreachable), now);
                }
                Output::Decide { verdict, .. } => decided = Some(verdict.event().reason()),
                Output::Edit { .. } | Output::Measure { .. } | Output::Metric { .. } | Output::Log { .. } => {
                }
            }
        }
        decided.expect("every request is decided")
    }

    fn reload(&mut self, secret: &str, ttl: &str, stale: &str) {
        self.engines.iter_mut().for_each(|engine| configure(engine, secret, ttl, stale));
    }

    fn flood(&mut self, invented: u32) {
        for n in 0..invented {
            assert_eq!(self.request((n % 2) as usize, &format!("bad{n}")), Reason::TokenInactive);
        }
    }
}

const ACTIVE: &str = r#"{"active":true,"sub":"u"}"#;
const INACTIVE: &str = r#"{"active":false}"#;

#[test]
fn a_flood_of_invented_tokens_does_not_switch_sharing_off() {
    let mut workers = Workers::new();
    workers.flood(20_000);
    workers.introspections = 0;
    for n in 0..100 {
        for worker in [0, 1] {
            assert_eq!(workers.request(worker, &format!("good{n}")), Reason::Authenticated);
        }
    }
    assert_eq!(workers.introspections, 100, "one for each token, whatever the flood has left");
}

#[test]
fn a_no_that_one_worker_has_heard_ends_what_another_would_serve_stale_also_after_a_flood() {
    let mut workers = Workers::new();
    let tokens: Vec<String> = (0..5).map(|n| format!("good{n}")).collect();
    for token in &tokens {
        for worker in [0, 1] {
            assert_eq!(workers.request(worker, token), Reason::Authenticated);
        }
    }
    workers.now += 40;
    workers.provider = |_| Some(INACTIVE);
    for token in &tokens {
        assert_eq!(workers.request(0, token), Reason::TokenInactive);
    }
    workers.flood(20_000);
    assert_eq!(workers.request(1, &tokens[0]), Reason::TokenInactive);
    // The no itself has no lifetime left.
    workers.now += 10;
    workers.provider = |_| None;
    for token in &tokens {
        assert_eq!(workers.request(1, token), Reason::Unreachable, "it is known to be revoked");
    }
}

#[test]
fn what_nobody_has_called_over_is_served_stale() {
    let mut workers = Workers::new();
    assert_eq!(workers.request(1, "good"), Reason::Authenticated);
    workers.flood(20_000);
    workers.now += 40;
    workers.provider = |_| None;
    assert_eq!(workers.request(1, "good"), Reason::AuthenticatedStale);
}

#[test]
fn a_no_that_comes_while_a_call_is_under_way_ends_what_the_call_would_leave_stale() {
    let mut workers = Workers::new();
    for worker in [0, 1] {
        assert_eq!(workers.request(worker, "good"), Reason::Authenticated);
    }
    workers.now += 40;
    let now = Timestamp::from_secs(workers.now);
    let headers = [(":method", "GET"), (":path", "/"), (":authority", "a"), ("authorization", "Bearer good")];
    let begun = workers.engines[1].begin(StreamId(1_000_000), ROOT, &head_of(&headers, true), now);
    assert!(matches!(begun, Step::Wait));
    let Some(Output::Dispatch { flight, .. }) = workers.engines[1].poll() else { panic!("a callout") };
    workers.provider = |_| Some(INACTIVE);
    assert_eq!(workers.request(0, "good"), Reason::TokenInactive);
    workers.engines[1].landed(flight, Err(CallFailure::Unreachable), now);
    let decided = std::iter::from_fn(|| workers.engines[1].poll()).find_map(|output| match output {
        Output::Decide { verdict, .. } => Some(verdict.event().reason()),
        _ => None,
    });
    assert_eq!(decided, Some(Reason::Unreachable));
}

#[test]
fn a_clock_that_is_set_back_does_not_bring_a_revoked_token_to_life() {
    let mut workers = Workers::new();
    assert_eq!(workers.request(0, "good"), Reason::Authenticated);
    workers.now += 31;
    workers.provider = |_| Some(INACTIVE);
    assert_eq!(workers.request(0, "good"), Reason::TokenInactive);
    workers.now -= 20;
    assert_eq!(workers.request(0, "good"), Reason::TokenInactive, "the no is from the future now");
    let mut workers = Workers::new();
    assert_eq!(workers.request(0, "good"), Reason::Authenticated);
    workers.now -= 50;
    workers.provider = |_| Some(INACTIVE);
    assert_eq!(workers.request(0, "good"), Reason::TokenInactive);
    workers.now += 55;
    assert_eq!(workers.request(0, "good"), Reason::TokenInactive, "the yes was from the future");
}

#[test]
fn longer_lifetimes_do_not_bring_a_revoked_token_to_life() {
    let mut workers = Workers::new();
    workers.reload("secret", "5s", "0s");
    let token = |n: u32| format!("good{n}");
    for n in 0..5_000 {
        assert_eq!(workers.request(0, &token(n)), Reason::Authenticated);
    }
    workers.now += 6;
    workers.provider = |_| Some(INACTIVE);
    for n in 0..50 {
        assert_eq!(workers.request(0, &token(n)), Reason::TokenInactive);
    }
    workers.now += 6;
    for n in 100..5_000 {
        workers.request(0, &token(n));
    }
    workers.reload("secret", "60s", "0s");
    workers.now += 3;
    let passed = (0..50).filter(|n| workers.request(1, &token(*n)) == Reason::Authenticated);
    assert_eq!(passed.count(), 0, "of 50 that were heard to be revoked");
}

#[test]
fn a_secret_that_was_rotated_leaves_nothing_by_which_a_flood_ends_what_is_stale() {
    let mut workers = Workers::new();
    for n in 0..20_000 {
        workers.request(0, &format!("good{n}"));
    }
    workers.now += 100_000;
    workers.reload("rotated", "30s", "1h");
    assert_eq!(workers.request(1, "good"), Reason::Authenticated);
    workers.now += 1;
    workers.flood(10_000);
    workers.now += 40;
    workers.provider = |_| None;
    assert_eq!(workers.request(1, "good"), Reason::AuthenticatedStale);
}
