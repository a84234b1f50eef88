//! The vocabulary of no: why a request is refused, and the one catalogue of reasons.
//!
//! Denied is not broken, and not everything that is broken may be opened: a [`Denial`] is a decision, an [`Outage`] is the provider being
//! away, and an [`Unusable`] is everything else that went wrong and that a caller may be able to provoke. Only an `Outage` can be opened by
//! `on_provider_error: allow`; the types keep them apart.

use crate::health::Purpose;
use std::time::Duration;

/// Why a request was not permitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The rules say no.
    Deny(Denial),
    /// The provider cannot be reached: only this may be opened by a route.
    Outage(Outage),
    /// No usable answer, for a reason that a caller may provoke: never opened.
    Unusable(Unusable),
}

/// The rules say no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The host's header map could not be read, or lacks a method.
    MalformedRequest,
    /// `:authority` is not one host with an optional port.
    InvalidHost,
    /// The path is ambiguous: two servers could read it differently.
    InvalidPath,
    /// An upgrade whose `Connection` would make the next hop delete headers.
    NominatingConnection,
    /// No route names this request, or one names it too nearly.
    NoRoute,
    /// No credential where one is required.
    MissingToken,
    /// A credential that breaks the grammar, or stands twice.
    MalformedCredential,
    /// Two sources carry different tokens.
    ConflictingCredentials,
    /// A cookie credential on an unsafe request from an origin that is not listed.
    CrossSite,
    /// The token's prefix says that it is not an access token.
    TokenKind,
    /// A session token where sessions are not accepted.
    SessionToken,
    /// The provider says `active: false`.
    TokenInactive,
    /// `exp` is not in the future.
    TokenExpired,
    /// `nbf` is in the future.
    TokenNotYetValid,
    /// `token_type` or `token_use` names something other than an access token.
    TokenType,
    /// The token is bound to a key whose proof cannot be checked here (`cnf`).
    TokenBound,
    /// `iss` is not one of the route's.
    WrongIssuer,
    /// `aud` holds none of the route's.
    WrongAudience,
    /// A scope is missing.
    InsufficientScope,
    /// `client_id` is not one of the route's.
    ClientNotAllowed,
    /// A claim is absent or has another value.
    ClaimMismatch,
    /// A template of a check has no safe value.
    UnresolvedTemplate,
    /// A claim that an identity header carries cannot be carried unaltered.
    UnusableIdentity,
    /// The permission check says no.
    PermissionDenied,
    /// No signature, or none that holds.
    InvalidSignature,
    /// The signed time is outside the tolerance.
    StaleTimestamp,
    /// The webhook's body is longer than `max_body_bytes`.
    BodyTooLarge,
    /// The webhook's body did not arrive within `body_timeout`.
    BodyTimeout,
}

/// The provider is away. A caller cannot provoke these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// No answer within the timeout.
    Timeout,
    /// No connection.
    Unreachable,
    /// The connection broke after the answer had begun.
    Reset,
    /// The provider answered 5xx.
    ServerError,
    /// Outages have opened the circuit breaker, for so much longer.
    CircuitOpen(Duration),
}

/// Something else went wrong; a caller may be able to provoke it, so no route opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// A status that is no answer: 3xx, 4xx, a 2xx other than 200.
    Status,
    /// 200, but not the answer that the protocol asks for.
    BadReply,
    /// The provider refuses the gate's own credentials.
    OurCredentials,
    /// 429, with the provider's `Retry-After`.
    RateLimited(Option<Duration>),
    /// The answer is longer than the gate reads.
    TooLarge,
    /// The host would not start the callout.
    NotStarted,
    /// Too many requests wait for one answer, or in all.
    OverLimit,
    /// The budget for calls of this purpose is used up, for so much longer.
    OverBudget(Purpose, Duration),
    /// The worker holds as many webhook bytes as it may.
    BodyMemory,
    /// The host calls no body callback: the plugin entry lacks `allow_on_headers_stop_iteration`.
    NoBodyCallbacks,
    /// The gate itself is in a state that it should not be in.
    Internal,
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self::Deny(denial)
    }
}

impl From<Outage> for Refusal {
    fn from(outage: Outage) -> Self {
        Self::Outage(outage)
    }
}

