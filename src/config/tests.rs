use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

pub(super) fn env(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some("a-secret-of-enough-bytes\n".to_owned()),
        "SHORT" => Some("short".to_owned()),
        "BLANK" => Some(" \n".to_owned()),
        _ => None,
    }
}

pub(super) fn base() -> Value {
    json!({
        "provider": {
            "cluster": "avnology", "authority": "id.example",
            "introspection": {"credentials": {"method": "client_secret_post", "client_id": "cli", "client_secret": {"env": "SECRET"}}},
            "permissions": {"api_key": {"env": "SECRET"}}
        },
        "routes": [
            {"name": "a", "match": {"path": "/a/{id}"}, "require": {"audience": ["api"], "permissions": {"all": [{"relation": "editor", "object": "project:{path.id}"}]}}},
            {"name": "w", "match": {"methods": ["POST"], "path": "/w"}, "webhook": "hook"}
        ],
        "webhooks": {"hook": {"format": "avnology", "secrets": [{"env": "SECRET"}]}}
    })
}

fn merged(patch: &Value) -> Value {
    fn merge(into: &mut Value, patch: &Value) {
        match (into, patch) {
            (Value::Object(into), Value::Object(patch)) => {
                for (name, value) in patch {
                    if value.is_null() {
                        into.remove(name);
                    } else {
                        merge(into.entry(name).or_insert(Value::Null), value);
                    }
                }
            }
            (into, patch) => *into = patch.clone(),
        }
    }
    let mut document = base();
    merge(&mut document, patch);
    document
}

fn custom(custom: Value) -> Value {
    json!({"webhooks": {"hook": {"format": "custom", "custom": custom}}})
}

pub(super) fn lines(document: &Value) -> Vec<String> {
    load(document.to_string().as_bytes(), &env).map(|_| Vec::new()).unwrap_or_else(|p| p.lines())
}

