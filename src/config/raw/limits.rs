//! What was written about lifetimes and limits: caches, retries, the circuit breaker, budgets.

use crate::breaker::{BreakerRules, MAX_OPEN};
use crate::cache::Lifetime;
use crate::config::reader::Section;
use crate::rate_limit::{Rate, RateLimits};
use std::ops::RangeInclusive;
use std::time::Duration;

/// The lifetimes of both kinds of fact; what is not written is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::config) struct Caches {
    pub(in crate::config) introspection: Times,
    pub(in crate::config) permissions: Times,
}

/// The lifetimes of one kind of fact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::config) struct Times {
    pub(in crate::config) ttl: Option<Duration>,
    pub(in crate::config) negative_ttl: Option<Duration>,
    pub(in crate::config) stale_if_error: Option<Duration>,
    /// At the top only: all routes share one cache.
    pub(in crate::config) max_entries: Option<u32>,
}

impl Caches {
    /// The lifetimes of introspections and of permissions: the route's own word, else the top's, else the default.
    pub(in crate::config) fn lifetimes(self, route: Option<Self>) -> (Lifetime, Lifetime) {
        let route = route.unwrap_or_default();
        (
            self.introspection.lifetime(route.introspection, Duration::from_secs(30), Duration::from_secs(5)),
            self.permissions.lifetime(route.permissions, Duration::from_secs(10), Duration::from_secs(2)),
        )
    }
}

impl Times {
    fn lifetime(self, route: Self, ttl: Duration, negative_ttl: Duration) -> Lifetime {
        Lifetime {
            ttl: route.ttl.or(self.ttl).unwrap_or(ttl),
            negative_ttl: route.negative_ttl.or(self.negative_ttl).unwrap_or(negative_ttl),
            stale_if_error: route.stale_if_error.or(self.stale_if_error).unwrap_or_default(),
        }
    }

    /// How many facts are kept, where any is read.
    pub(in crate::config) fn entries(self) -> usize {
        self.max_entries.and_then(|n| usize::try_from(n).ok()).unwrap_or(10_000)
    }
}

/// Reads `cache`. `is_top`: whether sizes may stand there.
pub(super) fn caches(section: &mut Section<'_>, is_top: bool) -> Option<Caches> {
    let mut section = section.section("cache")?;
    let mut times = |name: &'static str| {
        let Some(mut section) = section.section(name) else { return Times::default() };
        let times = Times {
            ttl: section.duration("ttl", TTL),
            negative_ttl: section.duration("negative_ttl", TTL),
            stale_if_error: section.duration("stale_if_error", STALE),
            max_entries: if is_top { section.number("max_entries", 1..=MAX_ENTRIES) } else { None },
        };
        section.finish();
        times
    };
    let caches = Caches { introspection: times("introspection"), permissions: times("permissions") };
    section.finish();
    Some(caches)
}

/// Reads `retries`.
pub(super) fn retries(section: &mut Section<'_>) -> u32 {
    section.number("retries", 0..=5).unwrap_or(1)
}

/// Reads `circuit_breaker`.
pub(super) fn breaker(section: &mut Section<'_>) -> BreakerRules {
    let mut rules =
        BreakerRules { failures: 5, window: Duration::from_secs(10), open_for: Duration::from_secs(5) };
    let Some(mut section) = section.section("circuit_breaker") else { return rules };
    if let Some(failures) = section.number("failures", 0..=1000) {
        rules.failures = usize::try_from(failures).unwrap_or(usize::MAX);
    }
    rules.window = section.duration("window", SPAN).unwrap_or(rules.window);
    rules.open_for = section.duration("open_for", SPAN).unwrap_or(rules.open_for);
    section.finish();
    rules
}

/// Reads `budgets`.
pub(super) fn budgets(section: &mut Section<'_>) -> RateLimits {
    let Some(mut section) = section.section("budgets") else { return RateLimits::default() };
    let mut rates = RateLimits {
        new_tokens: section.section("new_tokens").and_then(only_rate),
        refreshes: section.section("refreshes").and_then(only_rate),
        ..RateLimits::default()
    };
    if let Some(mut permissions) = section.section("permissions") {
        rates.per_subject = permissions.section("per_subject").and_then(only_rate);
        // A share for each subject may stand without one for all.
        let has_own =
            permissions.has("per_second") || permissions.has("burst") || rates.per_subject.is_none();
        rates.permissions = if has_own { rate(&mut permissions) } else { None };
        permissions.finish();
    }
    section.finish();
    rates
}

fn only_rate(mut section: Section<'_>) -> Option<Rate> {
    let rate = rate(&mut section);
    section.finish();
    rate
}

fn rate(section: &mut Section<'_>) -> Option<Rate> {
    if !section.has("per_second") {
        section.problem("per_second", "nothing", "how many calls a second");
    }
    let per_second = section.number("per_second", CALLS);
    let burst = section.number("burst", CALLS);
    let per_second = per_second?;
    Some(Rate { per_second, burst: burst.unwrap_or(per_second) })
}

const TTL: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
const STALE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(86_400);
const SPAN: RangeInclusive<Duration> = Duration::from_millis(1)..=MAX_OPEN;
const CALLS: RangeInclusive<u32> = 1..=1_000_000;
const MAX_ENTRIES: u32 = 1_000_000;
