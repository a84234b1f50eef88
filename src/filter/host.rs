//! Every host call as a safe function over bytes, with what its status means.
//!
//! Calls act on the *effective context*: the callback's own until [`set_effective_context`] names
//! another.

use super::abi;
use crate::envoy::{callout, header_map};
use crate::flow::{Level, Seed, SharedStore};
use crate::http::{Callout, Edit, LocalReply};
use crate::time::Timestamp;
pub(super) use proxy_wasm::types::{BufferType, MapType};
use proxy_wasm::types::{LogLevel, MetricType, Status, StreamType};

/// The host refused a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused;

/// A whole header map, serialised as [`header_map::parse`] reads it. The host shows a map that it
/// no longer has as an empty one.
pub(super) fn map(map: MapType) -> Option<Vec<u8>> {
    abi::read_host_buffer(|address, len| abi::proxy_get_header_map_pairs(map as u32, address, len))
}

/// Exactly `len` bytes of a buffer. The host answers a range past the end with fewer, down to none,
/// and calls it a success.
pub(super) fn bytes(buffer: BufferType, from: usize, len: usize) -> Option<Vec<u8>> {
    if len == 0 {
        return Some(Vec::new());
    }
    abi::read_host_buffer(|address, size| {
        abi::proxy_get_buffer_bytes(buffer as u32, from, len, address, size)
    })
    .filter(|bytes| bytes.len() == len)
}

/// Applies changes to the request's headers, until one is refused.
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

/// Removes names from the request's trailers, until one is refused. A name that is not there is no
/// refusal.
pub(super) fn remove_trailers(names: &[Vec<u8>]) -> Result<(), Refused> {
    let map = MapType::HttpRequestTrailers as u32;
    names.iter().try_for_each(|name| ok(abi::proxy_remove_header_map_value(map, name)))
}

/// Answers in the service's place, once the running callback has returned.
pub(super) fn respond(reply: &LocalReply) -> Result<(), Refused> {
    let (details, body) = (reply.details.as_bytes(), reply.body.as_bytes());
    // -1 is "none": the host then makes one from the status, where the request is gRPC.
    let grpc_status = reply.grpc_status.map_or(-1, i32::from);
    let headers = header_map::encode(&reply.headers);
    ok(abi::proxy_send_local_response(reply.status.into(), details, body, &headers, grpc_status))
}

/// Lets a waiting request go on, once the running callback has returned. Never the one whose
/// callback is running: its return value says so, and a request with a body that is resumed and
/// then paused hangs.
pub(super) fn resume() -> Result<(), Refused> {
    ok(abi::proxy_continue_stream(StreamType::HttpRequest as u32))
}

/// Makes `context` the effective one. Where the host refuses, the previous one stays in effect, and
/// the next call would rewrite or release somebody else's request.
pub(super) fn set_effective_context(context: u32) -> Result<(), Refused> {
    ok(abi::proxy_set_effective_context(context))
}

/// Sends a callout; its answer comes to the effective context's root, under this token. An unknown
/// cluster, no healthy endpoint and an open circuit breaker are refusals.
pub(super) fn dispatch(callout: &Callout) -> Result<u32, Refused> {
    let headers = callout::headers(callout);
    let trailers = header_map::encode::<&str, &str>(&[]);
    // The host reads 0 as "no limit".
    let timeout = u32::try_from(callout.timeout.as_millis()).unwrap_or(u32::MAX).max(1);
    let (cluster, mut token) = (callout.cluster.as_bytes(), 0);
    ok(abi::proxy_http_call(cluster, &headers, &callout.body, &trailers, timeout, &mut token)).map(|()| token)
}

/// Asks for a tick of the effective context's root every so many milliseconds; 0 stops it.
pub(super) fn set_tick(millis: u32) -> Result<(), Refused> {
    ok(abi::proxy_set_tick_period_milliseconds(millis))
}

/// Bytes of the request that have arrived, head included: the host goes on counting where it makes
/// no body callback.
pub(super) fn request_total_size() -> Option<u64> {
    let size =
        abi::read_host_buffer(|address, len| abi::proxy_get_property(b"request\0total_size", address, len))?;
    size.try_into().ok().map(u64::from_le_bytes)
}

/// Writes the filter state `wasm.avnology_gate` of the effective context's stream.
pub(super) fn set_filter_state(value: &str) -> Result<(), Refused> {
    // A single segment: the host joins several with NUL, and no access log can name that.
    ok(abi::proxy_set_property(b"avnology_gate", value.as_bytes()))
}

/// The id of a counter. A name is one counter for the whole proxy.
pub(super) fn define_counter(name: &str) -> Option<u32> {
    let mut metric = 0;
    ok(abi::proxy_define_metric(MetricType::Counter as u32, name.as_bytes(), &mut metric))
        .ok()
        .map(|()| metric)
}

/// Counts one.
pub(super) fn count(metric: u32) -> Result<(), Refused> {
    ok(abi::proxy_increment_metric(metric, 1))
}

/// Writes a line to the host's log. A host that refuses has nowhere to be told so.
pub(super) fn log(level: Level, line: &str) {
    let _ = abi::proxy_log(number(level), line.as_bytes());
}

/// Whether the host writes lines of this level. An operator may change that at any time.
pub(super) fn logs(level: Level) -> bool {
    let mut lowest = 0;
    ok(abi::proxy_get_log_level(&mut lowest)).is_ok() && lowest <= number(level)
}

/// The host's wall clock.
pub(super) fn now() -> Timestamp {
    let mut nanos = 0;
    match ok(abi::proxy_get_current_time_nanoseconds(&mut nanos)) {
        Ok(()) => Timestamp::from_nanos(nanos),
        // The end of time: nothing holds any more that has an end.
        Err(Refused) => Timestamp::from_nanos(u64::MAX),
    }
}

/// Randomness for keys.
pub(super) fn seed() -> Option<Seed> {
    let mut seed = [0; 16];
    ok(abi::random_get(&mut seed)).ok().map(|()| Seed(seed))
}

/// The data that all virtual machines of one `vm_id` share.
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
        // Where the key is absent every number writes; where it is not, one that no value ever had
        // does not. 0 would overwrite blindly.
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
