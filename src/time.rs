//! Points in time. Arithmetic only: whoever drives the core reads the clock.

use std::time::Duration;

/// Nanoseconds since the Unix epoch, as the host's clock reports them.
///
/// The host's clock may go backwards; every operation saturates, so that no order of readings can
/// panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// A point in time from nanoseconds since the Unix epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// A point in time from whole seconds since the Unix epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// The point in time that is this much later.
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The point in time that is this much earlier.
    #[must_use]
    pub fn saturating_sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this point is; zero if it is before.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_goes_backwards_is_zero_and_never_a_panic() {
        let later = Timestamp::from_secs(10);
        assert_eq!(Timestamp::from_secs(5).saturating_since(later), Duration::ZERO);
        assert_eq!(later.saturating_since(Timestamp::from_secs(5)), Duration::from_secs(5));
        assert_eq!(
            Timestamp::from_nanos(u64::MAX).saturating_add(Duration::MAX),
            Timestamp::from_nanos(u64::MAX)
        );
    }
}
