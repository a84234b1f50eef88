//! The byte formats of Envoy and other proxy-wasm hosts: the layout of header maps, the responses
//! that Envoy generates itself, the headers that make its router retry.
//!
//! All of it is pure and is tested natively. `filter` makes the host calls; the core knows none of
//! this.

pub mod callout;
pub mod header_map;
pub mod response;
