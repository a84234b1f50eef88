//! The core as the bench calls it. All that this bench knows of the core's interface stands here.

use std::hint::black_box;
use std::rc::Rc;

use avnology_benches::DECISIONS;
use avnology_gate::config;
use avnology_gate::envoy::{header_map, response};
use avnology_gate::flow::{Engine, NoStore, Output, RootId, Seed, Step, StreamId};
use avnology_gate::time::Timestamp;
use avnology_gate::verdict::{Action, Verdict};
use serde_json::{Value, json};

const ROOT: RootId = RootId(1);
const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

/// What a request needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: its route is public.
    Public,
    /// A token that is known.
    Cached,
    /// That, and a permission that is known.
    Permitted,
    /// A token that is new, so that the provider is asked.
    Asked,
    /// A token that is known, in a request of an odd shape.
    Shaped,
}

/// What is odd about a request whose token is known. Each is as long as Envoy lets a head be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One name in the query.
    QueryPlain,
    /// Nothing but `&`.
    QueryPairs,
    /// A name of a space each.
    QueryPlus,
    /// As many pairs as are read, with encoded names.
    QueryEncoded,
    /// As many pairs as are read, with names that are nearly those that are read.
    QueryNames,
    /// One cookie.
    CookiesPlain,
    /// Cookies of a letter each.
    CookiesPairs,
    /// As many cookies as are read, with encoded names.
    CookiesEncoded,
    /// A hundred headers.
    Headers,
    /// A segment without end.
    PathPlain,
    /// Segments of a letter each.
    PathSegments,
    /// A segment of encoded characters beyond ASCII.
    PathEncoded,
}

/// Bytes of a request's odd part.
const LONG: usize = 57_000;

impl Shape {
    fn query(self) -> String {
        let pairs = |pair: &str, count: usize| vec![pair; count].join("&");
        match self {
            Self::QueryPlain => "a".repeat(LONG),
            Self::QueryPairs => "&".repeat(LONG),
            Self::QueryPlus => "+&".repeat(LONG / 2),
            Self::QueryEncoded => pairs(&format!("{}=1", "%61".repeat(17)), 1_000),
            Self::QueryNames => pairs(&format!("access_toke%61={}", "1".repeat(40)), 1_000),
            _ => "page=3".to_owned(),
        }
    }

    fn cookie(self) -> Option<String> {
        match self {
            Self::CookiesPlain => Some(format!("a={}", "a".repeat(LONG))),
            Self::CookiesPairs => Some("a=b;".repeat(LONG / 4)),
            Self::CookiesEncoded => Some(format!("{}=1; ", "%73".repeat(17)).repeat(1_000)),
            _ => None,
        }
    }

    fn rest(self) -> String {
        match self {
            Self::PathPlain => "a".repeat(LONG),
            Self::PathSegments => "a/".repeat(LONG / 2),
            Self::PathEncoded => "%C3%A9".repeat(LONG / 6),
            _ => "42".to_owned(),
        }
    }
}

/// A core with its policy, and everything that it is given, made beforehand.
pub(crate) struct Gate {
    kind: Kind,
    engine: Engine,
    heads: Vec<Vec<u8>>,
    answer: Answer,
}

/// What the provider answers to everything.
struct Answer {
    headers: Vec<u8>,
    body: String,
}

impl Gate {
    /// Nothing of this is counted. One request has gone through, and all others find what it left.
    pub(crate) fn prepare(kind: Kind, routes: u32) -> Self {
        let mut engine = Engine::new(Seed([7; 16]), Rc::new(NoStore));
        match config::load(policy(kind, routes).to_string().as_bytes(), &|_| None) {
            Ok(loaded) => engine.configure(ROOT, loaded, NOW),
            Err(problems) => std::panic::panic_any(problems.to_string()),
        }
        let token = |number: u64| match kind {
            Kind::Public => None,
            Kind::Cached | Kind::Permitted | Kind::Shaped => Some(token("")),
            Kind::Asked => Some(token(&number.to_string())),
        };
        let heads = match kind {
            Kind::Asked => (0..DECISIONS).map(|number| head(0, token(number))).collect(),
            _ => (0..10).map(|number| head(number, token(number))).collect(),
        };
        let mut gate = Self { kind, engine, heads, answer: Answer::yes() };
        let first = head(0, token(u64::MAX));
        let stream = StreamId(u32::MAX);
        drop(gate.engine.begin(stream, ROOT, &header_map::request_head(&first, true), NOW));
        gate.answer();
        gate.engine.gone(stream);
        gate
    }

