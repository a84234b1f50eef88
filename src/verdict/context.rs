//! What is known about a request beyond its head.

use crate::claims::TokenInfo;
use crate::http::head::RequestHead;
use crate::http::{Edit, Header, Trace};
use crate::policy::{Access, Client, Policy, Route};
use crate::telemetry::{CacheOutcome, Eviction, Label};
use crate::time::Timestamp;
use crate::webhook::Webhook;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The data of a request from its head to its verdict; it is kept while the request waits.
#[derive(Clone, Debug)]
pub struct RequestContext {
    pub(crate) policy: Arc<Policy>,
    /// `None` before a route was found, and if none was.
    pub(crate) route: Option<Arc<Route>>,
    /// Edits for every outcome: they remove owned headers, and a credential in the query.
    pub(crate) base_edits: Vec<Edit>,
    /// Edits that remove a credential which the service must not see.
    pub(crate) credential_edits: Vec<Edit>,
    /// The identity headers, once the bearer was admitted.
    pub(crate) identity_headers: Option<Rc<[Header]>>,
    /// The token's claims, once it was introspected.
    pub(crate) token: Option<TokenInfo>,
    /// When it began to wait, if it did.
    pub(crate) waits_since: Option<Timestamp>,
    /// How long it has waited, once it is decided.
    pub(crate) waited: Option<Duration>,
    /// What tells its token from others in the log, where it is not plainly allowed.
    pub(crate) token_print: Option<u64>,
    /// Who has sent it, by the address that it comes from, where that matters.
    pub(crate) client: Client,
    /// What goes with the callouts that it starts.
    pub(crate) trace: Trace,
    /// How the caches answered the questions that decide it.
    pub(crate) cache: Option<CacheOutcome>,
    pub(crate) grpc: bool,
    pub(crate) grpc_web: bool,
    /// Whether the request ends with its head, so that no callback about it follows.
    pub(crate) is_whole: bool,
    /// Whether it is forwarded on the condition that no content follows its head.
    pub(crate) is_without_content: bool,
    /// Which secret a webhook's signature holds under, counted from 0.
    pub(crate) secret_index: Option<u16>,
    /// What a webhook's event has ended that was cached.
    pub(crate) eviction: Option<Eviction>,
    /// What a webhook's sender asked the endpoint to say back, once its signature held.
    pub(crate) challenge: Option<Box<str>>,
}

impl RequestContext {
    /// The context of a request before anything but its policy is known.
    pub(crate) fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            route: None,
            base_edits: Vec::new(),
            credential_edits: Vec::new(),
            identity_headers: None,
            token: None,
            waits_since: None,
            waited: None,
            token_print: None,
            client: Client::default(),
            trace: Rc::default(),
            cache: None,
            grpc: false,
            grpc_web: false,
            is_whole: false,
            is_without_content: false,
            secret_index: None,
            eviction: None,
            challenge: None,
        }
    }

    /// What leaves the request whatever is decided. It is applied once.
    pub(crate) fn take_edits(&mut self) -> Vec<Edit> {
        let mut edits = std::mem::take(&mut self.base_edits);
        edits.append(&mut self.credential_edits);
        edits
    }

    /// Its approximate size in bytes.
    pub(crate) fn memory_cost(&self) -> usize {
        let edits = self.base_edits.iter().chain(&self.credential_edits).map(|edit| match edit {
            Edit::Remove(name) => name.len(),
            Edit::Add(name, value) | Edit::Replace(name, value) => name.len().saturating_add(value.len()),
            Edit::AddAll(_) => 0,
        });
        let headers = self.identity_headers.iter().flat_map(|h| h.iter());
        let headers = headers.map(|(name, value)| name.len().saturating_add(value.len()));
        let trace = self.trace.iter().map(|(_, value)| value.len());
        edits
            .chain(headers)
            .chain(trace)
            .fold(PENDING, |sum, bytes| sum.saturating_add(bytes).saturating_add(PER_ITEM))
    }

    /// The webhook of the route, if it has one.
    pub(crate) fn webhook(&self) -> Option<&Webhook> {
        match &self.route()?.access {
            Access::Webhook(webhook) => Some(webhook),
            Access::Public(_) | Access::Token(_) => None,
        }
    }

    /// Notes how the cache answered one question.
    pub(crate) fn note_cache(&mut self, outcome: CacheOutcome) {
        self.cache = self.cache.max(Some(outcome));
    }

    /// Whether the decision uses an answer that is older than its lifetime.
    pub(crate) fn is_stale(&self) -> bool {
        self.cache == Some(CacheOutcome::Stale)
    }

    /// The label of its metrics' route, if that has a name.
    pub(crate) fn route_label(&self) -> Option<Label> {
        self.policy.labels.routes.get(self.route()?.number?).copied()
    }

    /// The label of its metrics' webhook, if it is for one.
    pub(crate) fn webhook_label(&self) -> Option<Label> {
        self.policy.labels.webhooks.get(self.webhook()?.index).copied()
    }

    /// The route, if one matches the request.
    pub(crate) fn route(&self) -> Option<&Route> {
        self.route.as_deref()
    }

    /// Whether refusals of this request are counted and not enforced.
    pub(crate) fn is_shadow(&self) -> bool {
        match self.enforce_percent() {
            0 => true,
            100.. => false,
            percent => !self.client().is_among(percent),
        }
    }

    /// Whether refusals are enforced for nobody. What a delivery ends, it ends whoever sends it.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.enforce_percent() == 0
    }

    /// Of how many clients in a hundred refusals are enforced here.
    fn enforce_percent(&self) -> u8 {
        let webhook = self.webhook().and_then(|webhook| webhook.enforce_percent);
        // The most specific setting applies: a route can enforce under a policy in shadow mode.
        let percent = webhook.or(self.route().and_then(|route| route.enforce_percent));
        percent.unwrap_or(if self.policy.shadow { 0 } else { 100 })
    }

    /// Whose request it is, as far as is known. A subject is the same from every address.
    fn client(&self) -> Client {
        let subject = self.token.as_ref().and_then(|info| info.subject().ok().flatten());
        subject.map_or(self.client, |subject| Client::of(subject.as_bytes()))
    }

    /// Notes the address that it comes from, where it matters which client's it is.
    pub(crate) fn note_client(&mut self, head: &RequestHead<'_>) {
        if (1..100).contains(&self.enforce_percent()) {
            self.client = head.source().map(|source| Client::of(&source.bytes())).unwrap_or_default();
        }
    }
}

/// Approximate bytes of an undecided request without its strings: its structs and table entries.
const PENDING: usize = 512;
/// Approximate bytes of one string without its characters.
const PER_ITEM: usize = 64;