impl From<Unusable> for Refusal {
    fn from(unusable: Unusable) -> Self {
        Self::Unusable(unusable)
    }
}

impl Refusal {
    /// This refusal's entry in the catalogue.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Deny(denial) => match denial {
                Denial::MalformedRequest => Reason::MalformedRequest,
                Denial::InvalidHost => Reason::InvalidHost,
                Denial::InvalidPath => Reason::InvalidPath,
                Denial::NominatingConnection => Reason::NominatingConnection,
                Denial::NoRoute => Reason::NoRoute,
                Denial::MissingToken => Reason::MissingToken,
                Denial::MalformedCredential => Reason::MalformedCredential,
                Denial::ConflictingCredentials => Reason::ConflictingCredentials,
                Denial::CrossSite => Reason::CrossSite,
                Denial::TokenKind => Reason::TokenKind,
                Denial::SessionToken => Reason::SessionToken,
                Denial::TokenInactive => Reason::TokenInactive,
                Denial::TokenExpired => Reason::TokenExpired,
                Denial::TokenNotYetValid => Reason::TokenNotYetValid,
                Denial::TokenType => Reason::TokenType,
                Denial::TokenBound => Reason::TokenBound,
                Denial::WrongIssuer => Reason::WrongIssuer,
                Denial::WrongAudience => Reason::WrongAudience,
                Denial::InsufficientScope => Reason::InsufficientScope,
                Denial::ClientNotAllowed => Reason::ClientNotAllowed,
                Denial::ClaimMismatch => Reason::ClaimMismatch,
                Denial::UnresolvedTemplate => Reason::UnresolvedTemplate,
                Denial::UnusableIdentity => Reason::UnusableIdentity,
                Denial::PermissionDenied => Reason::PermissionDenied,
                Denial::InvalidSignature => Reason::InvalidSignature,
                Denial::StaleTimestamp => Reason::StaleTimestamp,
                Denial::BodyTooLarge => Reason::BodyTooLarge,
                Denial::BodyTimeout => Reason::BodyTimeout,
            },
            Self::Outage(outage) => match outage {
                Outage::Timeout => Reason::ProviderTimeout,
                Outage::Unreachable => Reason::ProviderUnreachable,
                Outage::Reset => Reason::ProviderReset,
                Outage::ServerError => Reason::ProviderServerError,
                Outage::CircuitOpen(_) => Reason::CircuitOpen,
            },
            Self::Unusable(unusable) => match unusable {
                Unusable::Status => Reason::ProviderStatus,
                Unusable::BadReply => Reason::ProviderBadReply,
                Unusable::OurCredentials => Reason::ProviderCredentials,
                Unusable::RateLimited(_) => Reason::ProviderRateLimited,
                Unusable::TooLarge => Reason::ProviderReplyTooLarge,
                Unusable::NotStarted => Reason::ProviderNotStarted,
                Unusable::OverLimit => Reason::OverLimit,
                Unusable::OverBudget(Purpose::NewToken, _) => Reason::NewTokenBudget,
                Unusable::OverBudget(Purpose::Refresh, _) => Reason::RefreshBudget,
                Unusable::OverBudget(Purpose::Permission, _) => Reason::PermissionBudget,
                Unusable::BodyMemory => Reason::BodyMemory,
                Unusable::NoBodyCallbacks => Reason::NoBodyCallbacks,
                Unusable::Internal => Reason::Internal,
            },
        }
    }
}

/// What a refusal's `WWW-Authenticate` looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// None.
    None,
    /// `Bearer` with a realm and no error code (RFC 6750 section 3).
    Bearer,
    /// `Bearer` with `error="…"`.
    BearerError,
    /// `Bearer` with `error="insufficient_scope"` and the rule's scopes.
    BearerScope,
    /// `Signature` with a realm.
    Signature,
}

/// One line of the catalogue: everything that is told about a reason, to the caller and to the operator.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The stable id: in `%RESPONSE_CODE_DETAILS%`, counters, logs and the filter state.
    pub id: &'static str,
    /// The HTTP status; 200 for reasons that let a request pass.
    pub status: u16,
    /// The word in the answer's `error` member.
    pub error: &'static str,
    /// The sentence in the answer's `message` member.
    pub message: &'static str,
    /// The challenge that goes with it.
    pub challenge: Challenge,
}

