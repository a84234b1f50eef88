//! Webhook delivery: signing a body and sending it.

#![allow(clippy::disallowed_methods, reason = "the model is given the time; a delivery reads the clock")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use http_body_util::{BodyExt as _, Full};
use hyper::header::{HeaderName, HeaderValue};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(60);

fn hmac_hex(secret: &str, parts: &[&[u8]]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The signature of `<timestamp>.<body>`, in lower-case hex.
pub fn sign(secret: &str, timestamp: u64, body: &[u8]) -> String {
    hmac_hex(secret, &[timestamp.to_string().as_bytes(), b".", body])
}

/// The signature of the body alone, in lower-case hex.
pub fn sign_body_only(secret: &str, body: &[u8]) -> String {
    hmac_hex(secret, &[body])
}

/// A webhook to deliver.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Where to: an `http://` URL.
    pub url: String,
    /// The signing secret.
    pub secret: String,
    /// The event, sent as compact JSON. Either this or `body`.
    #[serde(default, deserialize_with = "crate::rule::present", skip_serializing_if = "Option::is_none")]
    pub event: Option<Value>,
    /// The exact body. Either this or `event`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The time of sending in Unix seconds; now unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
    /// Sign the body alone; `X-Avnology-Timestamp` is then sent only if `timestamp` is given.
    #[serde(default)]
    pub body_only: bool,
    /// Further headers, or others in place of the usual ones (`x-avnology-signature` included).
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// What the receiver answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// The status.
    pub status: u16,
    /// The body; bytes that are not UTF-8 are replaced.
    pub body: String,
}

/// Signs and sends a webhook. An error of kind `InvalidInput` means that the delivery itself makes
/// no sense.
pub async fn deliver(delivery: &Delivery) -> io::Result<Delivered> {
    let (authority, request) = request(delivery)?;
    tokio::time::timeout(TIMEOUT, send(&authority, request))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.into())
}

fn request(delivery: &Delivery) -> io::Result<(String, hyper::Request<Full<Bytes>>)> {
    let body = match (&delivery.event, &delivery.body) {
        (Some(event), None) => event.to_string(),
        (None, Some(body)) => body.clone(),
        _ => return Err(invalid("expected exactly one of `event` and `body`")),
    };
    let (authority, path) = service::split(&delivery.url)?;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (timestamp, signature) = if delivery.body_only {
        (delivery.timestamp, sign_body_only(&delivery.secret, body.as_bytes()))
    } else {
        let timestamp = delivery.timestamp.unwrap_or_else(now);
        (Some(timestamp), sign(&delivery.secret, timestamp, body.as_bytes()))
    };
    let mut request = hyper::Request::post(path)
        .header("host", &authority)
        .header("content-type", "application/json")
        .header("user-agent", "Avnology-Webhooks")
        .header("x-avnology-signature", signature)
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| invalid(error.to_string()))?;
    if let Some(timestamp) = timestamp {
        request.headers_mut().insert("x-avnology-timestamp", timestamp.into());
    }
    for (name, value) in &delivery.headers {
        let name =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid(format!("bad header {name:?}")))?;
        let value = HeaderValue::from_str(value).map_err(|_| invalid(format!("bad value of {name}")))?;
        request.headers_mut().insert(name, value);
    }
    Ok((authority, request))
}

async fn send(authority: &str, request: hyper::Request<Full<Bytes>>) -> io::Result<Delivered> {
    let address = if has_port(authority) { authority.to_owned() } else { format!("{authority}:80") };
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>(Delivered { status, body: String::from_utf8_lossy(&body).into_owned() })
    };
    tokio::pin!(connection, exchange);
    tokio::select! {
        delivered = &mut exchange => delivered,
        // The connection may end as soon as the answer is complete: the exchange still has to hand
        // it over.
        _ = &mut connection => exchange.await,
    }
    .map_err(io::Error::other)
}

fn has_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs() {
        // printf '1700000000.{"type":"user.created"}' | openssl dgst -sha256 -hmac whsec_test
        assert_eq!(
            sign("whsec_test", 1_700_000_000, br#"{"type":"user.created"}"#),
            "2309b3241c934edd598182cd8af8663e23a4ed93bae9e076fbd3e8df8202253b"
        );
        assert_eq!(
            sign_body_only("whsec_test", br#"{"type":"user.created"}"#),
            "3c927bae48a54508f7cce8fb435c87702cdcde7a6cd2608bb91eb069695eb3ec"
        );
    }

    fn delivery() -> Delivery {
        Delivery {
            url: "http://127.0.0.1:9/hooks?a=b".to_owned(),
            secret: "whsec_test".to_owned(),
            body: Some("{}".to_owned()),
            timestamp: Some(5),
            ..Delivery::default()
        }
    }

    #[test]
    fn builds_the_request() {
        let (authority, built) = request(&delivery()).unwrap();
        assert_eq!((authority.as_str(), built.uri().to_string().as_str()), ("127.0.0.1:9", "/hooks?a=b"));
        assert_eq!(built.headers()["x-avnology-timestamp"], "5");
        assert_eq!(built.headers()["x-avnology-signature"], sign("whsec_test", 5, b"{}").as_str());

        let body_only = Delivery { body_only: true, timestamp: None, ..delivery() };
        let (_, built) = request(&body_only).unwrap();
        assert!(!built.headers().contains_key("x-avnology-timestamp"));
        assert_eq!(built.headers()["x-avnology-signature"], sign_body_only("whsec_test", b"{}").as_str());

        let replaced = BTreeMap::from([("X-Avnology-Signature".to_owned(), "00".to_owned())]);
        let (_, built) = request(&Delivery { headers: replaced, ..delivery() }).unwrap();
        assert_eq!(built.headers()["x-avnology-signature"], "00");
    }

    #[test]
    fn refuses_nonsense() {
        for bad in [
            Delivery { body: None, ..delivery() },
            Delivery { event: Some(Value::Null), ..delivery() },
            Delivery { url: "https://127.0.0.1/".to_owned(), ..delivery() },
            Delivery { url: "127.0.0.1".to_owned(), ..delivery() },
            Delivery { headers: BTreeMap::from([("a b".to_owned(), String::new())]), ..delivery() },
        ] {
            assert_eq!(request(&bad).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bad:?}");
        }
    }
}
