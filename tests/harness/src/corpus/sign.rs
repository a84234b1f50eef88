//! Signs a step's body as a sender would. Nothing of the gate is used: a mistake that signer and
//! verifier shared would be no mistake.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use super::{Text, WEBHOOK_SECRET, unescape};

/// How to sign a webhook's body.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sign {
    /// The sender's format; Avnology's unless set.
    pub format: Option<String>,
    /// The secret; [`WEBHOOK_SECRET`] unless set.
    pub secret: Option<String>,
    /// Further secrets, each of which signs too, where the header takes several signatures.
    pub also: Vec<String>,
    /// When it was sent; now unless set.
    pub timestamp: When,
    /// The delivery's id.
    pub id: Option<String>,
    /// Over the body alone.
    pub body_only: bool,
    /// Over this instead of the body.
    pub over: Option<Text>,
    /// What is signed, with `{timestamp}`, `{id}` and `{body}`; the format's unless set.
    pub content: Option<String>,
    /// The digest: `sha256`, `sha512` or `sha1`.
    pub algorithm: Option<String>,
    /// What a secret is: `utf8`, `hex`, `base64` or `whsec`; the format's unless set.
    pub key: Option<String>,
    /// The headers to add; the format's unless set.
    pub headers: Option<Vec<(String, String)>>,
}

/// A webhook's timestamp.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum When {
    /// Seconds from now.
    Relative(i64),
    /// Unix seconds.
    Absolute(Absolute),
    /// Seconds from when the case began.
    SinceBegin(SinceBegin),
    /// Any text, with `{now}` for the Unix seconds; it is what is signed.
    Written(WrittenTime),
}

/// Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Absolute {
    /// Unix seconds.
    pub absolute: u64,
}

/// Seconds from when the case began: the same time in each of its steps.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinceBegin {
    /// Seconds, before it if negative.
    pub since_begin: i64,
}

/// Any text as a timestamp.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenTime {
    /// The text, with `{now}` for the Unix seconds.
    pub text: String,
}

impl Default for When {
    fn default() -> Self {
        Self::Relative(0)
    }
}

/// A sender: its name, what its secrets are, what it signs, and its headers.
type Sender = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Written down from the senders' own pages, and not from the gate's table.
const SENDERS: [Sender; 7] = [
    (
        "avnology",
        "utf8",
        "{timestamp}.{body}",
        &[("x-avnology-timestamp", "{timestamp}"), ("x-avnology-signature", "{hex}")],
    ),
    (
        "standard-webhooks",
        "whsec",
        "{id}.{timestamp}.{body}",
        &[("webhook-id", "{id}"), ("webhook-timestamp", "{timestamp}"), ("webhook-signature", "{v1,base64}")],
    ),
    (
        "svix",
        "whsec",
        "{id}.{timestamp}.{body}",
        &[("svix-id", "{id}"), ("svix-timestamp", "{timestamp}"), ("svix-signature", "{v1,base64}")],
    ),
    ("stripe", "utf8", "{timestamp}.{body}", &[("stripe-signature", "t={timestamp},{v1=hex}")]),
    ("github", "utf8", "{body}", &[("x-hub-signature-256", "sha256={hex}")]),
    (
        "slack",
        "utf8",
        "v0:{timestamp}:{body}",
        &[("x-slack-request-timestamp", "{timestamp}"), ("x-slack-signature", "v0={hex}")],
    ),
    ("shopify", "utf8", "{body}", &[("x-shopify-hmac-sha256", "{base64}")]),
];

impl Sign {
    /// What makes no sense.
    pub(super) fn sense(&self) -> Result<(), String> {
        let (_, key, ..) = self.sender()?;
        for secret in self.secrets() {
            decode(self.key.as_deref().unwrap_or(key), secret)?;
        }
        tag(self.algorithm(), b"", b"").map(drop)?;
        if self.format.as_deref() == Some("custom") && self.headers.is_none() {
            return Err("`sign.format: custom` has no headers of its own".to_owned());
        }
        if self.body_only && (self.format.is_some() || self.content.is_some()) {
            return Err("`sign.body_only` is a mode of `avnology`; others have `content`".to_owned());
        }
        Ok(())
    }

