//! An example upstream: it answers every request with what it received, and remembers it.
//!
//! HTTP/1.1 and HTTP/2 with prior knowledge share one port. Over HTTP/1.1 everything is shown
//! exactly as sent. Over HTTP/2 the library shows through: values of a repeated header stand
//! together at the place of the first, a path loses what follows `#`, and one with a character that
//! no URI may hold (`<`, `>`, a backtick) breaks the stream without being recorded.

mod log;
mod running;
mod server;

pub use log::{Log, Seen};
pub use running::Running;
pub use server::serve;
