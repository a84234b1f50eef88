//! The provider itself: requests in, answers out, no I/O and no clock.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::form;
use crate::rule::{Fault, Rule};
use crate::seed::{self, Check, Seed};

/// Recorded calls are bounded, so that a long load run does not eat the machine: over this, the
/// older half goes.
const MAX_CALLS: usize = 200_000;

/// A request, as the provider sees it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, with the query if there is one.
    pub path: &'a str,
    /// Headers in order, names in lower case, without pseudo-headers.
    pub headers: &'a [(String, String)],
    /// The whole body.
    pub body: &'a [u8],
}

/// What the provider answers, and what happens to the answer on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers, names in lower case. `content-length` is there only where a rule wrote one: the
    /// carrier adds it otherwise.
    pub headers: Vec<(String, String)>,
    /// The whole body, also where `fault` keeps some of it back.
    pub body: Vec<u8>,
    /// How long the answer waits.
    pub delay: Duration,
    /// What goes wrong on the connection, after `delay`.
    pub fault: Option<Fault>,
}

/// Which endpoint a call was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// Token introspection, under either of its paths.
    Introspect,
    /// A permission check.
    Permissions,
    /// The session behind a token.
    Whoami,
    /// An unknown path.
    Other,
}

/// A recorded call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The endpoint, by path alone.
    pub endpoint: Endpoint,
    /// The method.
    pub method: String,
    /// The path, with the query.
    pub path: String,
    /// All headers, in order.
    pub headers: Vec<(String, String)>,
    /// The body; bytes that are not UTF-8 are replaced.
    pub body: String,
    /// The introspected token, or the session token of a whoami call.
    pub token: Option<String>,
    /// The permission that was asked about.
    pub check: Option<Check>,
}

/// By which the gate's own questions are known: they are about nothing that there is.
const PROBE: &str = "avnology-gate-probe-";

impl Call {
    /// Whether the gate only asks if the endpoint is there.
    pub fn is_probe(&self) -> bool {
        let token = self.token.as_deref().map(|token| token.strip_prefix("avnl_ses_").unwrap_or(token));
        let object = self.check.as_ref().map(|check| check.object.as_str());
        token.or(object).is_some_and(|name| name.starts_with(PROBE))
    }
}

/// The stand-in provider.
#[derive(Debug, Clone, Default)]
pub struct Provider {
    seed: Seed,
    rules: Vec<Rule>,
    calls: Vec<Call>,
    probes: usize,
}

/// Who asks for an introspection.
enum Caller {
    Client(String),
    /// A bearer key belongs to no client and sees every token.
    Key,
}

/// An OAuth error answer.
enum OAuthError {
    InvalidRequest(String),
    /// Says whether the client tried the `Authorization` header, whose refusal carries a challenge.
    InvalidClient(bool),
}

impl Provider {
    /// A provider that knows `seed`.
    pub fn new(seed: Seed) -> Provider {
        Provider { seed, ..Provider::default() }
    }

    /// Answers a request at `now_unix_secs`: as the first matching rule says, else as seeded.
    /// Records the call, unless it is a probe: those are only counted.
    pub fn respond(&mut self, request: &Request<'_>, now_unix_secs: u64) -> Answer {
        let call = record(request);
        let mut answer = self.seeded(request, &call, now_unix_secs);
        if let Some(rule) = self.rules.iter_mut().find(|rule| rule.matches(&call)) {
            rule.times = rule.times.map(|times| times.saturating_sub(1));
            rule.apply(&mut answer);
        }
        if call.is_probe() {
            self.probes += 1;
            return answer;
        }
        if self.calls.len() >= MAX_CALLS {
            self.calls.drain(..MAX_CALLS / 2);
        }
        self.calls.push(call);
        answer
    }

    /// Appends rules; the first that matches a call answers it.
    pub fn script(&mut self, rules: Vec<Rule>) {
        self.rules.extend(rules);
    }

