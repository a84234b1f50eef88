//! The two protocols on one port.

use std::io::{self, Cursor};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use service::http1::{Connection, Head};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::log::{Log, Seen};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves until the future is dropped, and records every request in `log`.
pub async fn serve(listener: TcpListener, log: Log) -> io::Result<()> {
    service::accept(listener, |stream| connection(stream, log.clone())).await;
    Ok(())
}

async fn connection(stream: TcpStream, log: Log) {
    // Without this, the last packet of an answer can wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let mut connection = Connection::new(stream);
    // Errors end the connection, and that is all there is to do about them.
    match connection.starts_with(PREFACE).await {
        Ok(true) => http2(connection, log).await,
        Ok(false) => http1(connection, log).await,
        Err(_) => {}
    }
}

/// Answers to the server's own paths, which are not recorded.
fn own(log: &Log, method: &str, path: &str) -> Option<Vec<u8>> {
    match (method, path) {
        ("GET", "/__health") => Some(b"{\"ok\":true}\n".to_vec()),
        ("GET", "/__seen") => Some(serde_json::to_vec(&log.seen()).unwrap_or_default()),
        ("POST", "/__clear") => {
            log.clear();
            Some(b"{\"ok\":true}\n".to_vec())
        }
        _ => None,
    }
}

/// The status that the request asked for, else 200.
fn status(headers: &[(String, String)]) -> u16 {
    let wanted = headers.iter().find(|(name, _)| name == "x-echo-status");
    wanted
        .and_then(|(_, value)| value.parse().ok())
        .filter(|status| (200..=599).contains(status))
        .unwrap_or(200)
}

fn echo(seen: &Seen) -> Vec<u8> {
    let mut json = serde_json::to_vec(seen).unwrap_or_default();
    json.push(b'\n');
    json
}

async fn http1(mut connection: Connection, log: Log) {
    match requests(&mut connection, &log).await {
        Ok(Next::Close) => {}
        Ok(Next::Echo) => {
            let (mut stream, read) = connection.into_parts();
            let (mut from, mut to) = stream.split();
            // Either side may leave at any time.
            let _ = tokio::io::copy(&mut Cursor::new(read).chain(&mut from), &mut to).await;
        }
        Err(error) => connection.refuse(&error).await,
    }
}

/// What becomes of a connection after its requests.
enum Next {
    Close,
    /// It was upgraded: from now on bytes come back as they are.
    Echo,
}

async fn requests(connection: &mut Connection, log: &Log) -> io::Result<Next> {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    while let Some((head, mut body)) = connection.head().await? {
        let mut headers = vec![header("content-type", "application/json")];
        let (code, answer) = if let Some(answer) = own(log, &head.method, &head.target) {
            while connection.body_part(&mut body).await?.is_some() {}
            (200, answer)
        } else {
            let mut recording = log.begin(Seen {
                version: "HTTP/1.1".to_owned(),
                method: head.method.clone(),
                path: head.target.clone(),
                headers: head.headers.clone(),
                ..Seen::default()
            });
            if is_websocket(&head) {
                recording.end(Vec::new());
                let upgrade = [header("connection", "Upgrade"), header("upgrade", "websocket")];
                connection.answer(101, &upgrade, 0, b"").await?;
                return Ok(Next::Echo);
            }
            while let Some(part) = connection.body_part(&mut body).await? {
                recording.body(&part);
            }
            (status(&head.headers), echo(&recording.end(body.into_trailers())))
        };
        if !head.keep_alive() {
            headers.push(header("connection", "close"));
        }
        let body = if head.method == "HEAD" { &[][..] } else { &answer };
        connection.answer(code, &headers, answer.len(), body).await?;
        if !head.keep_alive() {
            break;
        }
    }
    connection.stream().shutdown().await?;
    Ok(Next::Close)
}

fn is_websocket(head: &Head) -> bool {
    head.has_token("connection", "upgrade") && head.has_token("upgrade", "websocket")
}

async fn http2(connection: Connection, log: Log) {
    let (stream, read) = connection.into_parts();
    let (from, to) = stream.into_split();
    let io = tokio::io::join(Cursor::new(read).chain(from), to);
    let service = service_fn(move |request| {
        let log = log.clone();
        async move { exchange(log, request).await }
    });
    // A broken connection concerns its client only.
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        // A gateway puts all its requests on few connections, with headers up to its own limits.
        .max_concurrent_streams(10_000)
        .max_header_list_size(1024 * 1024)
        .adaptive_window(true)
        .serve_connection(TokioIo::new(io), service)
        .await;
}

async fn exchange(
    log: Log,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, hyper::Error> {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let (code, answer) = if let Some(answer) = own(&log, head.method.as_str(), path) {
        (200, answer)
    } else {
        let headers = pairs(&head.headers);
        let code = status(&headers);
        let mut recording = log.begin(Seen {
            version: "HTTP/2".to_owned(),
            method: head.method.to_string(),
            path: path.to_owned(),
            authority: head.uri.authority().map(ToString::to_string),
            headers,
            ..Seen::default()
        });
        let mut trailers = Vec::new();
        while let Some(frame) = body.frame().await.transpose()? {
            match frame.into_data() {
                Ok(data) => recording.body(&data),
                Err(frame) => trailers.extend(frame.trailers_ref().map(pairs).unwrap_or_default()),
            }
        }
        (code, echo(&recording.end(trailers)))
    };
    let length = answer.len();
    let bodiless = head.method == hyper::Method::HEAD || code == 204 || code == 304;
    let mut response =
        hyper::Response::new(Full::new(Bytes::from(if bodiless { Vec::new() } else { answer })));
    *response.status_mut() = hyper::StatusCode::from_u16(code).unwrap_or_default();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if head.method == hyper::Method::HEAD {
        response.headers_mut().insert(hyper::header::CONTENT_LENGTH, length.into());
    }
    Ok(response)
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}
