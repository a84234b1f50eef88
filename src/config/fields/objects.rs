//! Which fields belong to which object, in the order in which they are documented.

use super::describe::{Declared, Object, Place, field, holding};
use super::limits::{self, Times};
use super::{document, provider, route, webhook};

/// The document.
pub(super) fn document() -> Object {
    use document::{
        BUDGETS, CACHE, CHALLENGE, CLOCK_SKEW, CREDENTIALS, DEFAULT_ACCESS, FILTER_STATE, IDENTITY_HEADERS,
        KEEP_OVERRIDE_HEADERS, MAX_TOKEN_BYTES, MODE, PROVIDER, READY_PATH, REFUSED_TOKEN_PREFIXES, REQUIRE,
        ROUTES, SCHEMA, STRIP_CREDENTIAL, STRIP_HEADERS, WEBHOOKS, challenge,
    };
    use route::require::{AUDIENCE, CLIENT_ID, ISSUER};
    table(
        "document",
        [
            holding(&ROUTES, route()),
            holding(&PROVIDER, provider()),
            holding(&CREDENTIALS, source()),
            field(&IDENTITY_HEADERS),
            holding(&WEBHOOKS, webhook()),
            field(&DEFAULT_ACCESS),
            holding(&REQUIRE, within([field(&AUDIENCE), field(&ISSUER), field(&CLIENT_ID)])),
            field(&MODE),
            holding(&CHALLENGE, within([field(&challenge::REALM), field(&challenge::FORMAT)])),
            field(&CLOCK_SKEW),
            field(&STRIP_CREDENTIAL),
            field(&STRIP_HEADERS),
            field(&KEEP_OVERRIDE_HEADERS),
            field(&REFUSED_TOKEN_PREFIXES),
            field(&MAX_TOKEN_BYTES),
            field(&READY_PATH),
            field(&FILTER_STATE),
            holding(&CACHE, cache(Place::Table("cache"))),
            holding(&BUDGETS, budgets()),
            field(&SCHEMA),
        ],
    )
}

fn source() -> Object {
    use document::source::{COOKIE, HEADER, ORIGINS, QUERY, SCHEME};
    table("source", [field(&HEADER), field(&SCHEME), field(&COOKIE), field(&ORIGINS), field(&QUERY)])
}

fn provider() -> Object {
    use provider::{
        AUTHORITY, CIRCUIT_BREAKER, CLUSTER, INTROSPECTION, MAX_IN_FLIGHT, PERMISSIONS, RETRIES, SESSIONS,
        TIMEOUT, TRACESTATE, breaker, in_flight, introspection, permissions, sessions,
    };
    table(
        "provider",
        [
            field(&CLUSTER),
            field(&AUTHORITY),
            field(&TIMEOUT),
            field(&RETRIES),
            field(&TRACESTATE),
            holding(&CIRCUIT_BREAKER, within([field(&breaker::PROBE_INTERVAL)])),
            holding(
                &MAX_IN_FLIGHT,
                within([
                    field(&in_flight::NEW_TOKENS),
                    field(&in_flight::REFRESHES),
                    field(&in_flight::PERMISSIONS),
                ]),
            ),
            holding(
                &INTROSPECTION,
                within([field(&introspection::PATH), holding(&introspection::CREDENTIALS, client())]),
            ),
            holding(&SESSIONS, within([field(&sessions::PATH)])),
            holding(
                &PERMISSIONS,
                within([
                    field(&permissions::PATH),
                    field(&permissions::API_KEY),
                    field(&permissions::NEXT_API_KEY),
                    field(&permissions::SUBJECT),
                    field(&permissions::NAMESPACES),
                ]),
            ),
        ],
    )
}

fn client() -> Object {
    use provider::client::{CLIENT_ID, CLIENT_SECRET, METHOD, NEXT_CLIENT_SECRET, NEXT_TOKEN, TOKEN};
    table(
        "client",
        [
            field(&METHOD),
            field(&CLIENT_ID),
            field(&CLIENT_SECRET),
            field(&NEXT_CLIENT_SECRET),
            field(&TOKEN),
            field(&NEXT_TOKEN),
        ],
    )
}

fn route() -> Object {
    use route::{
        ACCESS, CACHE, CREDENTIALS, ENFORCE_PERCENT, INTROSPECTION, MATCH, MODE, NAME, ON_PROVIDER_ERROR,
        PREFLIGHT, REQUIRE, SESSIONS, STRIP_CREDENTIAL, WEBHOOK, matching,
    };
    table(
        "route",
        [
            field(&NAME),
            holding(
                &MATCH,
                within([
                    field(&matching::PATH),
                    field(&matching::HOSTS),
                    field(&matching::METHODS),
                    field(&matching::LITERAL_SUFFIX),
                ]),
            ),
            field(&ACCESS),
            holding(&REQUIRE, require()),
            field(&WEBHOOK),
            holding(&CREDENTIALS, source()),
            field(&STRIP_CREDENTIAL),
            holding(&INTROSPECTION, within([holding(&provider::introspection::CREDENTIALS, client())])),
            field(&ON_PROVIDER_ERROR),
            field(&SESSIONS),
            holding(&CACHE, cache(Place::PartOf("cache"))),
            field(&PREFLIGHT),
            field(&MODE),
            field(&ENFORCE_PERCENT),
        ],
    )
}

