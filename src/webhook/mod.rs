//! Webhooks: a small pipeline from a head to a delivery that the service may have.
//!
//! ```text
//! head ─▶ Claimed ─▶ Verification ─(body, hashed as it comes)─▶ Delivery
//!      ─▶ event ─▶ seen before? ─▶ Verified
//! ```
//!
//! How a sender signs is [data](format). The head is judged before the body is read; what the body
//! says is read only once its signature held.

pub(crate) mod event;
pub(crate) mod evict;
pub(crate) mod format;
pub(crate) mod json;
pub(crate) mod key;
pub(crate) mod mac;
pub(crate) mod replay;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod sign;
mod signature;

pub(crate) use format::Format;

use crate::http::head::RequestHead;
use crate::refusal::Denial;
use crate::secret::Secret;
use crate::time::Timestamp;
use event::{Event, Events, Hint, UnreadableEvent};
use evict::Evict;
use format::Piece;
use mac::Mac;
use replay::{Replay, ReplayBy, digest_of};
use sha2::{Digest, Sha256};
use signature::Claimed;
use std::time::Duration;

/// One configured webhook.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    /// Its name in the configuration.
    pub name: String,
    /// Its position among the webhooks of its policy.
    pub index: usize,
    /// How its sender signs.
    pub format: Format,
    /// The accepted keys; several during a rotation.
    pub secrets: Vec<Secret<Vec<u8>>>,
    /// How far the signed time may be from now, in both directions; unused if the format signs
    /// none.
    pub tolerance: Duration,
    /// The longest body that is accepted, in bytes.
    pub max_body_bytes: usize,
    /// How long the body may take to arrive.
    pub body_timeout: Duration,
    /// Whether the address that a delivery comes from is its sender's.
    pub trusts_source: bool,
    /// In shadow, of how many clients in a hundred refusals are enforced all the same; `None` where
    /// the webhook configures no mode, and 100 where it enforces.
    pub enforce_percent: Option<u8>,
    /// The status of a refusal for the signature or the signed time.
    pub signature_status: u16,
    /// How its events are read; `None`: bodies are not looked into.
    pub events: Option<Events>,
    /// How a delivery is known again; `None`: it is not.
    pub replay: Option<Replay>,
    /// Whose cached answers its events end; `None`: nobody's.
    pub evict: Option<Evict>,
}

/// A delivery whose head is valid and whose body is being hashed.
#[derive(Clone)]
pub(crate) struct Verification {
    claimed: Claimed,
    macs: Vec<Mac>,
    /// Of what is signed, where a delivery is known again by that.
    digest: Option<Sha256>,
    hint: Hint,
}

/// A delivery whose signature holds.
#[derive(Debug)]
pub(crate) struct Delivery {
    verified: Verified,
    digest: Option<[u8; 32]>,
    hint: Hint,
}

/// Proof that a delivery's signature is valid. Only [`Verification::finish`] creates one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    timestamp: Option<String>,
    id: Option<String>,
    /// Only where the signature covers it.
    kind: Option<String>,
    secret_index: usize,
    /// Whether it came before, where that is only marked.
    is_duplicate: bool,
}

impl Webhook {
    /// Checks the head of a delivery.
    ///
    /// # Errors
    /// [`Denial::InvalidSignature`] if a header is missing, malformed or duplicated;
    /// [`Denial::StaleTimestamp`] if the signed time is out of tolerance; [`Denial::BodyTooLarge`]
    /// if the announced length is too long.
    pub(crate) fn begin(&self, head: &RequestHead<'_>, now: Timestamp) -> Result<Verification, Denial> {
        let claimed = Claimed::read(&self.format, head).ok_or(Denial::InvalidSignature)?;
        if let Some(timestamp) = &claimed.timestamp {
            // Well-formed, but too large for a `u64`: outside every tolerance.
            let signed = timestamp.parse::<u64>().map_err(|_| Denial::StaleTimestamp)?;
            if now.as_secs().abs_diff(signed) > self.tolerance.as_secs() {
                return Err(Denial::StaleTimestamp);
            }
        }
        if announced_length(head).is_some_and(|length| length > self.max_body_bytes) {
            return Err(Denial::BodyTooLarge);
        }
        let mut macs = Vec::with_capacity(self.secrets.len());
        for secret in &self.secrets {
            let mac = Mac::new(self.format.algorithm, secret.reveal()).ok_or(Denial::InvalidSignature)?;
            macs.push(mac);
        }
        let hint = self.events.as_ref().map(|events| events.hint(head)).unwrap_or_default();
        let is_by_content = |replay: &Replay| replay.by == ReplayBy::Content;
        let digest = self.replay.as_ref().is_some_and(is_by_content).then(|| digest_of(&self.name));
        let mut verification = Verification { claimed, macs, digest, hint };
        for piece in self.format.content.iter() {
            verification.feed_piece(piece);
        }
        Ok(verification)
    }

