use super::format::{AVNOLOGY_BODY_ONLY, KNOWN, known};
use super::*;
use crate::http::head::head_of;

const KEY: &[u8] = b"whsec_0123456789abcdef";
const NOW: u64 = 1_700_000_000;

fn format(name: &str) -> Format {
    known(name).unwrap().clone()
}

fn webhook(format: Format, keys: &[&[u8]]) -> Webhook {
    Webhook {
        name: "w".into(),
        index: 0,
        format,
        secrets: keys.iter().map(|k| Secret::new(k.to_vec())).collect(),
        tolerance: Duration::from_secs(300),
        max_body_bytes: 10_000,
        body_timeout: Duration::from_secs(1),
        trusts_source: false,
        enforce_percent: None,
        signature_status: 401,
        events: None,
        replay: None,
        evict: None,
    }
}

/// The time at which each vector of a provider's was signed, its key, headers and body.
struct Vector {
    format: &'static str,
    at: u64,
    secret: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
}

/// From the providers' own pages: where one gives no signature, none is here, and the interop tests
/// sign with the provider's own library.
const VECTORS: &[Vector] = &[
    // docs.github.com, "Testing the webhook payload validation".
    Vector {
        format: "github",
        at: NOW,
        secret: "It's a Secret to Everybody",
        headers: &[(
            "x-hub-signature-256",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        )],
        body: "Hello, World!",
    },
    // docs.slack.dev, "Verifying requests from Slack".
    Vector {
        format: "slack",
        at: 1_531_420_618,
        secret: "8f742231b10e8888abcd99yyyzzz85a5",
        headers: &[
            ("x-slack-request-timestamp", "1531420618"),
            ("x-slack-signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
        ],
        body: "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
    },
    // docs.svix.com, "Verifying webhooks manually".
    Vector {
        format: "svix",
        at: 1_614_265_330,
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        headers: &[
            ("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("svix-timestamp", "1614265330"),
            ("svix-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ],
        body: "{\"test\": 2432232314}",
    },
    // The specification's own test of its libraries has the same one under the other names.
    Vector {
        format: "standard-webhooks",
        at: 1_614_265_330,
        secret: "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        headers: &[
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", "v1a,x v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ],
        body: "{\"test\": 2432232314}",
    },
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn sign(key: &[u8], content: &[u8]) -> String {
    let mut mac = Mac::new(mac::Algorithm::Sha256, key).unwrap();
    mac.update(content);
    hex(&mac.tag())
}

fn verify_at(webhook: &Webhook, headers: &[(&str, &str)], body: &[u8], now: u64) -> Result<Verified, Denial> {
    let head = head_of(headers, false);
    let mut verification = webhook.begin(&head, Timestamp::from_secs(now))?;
    for chunk in body.chunks(2) {
        verification.feed(chunk);
    }
    verification.finish().map(Delivery::into_verified)
}

fn verify(webhook: &Webhook, headers: &[(&str, &str)], body: &[u8]) -> Result<Verified, Denial> {
    verify_at(webhook, headers, body, NOW)
}

#[test]
fn the_providers_own_vectors_hold_and_no_single_bit_may_change() {
    for Vector { format: name, at, secret, headers, body } in VECTORS {
        let format = format(name);
        let key = format.key.decode(secret).unwrap();
        let webhook = webhook(format, &[&key]);
        let check = |headers: &[(&str, &str)], body: &[u8]| verify_at(&webhook, headers, body, *at);
        assert!(check(headers, body.as_bytes()).is_ok(), "{name}");
        for nth in 0..body.len() * 8 {
            let mut other = body.as_bytes().to_vec();
            other[nth / 8] ^= 1 << (nth % 8);
            assert_eq!(check(headers, &other), Err(Denial::InvalidSignature), "{name} {nth}");
        }
        for (which, (header, value)) in headers.iter().enumerate() {
            // Of a signature whose version is not compared, anything may change.
            let from = value.find(" v1,").map_or(0, |at| at + 1);
            for nth in from * 8..value.len() * 8 {
                let mut other = value.as_bytes().to_vec();
                other[nth / 8] ^= 1 << (nth % 8);
                let Ok(other) = String::from_utf8(other) else { continue };
                let mut changed = headers.to_vec();
                changed[which] = (header, &other);
                let refused = check(&changed, body.as_bytes());
                assert!(refused.is_err(), "{name} {header}: {other}");
            }
        }
    }
}

#[test]
fn signatures() {
    let webhook = webhook(format("avnology"), &[b"another key, long enough", KEY]);
    let good = sign(KEY, format!("{NOW}.body").as_bytes());
    let now = NOW.to_string();
    let check = |signature: &str, timestamp: &str, body: &[u8]| {
        verify(&webhook, &[("x-avnology-signature", signature), ("x-avnology-timestamp", timestamp)], body)
    };
    assert_eq!(
        check(&good, &now, b"body").map(|v| v.headers()),
        Ok(vec![
            ("x-avnology-webhook-verified", "true".into()),
            ("x-avnology-webhook-timestamp", now.clone()),
            ("x-avnology-webhook-secret-index", "1".into()),
        ])
    );
    let invalid = Err(Denial::InvalidSignature);
    assert_eq!(check(&good, &now, b"bodY"), invalid);
    assert_eq!(check(&good.to_uppercase(), &now, b"body"), invalid);
    assert_eq!(check(&good[..62], &now, b"body"), invalid);
    assert_eq!(check(&format!("{good}00"), &now, b"body"), invalid);
    assert_eq!(check("", &now, b"body"), invalid);
    assert_eq!(check(&good, &(NOW + 1).to_string(), b"body"), invalid);
    for damaged in ["", "+1700000000", "-1", "01700000000", "1.7e9", "1700000000.0", " 1", "x"] {
        assert_eq!(check(&good, damaged, b"body"), invalid, "{damaged}");
    }
    for stale in ["0", "99999999999999999999999", &(NOW - 301).to_string(), &(NOW + 301).to_string()] {
        assert_eq!(check(&good, stale, b"body"), Err(Denial::StaleTimestamp), "{stale}");
    }
    for near in [NOW - 300, NOW + 300] {
        let signature = sign(KEY, format!("{near}.body").as_bytes());
        assert!(check(&signature, &near.to_string(), b"body").is_ok(), "{near}");
    }
    let doubled = [
        ("x-avnology-signature", good.as_str()),
        ("x-avnology-signature", &good),
        ("x-avnology-timestamp", &now),
    ];
    assert_eq!(verify(&webhook, &doubled, b"body"), invalid);
    let folded = [
        ("x-avnology-signature", good.as_str()),
        ("x-avnology-timestamp", &now),
        ("x_avnology_timestamp", "1"),
    ];
    assert_eq!(verify(&webhook, &folded, b"body"), invalid);
    let long = [
        ("x-avnology-signature", good.as_str()),
        ("x-avnology-timestamp", &now),
        ("content-length", "10001"),
    ];
    assert_eq!(verify(&webhook, &long, b"body"), Err(Denial::BodyTooLarge));
}

#[test]
fn any_secret_may_match_any_signature_and_the_first_secret_is_named() {
    let keys: [&[u8]; 3] = [b"first key of enough bytes", b"second key of enough", b"third key of enough by"];
    let webhook = webhook(format("stripe"), &keys);
    let signature = |key: &[u8]| sign(key, format!("{NOW}.body").as_bytes());
    let check = |signed_by: &[&[u8]]| {
        let signatures: String = signed_by.iter().map(|key| format!(",v1={}", signature(key))).collect();
        verify(&webhook, &[("stripe-signature", &format!("t={NOW}{signatures}"))], b"body")
    };
    for (signed_by, expected) in [
        (vec![keys[0]], 0),
        (vec![keys[2]], 2),
        (vec![b"another key of enough by", keys[1]], 1),
        (vec![keys[2], keys[1]], 1),
    ] {
        assert_eq!(check(&signed_by).map(|v| v.secret_index()), Ok(expected));
    }
    assert_eq!(check(&[b"another key of enough by"]), Err(Denial::InvalidSignature));
}

#[test]
fn what_is_signed_here_holds_here() {
    let known = KNOWN.iter().filter_map(|(name, format)| Some((*name, (*format)?.clone())));
    for (name, format) in known.chain([("body only", AVNOLOGY_BODY_ONLY)]) {
        let headers = sign::sign(&format, &[KEY], NOW, "msg_1", b"{}").unwrap();
        let signs_time = format.signs_time();
        let webhook = webhook(format, &[KEY]);
        let check = |now: u64| {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            verify_at(&webhook, &headers, b"{}", now).map(|_| ())
        };
        assert_eq!(check(NOW), Ok(()), "{name}");
        let late = if signs_time { Err(Denial::StaleTimestamp) } else { Ok(()) };
        assert_eq!(check(NOW + 301), late, "{name}");
    }
}

#[test]
fn body_only_does_not_take_the_timestamped_signature() {
    let webhook = webhook(AVNOLOGY_BODY_ONLY, &[KEY]);
    let now = NOW.to_string();
    let check = |signature: &str| {
        verify(&webhook, &[("x-avnology-signature", signature), ("x-avnology-timestamp", "junk")], b"body")
    };
    assert!(check(&sign(KEY, b"body")).is_ok());
    assert_eq!(check(&sign(KEY, format!("{now}.body").as_bytes())), Err(Denial::InvalidSignature));
}

#[test]
fn what_is_signed_and_read_goes_on_and_what_is_not_signed_does_not() {
    let mut webhook = webhook(format("github"), &[KEY]);
    webhook.events = Some(Events::of(&webhook.format.events));
    let body = b"{\"action\":\"opened\"}";
    let signature = format!("sha256={}", sign(KEY, body));
    let headers = [("x-hub-signature-256", signature.as_str()), ("x-github-event", "push")];
    let delivered = |webhook: &Webhook| {
        let mut verification = webhook.begin(&head_of(&headers, false), Timestamp::from_secs(NOW)).unwrap();
        verification.feed(body);
        let mut delivery = verification.finish().unwrap();
        let event = delivery.event(webhook, body).unwrap();
        (event.kind, delivery.into_verified().headers().iter().map(|(n, _)| *n).collect::<Vec<_>>())
    };
    let plain = ["x-avnology-webhook-verified", "x-avnology-webhook-secret-index"];
    assert_eq!(delivered(&webhook), (Some("push".to_owned()), plain.to_vec()));
    let events = webhook.events.as_mut().unwrap();
    events.kind = vec![event::Place::parse("/action").unwrap()];
    let with_type =
        ["x-avnology-webhook-verified", "x-avnology-webhook-type", "x-avnology-webhook-secret-index"];
    assert_eq!(delivered(&webhook), (Some("opened".to_owned()), with_type.to_vec()));
}
