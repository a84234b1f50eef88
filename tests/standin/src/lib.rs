//! A stand-in for Avnology ID: token introspection, permission checks, sessions and webhook
//! delivery.
//!
//! [`Provider`] is the pure model: no I/O and no clock, so that a test in virtual time can drive
//! it. [`serve`] and [`Running`] put it on a socket, with a control port that scripts answers and
//! failures.

pub mod form;
mod model;
mod rule;
mod seed;
mod server;
mod webhook;

pub use model::{Answer, Call, Endpoint, Provider, Request};
pub use rule::{Fault, HeaderValues, On, Repeat, Rule};
pub use seed::{Check, Client, Seed, Session, Token};
pub use server::{Running, serve};
pub use webhook::{Delivered, Delivery, deliver, sign, sign_body_only};