    /// Forgets all rules and all recorded calls.
    pub fn clear(&mut self) {
        self.rules.clear();
        self.calls.clear();
        self.probes = 0;
    }

    /// Replaces the seed; rules and recorded calls stay.
    pub fn reseed(&mut self, seed: Seed) {
        self.seed = seed;
    }

    /// The calls since the start or the last [`clear`](Provider::clear), oldest first.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// How many probes there were since the start or the last [`clear`](Provider::clear).
    pub fn probes(&self) -> usize {
        self.probes
    }

    fn seeded(&self, request: &Request<'_>, call: &Call, now: u64) -> Answer {
        let expected = match call.endpoint {
            Endpoint::Introspect | Endpoint::Permissions => "POST",
            Endpoint::Whoami => "GET",
            Endpoint::Other => return json_answer(404, &json!({"error": "not_found"})),
        };
        if request.method != expected {
            return json_answer(405, &json!({"error": "method_not_allowed"})).with("allow", expected);
        }
        match call.endpoint {
            Endpoint::Introspect => self.introspect(request, now),
            Endpoint::Permissions => self.check(request, call, now),
            Endpoint::Whoami | Endpoint::Other => self.whoami(call, now),
        }
    }

    fn introspect(&self, request: &Request<'_>, now: u64) -> Answer {
        match self.introspection(request, now) {
            Ok(answer) => json_answer(200, &answer),
            Err(OAuthError::InvalidRequest(why)) => {
                json_answer(400, &json!({"error": "invalid_request", "error_description": why}))
            }
            Err(OAuthError::InvalidClient(challenge)) => {
                let answer = json_answer(401, &json!({"error": "invalid_client"}));
                if challenge { answer.with("www-authenticate", "Basic realm=\"avnology\"") } else { answer }
            }
        }
        .with("cache-control", "no-store")
    }

    fn introspection(&self, request: &Request<'_>, now: u64) -> Result<Value, OAuthError> {
        let invalid = |why: &str| OAuthError::InvalidRequest(why.to_owned());
        if !has_media_type(request, "application/x-www-form-urlencoded") {
            return Err(invalid("the content type is not application/x-www-form-urlencoded"));
        }
        let form =
            form::decode(request.body).map_err(|error| OAuthError::InvalidRequest(error.to_string()))?;
        let field = |name: &str| {
            let mut values =
                form.iter().filter(|(existing, _)| existing == name).map(|(_, value)| value.as_str());
            let value = values.next();
            if values.next().is_some() { Err(invalid(&format!("{name} stands twice"))) } else { Ok(value) }
        };
        let caller = self.caller(request, field("client_id")?, field("client_secret")?)?;
        field("token_type_hint")?;
        let text =
            field("token")?.filter(|token| !token.is_empty()).ok_or_else(|| invalid("token is missing"))?;
        let token = self.seed.tokens.get(text).filter(|token| match (&token.issued_to, &caller) {
            (Some(owner), Caller::Client(client)) => owner == client,
            _ => true,
        });
        Ok(token.map_or_else(|| json!({"active": false}), |token| token.answer(now)))
    }

    /// Authenticates the caller: secret in the body, Basic, or a bearer key, and only one of them.
    fn caller(
        &self,
        request: &Request<'_>,
        id: Option<&str>,
        secret: Option<&str>,
    ) -> Result<Caller, OAuthError> {
        let invalid = |why: &str| OAuthError::InvalidRequest(why.to_owned());
        let mut headers = values(request, "authorization");
        let header = headers.next();
        if headers.next().is_some() {
            return Err(invalid("authorization stands twice"));
        }
        let Some(header) = header else {
            return match (id, secret) {
                (Some(id), Some(secret)) if self.is_client(id, secret) => Ok(Caller::Client(id.to_owned())),
                _ => Err(OAuthError::InvalidClient(false)),
            };
        };
        if secret.is_some() {
            return Err(invalid("two ways of client authentication"));
        }
        let (scheme, credentials) = header.split_once(' ').unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("bearer") && id.is_none() {
            if self.seed.introspection_bearer_tokens.iter().any(|key| key == credentials) {
                return Ok(Caller::Key);
            }
        } else if scheme.eq_ignore_ascii_case("basic")
            && let Some((name, secret)) = basic(credentials)
        {
            if id.is_some_and(|id| id != name) {
                return Err(invalid("client_id is not the authenticated client"));
            }
            if self.is_client(&name, &secret) {
                return Ok(Caller::Client(name));
            }
        }
        Err(OAuthError::InvalidClient(true))
    }

