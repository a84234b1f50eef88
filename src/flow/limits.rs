//! How much a worker takes on at once.

use crate::webhook::MAX_HELD_BYTES;

/// The limits of one worker. What one caller can fill has a share of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Streams that wait for the provider, with a token that was not seen active lately: whoever
    /// invents tokens must not keep those out whose token is known.
    pub(crate) waiting_new: usize,
    /// All other streams that wait for the provider.
    pub(crate) waiting_known: usize,
    /// Streams whose body is received: whoever withholds bodies must not keep others from the
    /// provider.
    pub(crate) receiving: usize,
    /// Preflights whose end is still to come: they need no credential, and wait for two seconds at
    /// the most.
    pub(crate) ending: usize,
    /// Bytes that the first keep here. A sender chooses how long what a rule reads is, so each of
    /// these has bytes of its own, as it has places.
    pub(crate) parked_new: usize,
    /// Bytes that the second keep here.
    pub(crate) parked_known: usize,
    /// Bytes that the third keep here. None of them is the sender's choice.
    pub(crate) parked_receiving: usize,
    /// Bytes that the fourth keep here.
    pub(crate) parked_ending: usize,
    /// Webhook bytes that the host holds.
    pub(crate) held_bytes: usize,
    /// Waiters of one flight, those that have gone included: one token must not take every place.
    pub(crate) waiters: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            waiting_new: 15_000,
            waiting_known: 15_000,
            receiving: 5_000,
            ending: 2_000,
            parked_new: 24 * 1024 * 1024,
            parked_known: 24 * 1024 * 1024,
            parked_receiving: 16 * 1024 * 1024,
            parked_ending: 4 * 1024 * 1024,
            held_bytes: MAX_HELD_BYTES,
            waiters: 5_000,
        }
    }
}
