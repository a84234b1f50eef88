//! The shell around the core, for Envoy: callbacks become calls to the engine, and the engine's
//! outputs become host calls.
//!
//! Nothing is decided here. The state kept here is what only a host has: context ids, callout
//! tokens, armed ticks, metric ids. If this shell cannot carry out an output for a request, the
//! request is refused.

mod abi;
mod callback;
mod host;
mod worker;

use crate::config;
use crate::envoy::{header_map, response};
use crate::flow::{Level, RootId, Step, StreamId};
use crate::http::{CallFailure, MAX_REPLY_BYTES};
use crate::telemetry::{Change, Configuration, Series};
use callback::{CONTINUE, callback, stream_callback};
use host::{BufferType, MapType};
use worker::with_worker;

fn on_context_create(context: u32, parent: u32) {
    with_worker(|worker| {
        let root = RootId(if parent == 0 { context } else { parent });
        worker.contexts.insert(context, root);
        worker.ticks.entry(root).or_default();
    });
}

fn on_configure(root: u32, size: usize) -> bool {
    let configured = callback(root, None, |callback| {
        let Some(document) = host::bytes(BufferType::PluginConfiguration, 0, size) else {
            host::log(Level::Warn, "avnology_gate: the host does not hand over the configuration");
            return false;
        };
        match config::load(&document, &|name| std::env::var(name).ok()) {
            Ok(mut loaded) => {
                host::vm_id().into_iter().for_each(|vm_id| loaded.warn_of_vm_id(&vm_id));
                let now = callback.now();
                callback.worker.engine.configure(RootId(root), loaded, now);
                true
            }
            Err(problems) => {
                callback.change_metric(Series::Configuration(Configuration::Refused), Change::Grow(1));
                problems.lines().iter().for_each(|line| host::log(Level::Warn, line));
                false
            }
        }
    });
    configured == Some(true)
}

fn on_tick(root: u32) {
    callback(root, None, |callback| {
        let now = callback.now();
        callback.worker.engine.tick(RootId(root), now);
        for (stream, verdict) in std::mem::take(&mut callback.worker.deferred) {
            callback.decide(stream, verdict);
        }
        // Otherwise the host would repeat the tick at the period that has just passed.
        if callback.set_effective_root(RootId(root)).and_then(|()| host::set_tick(0)).is_ok() {
            callback.worker.ticks.insert(RootId(root), None);
        }
    });
}

fn on_headers(context: u32, end_of_stream: bool) -> u32 {
    stream_callback(context, |callback, stream, root| {
        // Headers that cannot be read cannot be cleaned either. An empty map means that the host
        // did not return it.
        let head = host::map(MapType::HttpRequestHeaders).filter(|head| !head.is_empty());
        let Some(head) = head else { return callback.reject_unreadable(stream) };
        let now = callback.now();
        let head = header_map::request_head(&head, end_of_stream).with_source(&host::source_address);
        let step = callback.worker.engine.begin(stream, root, &head, now);
        if matches!(step, Step::NeedBody) {
            // What leaves the head is no part of the request's size any more.
            callback.drain();
            callback.measure(stream);
        }
        callback.finish(stream, step)
    })
}

/// Returns 1 (pause) for anything but "continue": a stream that is held should get no body
/// callback, and if it does, it stays held.
fn on_body(context: u32, received: usize, end_of_stream: bool) -> u32 {
    let answer = stream_callback(context, |callback, stream, _| {
        let now = callback.now();
        let mut fetch = |from, len| host::bytes(BufferType::HttpRequestBody, from, len);
        let step = callback.worker.engine.body(stream, received, end_of_stream, &mut fetch, now);
        callback.finish(stream, step)
    });
    u32::from(answer != CONTINUE)
}

/// Returns the same values as [`on_body`]. A request with trailers ends here, and not with a last
/// body callback.
fn on_trailers(context: u32) -> u32 {
    let answer = stream_callback(context, |callback, stream, _| {
        let Some(trailers) = host::map(MapType::HttpRequestTrailers) else {
            return callback.reject_unreadable(stream);
        };
        let Ok(trailers) = header_map::parse(&trailers) else { return callback.reject_unreadable(stream) };
        let now = callback.now();
        let names = trailers.into_iter().map(|(name, _)| name);
        let mut fetch = |from, len| host::bytes(BufferType::HttpRequestBody, from, len);
        let (step, owned) = callback.worker.engine.trailers(stream, names, &mut fetch, now);
        if host::remove_trailers(&owned).is_err() {
            return callback.reject_unreadable(stream);
        }
        callback.finish(stream, step)
    });
    u32::from(answer != CONTINUE)
}

fn on_reply(root: u32, token: u32, headers: u32, size: usize) {
    callback(root, None, |callback| {
        let Some(flight) = callback.worker.flights.remove(&(RootId(root), token)) else { return };
        let (head, body);
        let answer = if headers == 0 {
            // The connection broke after the response had begun: there is no header map, and
            // reading it is an error.
            Err(CallFailure::Reset)
        } else {
            head = host::map(MapType::HttpCallResponseHeaders).unwrap_or_default();
            // What is not copied for its size, or not handed over, is a limit of our own: unlike a
            // broken connection it must open nothing.
            body = Some(size)
                .filter(|size| *size <= MAX_REPLY_BYTES)
                .and_then(|size| host::bytes(BufferType::HttpCallResponseBody, 0, size));
            match &body {
                Some(body) => response::read(&head, body),
                None => response::read_oversize(&head),
            }
        };
        let now = callback.now();
        callback.worker.engine.landed(flight, answer, now);
    });
}

fn on_delete(context: u32) {
    callback(context, None, |callback| match callback.worker.contexts.remove(&context) {
        Some(root) if root.0 == context => {
            callback.worker.flights.retain(|(owner, _), _| *owner != root);
            callback.worker.ticks.remove(&root);
            let now = callback.now();
            callback.worker.engine.root_gone(root, now);
        }
        Some(_) => callback.worker.engine.gone(StreamId(context)),
        None => {}
    });
}