    fn is_client(&self, id: &str, secret: &str) -> bool {
        self.seed.clients.get(id).is_some_and(|client| client.secret == secret)
    }

    fn check(&self, request: &Request<'_>, call: &Call, now: u64) -> Answer {
        let Some(key) = bearer(request) else {
            return json_answer(401, &json!({"error": "unauthorized", "message": "no API key"}));
        };
        let token =
            || self.seed.tokens.get(key).is_some_and(|token| token.grants("admin:permissions:read", now));
        if !self.seed.api_keys.iter().any(|known| known == key) && !token() {
            return json_answer(
                403,
                &json!({"code": "AVNOLOGY_AUTH_100", "message": "this key may not check permissions"}),
            );
        }
        let malformed = |why: &str| json_answer(400, &json!({"code": "AVNOLOGY_AUTH_902", "message": why}));
        if !has_media_type(request, "application/json") {
            return malformed("the content type is not application/json");
        }
        let Some(check) = &call.check else {
            return malformed("expected exactly namespace, object, relation and subject, all strings");
        };
        match check.problem() {
            Some(problem) => malformed(problem),
            None => json_answer(200, &json!({"allowed": self.seed.permissions.contains(check)})),
        }
    }

    fn whoami(&self, call: &Call, now: u64) -> Answer {
        match call.token.as_ref().and_then(|token| self.seed.sessions.get(token)) {
            Some(session) => json_answer(200, &session.answer(now)),
            None => json_answer(401, &json!({"error": "unauthorized", "message": "no valid session"})),
        }
        .with("cache-control", "no-store")
    }
}

impl Answer {
    fn with(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

fn json_answer(status: u16, body: &Value) -> Answer {
    Answer {
        status,
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: body.to_string().into_bytes(),
        delay: Duration::ZERO,
        fault: None,
    }
}

fn record(request: &Request<'_>) -> Call {
    let path = request.path.split_once('?').map_or(request.path, |(path, _)| path);
    let endpoint = match path {
        "/oauth2/introspect" | "/v1/oauth/introspect" => Endpoint::Introspect,
        "/v1/permissions:check" => Endpoint::Permissions,
        "/v1/sessions/whoami" => Endpoint::Whoami,
        _ => Endpoint::Other,
    };
    let token = match endpoint {
        Endpoint::Introspect => form::decode(request.body)
            .ok()
            .and_then(|form| form.into_iter().find(|(name, _)| name == "token"))
            .map(|(_, token)| token),
        Endpoint::Whoami => bearer(request).map(str::to_owned),
        Endpoint::Permissions | Endpoint::Other => None,
    };
    let check = match endpoint {
        Endpoint::Permissions => seed::object(request.body).ok(),
        _ => None,
    };
    Call {
        endpoint,
        method: request.method.to_owned(),
        path: request.path.to_owned(),
        headers: request.headers.to_vec(),
        body: String::from_utf8_lossy(request.body).into_owned(),
        token,
        check,
    }
}

fn values<'a>(request: &Request<'a>, name: &'static str) -> impl Iterator<Item = &'a str> + use<'a> {
    request.headers.iter().filter(move |(existing, _)| existing == name).map(|(_, value)| value.as_str())
}

/// Whether the only content type is `expected`, parameters aside.
fn has_media_type(request: &Request<'_>, expected: &str) -> bool {
    let mut types = values(request, "content-type");
    let matches = types.next().is_some_and(|value| {
        value.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(expected))
    });
    matches && types.next().is_none()
}

