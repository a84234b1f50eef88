//! What was written about lifetimes and limits: caches, the circuit breaker, shares, budgets.

use crate::config::fields::limits::{self as fields, Times as TimesFields, budgets, cache, rate};
use crate::config::fields::provider::{CIRCUIT_BREAKER, MAX_IN_FLIGHT, breaker, in_flight};
use crate::config::fields::{Field, Object, Optional, document, route};
use crate::config::reader::{Off, Section};
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

/// How it is found out that an endpoint is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Breaker {
    Off,
    On { probe_interval: Option<Duration> },
}

/// How many callouts may be under way.
#[derive(Debug, Default)]
pub(in crate::config) struct InFlight {
    pub(in crate::config) new_tokens: Option<u32>,
    pub(in crate::config) refreshes: Option<u32>,
    pub(in crate::config) permissions: Option<u32>,
}

/// What a worker may spend.
#[derive(Debug, Default)]
pub(in crate::config) struct Budgets {
    pub(in crate::config) new_tokens: Option<Budget>,
    pub(in crate::config) refreshes: Option<Budget>,
    pub(in crate::config) permissions: Option<Budget>,
    pub(in crate::config) per_subject: Option<Budget>,
}

/// One budget.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) enum Budget {
    Off,
    Rate { per_second: Option<u32>, burst: Option<u32> },
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
    match section.section_or_off(&CIRCUIT_BREAKER) {
        None => Breaker::On { probe_interval: None },
        Some(Err(Off)) => Breaker::Off,
        Some(Ok(mut section)) => {
            let probe_interval = section.duration(&breaker::PROBE_INTERVAL);
            let now = "`probe_interval`: the gate's own probe opens and shuts it, and no caller's calls";
            section.gone(&["failures", "window", "open_for"], now);
            section.finish();
            Breaker::On { probe_interval }
        }
    }
}

/// Reads `max_in_flight`.
pub(super) fn in_flight(section: &mut Section<'_>) -> InFlight {
    let Some(mut section) = section.section(&MAX_IN_FLIGHT) else { return InFlight::default() };
    let read = InFlight {
        new_tokens: section.number(&in_flight::NEW_TOKENS),
        refreshes: section.number(&in_flight::REFRESHES),
        permissions: section.number(&in_flight::PERMISSIONS),
    };
    section.finish();
    read
}

/// Reads `budgets`.
pub(super) fn budgets(section: &mut Section<'_>) -> Budgets {
    let Some(mut section) = section.section(&document::BUDGETS) else { return Budgets::default() };
    let mut read = Budgets {
        new_tokens: section.section_or_off(&budgets::NEW_TOKENS).map(only_rate),
        refreshes: section.section_or_off(&budgets::REFRESHES).map(only_rate),
        ..Budgets::default()
    };
    match section.section_or_off(&budgets::PERMISSIONS) {
        None => {}
        Some(Err(Off)) => {
            read.permissions = Some(Budget::Off);
            read.per_subject = Some(Budget::Off);
        }
        Some(Ok(mut permissions)) => {
            let has_subjects = permissions.has(&budgets::PER_SUBJECT);
            read.per_subject = permissions.section_or_off(&budgets::PER_SUBJECT).map(only_rate);
            // A share for each subject may stand without one for all.
            let has_own =
                permissions.has(&rate::PER_SECOND) || permissions.has(&rate::BURST) || !has_subjects;
            read.permissions = has_own.then(|| rate(&mut permissions));
            permissions.finish();
        }
    }
    section.finish();
    read
}

fn only_rate(section: Result<Section<'_>, Off>) -> Budget {
    let Ok(mut section) = section else { return Budget::Off };
    let rate = rate(&mut section);
    section.finish();
    rate
}

fn rate(section: &mut Section<'_>) -> Budget {
    Budget::Rate { per_second: section.number(&rate::PER_SECOND), burst: section.number(&rate::BURST) }
}