    /// Whether the body has to be there once its signature held.
    pub(crate) fn reads_body(&self) -> bool {
        self.evict.is_some() || self.events.as_ref().is_some_and(Events::reads_body)
    }
}

impl Verification {
    fn feed_piece(&mut self, piece: &Piece) {
        let text = match piece {
            Piece::Timestamp => self.claimed.timestamp.clone().unwrap_or_default(),
            Piece::Id => self.claimed.id.clone().unwrap_or_default(),
            Piece::Literal(text) => text.clone().into_owned(),
        };
        self.feed(text.as_bytes());
    }

    /// Hashes the next bytes of the body.
    pub(crate) fn feed(&mut self, chunk: &[u8]) {
        for mac in &mut self.macs {
            mac.update(chunk);
        }
        if let Some(digest) = &mut self.digest {
            digest.update(chunk);
        }
    }

    /// Compares the signatures once the body is complete: each with every secret, in constant time.
    ///
    /// # Errors
    /// [`Denial::InvalidSignature`] if no secret matches any of them.
    pub(crate) fn finish(self) -> Result<Delivery, Denial> {
        let Self { claimed: Claimed { signatures, timestamp, id }, macs, digest, hint } = self;
        let mut found = None;
        for (nth, mac) in macs.iter().enumerate() {
            // Not `any`: every pair is compared, whatever the others are.
            let holds = signatures.iter().fold(false, |holds, signature| mac.is(signature) | holds);
            if holds && found.is_none() {
                found = Some(nth);
            }
        }
        let secret_index = found.ok_or(Denial::InvalidSignature)?;
        let verified = Verified { timestamp, id, kind: None, secret_index, is_duplicate: false };
        Ok(Delivery { verified, digest: digest.map(|digest| digest.finalize().into()), hint })
    }
}

impl Delivery {
    /// What the delivery is about; empty where its webhook does not look.
    ///
    /// # Errors
    /// [`UnreadableEvent`] if it does not say what its webhook has to know.
    pub(crate) fn event(&mut self, webhook: &Webhook, body: &[u8]) -> Result<Event, UnreadableEvent> {
        let Some(events) = &webhook.events else { return Ok(Event::default()) };
        let event = events.read(&self.hint, self.verified.id.as_deref(), body)?;
        self.verified.kind = event.kind.clone().filter(|_| event.is_kind_signed);
        self.verified.id.clone_from(&event.id);
        Ok(event)
    }

    /// Whose cached answers the event ends; `None` where it ends nobody's.
    ///
    /// # Errors
    /// [`UnreadableEvent`] if a subject stands twice.
    pub(crate) fn subjects(
        &self,
        webhook: &Webhook,
        body: &[u8],
    ) -> Result<Option<Vec<String>>, UnreadableEvent> {
        let (Some(evict), Some(events)) = (&webhook.evict, &webhook.events) else { return Ok(None) };
        let pointers = evict.pointers(self.verified.kind.as_deref());
        if pointers.is_empty() {
            return Ok(None);
        }
        events.find(body, &pointers).map(|found| Some(evict::subjects_of(found)))
    }

    /// What the delivery is known again by; `None` where it has no id, and is known by that.
    pub(crate) fn digest(&self, webhook: &Webhook) -> Option<[u8; 32]> {
        self.digest.or_else(|| {
            let id = self.verified.id.as_ref()?;
            Some(digest_of(&webhook.name).chain_update(id).finalize().into())
        })
    }

    /// Which of the secrets matched, counted from 0.
    pub(crate) fn secret_index(&self) -> usize {
        self.verified.secret_index
    }

    /// When it was signed, as far as a time is signed.
    pub(crate) fn signed_at(&self) -> Option<Timestamp> {
        self.verified.timestamp.as_ref()?.parse().ok().map(Timestamp::from_secs)
    }

    /// Says that it came before.
    pub(crate) fn mark_duplicate(&mut self) {
        self.verified.is_duplicate = true;
    }

    /// The proof, for whoever lets the delivery pass.
    pub(crate) fn into_verified(self) -> Verified {
        self.verified
    }
}

impl Verified {
    /// The headers that the service receives.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let signed = [
            ("x-avnology-webhook-timestamp", &self.timestamp),
            ("x-avnology-webhook-id", &self.id),
            ("x-avnology-webhook-type", &self.kind),
        ];
        let signed = signed.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        let mut headers = vec![("x-avnology-webhook-verified", "true".to_owned())];
        headers.extend(signed);
        if self.is_duplicate {
            headers.push(("x-avnology-webhook-duplicate", "true".to_owned()));
        }
        headers.push(("x-avnology-webhook-secret-index", self.secret_index.to_string()));
        headers
    }

    /// Which of the secrets matched, counted from 0.
    pub fn secret_index(&self) -> usize {
        self.secret_index
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
mod tests;
