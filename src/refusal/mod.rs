//! Refusals: why a request is refused, and the one catalogue of reasons.
//!
//! A denial is not a failure, and not every failure may fail open: a [`Denial`] is a decision, an
//! [`Outage`] means that a question could not be put to the provider, or that the call failed, and
//! an [`Unusable`] is any other failure. With `on_provider_error: allow` only an `Outage` fails
//! open, and only with a proof that the endpoint is away; the types keep them apart. An
//! [`Acknowledgement`] is not a failure: the gate accepts the request and does not forward it.
//!
//! One table defines all of it: the classes, [`Reason`], and the messages to caller and operator.
//! To add a reason, add a line.

mod flaw;
mod status;

pub use flaw::Flaw;
pub use status::Status;

use status::{
    ACCEPTED, BAD_REQUEST, CONFLICT, CONTENT_TOO_LARGE, FORBIDDEN, OK, REQUEST_TIMEOUT, SERVICE_UNAVAILABLE,
    UNAUTHORIZED,
};
use std::time::Duration;

/// The response to a refused caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: Status,
    /// The value of the response's `error` member.
    pub error: &'static str,
    /// The challenge of the response.
    pub challenge: Challenge,
    /// The value of the response's `message` member.
    pub message: &'static str,
}

/// The `WWW-Authenticate` of a refusal.
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

/// One line of the catalogue: what the caller and the operator learn about a reason.
#[derive(Clone, Copy, Debug)]
pub struct ReasonInfo {
    /// The stable id, which appears in `%RESPONSE_CODE_DETAILS%`, counters, logs and the filter
    /// state.
    pub id: &'static str,
    /// The response to the caller; [`PASSES`] for a reason that allows the request.
    pub answer: Answer,
    /// What the operator can do about it, if the id does not make that clear.
    pub operator_hint: Option<&'static str>,
}

/// Which permission a caller lacks, by its position among the route's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeniedCheck {
    /// One of those that must all be granted.
    All(u16),
    /// All of those of which one must be granted.
    Any,
    /// One that was denied earlier.
    Former,
}

