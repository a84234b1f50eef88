//! What the provider's endpoints share: its host, and what tells one endpoint from another.

use crate::breaker::BreakerRules;
use crate::cache::shared::{Kind, Sealer, SharedKey};
use crate::hash::{FactKey, Fingerprint, Seed};
use crate::http::Callout;
use std::sync::Arc;
use std::time::Duration;

/// The provider's host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Provider {
    /// The name of the host's upstream cluster.
    pub cluster: String,
    /// What `:authority` says.
    pub authority: String,
    /// How long one callout may take, retries included.
    pub timeout: Duration,
    /// How often the host asks again within that time, where the first attempt failed.
    pub retries: u32,
    /// When it is left alone.
    pub breaker: BreakerRules,
}

/// One endpoint of the provider's, as one client knows it.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    provider: Provider,
    path: String,
    fingerprint: Fingerprint,
    /// `None` without a secret: what nobody vouches for is not shared.
    sealer: Option<Arc<Sealer>>,
}

impl Endpoint {
    /// The endpoint at this path. `kind`: what it answers. `client`: what the gate shows it, the
    /// secret last; without a secret that is empty, or without anything, workers share no answer.
    pub(crate) fn new(provider: Provider, kind: &str, path: String, client: &[&str]) -> Self {
        let place = [kind, &provider.cluster, &provider.authority, &path];
        let parts: Vec<&str> = place.iter().chain(client).copied().collect();
        let fingerprint = Fingerprint::of(&parts);
        let secret = client.last().filter(|secret| !secret.is_empty());
        let sealer = secret.map(|secret| Arc::new(Sealer::new(secret, fingerprint)));
        Self { provider, path, fingerprint, sealer }
    }

    /// Where it is.
    pub(crate) fn provider(&self) -> &Provider {
        &self.provider
    }

    /// What tells it, and whom it knows the gate as, from others.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// A request to it. `headers`: those beside what every request has.
    pub(crate) fn callout(
        &self,
        method: &'static str,
        headers: impl IntoIterator<Item = (&'static str, String)>,
        body: Vec<u8>,
    ) -> Callout {
        // Some providers refuse whoever does not say who it is.
        let agent = concat!("avnology-gate/", env!("CARGO_PKG_VERSION")).to_owned();
        let common = [("accept", "application/json".to_owned()), ("user-agent", agent)];
        Callout {
            cluster: self.provider.cluster.clone(),
            authority: self.provider.authority.clone(),
            method,
            path: self.path.clone(),
            headers: common.into_iter().chain(headers).collect(),
            body,
            timeout: self.provider.timeout,
            retries: self.provider.retries,
        }
    }

    /// What identifies the answer to a question of these parts, within this worker.
    pub(crate) fn key(&self, seed: Seed, question: &[&[u8]]) -> FactKey {
        let endpoint: &[u8] = self.fingerprint.bytes();
        FactKey::of(seed, std::iter::once(endpoint).chain(question.iter().copied()))
    }

    /// Where the workers share the answer to a question of these parts, if they do.
    pub(crate) fn shared_key(&self, kind: Kind, question: &[&[u8]]) -> Option<SharedKey> {
        self.sealer.as_ref().map(|sealer| sealer.key(kind, question))
    }
}
