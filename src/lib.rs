//! Avnology Gate: an Envoy proxy-wasm filter that introspects bearer tokens, checks permissions, enforces route rules and verifies webhook
//! signatures before the service sees the request.
//!
//! The native build of this crate is the core: a state machine without clocks, sockets or a proxy. It is fed events (a request's head, body
//! bytes, a callout's answer, the time) and says what to do next. On wasm the `filter` module drives it inside Envoy; tests drive it in
//! virtual time.
//!
//! ```text
//! bytes → RequestHead → Route → Token ⇢ Introspection → Identity → Check ⇢ Granted → Permit | Refusal → Verdict → edits | answer
//!                                     ⇢ is a callout
//! ```
//!
//! Dependencies point downwards, in an order that `tests/architecture.rs` holds the modules to.

#![cfg_attr(not(target_family = "wasm"), forbid(unsafe_code))]
#![cfg_attr(target_family = "wasm", deny(unsafe_code))]
// A test that overflows or slices wrongly fails, as it should.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, clippy::string_slice, clippy::type_complexity))]

pub mod breaker;
pub mod cache;
pub mod claims;
pub mod config;
pub mod credential;
pub mod envoy;
#[cfg(target_family = "wasm")]
mod filter;
pub mod flow;
pub mod hash;
pub mod http;
pub mod introspect;
pub mod permission;
pub mod policy;
pub mod provider;
pub mod rate_limit;
pub mod refusal;
pub mod route;
pub mod secret;
pub mod telemetry;
pub mod template;
pub mod time;
pub mod verdict;
pub mod webhook;
