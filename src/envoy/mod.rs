//! What Envoy and other proxy-wasm hosts hand over and want, as bytes: the layout of header maps,
//! the answers that Envoy makes up where there is none, the headers by which its router retries.
//!
//! All of it is pure and tested natively. `filter` makes the host calls; the core knows none of
//! this.

pub mod callout;
pub mod header_map;
pub mod response;