    /// The headers that a delivery of this body has at `now`, in a case that began at `begin`.
    pub(super) fn headers(&self, body: &[u8], now: u64, begin: u64) -> Vec<(String, Vec<u8>)> {
        let (_, key, content, own) = self.sender().unwrap_or_else(|problem| panic!("{problem}"));
        let key = self.key.as_deref().unwrap_or(key);
        let timestamp = unescape(&match &self.timestamp {
            When::Relative(offset) => now.saturating_add_signed(*offset).to_string(),
            When::Absolute(Absolute { absolute }) => absolute.to_string(),
            When::SinceBegin(SinceBegin { since_begin }) => {
                begin.saturating_add_signed(*since_begin).to_string()
            }
            When::Written(WrittenTime { text }) => text.replace("{now}", &now.to_string()),
        });
        let id = unescape(self.id.as_deref().unwrap_or("msg_1"));
        let over = self.over.as_ref().map_or_else(|| body.to_vec(), Text::bytes);
        let content = if self.body_only { "{body}" } else { self.content.as_deref().unwrap_or(content) };
        let signed = fill(content, &[("{timestamp}", &timestamp), ("{id}", &id), ("{body}", &over)]);
        let tags: Vec<Vec<u8>> = self
            .secrets()
            .map(|secret| {
                let key = decode(key, secret).unwrap_or_else(|problem| panic!("{problem}"));
                tag(self.algorithm(), &key, &signed).unwrap_or_else(|problem| panic!("{problem}"))
            })
            .collect();
        let hex: Vec<String> = tags.iter().map(|tag| hex(tag)).collect();
        let base64: Vec<String> = tags.iter().map(|tag| STANDARD.encode(tag)).collect();
        let listed = |prefix: &str, texts: &[String], between: &str| {
            texts.iter().map(|text| format!("{prefix}{text}")).collect::<Vec<_>>().join(between)
        };
        let (pairs, versioned) = (listed("v1=", &hex, ","), listed("v1,", &base64, " "));
        let values: [(&str, &[u8]); 7] = [
            ("{timestamp}", &timestamp),
            ("{id}", &id),
            ("{hex}", hex[0].as_bytes()),
            ("{HEX}", &hex[0].to_uppercase().into_bytes()),
            ("{base64}", base64[0].as_bytes()),
            ("{v1=hex}", pairs.as_bytes()),
            ("{v1,base64}", versioned.as_bytes()),
        ];
        let own = own.iter().filter(|(name, _)| !self.body_only || *name != "x-avnology-timestamp");
        let own = || own.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let headers: Vec<(String, String)> = self.headers.clone().unwrap_or_else(own);
        headers.into_iter().map(|(name, template)| (name, fill(&template, &values))).collect()
    }

    fn sender(&self) -> Result<Sender, String> {
        match self.format.as_deref().unwrap_or("avnology") {
            "custom" => Ok(("custom", "utf8", "{body}", &[])),
            name => {
                SENDERS.into_iter().find(|(known, ..)| *known == name).ok_or(format!("`sign.format`: {name}"))
            }
        }
    }

    fn secrets(&self) -> impl Iterator<Item = &str> {
        [self.secret.as_deref().unwrap_or(WEBHOOK_SECRET)]
            .into_iter()
            .chain(self.also.iter().map(String::as_str))
    }

    fn algorithm(&self) -> &str {
        self.algorithm.as_deref().unwrap_or("sha256")
    }
}

