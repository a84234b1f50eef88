//! Every host call as a safe function over bytes, with the meaning of its status.
//!
//! Calls act on the *effective context*: the callback's own until [`set_effective_context`] selects
//! another.

use super::abi;
use crate::envoy::{callout, header_map};
use crate::flow::{Level, Seed, SharedStore};
use crate::http::{Callout, Edit, LocalReply};
use crate::telemetry::{Change, MetricKind};
use crate::time::Timestamp;
pub(super) use proxy_wasm::types::{BufferType, MapType};
use proxy_wasm::types::{LogLevel, MetricType, Status, StreamType};

/// The host refused a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused;

/// Reads a whole header map, in the layout that [`header_map::parse`] reads. The host returns a map
/// that it no longer has as an empty one.
pub(super) fn map(map: MapType) -> Option<Vec<u8>> {
    abi::read_host_buffer(|address, len| abi::proxy_get_header_map_pairs(map as u32, address, len))
}

/// Reads exactly `len` bytes of a buffer. For a range past the end, the host returns fewer bytes,
/// down to none, and reports success.
pub(super) fn bytes(buffer: BufferType, from: usize, len: usize) -> Option<Vec<u8>> {
    if len == 0 {
        return Some(Vec::new());
    }
    abi::read_host_buffer(|address, size| {
        abi::proxy_get_buffer_bytes(buffer as u32, from, len, address, size)
    })
    .filter(|bytes| bytes.len() == len)
}

/// Applies changes to the request's headers, until the host refuses one.
pub(super) fn edit(edits: &[Edit]) -> Result<(), Refused> {
    let map = MapType::HttpRequestHeaders as u32;
    let add = |name: &[u8], value: &[u8]| ok(abi::proxy_add_header_map_value(map, name, value));
    edits.iter().try_for_each(|edit| match edit {
        Edit::Remove(name) => ok(abi::proxy_remove_header_map_value(map, name)),
        Edit::Add(name, value) => add(name, value),
        Edit::AddAll(headers) => headers.iter().try_for_each(|(name, value)| add(name, value)),
        Edit::Replace(name, value) => ok(abi::proxy_replace_header_map_value(map, name, value)),
    })
}

/// Removes names from the request's trailers, until the host refuses one. A name that is absent is
/// not refused.
pub(super) fn remove_trailers(names: &[Vec<u8>]) -> Result<(), Refused> {
    let map = MapType::HttpRequestTrailers as u32;
    names.iter().try_for_each(|name| ok(abi::proxy_remove_header_map_value(map, name)))
}

/// Sends a local response, once the running callback has returned.
pub(super) fn respond(reply: &LocalReply) -> Result<(), Refused> {
    let (details, body) = (reply.details.as_bytes(), reply.body.as_bytes());
    // -1 means "not set": the host then derives one from the status, if the request is gRPC.
    let grpc_status = reply.grpc_status.map_or(-1, i32::from);
    let headers = header_map::encode(&reply.headers);
    ok(abi::proxy_send_local_response(reply.status.into(), details, body, &headers, grpc_status))
}

/// Resumes a waiting request, once the running callback has returned. Never call it for the request
/// whose callback is running: the return value resumes that one, and a request with a body that is
/// resumed and then paused hangs.
pub(super) fn resume() -> Result<(), Refused> {
    ok(abi::proxy_continue_stream(StreamType::HttpRequest as u32))
}

/// Makes `context` the effective one. If the host refuses, the previous one stays in effect, and
/// the next call would change or resume another request.
pub(super) fn set_effective_context(context: u32) -> Result<(), Refused> {
    ok(abi::proxy_set_effective_context(context))
}

/// Sends a callout. Its response arrives at the effective context's root, under this token. The
/// host refuses an unknown cluster, a cluster without a healthy endpoint, and an open circuit
/// breaker.
pub(super) fn dispatch(callout: &Callout) -> Result<u32, Refused> {
    let headers = callout::headers(callout);
    let trailers = header_map::encode::<&str, &str>(&[]);
    // The host reads 0 as "no limit".
    let timeout = u32::try_from(callout.timeout.as_millis()).unwrap_or(u32::MAX).max(1);
    let (cluster, mut token) = (callout.cluster.as_bytes(), 0);
    ok(abi::proxy_http_call(cluster, &headers, &callout.body, &trailers, timeout, &mut token)).map(|()| token)
}