macro_rules! catalogue {
    ($($(#[$doc:meta])* $name:ident $id:literal $status:literal $error:literal $challenge:ident $message:literal;)*) => {
        /// Why a request was decided as it was: the one catalogue, for code, answers, counters and documentation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, in the order of the catalogue.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What is told about this reason.
            pub const fn entry(self) -> Entry {
                match self {
                    $(Self::$name => Entry { id: $id, status: $status, error: $error, message: $message, challenge: Challenge::$challenge },)*
                }
            }

            /// The stable id.
            pub const fn id(self) -> &'static str {
                self.entry().id
            }
        }
    };
}

catalogue! {
    /// The route is public.
    Public "public" 200 "" None "";
    /// No credential, and the route does not insist on one.
    Anonymous "anonymous" 200 "" None "";
    /// The token holds and every rule of the route is met.
    Authenticated "authenticated" 200 "" None "";
    /// As above, but by an answer that is older than its lifetime, since the provider is away.
    AuthenticatedStale "authenticated_stale" 200 "" None "";
    /// A CORS preflight of a route that lets them through.
    Preflight "preflight" 200 "" None "";
    /// The webhook's signature holds.
    WebhookVerified "webhook_verified" 200 "" None "";
    /// See [`Denial::MalformedRequest`].
    MalformedRequest "malformed_request" 400 "invalid_request" None "the request cannot be read";
    /// See [`Denial::InvalidHost`].
    InvalidHost "invalid_host" 400 "invalid_host" None "the request names no single valid host";
    /// See [`Denial::InvalidPath`].
    InvalidPath "invalid_path" 400 "invalid_path" None "the path is ambiguous or malformed";
    /// See [`Denial::NominatingConnection`].
    NominatingConnection "nominating_connection" 400 "invalid_request" None "the connection header names other headers";
    /// See [`Denial::NoRoute`].
    NoRoute "no_route" 403 "no_route" None "no route allows this request";
    /// See [`Denial::MissingToken`].
    MissingToken "missing_token" 401 "missing_token" Bearer "a bearer token is required";
    /// See [`Denial::MalformedCredential`].
    MalformedCredential "malformed_credential" 400 "invalid_request" BearerError "the credentials are malformed or stand twice";
    /// See [`Denial::ConflictingCredentials`].
    ConflictingCredentials "conflicting_credentials" 400 "invalid_request" BearerError "the request carries different tokens";
    /// See [`Denial::CrossSite`].
    CrossSite "cross_site" 403 "cross_site" None "the request comes from another site";
    /// See [`Denial::TokenKind`].
    TokenKind "token_kind" 401 "invalid_token" BearerError "the token is not valid";
    /// See [`Denial::SessionToken`].
    SessionToken "session_token" 401 "invalid_token" BearerError "the token is not valid";
    /// See [`Denial::TokenInactive`].
    TokenInactive "token_inactive" 401 "invalid_token" BearerError "the token is not valid";
    /// See [`Denial::TokenExpired`].
    TokenExpired "token_expired" 401 "invalid_token" BearerError "the token is not valid";
    /// See [`Denial::TokenNotYetValid`].
    TokenNotYetValid "token_not_yet_valid" 401 "invalid_token" BearerError "the token is not valid";
    /// See [`Denial::TokenType`].
    TokenType "token_type" 401 "invalid_token" BearerError "the token is not valid";
    /// See [`Denial::TokenBound`].
    TokenBound "token_bound" 401 "invalid_token" BearerError "the token is not valid";
    /// See [`Denial::WrongIssuer`].
    WrongIssuer "wrong_issuer" 401 "invalid_token" BearerError "the token is not valid";
    /// See [`Denial::WrongAudience`].
    WrongAudience "wrong_audience" 401 "invalid_token" BearerError "the token is not valid";
    /// See [`Denial::InsufficientScope`].
    InsufficientScope "insufficient_scope" 403 "insufficient_scope" BearerScope "the token lacks a required scope";
    /// See [`Denial::ClientNotAllowed`].
    ClientNotAllowed "client_not_allowed" 403 "permission_denied" None "permission denied";
    /// See [`Denial::ClaimMismatch`].
    ClaimMismatch "claim_mismatch" 403 "permission_denied" None "permission denied";
    /// See [`Denial::UnresolvedTemplate`].
    UnresolvedTemplate "unresolved_template" 403 "permission_denied" None "permission denied";
    /// See [`Denial::UnusableIdentity`].
    UnusableIdentity "unusable_identity" 403 "permission_denied" None "permission denied";
    /// See [`Denial::PermissionDenied`].
    PermissionDenied "permission_denied" 403 "permission_denied" None "permission denied";
    /// See [`Denial::InvalidSignature`].
    InvalidSignature "invalid_signature" 401 "invalid_signature" Signature "the signature does not hold";
    /// See [`Denial::StaleTimestamp`].
    StaleTimestamp "stale_timestamp" 401 "stale_timestamp" Signature "the signed time is too far from now";
    /// See [`Denial::BodyTooLarge`].
    BodyTooLarge "body_too_large" 413 "body_too_large" None "the body is too large";
    /// See [`Denial::BodyTimeout`].
    BodyTimeout "body_timeout" 408 "body_timeout" None "the body took too long";
    /// See [`Outage::Timeout`].
    ProviderTimeout "provider_timeout" 503 "provider_unavailable" None "the identity provider is unavailable";
    /// See [`Outage::Unreachable`].
    ProviderUnreachable "provider_unreachable" 503 "provider_unavailable" None "the identity provider is unavailable";
    /// See [`Outage::Reset`].
    ProviderReset "provider_reset" 503 "provider_unavailable" None "the identity provider is unavailable";
    /// See [`Outage::ServerError`].
    ProviderServerError "provider_server_error" 503 "provider_unavailable" None "the identity provider is unavailable";
    /// See [`Outage::CircuitOpen`].
    CircuitOpen "circuit_open" 503 "provider_unavailable" None "the identity provider is unavailable";
    /// See [`Unusable::Status`].
    ProviderStatus "provider_status" 503 "provider_unavailable" None "the identity provider is unavailable";
    /// See [`Unusable::BadReply`].
    ProviderBadReply "provider_bad_reply" 503 "provider_unavailable" None "the identity provider is unavailable";
    /// See [`Unusable::OurCredentials`].
    ProviderCredentials "provider_credentials" 503 "provider_unavailable" None "the identity provider is unavailable";
    /// See [`Unusable::RateLimited`].
    ProviderRateLimited "provider_rate_limited" 503 "provider_unavailable" None "the identity provider is unavailable";
    /// See [`Unusable::TooLarge`].
    ProviderReplyTooLarge "provider_reply_too_large" 503 "provider_unavailable" None "the identity provider is unavailable";
    /// See [`Unusable::NotStarted`].
    ProviderNotStarted "provider_not_started" 503 "provider_unavailable" None "the identity provider is unavailable";
    /// See [`Unusable::OverLimit`].
    OverLimit "over_limit" 503 "provider_unavailable" None "the identity provider is unavailable";
    /// See [`Unusable::OverBudget`].
    NewTokenBudget "new_token_budget" 503 "provider_unavailable" None "the identity provider is unavailable";
    /// See [`Unusable::OverBudget`].
    RefreshBudget "refresh_budget" 503 "provider_unavailable" None "the identity provider is unavailable";
    /// See [`Unusable::OverBudget`].
    PermissionBudget "permission_budget" 503 "provider_unavailable" None "the identity provider is unavailable";
    /// See [`Unusable::BodyMemory`].
    BodyMemory "body_memory" 503 "webhook_unavailable" None "the webhook cannot be taken now";
    /// See [`Unusable::NoBodyCallbacks`].
    NoBodyCallbacks "no_body_callbacks" 503 "webhook_unavailable" None "the webhook cannot be taken now";
    /// See [`Unusable::Internal`].
    Internal "internal" 503 "provider_unavailable" None "the request cannot be decided now";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_unique_and_fit_a_metric_name() {
        let ids: BTreeSet<_> = Reason::ALL.iter().map(|r| r.id()).collect();
        assert_eq!(ids.len(), Reason::ALL.len());
        for id in ids {
            assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{id}");
        }
    }

    #[test]
    fn every_401_carries_a_challenge() {
        for reason in Reason::ALL {
            let entry = reason.entry();
            assert_eq!(
                entry.status == 401,
                entry.status == 401 && entry.challenge != Challenge::None,
                "{}",
                entry.id
            );
        }
    }
}