macro_rules! catalogue {
    (
        passes { $($(#[$pass_doc:meta])* $pass:ident $pass_id:literal;)* }
        $($(#[$class_doc:meta])* $class:ident {
            $($(#[$doc:meta])* $name:ident $(($payload:ty))? $id:literal => $answer:expr $(, $hint:literal)?;)*
        })*
    ) => {
        $(
            $(#[$class_doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum $class { $($(#[$doc])* $name $(($payload))?,)* }

            impl $class {
                /// Its line in the catalogue.
                pub const fn reason(&self) -> Reason {
                    match self { $(Self::$name { .. } => Reason::$name,)* }
                }
            }

            impl From<$class> for Refusal {
                fn from(class: $class) -> Self {
                    Self::$class(class)
                }
            }
        )*

        /// Why a request was not permitted.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Refusal { $($(#[$class_doc])* $class($class),)* }

        impl Refusal {
            /// Its line in the catalogue.
            pub const fn reason(&self) -> Reason {
                match self { $(Self::$class(class) => class.reason(),)* }
            }

            /// The response to the caller.
            pub const fn answer(&self) -> &'static Answer {
                &self.reason().info().answer
            }
        }

        /// The reason for a decision.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$pass_doc])* $pass,)*
            $($($(#[$doc])* $name,)*)*
        }

        impl Reason {
            /// Every reason, in the order of the catalogue.
            pub const ALL: &[Self] = &[$(Self::$pass,)* $($(Self::$name,)*)*];

            /// What the catalogue defines for this reason.
            pub const fn info(self) -> &'static ReasonInfo {
                match self {
                    $(Self::$pass => const {
                        &ReasonInfo { id: $pass_id, answer: PASSES, operator_hint: None }
                    },)*
                    $($(Self::$name => const {
                        &ReasonInfo {
                            id: $id,
                            answer: $answer,
                            operator_hint: catalogue!(@hint $($hint)?),
                        }
                    },)*)*
                }
            }
        }
    };
    (@hint) => { None };
    (@hint $hint:literal) => { Some($hint) };
}

impl Reason {
    /// The stable id.
    pub const fn id(self) -> &'static str {
        self.info().id
    }
}

catalogue! {
    passes {
        /// The route is public.
        Public "public";
        /// No credential, and the route does not require one.
        Anonymous "anonymous";
        /// The token is valid and every rule of the route is met.
        Authenticated "authenticated";
        /// As above, but with an answer that is older than its lifetime, since the provider is
        /// unavailable.
        AuthenticatedStale "authenticated_stale";
        /// A CORS preflight on a route that allows them.
        Preflight "preflight";
        /// The webhook's signature is valid.
        WebhookVerified "webhook_verified";
    }
    /// The rules deny the request.
    Denial {
        /// The host's header map could not be read, or has no method.
        MalformedRequest "malformed_request" => answer(BAD_REQUEST, "invalid_request", Challenge::None, "the request cannot be read");
        /// `:authority` is not one host with an optional port.
        InvalidHost "invalid_host" => answer(BAD_REQUEST, "invalid_host", Challenge::None, "the request names no single valid host");
        /// The path is ambiguous: two servers could read it differently.
        InvalidPath "invalid_path" => answer(BAD_REQUEST, "invalid_path", Challenge::None, "the path is ambiguous or malformed");
        /// An upgrade whose `Connection` would make the next hop delete headers.
        NominatingConnection "nominating_connection" => answer(BAD_REQUEST, "invalid_request", Challenge::None, "the connection header names other headers");
        /// No route matches this request, or the match is ambiguous.
        NoRoute "no_route" => answer(FORBIDDEN, "no_route", Challenge::None, "no route allows this request");
        /// No credential where one is required.
        MissingToken "missing_token" => answer(UNAUTHORIZED, "missing_token", Challenge::Bearer, "a bearer token is required");
        /// A credential that violates the grammar, or appears twice.
        MalformedCredential "malformed_credential" => answer(BAD_REQUEST, "invalid_request", Challenge::BearerError, "the credentials are malformed or stand twice");
        /// Two sources have different tokens.
        ConflictingCredentials "conflicting_credentials" => answer(BAD_REQUEST, "invalid_request", Challenge::BearerError, "the request carries different tokens");
        /// A cookie credential on an unsafe request from an origin that is not listed.
        CrossSite "cross_site" => answer(FORBIDDEN, "cross_site", Challenge::None, "the request comes from another site");
        /// The token's prefix shows that it is not an access token.
        TokenKind "token_kind" => INVALID_TOKEN;
        /// A session token where sessions are not accepted.
        SessionToken "session_token" => INVALID_TOKEN;
        /// The provider's response has `active: false`.
        TokenInactive "token_inactive" => INVALID_TOKEN;
        /// `exp` is not in the future.
        TokenExpired "token_expired" => INVALID_TOKEN;
        /// `nbf` is in the future.
        TokenNotYetValid "token_not_yet_valid" => INVALID_TOKEN;
        /// `token_type` or `token_use` names something other than an access token.
        TokenType "token_type" => INVALID_TOKEN;
        /// The token is bound to a key whose proof cannot be checked here (`cnf`).
        TokenBound "token_bound" => INVALID_TOKEN;
        /// `iss` is not one of the route's issuers.
        WrongIssuer "wrong_issuer" => INVALID_TOKEN;
        /// `aud` contains none of the route's audiences.
        WrongAudience "wrong_audience" => INVALID_TOKEN;
        /// A scope is missing.
        InsufficientScope "insufficient_scope" => answer(FORBIDDEN, "insufficient_scope", Challenge::BearerScope, "the token lacks a required scope");
        /// `client_id` is not one of the route's clients.
        ClientNotAllowed "client_not_allowed" => PERMISSION_DENIED;
        /// A claim is absent or has another value: the one at this position among the route's.
        ClaimMismatch(u16) "claim_mismatch" => PERMISSION_DENIED;
        /// A template of a check has no safe value.
        UnresolvedTemplate "unresolved_template" => PERMISSION_DENIED;
        /// A claim cannot be sent unaltered in an identity header.
        UnusableIdentity "unusable_identity" => PERMISSION_DENIED;
        /// The permission check has a negative result.
        PermissionDenied(DeniedCheck) "permission_denied" => PERMISSION_DENIED;
        /// The signature is missing or invalid.
        InvalidSignature "invalid_signature" => answer(UNAUTHORIZED, "invalid_signature", Challenge::Signature, "the signature does not hold");
        /// The signed time is outside the tolerance.
        StaleTimestamp "stale_timestamp" => answer(UNAUTHORIZED, "stale_timestamp", Challenge::Signature, "the signed time is too far from now");
        /// The webhook's delivery came before.
        Replayed "replayed" => answer(CONFLICT, "replayed", Challenge::None, "the delivery came before");
        /// The webhook's event has no type or id, two of them, or cannot be read.
        UnreadableEvent "unreadable_event" => answer(BAD_REQUEST, "invalid_request", Challenge::None, "the event cannot be read"),
            "a signed delivery has no type (or id) where `events` looks for one, or two, or its body is no JSON: see `events.type` and `events.id`";
        /// The webhook's body is longer than `max_body_bytes`.
        BodyTooLarge "body_too_large" => answer(CONTENT_TOO_LARGE, "body_too_large", Challenge::None, "the body is too large");
        /// The webhook's body did not arrive within `body_timeout`.
        BodyTimeout "body_timeout" => answer(REQUEST_TIMEOUT, "body_timeout", Challenge::None, "the body took too long");
    }
    /// A call to the provider failed, or could not be made. That says something about its own
    /// question: whether the provider is away, its probe tells.
    Outage {
        /// No response arrived within the timeout, or the provider answered 408.
        Timeout "provider_timeout" => PROVIDER_UNAVAILABLE,
            "a call to the provider took longer than `provider.timeout`";
        /// No connection could be established.
        Unreachable "provider_unreachable" => PROVIDER_UNAVAILABLE,
            "no connection to the provider, or it was cut before an answer: see the endpoints of `provider.cluster`";
        /// The connection was reset after the response had begun.
        Reset "provider_reset" => PROVIDER_UNAVAILABLE,
            "a connection to the provider was cut within an answer";
        /// The provider answered 5xx.
        ServerError "provider_server_error" => PROVIDER_UNAVAILABLE,
            "the provider answered a call with 5xx";
        /// The host did not start the callout.
        NotStarted "provider_not_started" => PROVIDER_UNAVAILABLE,
            "Envoy would not start a callout: see `provider.cluster`, the cluster's endpoints and its circuit breakers";
        /// The provider is away, as its probe has shown; it is probed again in this time.
        CircuitOpen(Duration) "circuit_open" => PROVIDER_UNAVAILABLE,
            "the provider is away: two probes in a row failed, and one that is answered ends it. See `provider.circuit_breaker`";
    }
    /// Any other failure. No route fails open on it.
    Unusable {
        /// An unexpected status: 3xx, 4xx, a 2xx other than 200.
        Status "provider_status" => PROVIDER_UNAVAILABLE,
            "the provider's answer has a status that is no answer: see the `path`s and `authority` of `provider`";
        /// A 200 response that does not follow the protocol.
        BadReply(Flaw) "provider_bad_reply" => PROVIDER_UNAVAILABLE,
            "the provider's 200 is not what the protocol asks for";
        /// The provider refuses the gate's own credentials.
        OurCredentials "provider_credentials" => PROVIDER_UNAVAILABLE,
            "the provider refuses the gate's own credentials: see `provider.introspection.credentials` and `provider.permissions.api_key`";
        /// 429, with the provider's `Retry-After`.
        RateLimited(Option<Duration>) "provider_rate_limited" => PROVIDER_UNAVAILABLE,
            "the provider limits the gate's rate";
        /// The response is longer than the gate reads.
        TooLarge "provider_reply_too_large" => PROVIDER_UNAVAILABLE,
            "the provider's answer is longer than the gate reads";
        /// Too many requests wait in total.
        OverLimit "over_limit" => PROVIDER_UNAVAILABLE,
            "more requests wait than a worker may hold";
        /// Too many questions wait for a free callout, or this one waited too long.
        InFlightLimit "in_flight_limit" => PROVIDER_UNAVAILABLE,
            "more questions than `provider.max_in_flight` lets through in time";
        /// Too many requests wait for this one answer.
        WaitersLimit "waiters_limit" => PROVIDER_UNAVAILABLE,
            "too many requests with one token, or for one permission, wait for its answer";
        /// The budget for calls about tokens that were not active recently is used up, for this
        /// much longer.
        NewTokenBudget(Duration) "new_token_budget" => PROVIDER_UNAVAILABLE,
            "a budget for calls is used up: see `budgets`";
        /// The budget for calls about recently active tokens is used up, for this much longer.
        RefreshBudget(Duration) "refresh_budget" => PROVIDER_UNAVAILABLE,
            "a budget for calls is used up: see `budgets`";
        /// The budget for permission checks is used up, for this much longer.
        PermissionBudget(Duration) "permission_budget" => PROVIDER_UNAVAILABLE,
            "a budget for calls is used up: see `budgets`";
        /// The subject's own budget for permission checks, or its part of the callouts, is used up,
        /// for this much longer.
        SubjectBudget(Duration) "subject_budget" => PROVIDER_UNAVAILABLE,
            "one subject has used up its budget for permission checks, or its quarter of the callouts: see `budgets.permissions.per_subject` and `provider.max_in_flight`";
        /// There is no room for this webhook's body, and no other body gives way.
        BodyMemory "body_memory" => WEBHOOK_UNAVAILABLE,
            "more webhook bodies than a worker takes: see `max_body_bytes` and `body_timeout`";
        /// Another delivery needed room, and this webhook's body was the slowest.
        BodyDisplaced "body_displaced" => WEBHOOK_UNAVAILABLE,
            "more webhook bodies are under way than a worker takes, and the slowest give way: somebody may be withholding bodies";
        /// What has to be noted about the delivery could not be written: other workers wrote to the
        /// same place each time.
        SharedWrite "shared_write" => WEBHOOK_UNAVAILABLE,
            "a worker could not write to Envoy's shared data, since others were before it each time";
        /// The host calls no body callback: the plugin's configuration lacks
        /// `allow_on_headers_stop_iteration`.
        NoBodyCallbacks "no_body_callbacks" => WEBHOOK_UNAVAILABLE,
            "a webhook's body does not reach the filter: set `allow_on_headers_stop_iteration: true` on the plugin's configuration";
        /// The gate itself is in a state that should not occur.
        Internal "internal" => answer(SERVICE_UNAVAILABLE, "provider_unavailable", Challenge::None, "the request cannot be decided now"),
            "the gate is in a state that it should not be in: please report it";
    }
    /// The gate accepts the request, and does not forward it.
    Acknowledgement {
        /// A health check of the gate itself (`ready_path`).
        Ready "ready" => answer(OK, "ok", Challenge::None, "ok");
        /// A webhook's sender asks whether the endpoint is its own.
        Challenge "challenge" => answer(OK, "ok", Challenge::None, "ok");
        /// The webhook's rules do not accept events of this type.
        EventIgnored "event_ignored" => answer(ACCEPTED, "event_ignored", Challenge::None, "the event is not taken");
    }
}

const fn answer(status: Status, error: &'static str, challenge: Challenge, message: &'static str) -> Answer {
    Answer { status, error, challenge, message }
}

/// No response of the gate: the service responds.
pub const PASSES: Answer = answer(OK, "", Challenge::None, "");

const INVALID_TOKEN: Answer =
    answer(UNAUTHORIZED, "invalid_token", Challenge::BearerError, "the token is not valid");
const PERMISSION_DENIED: Answer =
    answer(FORBIDDEN, "permission_denied", Challenge::None, "permission denied");
const PROVIDER_UNAVAILABLE: Answer = answer(
    SERVICE_UNAVAILABLE,
    "provider_unavailable",
    Challenge::None,
    "the identity provider is unavailable",
);
const WEBHOOK_UNAVAILABLE: Answer =
    answer(SERVICE_UNAVAILABLE, "webhook_unavailable", Challenge::None, "the webhook cannot be taken now");

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

    /// RFC 9110 section 15.5.2: a 401 must have a challenge.
    #[test]
    fn every_401_carries_a_challenge() {
        for reason in Reason::ALL {
            let answer = reason.info().answer;
            if answer.status.code == 401 {
                assert_ne!(answer.challenge, Challenge::None, "{}", reason.id());
            }
        }
    }

    #[test]
    fn a_class_has_the_statuses_of_its_kind() {
        for reason in Reason::ALL {
            let answer = reason.info().answer;
            let id = reason.id();
            match answer.status.code {
                200 => assert!(answer == PASSES || id == "ready" || id == "challenge", "{id}"),
                202 => assert_eq!(id, "event_ignored"),
                503 => assert!(answer.error.ends_with("_unavailable"), "{id}"),
                code => assert!((400..500).contains(&code), "{id}"),
            }
        }
    }
}