#[test]
fn the_base_holds_without_warnings() {
    let loaded = load(base().to_string().as_bytes(), &env).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn every_problem_is_told_word_for_word() {
    let route = |route: Value| json!({"routes": [route]});
    let cases = [
        (
            json!({"cashe": 1}),
            "cashe: found an unknown field, expected `provider`, `credentials`, `identity_headers`, `mode`, `default_access`, `require`, `clock_skew`, `strip_credential`, `strip_headers`, `keep_override_headers`, `refused_token_prefixes`, `ready_path`, `max_token_bytes`, `filter_state`, `cache`, `budgets`, `challenge`, `routes`, `webhooks` or `$schema`",
        ),
        (json!({"cache": 1}), "cache: found `1`, expected an object"),
        (
            json!({"provider": {"cluster": ""}}),
            "provider.cluster: found an empty string, expected a string that is not empty",
        ),
        (json!({"routes": null}), "routes: found nothing, expected a list of routes"),
        (json!({"routes": []}), "routes: found an empty list, expected at least one item"),
        (
            json!({"default_access": "allow"}),
            "default_access: found `allow`, expected `deny`, `required` or `public`",
        ),
        (
            json!({"clock_skew": 5}),
            "clock_skew: found `5`, expected a duration such as `250ms` or `5s`, from 0s to 300s",
        ),
        (
            json!({"provider": {"timeout": "0s"}}),
            "provider.timeout: found `0s`, expected a duration such as `250ms` or `5s`, from 1ms to 60s",
        ),
        (
            json!({"provider": {"timeout": "900us"}}),
            "provider.timeout: found `900us`, expected a duration such as `250ms` or `5s`, from 1ms to 60s",
        ),
        (
            json!({"provider": {"authority": "a b"}}),
            "provider.authority: found `a b`, expected a host name with an optional port",
        ),
        (
            json!({"provider": {"introspection": {"path": "/a b"}}}),
            "provider.introspection.path: found `/a b`, expected a path that begins with `/`, in visible ASCII",
        ),
        (
            json!({"provider": {"introspection": {"credentials": {"client_id": null}}}}),
            "provider.introspection.credentials.client_id: found nothing, expected a value: the method needs it",
        ),
        (
            json!({"provider": {"introspection": {"credentials": {"client_secret": {"env": "GONE"}}}}}),
            "provider.introspection.credentials.client_secret: found no environment variable `GONE`, expected it to be set, and handed to the plugin",
        ),
        (
            json!({"provider": {"introspection": {"credentials": {"client_secret": {"env": "BLANK"}}}}}),
            "provider.introspection.credentials.client_secret: found the environment variable `BLANK` that is empty, expected a secret",
        ),
        (
            json!({"provider": {"permissions": {"subject": "identities:me"}}}),
            "provider.permissions.subject: found `identities:me`, expected a `{token.…}` in it: anybody would be the same subject",
        ),
        (
            json!({"webhooks": {"hook": {"format": "sendgrid"}}}),
            "webhooks.hook.format: found `sendgrid`, expected `avnology`, `standard-webhooks`, `stripe`, `github`, `slack`, `shopify`, `svix` or `custom`",
        ),
        (
            json!({"webhooks": {"hook": {"format": "svix"}}}),
            "webhooks.hook.secrets[0]: found a secret of another form, expected `whsec_` and base64",
        ),
        (
            json!({"webhooks": {"hook": {"format": "standard-webhooks", "secrets": ["whpk_AAAAAAAAAAAAAAAAAAAAAAAA"]}}}),
            "webhooks.hook.secrets[0]: found a secret of another form, expected `whsec_` and base64: a key of `v1a` (ed25519) is not supported",
        ),
        (
            json!({"webhooks": {"hook": {"format": "svix", "secrets": ["whsec_AAAAAAAAAAAAAAAAAAAAAA=="]}, "two": {"format": "svix", "secrets": ["AAAAAAAAAAAAAAAAAAAAAA"]}}}),
            "webhooks.two.secrets[0]: found a secret that `webhooks.hook` has too, expected a secret of its own: a delivery to one would pass at the other",
        ),
        (
            json!({"webhooks": {"hook": {"format": "github", "body_only": true}}}),
            "webhooks.hook.body_only: found `true`, expected no `body_only` here: it is a form of the format `avnology`",
        ),
        (
            json!({"webhooks": {"hook": {"format": "github", "tolerance": "5s"}}}),
            "webhooks.hook.tolerance: found a tolerance, expected no `tolerance`: no time is signed",
        ),
        (
            json!({"webhooks": {"hook": {"format": "custom"}}}),
            "webhooks.hook.custom: found nothing, expected an object that says how it signs",
        ),
        (
            json!({"webhooks": {"hook": {"custom": {"signature_header": "x-s"}}}}),
            "webhooks.hook.custom: found an object, expected nothing, except beside `format: custom`",
        ),
        (
            custom(json!({"signature_header": "x s"})),
            "webhooks.hook.custom.signature_header: found `x s`, expected a header that is not malformed",
        ),
        (
            custom(json!({"signature_header": "X-Avnology-User-Id"})),
            "webhooks.hook.custom.signature_header: found `X-Avnology-User-Id`, expected a header that is not removed from every request",
        ),
        (
            custom(
                json!({"signature_header": "x-s", "timestamp_header": "X_S", "content": "{timestamp}.{body}"}),
            ),
            "webhooks.hook.custom.timestamp_header: found `x_s` twice, expected a header of its own",
        ),
        (
            custom(json!({"signature_header": "x-s", "timestamp_header": "x-t"})),
            "webhooks.hook.custom.timestamp_header: found a header that is not signed, expected none, or `{timestamp}` in `content`: anybody could set it",
        ),
        (
            custom(json!({"signature_header": "x-s", "content": "{id}.{body}"})),
            "webhooks.hook.custom.id_header: found nothing, expected a header's name: `content` holds `{id}`",
        ),
        (
            custom(json!({"signature_header": "x-s", "content": "{body}."})),
            "webhooks.hook.custom.content: found `{body}.`, expected `{body}` at its end",
        ),
        (
            custom(json!({"signature_header": "x-s", "content": "{body}{body}"})),
            "webhooks.hook.custom.content: found `{body}{body}`, expected no other variable than `{timestamp}`, `{id}` and one `{body}`",
        ),
        (
            custom(json!({"signature_header": "x-s", "content": "{method}.{body}"})),
            "webhooks.hook.custom.content: found `{method}.{body}`, expected no other variable than `{timestamp}`, `{id}` and one `{body}`",
        ),
        (
            custom(json!({"signature_header": "x-s", "content": "{timestamp}{body}"})),
            "webhooks.hook.custom.content: found `{timestamp}{body}`, expected text behind `{timestamp}` and `{id}` that begins with neither letter, digit, `-` nor `_`",
        ),
        (
            custom(json!({"signature_header": "x-s", "content": "{timestamp}.{timestamp}.{body}"})),
            "webhooks.hook.custom.content: found `{timestamp}.{timestamp}.{body}`, expected each variable once",
        ),
        (
            custom(json!({"signature_header": "x-s", "prefix": "\u{e9}"})),
            "webhooks.hook.custom.prefix: found bytes outside visible ASCII, expected visible ASCII",
        ),
        (
            json!({"webhooks": {"hook": {"events": {"type": "/a~2"}}}}),
            "webhooks.hook.events.type: found `/a~2`, expected a JSON Pointer, with `~0` for a `~` and `~1` for a `/` in a name, or a header's name",
        ),
        (
            json!({"webhooks": {"hook": {"events": {"id": ["x-id"]}}}}),
            "webhooks.hook.events.id: found `x-id`, expected a pointer, or a header that the signature covers: anybody could set it",
        ),
        (
            json!({"webhooks": {"hook": {"events": {"challenge": true}}}}),
            "webhooks.hook.events.challenge: found `true`, expected no `challenge` here: only `slack` asks an endpoint for one",
        ),
        (
            json!({"webhooks": {"hook": {"events": {"allow": ["a b"]}}}}),
            "webhooks.hook.events.allow[0]: found `a b`, expected a type in visible ASCII, with `*` for any characters",
        ),
        (
            json!({"webhooks": {"hook": {"signature_status": 503}}}),
            "webhooks.hook.signature_status: found `503`, expected a whole number from 400 to 499",
        ),
        (
            json!({"webhooks": {"hook": {"format": "github", "replay": {}}}}),
            "webhooks.hook.replay.by: found `content`, expected `id`: no time is signed here, so the sender sends the same bytes anew",
        ),
        (
            json!({"webhooks": {"hook": {"format": "github", "replay": {"by": "id"}}}}),
            "webhooks.hook.replay.by: found `id`, expected `events.id` that says where it stands: this format signs none",
        ),
        (
            json!({"webhooks": {"hook": {"replay": {"window": "599s"}}}}),
            "webhooks.hook.replay.window: found 599s, expected at least 600s, twice the `tolerance`",
        ),
        (
            json!({"webhooks": {"hook": {"replay": {"status": 302}}}}),
            "webhooks.hook.replay.status: found `302`, expected 2xx or 4xx",
        ),
        (
            json!({"webhooks": {"hook": {"evict": true}}}),
            "webhooks.hook.evict: found no `replay`, expected `replay` beside it: whoever sends an old event again would end cached answers again",
        ),
        (
            json!({"webhooks": {"hook": {"evict": 1, "replay": {}}}}),
            "webhooks.hook.evict: found `1`, expected `true`, `false` or an object",
        ),
        (
            json!({"webhooks": {"hook": {"evict": {"user.*": ["data"]}, "replay": {}}}}),
            "webhooks.hook.evict: found `data`, expected a type in visible ASCII with `*` for any characters, and JSON Pointers to the subjects",
        ),
        (
            json!({"webhooks": {"hook": {"evict": true, "body_only": true, "replay": {"by": "id"}}}}),
            "webhooks.hook.evict: found a format without a signed time, expected one with it: an old event could come again at any time",
        ),
        (
            json!({"webhooks": {"hook": {"evict": {}, "replay": {}}}}),
            "webhooks.hook.evict: found no rule, expected a type with pointers to its subjects, or `true`",
        ),
        (
            json!({"webhooks": {"hook": {"format": "github", "evict": true, "replay": {"by": "id"}, "events": {"id": "/id"}}}}),
            "webhooks.hook.evict: found a type that is not signed, expected `events.type` in the signed body: anybody could set a header",
        ),
        (
            json!({"provider": {"introspection": {"credentials": {"method": "none", "client_id": null, "client_secret": null}}}, "webhooks": {"hook": {"evict": true, "replay": {}}}}),
            "webhooks.hook.evict: found no secret of `provider.introspection`, expected one: with it the workers tell each other whose answers are over",
        ),
        (
            json!({"webhooks": {"hook": {"secrets": [{"env": "SHORT"}]}}}),
            "webhooks.hook.secrets[0]: found a key that is too short, expected at least 16 bytes, or `allow_short_key`",
        ),
        (
            json!({"webhooks": {"hook": {"secrets": []}}}),
            "webhooks.hook.secrets: found an empty list, expected at least one item",
        ),
        (
            json!({"webhooks": {"hook": {"body_only": true, "tolerance": "5s"}}}),
            "webhooks.hook.tolerance: found a tolerance, expected no `tolerance`: no time is signed",
        ),
        (
            json!({"webhooks": {"two": {"format": "avnology", "secrets": [{"env": "SECRET"}]}}}),
            "webhooks.two.secrets[0]: found a secret that `webhooks.hook` has too, expected a secret of its own: a delivery to one would pass at the other",
        ),
        (
            json!({"webhooks": {"hook": {"max_body_bytes": 60_000_000}, "two": {"format": "avnology", "secrets": ["another key of enough bytes"], "max_body_bytes": 8_000_000}}}),
            "webhooks: found `max_body_bytes` of 68000000 in all, expected 67108864 at the most: a worker has one full body of each webhook in reserve",
        ),
        (
            json!({"identity_headers": {"authorization": "{token.sub}"}}),
            "identity_headers.authorization: found `authorization`, expected a header that is not a credential",
        ),
        (
            json!({"identity_headers": {"x-envoy-y": "{token.sub}"}}),
            "identity_headers.x-envoy-y: found `x-envoy-y`, expected a header that is not Envoy's own",
        ),
        (
            json!({"identity_headers": {":path": "{token.sub}"}}),
            "identity_headers.:path: found `:path`, expected a header that is not a pseudo-header",
        ),
        (
            json!({"identity_headers": {"x-a": "{token.sub"}}),
            "identity_headers.x-a: found `{token.sub`, expected text with `{path.NAME}`, `{query.NAME}`, `{header.NAME}` or `{token.CLAIM}` in it",
        ),
        (
            json!({"identity_headers": {"x-a": "{header.x-avnology-b}"}}),
            "identity_headers.x-a: found `{header.x-avnology-b}`, expected a header that a client may set",
        ),
        (
            json!({"challenge": {"realm": "a\nb"}}),
            "challenge.realm: found bytes outside visible ASCII, expected visible ASCII and spaces",
        ),
        (
            json!({"credentials": [{"header": "a", "query": "b"}]}),
            "credentials[0]: found not exactly one place, expected one of `header`, `cookie` and `query`",
        ),
        (
            route(json!({"match": {"path": "a"}, "access": "public"})),
            "routes[0].match.path: found `a`, expected a path that begins with `/`",
        ),
        (
            route(json!({"match": {}, "access": "public"})),
            "routes[0].match.path: found nothing, expected a string",
        ),
        (
            route(json!({"match": {"path": "/", "methods": ["get"]}, "access": "public"})),
            "routes[0].match.methods[0]: found `get`, expected `GET`",
        ),
        (
            route(json!({"match": {"path": "/", "hosts": ["a:80"]}, "access": "public"})),
            "routes[0].match.hosts[0]: found `a:80`, expected a host without port, or `*.` and a suffix",
        ),
        (
            route(json!({"match": {"path": "/"}, "access": "public", "require": {"audience": ["a"]}})),
            "routes[0].require: found the field beside `access: public`, expected no such field: no credential is looked at",
        ),
        (
            route(json!({"match": {"path": "/"}, "require": {}})),
            "routes[0].require: found no rule, expected at least one rule, or no `require`",
        ),
        (
            route(json!({"match": {"path": "/"}, "webhook": "hook", "access": "public"})),
            "routes[0].access: found the field beside `webhook`, expected no such field: the signature is the credential",
        ),
        (
            route(json!({"match": {"path": "/"}, "webhook": "gone"})),
            "routes[0].webhook: found `gone`, expected a name that stands under `webhooks`",
        ),
        (
            route(json!({"match": {"path": "/"}, "sessions": true})),
            "provider.sessions: found nothing, expected it: routes[0] takes session tokens",
        ),
        (
            route(json!({"match": {"path": "/"}, "require": {"scopes": {"all": ["a b"]}}})),
            "routes[0].require.scopes.all[0]: found `a b`, expected one scope, without spaces and quotes",
        ),
        (
            route(json!({"match": {"path": "/"}, "require": {"claims": {"org": "{path.org}"}}})),
            "routes[0].require.claims.org: found `{path.org}`, expected a parameter of the route's path",
        ),
        (
            route(
                json!({"match": {"path": "/"}, "require": {"permissions": {"all": [{"relation": "r", "object": "{token.sub}"}]}}}),
            ),
            "routes[0].require.permissions.all[0].object: found no type, expected `namespace` beside it, or a type before a colon, as in `project:{path.id}`",
        ),
    ];
    for (patch, expected) in cases {
        assert!(
            lines(&merged(&patch)).contains(&expected.to_owned()),
            "{patch}\n{:#?}",
            lines(&merged(&patch))
        );
    }
}

#[test]
fn an_empty_string_is_told_once() {
    let patch = json!({"provider": {"cluster": "", "authority": ""}});
    assert_eq!(
        lines(&merged(&patch)),
        [
            "provider.cluster: found an empty string, expected a string that is not empty",
            "provider.authority: found an empty string, expected a string that is not empty",
        ]
    );
}

/// One route's audience says nothing about another route.
#[test]
fn every_route_without_an_audience_is_named() {
    let warnings = |patch: &Value| load(merged(patch).to_string().as_bytes(), &env).unwrap().warnings;
    let routes = json!([
        {"match": {"path": "/a"}, "require": {"audience": ["api"]}},
        {"match": {"path": "/b"}, "require": {"scopes": {"all": ["s"]}}},
        {"match": {"path": "/c"}, "access": "optional"},
        {"match": {"path": "/d"}, "access": "public"},
        {"match": {"methods": ["POST"], "path": "/w"}, "webhook": "hook"},
    ]);
    let told = |at: &str| {
        format!(
            "{at} requires neither an `audience` nor a `client_id`: a token that any client was given passes"
        )
    };
    let mut patch = json!({"routes": routes, "default_access": "required"});
    assert_eq!(warnings(&patch), [told("routes[1]"), told("routes[2]"), told("default_access")]);
    patch["require"] = json!({"issuer": ["iss"]});
    assert_eq!(warnings(&patch).len(), 3);
    patch["require"] = json!({"client_id": ["cli"]});
    assert_eq!(warnings(&patch), Vec::<String>::new());
}

#[test]
fn what_forty_routes_miss_is_missing_once() {
    let routes: Vec<Value> = (0..40).map(|nth| json!({"match": {"path": format!("/{nth}")}})).collect();
    assert_eq!(
        lines(&json!({"routes": routes})),
        ["provider.introspection: found nothing, expected it: routes[0] wants a token (and 39 more like it)"]
    );
}

#[test]
fn of_many_problems_the_first_are_told_and_the_rest_counted() {
    let routes: Vec<Value> = (0..5000).map(|_| json!({"match": {"path": "a"}, "access": "public"})).collect();
    let told = lines(&json!({"routes": routes}));
    assert_eq!((told.len(), told.last().unwrap().as_str()), (101, "… and 4900 more problems"));
    assert!(told[99].starts_with("routes[99].match.path: "), "{}", told[99]);
    let fewer: Vec<Value> = (0..100).map(|_| json!({"match": {"path": "a"}, "access": "public"})).collect();
    assert_eq!(lines(&json!({"routes": fewer})).len(), 100);
}

#[test]
fn all_problems_come_at_once() {
    let patch = json!({"mode": "off", "clock_skew": "1d", "routes": [{"match": {"path": "a"}}, {"match": {"path": "/x"}, "acess": "public"}]});
    let lines = lines(&merged(&patch));
    for place in ["mode: ", "clock_skew: ", "routes[0].match.path: ", "routes[1].acess: "] {
        assert!(lines.iter().any(|l| l.starts_with(place)), "{place} {lines:#?}");
    }
}

#[test]
fn routes_that_name_the_same_request_are_refused() {
    let patch = json!({"routes": [
        {"match": {"path": "/x/{a}", "methods": ["GET"]}, "access": "public"},
        {"match": {"path": "/x/{b}", "methods": ["HEAD"]}, "access": "public"},
    ]});
    assert_eq!(
        lines(&merged(&patch)),
        [
            "routes[1].match: found the host, path and a method of routes[0], expected a request that only one route names"
        ]
    );
}

#[test]
fn what_is_no_json_says_what_it_is() {
    let message = |bytes: &[u8]| load(bytes, &env).unwrap_err().to_string();
    assert_eq!(message(b""), "found nothing, expected a JSON document, as a `google.protobuf.StringValue`");
    let protobuf = b"\x0a\x10\x0a\x04mode\x12\x08\x1a\x06shadow";
    assert_eq!(
        message(protobuf),
        "found protobuf bytes, as of a `google.protobuf.Struct`, expected a JSON document, as a `google.protobuf.StringValue`"
    );
    assert_eq!(
        message(b"{\n\"a\" 1}"),
        "found something else at line 2, column 5, expected a JSON document, as a `google.protobuf.StringValue`"
    );
    assert_eq!(message(b"\n[]"), "found a list, expected an object");
    assert!(
        message(br#"{"mode":"shadow","mode":"enforce"}"#)
            .contains("mode: found the field twice, expected it once")
    );
}

#[test]
fn warnings() {
    let warnings = |patch: &Value| load(merged(patch).to_string().as_bytes(), &env).unwrap().warnings;
    let routes = json!({"routes": [
        {"match": {"path": "/{*all}"}, "access": "public"},
        {"match": {"path": "/admin", "hosts": ["admin.example"]}, "credentials": [{"cookie": "s"}]},
    ]});
    assert_eq!(
        warnings(&routes),
        [
            "routes[1] requires neither an `audience` nor a `client_id`: a token that any client was given passes",
            "routes[0] lets every host in, also the one that routes[1] guards, for paths that no other route names",
            "routes[1].credentials[0] is a cookie without `origins`: pages of other sites can send it",
            "webhooks.hook stands on no route",
        ]
    );
}

#[test]
fn no_secret_shows_in_a_policy_or_a_problem() {
    let loaded = load(base().to_string().as_bytes(), &env).unwrap();
    assert!(!format!("{loaded:?}").contains("a-secret-of-enough"));
    let literal = json!({"webhooks": {"hook": {"secrets": ["hunter2"]}}, "provider": {"permissions": {"api_key": "hunter2\u{e9}"}}});
    let lines = lines(&merged(&literal)).join("\n");
    assert!(
        lines.contains("too short") && lines.contains("visible ASCII") && !lines.contains("hunter2"),
        "{lines}"
    );
}

proptest! {
    #[test]
    fn hostile_documents_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = load(&bytes, &env);
    }

    #[test]
    fn a_document_with_any_member_replaced_never_panics(nth in 0usize..60, with in prop_oneof![Just(json!(null)), Just(json!(1e300)), Just(json!("")), Just(json!([])), Just(json!({})), Just(json!([[[]]])), Just(json!(true)), Just(json!("{"))]) {
        fn replace(value: &mut Value, nth: &mut usize, with: &Value) {
            if *nth == 0 {
                *value = with.clone();
            }
            *nth = nth.wrapping_sub(1);
            match value {
                Value::Array(items) => items.iter_mut().for_each(|v| replace(v, nth, with)),
                Value::Object(members) => members.values_mut().for_each(|v| replace(v, nth, with)),
                _ => {}
            }
        }
        let mut document = base();
        let mut nth = nth;
        replace(&mut document, &mut nth, &with);
        let _ = load(document.to_string().as_bytes(), &env);
    }
}

#[test]
fn of_many_warnings_alike_the_first_are_told_and_the_rest_counted() {
    let route = |n: usize| json!({"match": {"path": format!("/r/{n}")}});
    let warned = |routes: usize| {
        let routes: Vec<Value> = (0..routes).map(route).collect();
        let document = merged(&json!({"routes": routes, "webhooks": null}));
        load(document.to_string().as_bytes(), &env).unwrap().warnings
    };
    assert_eq!(warned(20).len(), 20);
    let many = warned(5000);
    assert_eq!(many.len(), 21);
    assert!(many[19].starts_with("routes[19] requires neither"), "{many:?}");
    assert_eq!(many[20], "… and 4980 more like the one before");
}
