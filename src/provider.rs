//! What the provider's endpoints share: its host, and what tells one endpoint from another.

use crate::breaker::Purpose;
use crate::cache::shared::{Kind, Sealer, SharedKey, Subjects};
use crate::hash::{FactKey, Fingerprint, Seed, first_half};
use crate::http::Callout;
use hmac::{Hmac, Mac};
use sha2::Sha256;
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
    /// How often an endpoint is probed while that is needed; `None`: never.
    pub probe_interval: Option<Duration>,
    /// How many callouts may be under way at once, for each worker.
    pub max_in_flight: MaxInFlight,
}

/// Callouts of one worker that may be under way at once, by what they are made for: so many that
/// none of them waits in Envoy, where one caller's cannot be told from another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MaxInFlight {
    /// About tokens that were not seen active lately.
    pub new_tokens: u32,
    /// About tokens that were.
    pub refreshes: u32,
    /// Permission checks.
    pub permissions: u32,
}

impl MaxInFlight {
    /// For one purpose.
    pub(crate) fn of(&self, purpose: Purpose) -> usize {
        let share = match purpose {
            Purpose::NewToken => self.new_tokens,
            Purpose::Refresh => self.refreshes,
            Purpose::Permission => self.permissions,
        };
        usize::try_from(share).unwrap_or(usize::MAX)
    }
}

/// One endpoint of the provider's, as one client knows it.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    provider: Provider,
    /// What it answers.
    kind: &'static str,
    path: String,
    fingerprint: Fingerprint,
    /// `None` without a secret: what nobody vouches for is not shared.
    sealer: Option<Arc<Sealer>>,
    /// What its probe asks about; `None` without a secret.
    probe_id: Option<[u8; 16]>,
}

impl Endpoint {
    /// The endpoint at this path. `kind`: what it answers. `client`: what the gate shows it, the
    /// secret last; without a secret that is empty, or without anything, workers share no answer.
    pub(crate) fn new(provider: Provider, kind: &'static str, path: String, client: &[&str]) -> Self {
        let place = [kind, &provider.cluster, &provider.authority, &path];
        let parts: Vec<&str> = place.iter().chain(client).copied().collect();
        let fingerprint = Fingerprint::of(&parts);
        let secret = client.last().filter(|secret| !secret.is_empty());
        let sealer = secret.map(|secret| Arc::new(Sealer::new(secret.as_bytes(), fingerprint)));
        let probe_id = secret.and_then(|secret| probe_id(secret, fingerprint));
        Self { provider, kind, path, fingerprint, sealer, probe_id }
    }

    /// What the gate asks this endpoint about to find out whether it is there: a name that no
    /// caller chooses and nobody has.
    pub(crate) fn probe_name(&self, seed: Seed) -> String {
        let id = self.probe_id.unwrap_or_else(|| self.key(seed, &[PROBE]).bytes());
        let hex = id.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
        let hex = hex.map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0'));
        PROBE_PREFIX.chars().chain(hex).collect()
    }

    /// Its path, and whose it is, for whoever reads the log.
    pub(crate) fn name(&self) -> String {
        format!("`{}` of cluster `{}`", self.path, self.provider.cluster)
    }

    /// What it answers, and whose it is, for the labels of metrics.
    pub(crate) fn label(&self) -> String {
        format!("{}@{}", self.kind, self.provider.cluster)
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
            retries_unsent_only: false,
        }
    }

    /// What identifies the answer to a question of these parts, within this worker.
    pub(crate) fn key(&self, seed: Seed, question: &[&[u8]]) -> FactKey {
        let endpoint: &[u8] = self.fingerprint.bytes();
        FactKey::of(seed, std::iter::once(endpoint).chain(question.iter().copied()))
    }

    /// Where the workers share until when what is known about subjects is over; `None` without a
    /// secret.
    pub(crate) fn subjects(&self) -> Option<Subjects> {
        self.sealer.clone().map(Subjects::new)
    }

    /// Where the workers share the answer to a question of these parts, if they do.
    pub(crate) fn shared_key(&self, kind: Kind, question: &[&[u8]]) -> Option<SharedKey> {
        self.sealer.as_ref().map(|sealer| sealer.key(kind, question))
    }
}

fn probe_id(secret: &str, fingerprint: Fingerprint) -> Option<[u8; 16]> {
    // HMAC takes a key of any length.
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(PROBE);
    mac.update(fingerprint.bytes());
    Some(first_half(mac.finalize().into_bytes().into()))
}

const PROBE: &[u8] = b"avnology-gate probe";

/// By which an operator of the provider knows probes in its logs.
const PROBE_PREFIX: &str = "avnology-gate-probe-";