    /// A token that is known, and a request of this shape, on a route that reads two query
    /// parameters and a cookie for a token and six query parameters for its headers.
    pub(crate) fn shaped(shape: Shape) -> Self {
        let mut policy = policy(Kind::Cached, 1);
        policy["credentials"] = json!([
            {"header": "authorization", "scheme": "Bearer"}, {"cookie": "session"},
            {"query": "access_token"}, {"query": "token"},
        ]);
        let reads = ["one", "two", "three", "four", "five", "six"]
            .map(|name| (format!("x-q-{name}"), json!(format!("{{query.{name}}}"))));
        policy["identity_headers"] = reads.into_iter().collect();
        policy["routes"].as_array_mut().into_iter().for_each(|routes| {
            routes.push(json!({"match": {"path": "/{*rest}"}, "access": "optional"}));
        });
        let mut engine = Engine::new(Seed([7; 16]), Rc::new(NoStore));
        match config::load(policy.to_string().as_bytes(), &|_| None) {
            Ok(loaded) => engine.configure(ROOT, loaded, NOW),
            Err(problems) => std::panic::panic_any(problems.to_string()),
        }
        let path = format!("/x/{}?{}", shape.rest(), shape.query());
        let token = format!("Bearer {}", token(""));
        let mut head = vec![
            (":method".to_owned(), "GET".to_owned()),
            (":path".to_owned(), path),
            (":authority".to_owned(), "api.example.com".to_owned()),
            ("authorization".to_owned(), token.clone()),
        ];
        head.extend(shape.cookie().map(|cookie| ("cookie".to_owned(), cookie)));
        if shape == Shape::Headers {
            head.extend((0..96).map(|number| (format!("x-header-{number}"), "a".repeat(500))));
        }
        let known = vec![
            (":method", "GET"),
            (":path", "/x"),
            (":authority", "api.example.com"),
            ("authorization", &token),
        ];
        let mut gate = Self {
            kind: Kind::Shaped,
            engine,
            heads: vec![header_map::encode(&head)],
            answer: Answer::yes(),
        };
        let stream = StreamId(u32::MAX);
        let known = header_map::encode(&known);
        drop(gate.engine.begin(stream, ROOT, &header_map::request_head(&known, true), NOW));
        gate.answer();
        gate.engine.gone(stream);
        gate
    }

    /// A request from its head to its end.
    pub(crate) fn decide(&mut self, number: u64) {
        let stream = StreamId(number as u32);
        let head = self.heads.get(number as usize % self.heads.len()).map_or(&[][..], Vec::as_slice);
        let step = self.engine.begin(stream, ROOT, &header_map::request_head(black_box(head), true), NOW);
        if self.kind == Kind::Shaped {
            assert!(matches!(step, Step::Decided(_)), "nobody is asked, whatever is decided");
        } else if self.kind == Kind::Asked {
            assert!(matches!(step, Step::Wait), "a new token is asked about");
            let decided = self.answer();
            assert!(decided, "the answer lets it pass");
        } else {
            let has_passed = matches!(&step, Step::Decided(verdict) if passes(verdict));
            assert!(has_passed, "every request passes, and what it needs is known");
        }
        self.engine.gone(stream);
    }

    /// Answers whatever the core asks; says whether a request passes by that.
    fn answer(&mut self) -> bool {
        let mut has_passed = false;
        let Answer { headers, body } = &self.answer;
        while let Some(output) = self.engine.poll() {
            match output {
                Output::Dispatch { flight, .. } => {
                    let answer = response::read(black_box(headers), black_box(body.as_bytes()));
                    self.engine.landed(flight, answer, NOW);
                }
                Output::Decide { verdict, .. } => has_passed = passes(&verdict),
                _ => {}
            }
        }
        has_passed
    }
}

impl Answer {
    fn yes() -> Self {
        let body = json!({
            "active": true, "allowed": true, "sub": "usr_01J9Z3N5T7", "client_id": "cli_web",
            "scope": "profile projects", "iss": "https://id.example",
            "aud": ["https://api.example.com"], "exp": 1_790_000_900, "iat": 1_790_000_000,
            "token_type": "Bearer", "org_id": "org_acme"
        });
        let headers = header_map::encode(&[(":status", "200"), ("x-envoy-upstream-service-time", "1")]);
        Self { headers, body: body.to_string() }
    }
}

fn passes(verdict: &Verdict) -> bool {
    matches!(verdict.action(), Action::Forward(_))
}

/// A token of a JWT's size; two with different beginnings are different tokens.
fn token(begins: &str) -> String {
    format!("{begins}{}", "eyJhbGciOiJSUzI1NiJ9".repeat(31))
}

fn head(route: u64, token: Option<String>) -> Vec<u8> {
    let path = format!("/service-{route}/items/42?page=3");
    let token = token.map(|token| format!("Bearer {token}"));
    let mut head = vec![
        (":method", "GET"),
        (":path", path.as_str()),
        (":authority", "api.example.com"),
        (":scheme", "https"),
        ("user-agent", "bench"),
        ("accept", "application/json"),
        ("x-request-id", "0f5c6d1e-8a52-4b7e-9c3f-2f7a5b1d9e44"),
    ];
    head.extend(token.as_deref().map(|token| ("authorization", token)));
    header_map::encode(&head)
}

fn policy(kind: Kind, routes: u32) -> Value {
    let route = |number| {
        let place = json!({"methods": ["GET"], "path": format!("/service-{number}/items/{{id}}")});
        match kind {
            Kind::Public => json!({"match": place, "access": "public"}),
            Kind::Permitted => json!({"match": place, "require": {"permissions": {"all": [
                {"object": "project:{path.id}", "relation": "editor"}]}}}),
            Kind::Cached | Kind::Asked | Kind::Shaped => {
                json!({"match": place, "require": {"scopes": {"all": ["profile"]}}})
            }
        }
    };
    json!({
        "provider": {
            "cluster": "avnology",
            "authority": "id.example",
            "introspection": {"credentials": {
                "method": "client_secret_post",
                "client_id": "cli_gate",
                "client_secret": "cs_gate_secret_for_trials",
            }},
            "permissions": {"api_key": "key"},
        },
        "routes": (0..routes).map(route).collect::<Vec<_>>(),
    })
}
