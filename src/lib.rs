//! Avnology Gate: an Envoy proxy-wasm filter that introspects bearer tokens, checks permissions,
//! enforces route rules and verifies webhook signatures before the service sees the request.
//!
//! The native build of this crate is the core: a state machine without clocks, sockets or a proxy.
//! It is fed events (a request's head, body bytes, a callout's answer, the time) and says what to
//! do next. On wasm the `filter` module drives it inside Envoy; tests drive it in virtual time.
//!
//! ```text
//! RequestHead → Route → Token ⇢ TokenInfo → Identity → Check ⇢ Granted → Permit | Refusal
//!   → Verdict                                              (⇢ is a callout)
//! ```
//!
//! Dependencies point downwards, in an order that `tests/architecture.rs` holds the modules to.

#![cfg_attr(not(target_family = "wasm"), forbid(unsafe_code))]
#![cfg_attr(target_family = "wasm", deny(unsafe_code))]
// A test that overflows or slices wrongly fails, as it should.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, clippy::string_slice, clippy::type_complexity))]

mod backoff;
mod breaker;
mod cache;
mod claims;
pub mod config;
mod credential;
pub mod envoy;
#[cfg(target_family = "wasm")]
mod filter;
pub mod flow;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod hash;
pub mod http;
mod introspect;
pub mod overrides;
mod permission;
mod policy;
mod probe;
mod provider;
mod rate_limit;
pub mod refusal;
mod route;
mod secret;
pub mod telemetry;
mod template;
pub mod time;
pub mod verdict;
mod webhook;
