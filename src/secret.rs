//! Values that must not be shown: secrets of the configuration and tokens of requests.

use std::fmt;

/// A value that never appears in logs, errors or debug output.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides a value.
    pub(crate) const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for the one place that sends or compares it.
    pub(crate) const fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A bearer token as a request presented it: RFC 6750's `b64token`.
pub(crate) type Token = Secret<String>;

/// The prefix of session tokens, which are sent as bearer tokens and are not OAuth tokens.
pub(crate) const SESSION_PREFIX: &str = "avnl_ses_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
    }
}
