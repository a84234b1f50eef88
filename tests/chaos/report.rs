//! What a scenario requires, what was seen, and what came of it: the rows of the table.

use std::collections::BTreeMap;

/// A row of the table.
pub(crate) struct Row {
    name: String,
    required: String,
    seen: Vec<String>,
    wrong: Vec<String>,
}

impl Row {
    pub(crate) fn new(name: &str, required: &str) -> Self {
        Self { name: name.to_owned(), required: required.to_owned(), seen: Vec::new(), wrong: Vec::new() }
    }

    /// Notes what was seen.
    pub(crate) fn saw(&mut self, what: impl Into<String>) {
        self.seen.push(what.into());
    }

    /// Fails with a message unless the condition holds.
    pub(crate) fn must(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(otherwise());
        }
    }

    /// Fails with the error, if it is one.
    pub(crate) fn fails(&mut self, problem: impl Into<String>) {
        self.wrong.push(problem.into());
    }

    /// Fails where a tally has a wrong answer, or not so many right ones.
    pub(crate) fn all(&mut self, what: &str, tally: &Tally, count: u64) {
        self.must(tally.wrong.is_empty(), || format!("{what}: {}", report(&tally.wrong)));
        let right = tally.right();
        self.must(right == count, || format!("{what}: {right} right answers of {count}"));
    }

    pub(crate) fn failed(&self) -> bool {
        !self.wrong.is_empty()
    }

    /// What is wrong, a line each.
    pub(crate) fn problems(&self) -> String {
        self.wrong.iter().map(|wrong| format!("  {}: {wrong}\n", self.name)).collect()
    }

    fn cells(&self) -> [String; 4] {
        let verdict = if self.failed() { "FAIL" } else { "pass" };
        [self.name.clone(), self.required.clone(), self.seen.join("; "), verdict.to_owned()]
    }
}

/// The table.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from("| scenario | required | seen | |\n|---|---|---|---|\n");
    for row in rows {
        text += &format!("| {} |\n", row.cells().join(" | "));
    }
    text
}

/// Answers, counted after each was judged: right ones by their kind, wrong ones by what they were.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) right: BTreeMap<&'static str, u64>,
    pub(crate) wrong: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn count(&mut self, judged: Result<&'static str, String>) {
        match judged {
            Ok(kind) => *self.right.entry(kind).or_default() += 1,
            Err(what) => *self.wrong.entry(what).or_default() += 1,
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (kind, count) in other.right {
            *self.right.entry(kind).or_default() += count;
        }
        for (what, count) in other.wrong {
            *self.wrong.entry(what).or_default() += count;
        }
    }

    pub(crate) fn right(&self) -> u64 {
        self.right.values().sum()
    }

    /// How many right ones of a kind.
    pub(crate) fn of(&self, kind: &str) -> u64 {
        self.right.get(kind).copied().unwrap_or(0)
    }

    pub(crate) fn report(&self) -> String {
        let right = self.right.iter().map(|(kind, count)| ((*kind).to_owned(), *count));
        report(&right.chain(self.wrong.clone()).collect())
    }
}

/// Counts on one line; of many different ones, the first few.
fn report(counts: &BTreeMap<String, u64>) -> String {
    let mut text: Vec<String> =
        counts.iter().take(4).map(|(what, count)| format!("{what} ×{count}")).collect();
    if counts.len() > text.len() {
        text.push(format!("and {} more kinds", counts.len() - text.len()));
    }
    text.join(", ")
}
