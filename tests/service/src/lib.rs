//! What the stand-in and the example upstream have in common: how they start, run and stop, the
//! server's half of HTTP/1.1, and the health check.

mod health;
pub mod http1;
mod program;
mod running;

pub use health::{health, split};
pub use program::{Command, Stop, started, text};
pub use running::{Running, accept, pause};
