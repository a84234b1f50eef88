//! Webhooks and their keys.

mod custom;
mod events;
mod evict;
mod replay;

use super::Compiler;
use crate::config::fields::webhook as fields;
use crate::config::raw;
use crate::secret::Secret;
use crate::webhook::key::KeyEncoding;
use crate::webhook::{Format, MAX_HELD_BYTES, Webhook, format};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Whose each key is.
type Owners = BTreeMap<Vec<u8>, String>;

impl Compiler<'_> {
    pub(super) fn webhooks(&mut self, raws: &[raw::Webhook]) -> Vec<Arc<Webhook>> {
        let mut owners = Owners::new();
        let mut webhooks = Vec::with_capacity(raws.len());
        for (index, raw) in raws.iter().enumerate() {
            let format = self.format(raw);
            let is_formed = format.is_some();
            let key = format.as_ref().map_or(KeyEncoding::Utf8, |format| format.key);
            let secrets = self.keys(raw, key, &mut owners);
            // Routes may name it; what is wrong with it is said already.
            let format = format.unwrap_or(format::AVNOLOGY_BODY_ONLY);
            if is_formed && !format.signs_time() && raw.tolerance.is_some() {
                let expected = "no `tolerance`: no time is signed";
                self.problems.push(format!("{}.tolerance", raw.at), "a tolerance", expected);
            }
            let mut events = raw.events.as_ref().map(|events| self.events(events, &format));
            let replay = raw.replay.as_ref().map(|replay| {
                let tolerance = is_formed.then(|| fields::TOLERANCE.of(raw.tolerance));
                self.replay(replay, (&raw.name, &secrets), (&format, tolerance), &mut events)
            });
            let evict = self.evict(raw, &format, &mut events);
            let max_body_bytes = fields::MAX_BODY_BYTES.of(raw.max_body_bytes);
            let signature_status = fields::SIGNATURE_STATUS.of(raw.signature_status);
            webhooks.push(Arc::new(Webhook {
                name: raw.name.clone(),
                index,
                secrets,
                tolerance: fields::TOLERANCE.of(raw.tolerance),
                max_body_bytes: usize::try_from(max_body_bytes).unwrap_or(usize::MAX),
                body_timeout: fields::BODY_TIMEOUT.of(raw.body_timeout),
                trusts_source: fields::TRUST_SOURCE_ADDRESS.of(raw.trust_source_address),
                enforce_percent: self.enforce_percent(&raw.at, raw.shadow, raw.enforce_percent),
                signature_status: u16::try_from(signature_status).unwrap_or(401),
                events,
                replay,
                evict,
                format,
            }));
        }
        let sum = webhooks.iter().fold(0_usize, |sum, webhook| sum.saturating_add(webhook.max_body_bytes));
        if sum > MAX_HELD_BYTES {
            self.problems.push(
                "webhooks",
                format!("`max_body_bytes` of {sum} in all"),
                format!(
                    "{MAX_HELD_BYTES} at the most: a worker has one full body of each webhook in reserve"
                ),
            );
        }
        webhooks
    }

    fn format(&mut self, raw: &raw::Webhook) -> Option<Format> {
        let is_avnology = raw.format == Some(format::known("avnology"));
        let body_only = fields::BODY_ONLY.of(raw.body_only);
        if body_only && !is_avnology {
            let expected = "no `body_only` here: it is a form of the format `avnology`";
            self.problems.push(format!("{}.body_only", raw.at), "`true`", expected);
        }
        match (raw.format?, &raw.custom) {
            (Some(_), Some(custom)) => {
                self.problems.push(&custom.at, "an object", "nothing, except beside `format: custom`");
                None
            }
            (Some(_), None) if body_only && is_avnology => Some(format::AVNOLOGY_BODY_ONLY),
            (Some(known), None) => Some(known.clone()),
            (None, Some(custom)) => self.custom_format(custom),
            (None, None) => {
                self.problems.push(
                    format!("{}.custom", raw.at),
                    "nothing",
                    "an object that says how it signs",
                );
                None
            }
        }
    }

    fn keys(
        &mut self,
        raw: &raw::Webhook,
        encoding: KeyEncoding,
        owners: &mut Owners,
    ) -> Vec<Secret<Vec<u8>>> {
        let mut keys = Vec::with_capacity(raw.secrets.len());
        for source in &raw.secrets {
            let Some(secret) = self.secret(source) else { continue };
            let key = match encoding.decode(secret.reveal()) {
                Ok(key) => key,
                Err(expected) => {
                    self.problems.push(&source.at, "a secret of another form", expected);
                    continue;
                }
            };
            if key.len() < MIN_KEY && !fields::ALLOW_SHORT_KEY.of(raw.allow_short_key) {
                let expected = format!("at least {MIN_KEY} bytes, or `allow_short_key`");
                self.problems.push(&source.at, "a key that is too short", expected);
            }
            match owners.get(&key) {
                Some(owner) if *owner == raw.name => {
                    self.problems.push(&source.at, "the same secret twice", "it once")
                }
                Some(owner) => self.problems.push(
                    &source.at,
                    format!("a secret that `webhooks.{owner}` has too"),
                    "a secret of its own: a delivery to one would pass at the other",
                ),
                None => drop(owners.insert(key.clone(), raw.name.clone())),
            }
            keys.push(Secret::new(key));
        }
        keys
    }
}

/// The minimum length of an HMAC key, in bytes.
const MIN_KEY: usize = 16;
