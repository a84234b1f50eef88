//! The proxy-wasm 0.2.1 ABI: exports, raw host calls, and the crate's only `unsafe` code.
//!
//! A call's status stays the number that the host returned: an enum made from an unknown number
//! would be undefined behaviour. [`super::host`] interprets statuses; nothing is decided here.
//!
//! Exports are named `gate_*`, and the packing step renames them to `proxy_*`. So a module that was
//! not packed lacks the ABI version export, and the host refuses it. If it had that export alone,
//! the host would load it without callbacks, and every request would pass.
//!
//! Of the SDK, `proxy-wasm`, only types are used: its dispatcher loses the callouts of streams that
//! have ended, and it panics on statuses that this filter meets. The linker drops that code, and
//! the packing step fails if an import shows that it is back.

#![allow(unsafe_code, reason = "the host takes addresses, and an exported name is a promise to the linker")]

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

/// Wraps each host function in a safe one: `name(numbers; slices; numbers and out-parameters)`, in
/// the order of the ABI.
macro_rules! host_calls {
    ($($name:ident($($first:ident: $F:ty),*; $($slice:ident),*; $($last:ident: $L:ty),*);)*) => {$(
        pub(super) fn $name($($first: $F,)* $($slice: &[u8],)* $($last: $L),*) -> u32 {
            mod raw {
                #[link(wasm_import_module = "env")]
                unsafe extern "C" {
                    pub(super) fn $name($($first: $F,)* $($slice: *const u8, _: usize,)* $($last: $L),*) -> u32;
                }
            }
            // SAFETY: the host reads each slice within its bounds, writes each out-parameter during
            // the call, and keeps no address.
            unsafe { raw::$name($($first,)* $($slice.as_ptr(), $slice.len(),)* $($last),*) }
        }
    )*};
}

host_calls! {
    proxy_log(level: u32; text; );
    proxy_get_log_level(; ; level: &mut u32);
    proxy_get_current_time_nanoseconds(; ; now: &mut u64);
    proxy_set_tick_period_milliseconds(period: u32; ; );
    proxy_set_effective_context(context: u32; ; );
    proxy_continue_stream(kind: u32; ; );
    proxy_send_local_response(status: u32; details, body, headers; grpc_status: i32);
    proxy_http_call(; cluster, headers, body, trailers; timeout: u32, token: &mut u32);
    proxy_get_buffer_bytes(buffer: u32, from: usize, max: usize; ; address: &mut usize, len: &mut usize);
    proxy_get_header_map_pairs(map: u32; ; address: &mut usize, len: &mut usize);
    proxy_add_header_map_value(map: u32; name, value; );
    proxy_replace_header_map_value(map: u32; name, value; );
    proxy_remove_header_map_value(map: u32; name; );
    proxy_get_property(; path; address: &mut usize, len: &mut usize);
    proxy_set_property(; path, value; );
    proxy_get_shared_data(; key; address: &mut usize, len: &mut usize, cas: &mut u32);
    proxy_set_shared_data(; key, value; cas: u32);
    proxy_define_metric(kind: u32; name; metric: &mut u32);
    proxy_increment_metric(metric: u32, by: i64; ; );
    proxy_record_metric(metric: u32, value: u64; ; );
}

/// Fills a slice with random bytes.
pub(super) fn random_get(into: &mut [u8]) -> u32 {
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        fn random_get(into: *mut u8, len: usize) -> u32;
    }
    // SAFETY: the host writes within the bounds of `into`, during the call.
    unsafe { random_get(into.as_mut_ptr(), into.len()) }
}

thread_local! {
    /// The buffer that the host requested last. The filter keeps ownership: it trusts the host for
    /// the contents, never for the address and the length.
    static HOST_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Makes a host call that returns bytes: the host requests a buffer, fills it, and returns its
/// address and length. They are accepted only if they are exactly those of the buffer that was
/// allocated. Returns `None` otherwise, and for a status other than 0.
pub(super) fn read_host_buffer(call: impl FnOnce(&mut usize, &mut usize) -> u32) -> Option<Vec<u8>> {
    let (mut address, mut len) = (0, 0);
    let status = call(&mut address, &mut len);
    let room =
        HOST_BUFFER.try_with(|room| room.try_borrow_mut().ok().map(|mut room| std::mem::take(&mut *room)));
    match room.ok().flatten() {
        _ if status != 0 => None,
        // The host requests no buffer if it has nothing to return.
        _ if len == 0 => Some(Vec::new()),
        room => room.filter(|room| room.as_ptr().addr() == address && room.len() == len),
    }
}

/// Allocates a buffer for bytes that the host is about to return. Returns null, which the host
/// treats as a failure, if it cannot.
fn allocate(size: usize) -> *mut u8 {
    let mut fresh = Vec::new();
    if size > MAX_HOST_BUFFER || fresh.try_reserve_exact(size).is_err() {
        return std::ptr::null_mut();
    }
    fresh.resize(size, 0);
    let kept = HOST_BUFFER.try_with(|room| {
        let mut room = room.try_borrow_mut().ok()?;
        *room = fresh;
        Some(room.as_mut_ptr())
    });
    kept.ok().flatten().unwrap_or(std::ptr::null_mut())
}

/// Longer than anything that the filter asks of a host: one body may be as long as a worker's whole
/// budget for bodies.
const MAX_HOST_BUFFER: usize = 64 * 1024 * 1024;

fn initialize() {
    unsafe extern "C" {
        // The linker defines this function. If it sees a call, it does not wrap every export in
        // one.
        fn __wasm_call_ctors();
    }
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.swap(true, Ordering::Relaxed) {
        // SAFETY: constructors of static data, run once and before anything that could need them.
        unsafe { __wasm_call_ctors() }
    }
}

macro_rules! exports {
    ($(fn $name:ident($($arg:ident: $T:ty),*) $(-> $Out:ty)? $body:block)*) => {
        $(#[unsafe(no_mangle)] extern "C" fn $name($($arg: $T),*) $(-> $Out)? $body)*
    };
}

exports! {
    fn _initialize() { initialize() }
    fn gate_abi_version_0_2_1() {}
    fn gate_on_memory_allocate(size: usize) -> *mut u8 { allocate(size) }
    fn gate_on_context_create(context: u32, root: u32) { super::on_context_create(context, root) }
    fn gate_on_configure(root: u32, size: usize) -> u32 { super::on_configure(root, size).into() }
    fn gate_on_tick(root: u32) { super::on_tick(root) }
    fn gate_on_request_headers(stream: u32, _count: u32, end: u32) -> u32 { super::on_headers(stream, end != 0) }
    fn gate_on_request_body(stream: u32, size: usize, end: u32) -> u32 { super::on_body(stream, size, end != 0) }
    fn gate_on_request_trailers(stream: u32, _count: u32) -> u32 { super::on_trailers(stream) }
    fn gate_on_http_call_response(root: u32, token: u32, headers: u32, body: usize, _trailers: u32) { super::on_reply(root, token, headers, body) }
    fn gate_on_delete(context: u32) { super::on_delete(context) }
}
