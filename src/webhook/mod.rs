//! Webhook signatures: the head is checked first, the body is hashed as it arrives.

pub(crate) mod scheme;

pub(crate) use scheme::Scheme;

use crate::http::head::{Reading, RequestHead};
use crate::refusal::Denial;
use crate::secret::Secret;
use crate::time::Timestamp;
use hmac::{Hmac, Mac};
use scheme::Signed;
use sha2::Sha256;
use std::time::Duration;

/// One configured webhook.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    /// Its name in the configuration.
    pub name: String,
    /// Its position among the webhooks of its policy.
    pub index: usize,
    /// How its sender signs.
    pub scheme: Scheme,
    /// The accepted keys; several during a rotation.
    pub secrets: Vec<Secret<Vec<u8>>>,
    /// How far the signed time may be from now, in both directions; unused if the scheme signs
    /// none.
    pub tolerance: Duration,
    /// The longest body that is accepted, in bytes.
    pub max_body_bytes: usize,
    /// How long the body may take to arrive.
    pub body_timeout: Duration,
    /// Whether the address that a delivery comes from is its sender's.
    pub trusts_source: bool,
    /// Whether refusals are counted and not enforced; `None` if the webhook does not configure it.
    pub shadow: Option<bool>,
}

/// A delivery whose head is valid and whose body is being hashed.
#[derive(Clone)]
pub(crate) struct Verification {
    signature: [u8; 32],
    macs: Vec<Hmac<Sha256>>,
    timestamp: Option<String>,
}

/// Proof that a delivery's signature is valid. Only [`Verification::finish`] creates one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    timestamp: Option<String>,
    secret_index: usize,
}

impl Webhook {
    /// Checks the head of a delivery.
    ///
    /// # Errors
    /// [`Denial::InvalidSignature`] if a header is missing, malformed or duplicated;
    /// [`Denial::StaleTimestamp`] if the signed time is out of tolerance; [`Denial::BodyTooLarge`]
    /// if the announced length is too long.
    pub(crate) fn begin(&self, head: &RequestHead<'_>, now: Timestamp) -> Result<Verification, Denial> {
        let Reading::One(signature) = head.read(self.scheme.signature) else {
            return Err(Denial::InvalidSignature);
        };
        let signature = self.scheme.encoding.decode(&signature).ok_or(Denial::InvalidSignature)?;
        let timestamp = self.scheme.timestamp.map(|name| self.timestamp(head, name, now)).transpose()?;
        if announced_length(head).is_some_and(|length| length > self.max_body_bytes) {
            return Err(Denial::BodyTooLarge);
        }
        let mut macs = Vec::with_capacity(self.secrets.len());
        for secret in &self.secrets {
            // HMAC accepts keys of any length; an error would be a bug of the gate, and must not
            // let a request pass.
            let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(secret.reveal())
                .map_err(|_| Denial::InvalidSignature)?;
            for piece in self.scheme.prefix {
                match piece {
                    Signed::Timestamp => mac.update(timestamp.as_deref().unwrap_or_default().as_bytes()),
                    Signed::Literal(bytes) => mac.update(bytes),
                }
            }
            macs.push(mac);
        }
        Ok(Verification { signature, macs, timestamp })
    }

    /// The signed time: plain decimal digits without sign or leading zero, within the tolerance.
    fn timestamp(&self, head: &RequestHead<'_>, name: &str, now: Timestamp) -> Result<String, Denial> {
        let Reading::One(value) = head.read(name) else {
            return Err(Denial::InvalidSignature);
        };
        let text = std::str::from_utf8(&value).map_err(|_| Denial::InvalidSignature)?;
        let is_plain = !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'));
        if !is_plain {
            return Err(Denial::InvalidSignature);
        }
        // Well-formed, but too large for a `u64`: outside every tolerance.
        let signed = text.parse::<u64>().map_err(|_| Denial::StaleTimestamp)?;
        if now.as_secs().abs_diff(signed) > self.tolerance.as_secs() {
            return Err(Denial::StaleTimestamp);
        }
        Ok(text.to_owned())
    }
}

impl Verification {
    /// Hashes the next bytes of the body.
    pub(crate) fn feed(&mut self, chunk: &[u8]) {
        for mac in &mut self.macs {
            mac.update(chunk);
        }
    }

    /// Compares the signature once the body is complete: with every secret, each in constant time.
    ///
    /// # Errors
    /// [`Denial::InvalidSignature`] if no secret matches this signature.
    pub(crate) fn finish(self) -> Result<Verified, Denial> {
        let mut found = None;
        for (nth, mac) in self.macs.into_iter().enumerate() {
            let holds = mac.verify_slice(&self.signature).is_ok();
            if holds && found.is_none() {
                found = Some(nth);
            }
        }
        let secret_index = found.ok_or(Denial::InvalidSignature)?;
        Ok(Verified { timestamp: self.timestamp, secret_index })
    }
}

impl Verified {
    /// The headers that the service receives.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![("x-avnology-webhook-verified", "true".to_owned())];
        if let Some(timestamp) = &self.timestamp {
            headers.push(("x-avnology-webhook-timestamp", timestamp.clone()));
        }
        headers.push(("x-avnology-webhook-secret-index", self.secret_index.to_string()));
        headers
    }
}