/// Sets the tick period of the effective context's root, in milliseconds; 0 stops the tick.
pub(super) fn set_tick(millis: u32) -> Result<(), Refused> {
    ok(abi::proxy_set_tick_period_milliseconds(millis))
}

/// The bytes of the request that have arrived, headers included. The host counts them even while it
/// makes no body callbacks.
pub(super) fn request_total_size() -> Option<u64> {
    let size =
        abi::read_host_buffer(|address, len| abi::proxy_get_property(b"request\0total_size", address, len))?;
    size.try_into().ok().map(u64::from_le_bytes)
}

/// The address and port that the effective context's request comes from.
pub(super) fn source_address() -> Option<Vec<u8>> {
    abi::read_host_buffer(|address, len| abi::proxy_get_property(b"source\0address", address, len))
}

/// The plugin's `vm_id`.
pub(super) fn vm_id() -> Option<Vec<u8>> {
    abi::read_host_buffer(|address, len| abi::proxy_get_property(b"plugin_vm_id", address, len))
}

/// Writes the filter state `wasm.` and this name of the effective context's stream. The name is one
/// path segment, dots included: the host joins several with NUL, which no access log format names.
pub(super) fn set_filter_state(name: &str, value: &str) -> Result<(), Refused> {
    ok(abi::proxy_set_property(name.as_bytes(), value.as_bytes()))
}

/// Defines a metric and returns its id. A name is one metric for the whole proxy.
pub(super) fn define_metric(kind: MetricKind, name: &str) -> Option<u32> {
    let kind = match kind {
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Histogram => MetricType::Histogram,
    };
    let mut metric = 0;
    ok(abi::proxy_define_metric(kind as u32, name.as_bytes(), &mut metric)).ok().map(|()| metric)
}

/// Changes a metric. The host refuses a counter's growth by 0.
pub(super) fn change_metric(metric: u32, change: Change) -> Result<(), Refused> {
    ok(match change {
        Change::Grow(by) => abi::proxy_increment_metric(metric, i64::try_from(by).unwrap_or(i64::MAX)),
        Change::Move(by) => abi::proxy_increment_metric(metric, by),
        Change::Record(value) => abi::proxy_record_metric(metric, value),
    })
}

/// Writes a line to the host's log. A refusal is ignored: there is nowhere to report it.
pub(super) fn log(level: Level, line: &str) {
    let _ = abi::proxy_log(number(level), line.as_bytes());
}

/// Whether the host logs lines of this level. An operator may change that at any time.
pub(super) fn logs(level: Level) -> bool {
    let mut lowest = 0;
    ok(abi::proxy_get_log_level(&mut lowest)).is_ok() && lowest <= number(level)
}

/// The host's wall clock.
pub(super) fn now() -> Timestamp {
    let mut nanos = 0;
    match ok(abi::proxy_get_current_time_nanoseconds(&mut nanos)) {
        Ok(()) => Timestamp::from_nanos(nanos),
        // The latest possible time: everything that can expire has expired.
        Err(Refused) => Timestamp::from_nanos(u64::MAX),
    }
}

/// A random seed for keys.
pub(super) fn seed() -> Option<Seed> {
    let mut seed = [0; 16];
    ok(abi::random_get(&mut seed)).ok().map(|()| Seed(seed))
}

/// The shared data of all virtual machines with one `vm_id`.
pub(super) struct Slots;

impl SharedStore for Slots {
    fn get(&self, slot: &str) -> Option<(Vec<u8>, u32)> {
        let mut cas = 0;
        abi::read_host_buffer(|address, len| {
            abi::proxy_get_shared_data(slot.as_bytes(), address, len, &mut cas)
        })
        .map(|value| (value, cas))
    }

    fn compare_and_set(&self, slot: &str, value: &[u8], cas: Option<u32>) -> bool {
        // If the key is absent, any number writes. If it is present, a number that no value ever
        // had does not write. 0 would overwrite without a check.
        let cas = cas.unwrap_or(u32::MAX);
        cas != 0 && ok(abi::proxy_set_shared_data(slot.as_bytes(), value, cas)).is_ok()
    }
}

/// A status is compared as a number: the host may return one that the SDK's type does not have.
fn ok(status: u32) -> Result<(), Refused> {
    if status == Status::Ok as u32 { Ok(()) } else { Err(Refused) }
}

fn number(level: Level) -> u32 {
    let level = match level {
        Level::Debug => LogLevel::Debug,
        Level::Info => LogLevel::Info,
        Level::Warn => LogLevel::Warn,
    };
    level as u32
}
