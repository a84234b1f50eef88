//! The targets, by what they feed.

pub(crate) mod answers;
pub(crate) mod config;
pub(crate) mod decide;
pub(crate) mod engine;
pub(crate) mod envoy;
pub(crate) mod event;
pub(crate) mod replay;
pub(crate) mod request;
pub(crate) mod slots;
pub(crate) mod webhook;