fn require() -> Object {
    use route::permissions;
    use route::require::{AUDIENCE, CLAIMS, CLIENT_ID, ISSUER, PERMISSIONS, SCOPES};
    use route::scopes;
    table(
        "require",
        [
            holding(&SCOPES, within([field(&scopes::ALL), field(&scopes::ANY)])),
            field(&AUDIENCE),
            field(&ISSUER),
            field(&CLIENT_ID),
            field(&CLAIMS),
            holding(
                &PERMISSIONS,
                within([holding(&permissions::ALL, check()), holding(&permissions::ANY, check())]),
            ),
        ],
    )
}

fn check() -> Object {
    use route::check::{NAMESPACE, OBJECT, RELATION, SUBJECT};
    table("check", [field(&RELATION), field(&OBJECT), field(&NAMESPACE), field(&SUBJECT)])
}

/// A cache's lifetimes, and its size limits if it is the document's.
fn cache(place: Place) -> Object {
    use limits::cache::{INTROSPECTION, PERMISSIONS};
    let times = |times: &Times| {
        let mut fields = vec![field(&times.ttl), field(&times.negative_ttl), field(&times.stale_if_error)];
        if matches!(place, Place::Table(_)) {
            fields.push(field(&limits::MAX_ENTRIES));
        }
        Object { place: Place::Around, fields, like: None }
    };
    let fields = vec![
        holding(&INTROSPECTION, times(&limits::INTROSPECTION)),
        holding(&PERMISSIONS, times(&limits::PERMISSIONS)),
    ];
    Object { place, fields, like: None }
}

fn budgets() -> Object {
    use limits::budgets::{NEW_TOKENS, PER_SUBJECT, PERMISSIONS, REFRESHES};
    let permissions = Object { like: Some(Box::new(rate())), ..within([holding(&PER_SUBJECT, rate())]) };
    table(
        "budgets",
        [holding(&NEW_TOKENS, rate()), holding(&REFRESHES, rate()), holding(&PERMISSIONS, permissions)],
    )
}

fn rate() -> Object {
    use limits::rate::{BURST, PER_SECOND};
    table("rate", [field(&PER_SECOND), field(&BURST)])
}

fn webhook() -> Object {
    use webhook::{
        ALLOW_SHORT_KEY, BODY_ONLY, BODY_TIMEOUT, CUSTOM, ENFORCE_PERCENT, EVENTS, EVICT, FORMAT,
        MAX_BODY_BYTES, MODE, REPLAY, SECRETS, SIGNATURE_STATUS, TOLERANCE, TRUST_SOURCE_ADDRESS,
    };
    table(
        "webhook",
        [
            field(&FORMAT),
            holding(&CUSTOM, custom()),
            field(&SECRETS),
            field(&ALLOW_SHORT_KEY),
            field(&BODY_ONLY),
            field(&TOLERANCE),
            field(&SIGNATURE_STATUS),
            holding(&EVENTS, events()),
            holding(&REPLAY, replay()),
            field(&EVICT),
            field(&MAX_BODY_BYTES),
            field(&BODY_TIMEOUT),
            field(&TRUST_SOURCE_ADDRESS),
            field(&MODE),
            field(&ENFORCE_PERCENT),
        ],
    )
}

fn custom() -> Object {
    use webhook::custom::{
        ALGORITHM, CONTENT, ENCODING, ID_HEADER, KEY, PREFIX, SIGNATURE_HEADER, TIMESTAMP_HEADER,
    };
    table(
        "custom",
        [
            field(&SIGNATURE_HEADER),
            field(&PREFIX),
            field(&ALGORITHM),
            field(&ENCODING),
            field(&KEY),
            field(&CONTENT),
            field(&TIMESTAMP_HEADER),
            field(&ID_HEADER),
        ],
    )
}

fn replay() -> Object {
    use webhook::replay::{BY, SLOTS, STATUS, WINDOW};
    table("replay", [field(&WINDOW), field(&BY), field(&STATUS), field(&SLOTS)])
}

fn events() -> Object {
    use webhook::events::{ALLOW, CHALLENGE, DENY, ID, TYPE};
    table("events", [field(&TYPE), field(&ID), field(&ALLOW), field(&DENY), field(&CHALLENGE)])
}

/// An object with a table of its own.
fn table<const N: usize>(name: &'static str, fields: [Declared; N]) -> Object {
    Object { place: Place::Table(name), fields: fields.into(), like: None }
}

/// An object whose fields appear in the table of the enclosing object.
fn within<const N: usize>(fields: [Declared; N]) -> Object {
    Object { place: Place::Around, fields: fields.into(), like: None }
}
