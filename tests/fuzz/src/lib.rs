//! What is fuzzed: one function from bytes for each reader of what comes from outside, and one for
//! the engine. libFuzzer drives them (`fuzz/`, `make fuzz`), and `tests/replay.rs` replays the kept
//! inputs on any toolchain.
//!
//! A target panics where the gate does, and where it says something else than a naive reading.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::string_slice)]

#[path = "../../differential/gate.rs"]
mod differential;
#[path = "../../differential/reference.rs"]
mod reference;
#[path = "../../differential/world.rs"]
mod world;

mod gate;
mod json;
mod targets;

/// A function from bytes that is fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of its binary, its corpus and its row in `fuzz/README.md`.
    pub name: &'static str,
    /// Takes any bytes, and panics where the gate is wrong about them.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "answer", run: targets::answers::answer },
    Target { name: "claims", run: targets::answers::claims },
    Target { name: "config", run: targets::config::config },
    Target { name: "credential", run: targets::request::credential },
    Target { name: "decide", run: targets::decide::decide },
    Target { name: "duration", run: targets::config::duration },
    Target { name: "engine", run: targets::engine::engine },
    Target { name: "event", run: targets::event::event },
    Target { name: "header_map", run: targets::envoy::header_map },
    Target { name: "host", run: targets::request::host },
    Target { name: "packed", run: targets::slots::packed },
    Target { name: "path", run: targets::request::path },
    Target { name: "permission", run: targets::answers::permission },
    Target { name: "query", run: targets::request::query },
    Target { name: "replay", run: targets::replay::replay },
    Target { name: "response", run: targets::envoy::response },
    Target { name: "retry_after", run: targets::answers::retry_after },
    Target { name: "slots", run: targets::slots::slots },
    Target { name: "template", run: targets::config::template },
    Target { name: "trace", run: targets::request::trace },
    Target { name: "webhook", run: targets::webhook::webhook },
];

/// Runs one target.
///
/// # Panics
/// Where there is none of that name, and where the gate is wrong.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of that name");
    (target.run)(data);
}