/// What a worker holds of bodies in all. One body may be as long as that.
pub(crate) const MAX_HELD_BYTES: usize = 64 * 1024 * 1024;

/// `Content-Length`, if there is one. Envoy has made sure that it is one number.
fn announced_length(head: &RequestHead<'_>) -> Option<usize> {
    let text = std::str::from_utf8(head.values("content-length").next()?).ok()?;
    // A number that does not fit is too long.
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::head_of;

    const KEY: &[u8] = b"whsec_0123456789abcdef";
    const NOW: u64 = 1_700_000_000;

    fn webhook(scheme: Scheme, keys: &[&[u8]]) -> Webhook {
        Webhook {
            name: "w".into(),
            index: 0,
            scheme,
            secrets: keys.iter().map(|k| Secret::new(k.to_vec())).collect(),
            tolerance: Duration::from_secs(300),
            max_body_bytes: 10,
            body_timeout: Duration::from_secs(1),
            trusts_source: false,
            shadow: None,
        }
    }

    fn sign(key: &[u8], content: &[u8]) -> String {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).unwrap();
        mac.update(content);
        mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect()
    }

    fn verify(webhook: &Webhook, headers: &[(&str, &str)], body: &[u8]) -> Result<Verified, Denial> {
        let head = head_of(headers, false);
        let mut verification = webhook.begin(&head, Timestamp::from_secs(NOW))?;
        for chunk in body.chunks(2) {
            verification.feed(chunk);
        }
        verification.finish()
    }

    #[test]
    fn a_known_vector() {
        // RFC 4231, test case 2.
        assert_eq!(
            sign(b"Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn signatures() {
        let webhook = webhook(scheme::AVNOLOGY, &[b"another key, long enough", KEY]);
        let good = sign(KEY, format!("{NOW}.body").as_bytes());
        let now = NOW.to_string();
        let check = |signature: &str, timestamp: &str, body: &[u8]| {
            verify(
                &webhook,
                &[("x-avnology-signature", signature), ("x-avnology-timestamp", timestamp)],
                body,
            )
        };
        assert_eq!(
            check(&good, &now, b"body").map(|v| v.headers()),
            Ok(vec![
                ("x-avnology-webhook-verified", "true".into()),
                ("x-avnology-webhook-timestamp", now.clone()),
                ("x-avnology-webhook-secret-index", "1".into()),
            ])
        );
        let invalid = Err(Denial::InvalidSignature);
        assert_eq!(check(&good, &now, b"bodY"), invalid);
        assert_eq!(check(&good.to_uppercase(), &now, b"body"), invalid);
        assert_eq!(check(&good[..62], &now, b"body"), invalid);
        assert_eq!(check(&format!("{good}00"), &now, b"body"), invalid);
        assert_eq!(check("", &now, b"body"), invalid);
        assert_eq!(check(&good, &(NOW + 1).to_string(), b"body"), invalid);
        for damaged in ["", "+1700000000", "-1", "01700000000", "1.7e9", "1700000000.0", " 1", "x"] {
            assert_eq!(check(&good, damaged, b"body"), invalid, "{damaged}");
        }
        for stale in ["0", "99999999999999999999999", &(NOW - 301).to_string(), &(NOW + 301).to_string()] {
            assert_eq!(check(&good, stale, b"body"), Err(Denial::StaleTimestamp), "{stale}");
        }
        for near in [NOW - 300, NOW + 300] {
            let signature = sign(KEY, format!("{near}.body").as_bytes());
            assert!(check(&signature, &near.to_string(), b"body").is_ok(), "{near}");
        }
        let doubled = [
            ("x-avnology-signature", good.as_str()),
            ("x-avnology-signature", &good),
            ("x-avnology-timestamp", &now),
        ];
        assert_eq!(verify(&webhook, &doubled, b"body"), invalid);
        let folded = [
            ("x-avnology-signature", good.as_str()),
            ("x-avnology-timestamp", &now),
            ("x_avnology_timestamp", "1"),
        ];
        assert_eq!(verify(&webhook, &folded, b"body"), invalid);
        let long = [
            ("x-avnology-signature", good.as_str()),
            ("x-avnology-timestamp", &now),
            ("content-length", "11"),
        ];
        assert_eq!(verify(&webhook, &long, b"body"), Err(Denial::BodyTooLarge));
    }

    #[test]
    fn body_only_does_not_take_the_timestamped_signature() {
        let webhook = webhook(scheme::AVNOLOGY_BODY_ONLY, &[KEY]);
        let now = NOW.to_string();
        let check = |signature: &str| {
            verify(
                &webhook,
                &[("x-avnology-signature", signature), ("x-avnology-timestamp", "junk")],
                b"body",
            )
        };
        assert!(check(&sign(KEY, b"body")).is_ok());
        assert_eq!(check(&sign(KEY, format!("{now}.body").as_bytes())), Err(Denial::InvalidSignature));
    }
}