/// A template's bytes. What is put in is not looked at again.
fn fill(template: &str, values: &[(&str, &[u8])]) -> Vec<u8> {
    let template = unescape(template);
    let mut out = Vec::new();
    let mut rest = template.as_slice();
    while let Some((first, after)) = rest.split_first() {
        match values.iter().find(|(name, _)| rest.starts_with(name.as_bytes())) {
            Some((name, value)) => {
                out.extend_from_slice(value);
                rest = &rest[name.len()..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

fn decode(key: &str, secret: &str) -> Result<Vec<u8>, String> {
    let base64 = |text: &str| STANDARD.decode(text).map_err(|error| format!("`{secret}`: {error}"));
    match key {
        "utf8" => Ok(secret.as_bytes().to_vec()),
        "hex" => (0..secret.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(secret.get(at..at + 2).unwrap_or("?"), 16))
            .collect::<Result<_, _>>()
            .map_err(|error| format!("`{secret}`: {error}")),
        "base64" => base64(secret),
        "whsec" => {
            let text = secret.strip_prefix("whsec_").unwrap_or(secret).trim_end_matches('=');
            base64(&format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4)))
        }
        _ => Err(format!("`sign.key`: {key}")),
    }
}

fn tag(algorithm: &str, key: &[u8], bytes: &[u8]) -> Result<Vec<u8>, String> {
    macro_rules! tag {
        ($digest:ty) => {{
            let mut mac = Hmac::<$digest>::new_from_slice(key).map_err(|error| error.to_string())?;
            mac.update(bytes);
            Ok(mac.finalize().into_bytes().to_vec())
        }};
    }
    match algorithm {
        "sha1" => tag!(Sha1),
        "sha256" => tag!(Sha256),
        "sha512" => tag!(Sha512),
        _ => Err(format!("`sign.algorithm`: {algorithm}")),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(headers: &[(String, Vec<u8>)]) -> Vec<String> {
        headers.iter().map(|(name, value)| format!("{name}: {}", value.escape_ascii())).collect()
    }

    #[test]
    fn a_body_is_signed_as_avnology_signs() {
        let sign = Sign { timestamp: When::Relative(-10), ..Sign::default() };
        let headers = sign.headers(b"{}", 1_000, 900);
        assert_eq!(headers[0], ("x-avnology-timestamp".to_owned(), b"990".to_vec()));
        assert_eq!(headers[1].1, standin::sign(WEBHOOK_SECRET, 990, b"{}").into_bytes());
        let sign = Sign { body_only: true, ..Sign::default() };
        let signature = standin::sign_body_only(WEBHOOK_SECRET, b"{}").into_bytes();
        assert_eq!(sign.headers(b"{}", 1_000, 900), [("x-avnology-signature".to_owned(), signature)]);
    }

    /// The examples of the senders' own pages and libraries.
    #[test]
    fn the_senders_examples() {
        let sign = |format: &str, secret: &str, at: u64, id: &str, body: &str| {
            let sign = Sign {
                format: Some(format.to_owned()),
                secret: Some(secret.to_owned()),
                timestamp: When::Absolute(Absolute { absolute: at }),
                id: Some(id.to_owned()),
                ..Sign::default()
            };
            sign.sense().unwrap();
            text(&sign.headers(body.as_bytes(), 0, 0)).pop().unwrap()
        };
        // https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
        assert_eq!(
            sign("github", "It's a Secret to Everybody", 0, "", "Hello, World!"),
            "x-hub-signature-256: sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
        // https://docs.slack.dev/authentication/verifying-requests-from-slack
        assert_eq!(
            sign(
                "slack",
                "8f742231b10e8888abcd99yyyzzz85a5",
                1_531_420_618,
                "",
                "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
            ),
            "x-slack-signature: v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
        );
        // https://docs.svix.com/receiving/verifying-payloads/how-manual
        assert_eq!(
            sign(
                "svix",
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                1_614_265_330,
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                "{\"test\": 2432232314}"
            ),
            "svix-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn what_a_case_writes_replaces_what_the_format_has() {
        let sign = Sign {
            format: Some("custom".to_owned()),
            secret: Some("4a656665".to_owned()),
            also: vec!["00".to_owned()],
            key: Some("hex".to_owned()),
            algorithm: Some("sha1".to_owned()),
            content: Some("what do ya want {body}".to_owned()),
            headers: Some(vec![("a".to_owned(), r"\xff{HEX} {base64} {id} {v1=hex}".to_owned())]),
            ..Sign::default()
        };
        sign.sense().unwrap();
        // RFC 2202 section 3, test case 2.
        let tag = "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79";
        let value = text(&sign.headers(b"for nothing?", 0, 0)).remove(0);
        let (first, second) = value.rsplit_once(",v1=").unwrap();
        let upper = tag.to_uppercase();
        assert_eq!(first, format!(r"a: \xff{upper} 7/zfauXrL6LSdBbV8YTfnCWafHk= msg_1 v1={tag}"));
        assert!(second.len() == 40 && second != tag);
        for wrong in [
            Sign { headers: None, ..sign.clone() },
            Sign { key: Some("hexadecimal".to_owned()), ..sign.clone() },
            Sign { secret: Some("xx".to_owned()), ..sign.clone() },
            Sign { algorithm: Some("md5".to_owned()), ..sign.clone() },
            Sign { format: Some("gitlab".to_owned()), ..sign.clone() },
            Sign { body_only: true, ..sign },
        ] {
            assert!(wrong.sense().is_err(), "{wrong:?}");
        }
    }
}