/// The bearer credential, if the only `authorization` header has one.
fn bearer<'a>(request: &Request<'a>) -> Option<&'a str> {
    let mut headers = values(request, "authorization");
    let (scheme, token) = headers.next()?.split_once(' ')?;
    (headers.next().is_none() && scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Client id and secret of a Basic credential: form-encoded, then joined, then base64 (RFC 6749
/// section 2.3.1).
fn basic(credentials: &str) -> Option<(String, String)> {
    let decoded = STANDARD.decode(credentials).ok()?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    let (id, secret) = decoded.split_at(colon);
    Some((form::decode_component(id).ok()?, form::decode_component(&secret[1..]).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
    const CLIENT: &str = "&client_id=cli_gate&client_secret=cs_gate_secret_for_trials";

    fn provider() -> Provider {
        Provider::new(Seed::embedded())
    }

    fn send(
        provider: &mut Provider,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        provider.respond(&Request { method, path, headers: &headers, body: body.as_bytes() }, NOW)
    }

    fn body(answer: &Answer) -> Value {
        serde_json::from_slice(&answer.body).unwrap()
    }

    fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
        answer.headers.iter().find(|(existing, _)| existing == name).map(|(_, value)| value.as_str())
    }

    fn introspect(token: &str) -> Value {
        let form = format!("token={token}&token_type_hint=access_token{CLIENT}");
        let answer = send(&mut provider(), "POST", "/oauth2/introspect", &[FORM], &form);
        assert_eq!(answer.status, 200);
        body(&answer)
    }

    /// The status and the error of an introspection with these headers and this form.
    fn refused(headers: &[(&str, &str)], form: &str) -> (u16, String) {
        let answer = send(&mut provider(), "POST", "/oauth2/introspect", headers, form);
        (answer.status, body(&answer)["error"].as_str().unwrap_or_default().to_owned())
    }

    fn invalid(status: u16) -> (u16, String) {
        (status, if status == 401 { "invalid_client" } else { "invalid_request" }.to_owned())
    }

    #[test]
    fn introspects_the_seeded_tokens() {
        let alice = introspect("tok_alice");
        assert_eq!(
            alice,
            json!({
                "active": true, "sub": "usr_alice", "client_id": "cli_web", "scope": "profile projects",
                "token_type": "Bearer", "iss": "https://api-id.avnology.net", "aud": ["https://api.example.com"],
                "org_id": "org_acme", "org_name": "Acme", "iat": NOW, "exp": NOW + 900
            })
        );
        let bob = introspect("tok_bob");
        assert_eq!(
            (&bob["sub"], &bob["scope"], &bob["org_id"]),
            (&json!("usr_bob"), &json!("profile"), &json!("org_other"))
        );
        assert_eq!(introspect("tok_noscope").get("scope"), None);
        let expired = introspect("tok_expired");
        assert_eq!((&expired["active"], &expired["exp"]), (&json!(true), &json!(NOW - 3600)));
        assert_eq!(introspect("tok_future")["nbf"], json!(NOW + 3600));
        assert!(introspect("tok_bound")["cnf"]["jkt"].is_string());
        assert_eq!(introspect("tok_refresh_use")["token_use"], "refresh");
        assert_eq!(introspect("tok_mac")["token_type"], "mac");
        assert_eq!(introspect("tok_array_scope")["scope"], json!(["profile", "projects"]));
        assert_eq!(introspect("tok_string_aud")["aud"], "https://api.example.com");
        assert_eq!(introspect("tok_other_aud")["aud"], json!(["https://other.example.com"]));
        assert_eq!(introspect("tok_other_iss")["iss"], "https://id.example.org");
        assert_eq!(alice.get("expires_in"), None);
    }

    #[test]
    fn unknown_revoked_and_foreign_tokens_are_inactive() {
        for token in ["tok_nobody", "tok_revoked", "tok_other_client", "avnl_ses_alice"] {
            assert_eq!(introspect(token), json!({"active": false}), "{token}");
        }
        let owner = "token=tok_other_client&client_id=cli_other&client_secret=cs_other_secret_for_trials";
        let answer = send(&mut provider(), "POST", "/oauth2/introspect", &[FORM], owner);
        assert_eq!((&body(&answer)["active"], body(&answer).get("issued_to")), (&json!(true), None));
    }

    #[test]
    fn both_paths_introspect_and_only_by_post() {
        let form = format!("token=tok_alice{CLIENT}");
        for path in ["/oauth2/introspect", "/v1/oauth/introspect", "/oauth2/introspect?x=1"] {
            assert_eq!(body(&send(&mut provider(), "POST", path, &[FORM], &form))["active"], true);
            let answer = send(&mut provider(), "GET", path, &[FORM], &form);
            assert_eq!((answer.status, header(&answer, "allow")), (405, Some("POST")));
        }
        assert_eq!(send(&mut provider(), "POST", "/oauth2/introspect/", &[FORM], &form).status, 404);
    }

    #[test]
    fn client_secret_post() {
        let odd = "token=tok_alice&client_id=cli+odd%3Agate&client_secret=cs+odd%2Bsecret%25%26%3D%C3%BC";
        assert_eq!(refused(&[FORM], odd), (200, String::new()));
        for form in [
            "token=tok_alice",
            "token=tok_alice&client_id=cli_gate",
            "token=tok_alice&client_secret=cs_gate_secret_for_trials",
            "token=tok_alice&client_id=cli_gate&client_secret=wrong",
            "token=tok_alice&client_id=cli_wrong&client_secret=cs_gate_secret_for_trials",
            // Not form-encoded: the plus is read as a space.
            "token=tok_alice&client_id=cli+odd%3Agate&client_secret=cs+odd+secret%25%26%3D%C3%BC",
        ] {
            assert_eq!(refused(&[FORM], form), invalid(401), "{form}");
        }
    }

    #[test]
    fn client_secret_basic() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        let with = |header: &str, form: &str| refused(&[FORM, ("authorization", header)], form);
        let gate = basic("cli_gate:cs_gate_secret_for_trials");
        assert_eq!(with(&gate, "token=tok_alice"), (200, String::new()));
        assert_eq!(with(&gate.replace("Basic", "bAsIc"), "token=tok_alice"), (200, String::new()));
        assert_eq!(with(&gate, "token=tok_alice&client_id=cli_gate"), (200, String::new()));
        let odd = basic("cli+odd%3Agate:cs+odd%2Bsecret%25%26%3D%C3%BC");
        assert_eq!(with(&odd, "token=tok_alice"), (200, String::new()));
        for header in [
            &basic("cli_gate:wrong"),
            &basic("cli_gate"),
            &basic("cli odd:gate:cs odd+secret%&=ü"),
            "Basic",
            "Basic !!!",
            "Digest abc",
        ] {
            assert_eq!(with(header, "token=tok_alice"), invalid(401), "{header}");
        }
        assert_eq!(with(&gate, &format!("token=tok_alice{CLIENT}")), invalid(400));
        assert_eq!(with(&gate, "token=tok_alice&client_id=cli_other"), invalid(400));
        assert_eq!(
            refused(&[FORM, ("authorization", &gate), ("authorization", &gate)], "token=tok_alice"),
            invalid(400)
        );
        let answer = send(
            &mut provider(),
            "POST",
            "/oauth2/introspect",
            &[FORM, ("authorization", "Basic x")],
            "token=t",
        );
        assert!(header(&answer, "www-authenticate").is_some());
    }

    #[test]
    fn bearer_key() {
        let with = |header: &str, token: &str| {
            let headers = [FORM, ("authorization", header)];
            let answer =
                send(&mut provider(), "POST", "/oauth2/introspect", &headers, &format!("token={token}"));
            (answer.status, body(&answer)["active"].as_bool())
        };
        assert_eq!(with("Bearer ib_gate_bearer_for_trials", "tok_alice"), (200, Some(true)));
        assert_eq!(with("Bearer ib_gate_bearer_for_trials", "tok_other_client"), (200, Some(true)));
        assert_eq!(with("Bearer wrong", "tok_alice"), (401, None));
        assert_eq!(with("Bearer", "tok_alice"), (401, None));
    }

    #[test]
    fn malformed_introspections() {
        let form = format!("token=tok_alice{CLIENT}");
        assert_eq!(refused(&[], &form), invalid(400));
        assert_eq!(refused(&[("content-type", "application/json")], &form), invalid(400));
        assert_eq!(refused(&[FORM, FORM], &form), invalid(400));
        let charset = ("content-type", "Application/X-WWW-Form-Urlencoded; charset=utf-8");
        assert_eq!(refused(&[charset], &form), (200, String::new()));
        assert_eq!(refused(&[FORM], &CLIENT[1..]), invalid(400));
        assert_eq!(refused(&[FORM], &format!("token={CLIENT}")), invalid(400));
        assert_eq!(refused(&[FORM], &format!("token=a&token=b{CLIENT}")), invalid(400));
        assert_eq!(refused(&[FORM], &format!("token=%{CLIENT}")), invalid(400));
        assert_eq!(refused(&[FORM], &format!("token=tok alice{CLIENT}")), invalid(400));
    }

    const KEY: (&str, &str) = ("authorization", "Bearer ak_test_gate_key_for_trials");
    const JSON: (&str, &str) = ("content-type", "application/json");

    fn question(namespace: &str, object: &str, relation: &str, subject: &str) -> String {
        json!({"namespace": namespace, "object": object, "relation": relation, "subject": subject})
            .to_string()
    }

    fn check(headers: &[(&str, &str)], question: &str) -> (u16, Value) {
        let answer = send(&mut provider(), "POST", "/v1/permissions:check", headers, question);
        (answer.status, body(&answer))
    }

    #[test]
    fn checks_the_seeded_permissions() {
        for (namespace, object, relation, subject, allowed) in [
            ("projects", "proj_1", "editor", "identities:usr_alice", true),
            ("organizations", "org_acme", "admin", "identities:usr_alice", true),
            ("projects", "proj_1", "viewer", "identities:usr_bob", true),
            ("projects", "proj_1", "viewer", "groups:grp_staff#member", true),
            ("projects", "proj_1", "editor", "identities:usr_bob", false),
            ("projects", "proj_2", "editor", "identities:usr_alice", false),
            ("projects", "proj_1", "viewer", "groups:grp_staff", false),
        ] {
            let answer = check(&[KEY, JSON], &question(namespace, object, relation, subject));
            assert_eq!(answer, (200, json!({"allowed": allowed})), "{object} {relation} {subject}");
        }
    }

    #[test]
    fn permission_checks_need_a_key() {
        let good = question("projects", "proj_1", "editor", "identities:usr_alice");
        let with = |headers: &[(&str, &str)]| {
            let (status, body) = check(headers, &good);
            (status, body["code"].as_str().map(str::to_owned))
        };
        assert_eq!(with(&[JSON]), (401, None));
        assert_eq!(with(&[JSON, ("authorization", "Basic YTpi")]), (401, None));
        assert_eq!(with(&[JSON, KEY, KEY]), (401, None));
        let forbidden = (403, Some("AVNOLOGY_AUTH_100".to_owned()));
        assert_eq!(with(&[JSON, ("authorization", "Bearer ak_unknown")]), forbidden);
        assert_eq!(with(&[JSON, ("authorization", "Bearer tok_alice")]), forbidden);
        assert_eq!(with(&[JSON, ("authorization", "Bearer tok_service")]), (200, None));
    }

    #[test]
    fn malformed_permission_checks() {
        let cases = [
            question("projects", "proj_1", "editor", "usr_alice"),
            question("Projects", "proj_1", "editor", "identities:usr_alice"),
            question("projects", "proj_1", "", "identities:usr_alice"),
            question("projects", "", "editor", "identities:usr_alice"),
            "{}".to_owned(),
            "not json".to_owned(),
            r#"["projects","proj_1","editor","identities:usr_alice"]"#.to_owned(),
            r#"{"namespace":"projects","object":1,"relation":"editor","subject":"identities:a"}"#.to_owned(),
            r#"{"namespace":"projects","object":"a","relation":"editor","subject":"identities:a","x":1}"#
                .to_owned(),
        ];
        for case in cases {
            let (status, body) = check(&[KEY, JSON], &case);
            assert_eq!((status, &body["code"]), (400, &json!("AVNOLOGY_AUTH_902")), "{case}");
        }
        let good = question("projects", "proj_1", "editor", "identities:usr_alice");
        assert_eq!(check(&[KEY], &good).0, 400);
    }

    #[test]
    fn whoami() {
        let with =
            |headers: &[(&str, &str)]| send(&mut provider(), "GET", "/v1/sessions/whoami", headers, "");
        let answer = with(&[("authorization", "Bearer avnl_ses_alice")]);
        let session = body(&answer);
        assert_eq!((answer.status, &session["identity_id"]), (200, &json!("usr_alice")));
        assert_eq!(
            (&session["expires_at"], session.get("expires_in")),
            (&json!("2027-01-15T09:00:00Z"), None)
        );
        assert_eq!(with(&[("authorization", "Bearer avnl_ses_nobody")]).status, 401);
        assert_eq!(with(&[("authorization", "Bearer tok_alice")]).status, 401);
        assert_eq!(with(&[]).status, 401);
        assert_eq!(send(&mut provider(), "POST", "/v1/sessions/whoami", &[], "").status, 405);
    }

    fn script(provider: &mut Provider, rules: Value) {
        provider.script(serde_json::from_value(rules).unwrap());
    }

    fn ask(provider: &mut Provider, token: &str) -> Answer {
        send(provider, "POST", "/oauth2/introspect", &[FORM], &format!("token={token}{CLIENT}"))
    }

    #[test]
    fn the_first_matching_rule_answers_and_counts() {
        let mut provider = provider();
        script(
            &mut provider,
            json!([
                {"on": "permissions", "status": 500},
                {"on": "introspect", "token": "tok_bob", "times": 1, "status": 429, "headers": {"Retry-After": "7"}},
                {"on": "introspect", "times": 2, "status": 503, "body": "busy", "headers": {"content-type": "text/plain"}},
                {"on": "introspect", "body": {"active": false}}
            ]),
        );
        let answer = ask(&mut provider, "tok_alice");
        assert_eq!(
            (answer.status, &answer.body[..], header(&answer, "content-type")),
            (503, &b"busy"[..], Some("text/plain"))
        );
        let answer = ask(&mut provider, "tok_bob");
        assert_eq!((answer.status, answer.body.len(), header(&answer, "retry-after")), (429, 0, Some("7")));
        assert_eq!(header(&answer, "content-type"), None);
        assert_eq!(ask(&mut provider, "tok_bob").status, 503);
        let answer = ask(&mut provider, "tok_alice");
        assert_eq!((answer.status, &answer.body[..]), (200, &br#"{"active":false}"#[..]));
        assert_eq!(send(&mut provider, "POST", "/v1/permissions:check", &[KEY, JSON], "{}").status, 500);
        provider.clear();
        assert_eq!(body(&ask(&mut provider, "tok_alice"))["active"], true);
        assert_eq!(provider.calls().len(), 1);
    }

    #[test]
    fn rules_by_object_and_by_session() {
        let mut provider = provider();
        script(
            &mut provider,
            json!([{"object": "proj_1", "status": 500}, {"on": "whoami", "token": "avnl_ses_alice", "status": 502}]),
        );
        let mut ask = |object: &str| {
            let question = question("projects", object, "viewer", "identities:usr_bob");
            send(&mut provider, "POST", "/v1/permissions:check", &[KEY, JSON], &question).status
        };
        assert_eq!((ask("proj_1"), ask("proj_2")), (500, 200));
        let mut whoami = |header: &str| {
            send(&mut provider, "GET", "/v1/sessions/whoami", &[("authorization", header)], "").status
        };
        assert_eq!((whoami("Bearer avnl_ses_alice"), whoami("Bearer x")), (502, 401));
    }

    #[test]
    fn a_rule_without_an_answer_changes_the_seeded_one() {
        let mut provider = provider();
        script(
            &mut provider,
            json!([
                {"times": 1, "delay": "250ms", "headers": {"x-a": ["1", "2"]}},
                {"times": 1, "fault": "truncate"},
                {"times": 0, "fault": "hang"},
                {"times": 1, "body_bytes": {"repeat": "ab", "count": 3}},
                {"times": 1, "body": null}
            ]),
        );
        let seeded = ask(&mut Provider::new(Seed::embedded()), "tok_alice");
        let answer = ask(&mut provider, "tok_alice");
        assert_eq!((answer.delay, &answer.body), (Duration::from_millis(250), &seeded.body));
        assert_eq!(answer.headers.iter().filter(|(name, _)| name == "x-a").count(), 2);
        let answer = ask(&mut provider, "tok_alice");
        assert_eq!(
            (answer.fault, &answer.body, answer.delay),
            (Some(Fault::Truncate), &seeded.body, Duration::ZERO)
        );
        assert_eq!(ask(&mut provider, "tok_alice").body, b"ababab");
        assert_eq!(ask(&mut provider, "tok_alice").body, b"null");
        assert_eq!(ask(&mut provider, "tok_alice"), seeded);
    }

    #[test]
    fn records_calls() {
        let mut provider = provider();
        ask(&mut provider, "tok%5Falice");
        let asked = question("projects", "proj_1", "editor", "identities:usr_alice");
        send(&mut provider, "POST", "/v1/permissions:check", &[KEY, JSON], &asked);
        send(&mut provider, "GET", "/v1/sessions/whoami?a=b", &[("authorization", "Bearer avnl_ses_x")], "");
        send(&mut provider, "GET", "/elsewhere", &[], "");
        let calls = provider.calls();
        assert_eq!(
            calls.iter().map(|call| call.endpoint).collect::<Vec<_>>(),
            [Endpoint::Introspect, Endpoint::Permissions, Endpoint::Whoami, Endpoint::Other]
        );
        assert_eq!(calls[0].token.as_deref(), Some("tok_alice"));
        assert_eq!(calls[1].check.as_ref().map(|check| check.object.as_str()), Some("proj_1"));
        assert_eq!(
            (calls[2].token.as_deref(), calls[2].path.as_str()),
            (Some("avnl_ses_x"), "/v1/sessions/whoami?a=b")
        );
        let text = serde_json::to_string(calls).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Call>>(&text).unwrap(), calls);
        assert!(text.starts_with(r#"[{"endpoint":"introspect","method":"POST","#));
    }

    #[test]
    fn a_new_seed_keeps_rules_and_calls() {
        let mut provider = provider();
        script(&mut provider, json!([{"token": "tok_bob", "status": 500}]));
        ask(&mut provider, "tok_alice");
        provider.reseed(Seed::default());
        assert_eq!(ask(&mut provider, "tok_alice").status, 401);
        assert_eq!(ask(&mut provider, "tok_bob").status, 500);
        assert_eq!(provider.calls().len(), 3);
    }
}
