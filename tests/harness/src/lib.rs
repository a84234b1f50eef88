//! Runs the gate's cases: against the core alone in virtual time, and against a real Envoy.

pub mod attack;
pub mod client;
pub mod compose;
pub mod control;
pub mod core_driver;
pub mod corpus;
pub mod demo;
pub mod envoy;
pub mod envoy_driver;
pub mod framework;
pub mod manifests;
pub mod page;
pub mod port;
pub mod prometheus;
pub mod sample;
pub mod scene;
pub mod shipped;
mod sys;

/// The signals that stop a run.
///
/// # Errors
/// The system's error, if it does not let us handle them.
pub fn interrupts() -> std::io::Result<signal_hook::iterator::Signals> {
    signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])
}

// For tests, which depend on no other crate of ours.
pub use {standin, upstream};
