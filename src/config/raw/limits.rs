//! What was written about lifetimes and limits: caches, the circuit breaker, budgets.

use crate::config::fields::limits::{self as fields, Times as TimesFields, budgets, cache, rate};
use crate::config::fields::provider::{CIRCUIT_BREAKER, breaker};
use crate::config::fields::{Field, Object, Optional, document, route};
use crate::config::reader::Section;
use std::time::Duration;

/// The lifetimes of both kinds of fact.
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

/// When an endpoint is left alone.
#[derive(Debug, Default)]
pub(in crate::config) struct Breaker {
    pub(in crate::config) failures: Option<u32>,
    pub(in crate::config) window: Option<Duration>,
    pub(in crate::config) open_for: Option<Duration>,
}

/// What a worker may spend.
#[derive(Debug, Default)]
pub(in crate::config) struct Budgets {
    pub(in crate::config) new_tokens: Option<Rate>,
    pub(in crate::config) refreshes: Option<Rate>,
    pub(in crate::config) permissions: Option<Rate>,
    pub(in crate::config) per_subject: Option<Rate>,
}

/// One budget.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Rate {
    pub(in crate::config) per_second: Option<u32>,
    pub(in crate::config) burst: Option<u32>,
}

/// Reads the document's `cache`, where sizes may stand.
pub(super) fn top_caches(section: &mut Section<'_>) -> Option<Caches> {
    caches(section, &document::CACHE, true)
}

/// Reads a route's `cache`.
pub(super) fn route_caches(section: &mut Section<'_>) -> Option<Caches> {
    caches(section, &route::CACHE, false)
}

fn caches(section: &mut Section<'_>, field: &Field<Object, Optional>, is_top: bool) -> Option<Caches> {
    let mut section = section.section(field)?;
    let mut times = |field: &Field<Object, Optional>, fields: &TimesFields| {
        let Some(mut section) = section.section(field) else { return Times::default() };
        let times = Times {
            ttl: section.duration(&fields.ttl),
            negative_ttl: section.duration(&fields.negative_ttl),
            stale_if_error: section.duration(&fields.stale_if_error),
            max_entries: if is_top { section.number(&fields::MAX_ENTRIES) } else { None },
        };
        section.finish();
        times
    };
    let caches = Caches {
        introspection: times(&cache::INTROSPECTION, &fields::INTROSPECTION),
        permissions: times(&cache::PERMISSIONS, &fields::PERMISSIONS),
    };
    section.finish();
    Some(caches)
}

/// Reads `circuit_breaker`.
pub(super) fn breaker(section: &mut Section<'_>) -> Breaker {
    let Some(mut section) = section.section(&CIRCUIT_BREAKER) else { return Breaker::default() };
    let rules = Breaker {
        failures: section.number(&breaker::FAILURES),
        window: section.duration(&breaker::WINDOW),
        open_for: section.duration(&breaker::OPEN_FOR),
    };
    section.finish();
    rules
}

/// Reads `budgets`.
pub(super) fn budgets(section: &mut Section<'_>) -> Budgets {
    let Some(mut section) = section.section(&document::BUDGETS) else { return Budgets::default() };
    let mut read = Budgets {
        new_tokens: section.section(&budgets::NEW_TOKENS).map(only_rate),
        refreshes: section.section(&budgets::REFRESHES).map(only_rate),
        ..Budgets::default()
    };
    if let Some(mut permissions) = section.section(&budgets::PERMISSIONS) {
        read.per_subject = permissions.section(&budgets::PER_SUBJECT).map(only_rate);
        // A share for each subject may stand without one for all.
        let has_own = permissions.has(&rate::PER_SECOND)
            || permissions.has(&rate::BURST)
            || read.per_subject.is_none_or(|rate| rate.per_second.is_none());
        read.permissions = has_own.then(|| rate(&mut permissions));
        permissions.finish();
    }
    section.finish();
    read
}

fn only_rate(mut section: Section<'_>) -> Rate {
    let rate = rate(&mut section);
    section.finish();
    rate
}

fn rate(section: &mut Section<'_>) -> Rate {
    Rate { per_second: section.number(&rate::PER_SECOND), burst: section.number(&rate::BURST) }
}
