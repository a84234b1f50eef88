//! The engine, driven as a host drives it: two workers that share slots, two roots in each, every
//! callback in any order, and a clock that jumps.
//!
//! Whatever the bytes choose: no panic; every stream is decided once, and nothing of it passes
//! before; what a client says of itself leaves before the gate's own word goes in; who passes was
//! vouched for by the provider, or by a signature; and when all has ended, nothing is left.

mod scene;
mod worker;

use arbitrary::{Result, Unstructured};
use worker::World;

/// Bytes choose what happens next.
pub(crate) fn engine(data: &[u8]) {
    let input = &mut Unstructured::new(data);
    let mut world = World::new();
    let mut left = 400;
    while !input.is_empty() && left > 0 && world.step(input).is_ok() {
        world.check();
        left -= 1;
    }
    world.end(input);
}

impl World {
    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let worker = usize::from(input.arbitrary::<bool>()?);
        match input.int_in_range(0..=23_u8)? {
            0..=5 => self.begin(worker, input),
            6..=8 => self.body(worker, input),
            9 => self.trailers(worker, input),
            10..=14 => self.land(worker, input),
            15 | 16 => self.tick(worker, input),
            17 => self.jump(input),
            18 => self.gone(worker, input),
            19 => self.configure(worker, input),
            20 => self.root_gone(worker, input),
            21 => self.store.tamper(input),
            22 => self.host_fails(worker, input),
            _ => self.stray(worker, input),
        }
    }
}
