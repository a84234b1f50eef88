//! Webhooks and their keys.

use super::Compiler;
use crate::config::fields::webhook as fields;
use crate::config::raw;
use crate::secret::Secret;
use crate::webhook::{MAX_HELD_BYTES, Webhook, scheme};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Compiler<'_> {
    pub(super) fn webhooks(&mut self, raws: &[raw::Webhook]) -> Vec<Arc<Webhook>> {
        let mut owners: BTreeMap<String, String> = BTreeMap::new();
        let mut webhooks = Vec::with_capacity(raws.len());
        for (index, raw) in raws.iter().enumerate() {
            let body_only = fields::BODY_ONLY.of(raw.body_only);
            let max_body_bytes = fields::MAX_BODY_BYTES.of(raw.max_body_bytes);
            let mut secrets = Vec::with_capacity(raw.secrets.len());
            for source in &raw.secrets {
                let Some(secret) = self.secret(source) else { continue };
                let key = secret.reveal();
                if key.len() < MIN_KEY && !fields::ALLOW_SHORT_KEY.of(raw.allow_short_key) {
                    let expected = format!("at least {MIN_KEY} bytes, or `allow_short_key`");
                    self.problems.push(&source.at, "a key that is too short", expected);
                }
                match owners.get(key) {
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
                secrets.push(Secret::new(key.clone().into_bytes()));
            }
            if body_only && raw.tolerance.is_some() {
                let expected = "no `tolerance` beside `body_only`: no time is signed";
                self.problems.push(format!("{}.tolerance", raw.at), "a tolerance", expected);
            }
            webhooks.push(Arc::new(Webhook {
                name: raw.name.clone(),
                index,
                scheme: if body_only { scheme::AVNOLOGY_BODY_ONLY } else { scheme::AVNOLOGY },
                secrets,
                tolerance: fields::TOLERANCE.of(raw.tolerance),
                max_body_bytes: usize::try_from(max_body_bytes).unwrap_or(usize::MAX),
                body_timeout: fields::BODY_TIMEOUT.of(raw.body_timeout),
                trusts_source: fields::TRUST_SOURCE_ADDRESS.of(raw.trust_source_address),
                shadow: raw.shadow,
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
}

/// The minimum length of an HMAC key, in bytes.
const MIN_KEY: usize = 16;
