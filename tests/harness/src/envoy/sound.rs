//! Checks an Envoy after everything that the trials did to it.

use super::Envoy;

macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err(format!($($message)+));
        }
    };
}

impl Envoy {
    /// Checks that the process runs, that its module never failed, and that its log contains no
    /// secret.
    pub fn sound(&self) -> Result<(), String> {
        ensure!(self.lives(), "Envoy has ended:\n{}", self.log());
        // No request ever crashed the module.
        let failures = self.stats("vm_reload%7Cwasm_fail");
        ensure!(
            failures.values().all(|count| *count == 0),
            "a worker's module was started anew: {failures:?}"
        );
        let log = self.log();
        // A trap that is not a panic is logged in Envoy's words: `Function: proxy_on_delete failed:
        // Uncaught RangeError: …`.
        let words = ["panicked", "wasm trap", "failed: Uncaught"];
        let panicked = log.lines().find(|line| words.iter().any(|word| line.contains(word)));
        ensure!(panicked.is_none(), "the module panicked: {panicked:?}");
        // The corpus's tokens begin like this; refused ones are recognised by their prefix, and are
        // secrets all the same.
        let tokens = ["tok_", "avnl_ses_", "rt_", "ak_live_", "ak_test_", "cs_", "whsec_"];
        let told = log.lines().filter(|line| line.contains("wasm log"));
        let leak = told.into_iter().find(|line| tokens.iter().any(|token| starts_a_word(line, token)));
        ensure!(leak.is_none(), "a log line holds a secret: {leak:?}");
        Ok(())
    }
}

/// Whether a word of the line begins with `word`: `cs_` does not match in `metrics_`.
fn starts_a_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
}
