//! Signs deliveries as a webhook's sender would, for whoever tries a policy out.

use super::error::Problems;
use super::json::JsonValue;
use super::raw::{self, SecretSourceKind};
use super::reader::Sink;
use super::{Env, load};
use crate::secret::Secret;
use crate::webhook::format::{Format, KNOWN, known};
use crate::webhook::sign::sign;

/// A webhook's sender.
#[derive(Clone, Debug)]
pub struct Signer {
    format: Format,
    keys: Vec<Secret<Vec<u8>>>,
}

/// The formats that a name alone describes.
pub fn formats() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().filter(|(_, format)| format.is_some()).map(|(name, _)| *name)
}

impl Signer {
    /// A sender of one of the [`formats`].
    ///
    /// # Errors
    /// What was expected, if there is no such format, or if the secret is none of its.
    pub fn of_format(format: &str, secret: &str) -> Result<Self, String> {
        let format = known(format).ok_or_else(|| format!("one of {}", list(formats())))?;
        let key = format.key.decode(secret.trim())?;
        Ok(Self { format: format.clone(), keys: vec![Secret::new(key)] })
    }

    /// The sender of a policy's webhook. `elsewhere` reads the variables that the webhook does not
    /// name.
    ///
    /// # Errors
    /// The policy's [`Problems`], and those of a name that is no webhook's.
    pub fn of_policy(
        document: &[u8],
        name: &str,
        env: Env<'_>,
        elsewhere: Env<'_>,
    ) -> Result<Self, Problems> {
        let own = variables(document, name);
        let is_own = |variable: &str| own.iter().any(|own| own == variable);
        let loaded = load(document, &|variable| {
            if is_own(variable) { env(variable) } else { env(variable).or_else(|| elsewhere(variable)) }
        })?;
        let webhooks = loaded.policy.webhooks;
        let found = webhooks.iter().find(|webhook| webhook.name == name);
        found.map(|found| Self { format: found.format.clone(), keys: found.secrets.clone() }).ok_or_else(
            || {
                let mut problems = Problems::default();
                let names = list(webhooks.iter().map(|webhook| webhook.name.as_str()));
                problems.push("webhooks", format!("no `{name}`"), format!("one of {names}"));
                problems
            },
        )
    }

    /// How many secrets it has; one at least.
    pub fn secrets(&self) -> usize {
        self.keys.len()
    }

    /// The headers of a delivery that is signed with the secret of this index. `timestamp`: in Unix
    /// seconds; it goes, as the id, where the format has a place for it.
    ///
    /// `None` if there is no such secret, or if the format has no place for such an id.
    pub fn headers(
        &self,
        secret: usize,
        timestamp: u64,
        id: &str,
        body: &[u8],
    ) -> Option<Vec<(String, String)>> {
        sign(&self.format, &[self.keys.get(secret)?.reveal().as_slice()], timestamp, id, body)
    }
}

/// The variables that a webhook's secrets come from.
fn variables(document: &[u8], name: &str) -> Vec<String> {
    let Ok(node) = serde_json::from_slice::<JsonValue>(document) else { return Vec::new() };
    let raw = raw::read(&node, &Sink::new(Problems::default()));
    let webhooks = raw.webhooks.into_iter().filter(|webhook| webhook.name == name);
    let secrets = webhooks.flat_map(|webhook| webhook.secrets);
    let variable = |from| match from {
        SecretSourceKind::Env(name) => Some(name),
        SecretSourceKind::Literal(_) => None,
    };
    secrets.filter_map(|secret| variable(secret.from)).collect()
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
