//! The seed: what the stand-in knows.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Everything the stand-in knows at start: clients, tokens, keys, permissions, sessions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Seed {
    /// OAuth clients by id; they may introspect.
    pub clients: BTreeMap<String, Client>,
    /// Bearer keys that may introspect without being a client.
    pub introspection_bearer_tokens: Vec<String>,
    /// Access tokens by their text.
    pub tokens: BTreeMap<String, Token>,
    /// Keys that may check permissions.
    pub api_keys: Vec<String>,
    /// The permissions that hold; every other check is answered `false`.
    pub permissions: Vec<Check>,
    /// Sessions by their token.
    pub sessions: BTreeMap<String, Session>,
}

impl Seed {
    /// Parses a seed file; unknown members are refused.
    pub fn from_json(text: &str) -> Result<Seed, serde_json::Error> {
        object(text.as_bytes())
    }

    /// The seed that ships with the program, `seed.json`.
    ///
    /// # Panics
    /// Never: a test parses the embedded file.
    pub fn embedded() -> Seed {
        Seed::from_json(include_str!("../seed.json")).expect("the embedded seed parses")
    }
}

/// Parses a JSON object into a struct. Serde alone would take an array for one too, member by
/// member.
pub(crate) fn object<T: DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    if json.trim_ascii_start().first() == Some(&b'[') {
        return Err(serde::de::Error::custom("expected an object, found an array"));
    }
    serde_json::from_slice(json)
}

/// An OAuth client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// The client's secret.
    pub secret: String,
}

/// An access token: its claims, and the times that are counted from the moment of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// What `active` says; `true` unless written.
    #[serde(default = "yes")]
    pub active: bool,
    /// `exp` in seconds from now; may be negative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<i64>,
    /// `nbf` in seconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before_in: Option<i64>,
    /// `iat` in seconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_in: Option<i64>,
    /// The only client that may see this token; every other client is told that it is inactive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_to: Option<String>,
    /// All other members: they are answered as they stand.
    #[serde(flatten)]
    pub claims: Map<String, Value>,
}

fn yes() -> bool {
    true
}

impl Token {
    /// The introspection answer at `now`.
    pub(crate) fn answer(&self, now: u64) -> Value {
        let mut answer = self.claims.clone();
        answer.insert("active".to_owned(), self.active.into());
        for (claim, offset) in
            [("exp", self.expires_in), ("nbf", self.not_before_in), ("iat", self.issued_in)]
        {
            if let Some(offset) = offset {
                answer.insert(claim.to_owned(), now.saturating_add_signed(offset).into());
            }
        }
        Value::Object(answer)
    }

    /// Whether the token works as a credential at `now` and has `scope`.
    pub(crate) fn grants(&self, scope: &str, now: u64) -> bool {
        let answer = self.answer(now);
        let time = |claim: &str| answer.get(claim).and_then(Value::as_u64);
        self.active
            && time("exp").is_none_or(|exp| exp > now)
            && time("nbf").is_none_or(|nbf| nbf <= now)
            && answer
                .get("scope")
                .and_then(Value::as_str)
                .is_some_and(|scopes| scopes.split(' ').any(|one| one == scope))
    }
}

/// A permission, and the question whether it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// For example `projects`.
    pub namespace: String,
    /// The bare id of the object.
    pub object: String,
    /// For example `editor`.
    pub relation: String,
    /// `identities:usr_…` or `groups:grp_…#member`.
    pub subject: String,
}

impl Check {
    /// What makes the question malformed, if anything does.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let word = |text: &str, extra: u8| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-' || byte == extra)
        };
        let id = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b":#/".contains(&byte))
        };
        let subject = self.subject.split_once(':').is_some_and(|(namespace, rest)| {
            let (member, relation) = match rest.split_once('#') {
                Some((member, relation)) => (member, Some(relation)),
                None => (rest, None),
            };
            word(namespace, b'-') && id(member) && relation.is_none_or(|relation| word(relation, b'_'))
        });
        if !word(&self.namespace, b'-') {
            Some("malformed namespace")
        } else if !word(&self.relation, b'_') {
            Some("malformed relation")
        } else if !subject {
            Some("malformed subject")
        } else if self.object.is_empty() {
            Some("empty object")
        } else {
            None
        }
    }
}

/// A session: the whoami answer, and its end counted from the moment of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// `expires_at` in seconds from now, answered as an RFC 3339 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<i64>,
    /// All other members: they are answered as they stand.
    #[serde(flatten)]
    pub members: Map<String, Value>,
}

impl Session {
    /// The whoami answer at `now`.
    pub(crate) fn answer(&self, now: u64) -> Value {
        let mut answer = self.members.clone();
        if let Some(offset) = self.expires_in {
            answer.insert("expires_at".to_owned(), rfc3339(now.saturating_add_signed(offset)).into());
        }
        Value::Object(answer)
    }
}

/// Unix seconds as `2026-01-02T03:04:05Z`.
fn rfc3339(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    // Years that begin in March put the leap day last, so that months have fixed offsets.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_seed_parses_and_round_trips() {
        let seed = Seed::embedded();
        let text = serde_json::to_string(&seed).unwrap();
        assert_eq!(Seed::from_json(&text).unwrap(), seed);
    }

    #[test]
    fn refuses_unknown_members_and_wrong_types() {
        assert!(Seed::from_json(r#"{"token": {}}"#).is_err());
        assert!(Seed::from_json(r#"{"clients": {"a": {"secret": "b", "c": 1}}}"#).is_err());
        assert!(Seed::from_json(r#"{"tokens": {"a": {"expires_in": "900"}}}"#).is_err());
        assert!(Seed::from_json(r#"{"permissions": [{"namespace": "projects"}]}"#).is_err());
        assert!(Seed::from_json("[]").is_err());
        assert!(Seed::from_json("{}").is_ok());
    }

    #[test]
    fn writes_times() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(rfc3339(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn knows_malformed_checks() {
        let problem = |namespace: &str, object: &str, relation: &str, subject: &str| {
            let [namespace, object, relation, subject] =
                [namespace, object, relation, subject].map(str::to_owned);
            Check { namespace, object, relation, subject }.problem()
        };
        assert_eq!(problem("oauth-clients", "a:b/c", "can_read", "identities:usr_a"), None);
        assert_eq!(problem("projects", "proj_1", "viewer", "groups:grp_a#member"), None);
        for namespace in ["", "Projects", "projects/x", "project_s", "projects1"] {
            assert_eq!(problem(namespace, "a", "viewer", "identities:a"), Some("malformed namespace"));
        }
        for relation in ["", "Viewer", "view er"] {
            assert_eq!(problem("projects", "a", relation, "identities:a"), Some("malformed relation"));
        }
        for subject in
            ["", "usr_a", ":usr_a", "identities:", "identities:a:b", "identities:a#", "identities:a b"]
        {
            assert_eq!(problem("projects", "a", "viewer", subject), Some("malformed subject"), "{subject}");
        }
        assert_eq!(problem("projects", "", "viewer", "identities:a"), Some("empty object"));
    }
}
