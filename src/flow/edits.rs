//! What leaves a request before a service sees it.

use crate::credential::{self, Source};
use crate::http::Edit;
use crate::http::head::{RequestHead, normalized_eq};
use crate::http::query::{self, MOST_PAIRS, Query};
use crate::overrides;
use crate::policy::Policy;
use crate::refusal::Denial;

pub(super) fn strip_owned(policy: &Policy, head: &RequestHead<'_>, edits: &mut Vec<Edit>) {
    for (name, _) in head.pairs() {
        if policy.owned.contains(name) && !edits.iter().any(|e| matches!(e, Edit::Remove(n) if n == name)) {
            edits.push(Edit::Remove(name.to_vec()));
        }
    }
}

pub(super) fn query_names(sources: &[Source]) -> Vec<&str> {
    sources.iter().filter_map(Source::query_name).collect()
}

/// The edits that remove every header which some service reads as one of these.
fn without_headers(names: &[&str], head: &RequestHead<'_>) -> Vec<Edit> {
    let all = head.pairs().iter().map(|(name, _)| *name);
    removals(all.filter(|found| names.iter().any(|name| normalized_eq(found, name.as_bytes()))))
}

/// One removal for each of these names.
fn removals<'a>(names: impl Iterator<Item = &'a [u8]>) -> Vec<Edit> {
    let mut found: Vec<&[u8]> = Vec::new();
    for name in names {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found.into_iter().map(|name| Edit::Remove(name.to_vec())).collect()
}

/// What the rules read from the query; what names a credential in it leaves before any answer, and
/// reaches neither the service nor any log.
///
/// # Errors
/// [`Denial::InvalidPath`] if it has more pairs than are looked at; it leaves as a whole then, but
/// in shadow mode, where the service gets what it would have got.
pub(super) fn read_query<'a>(
    credentials: &[&'a str],
    values: impl Iterator<Item = &'a str> + Clone,
    head: &RequestHead<'a>,
    is_shadow: bool,
    edits: &mut Vec<Edit>,
) -> Result<Query<'a>, Denial> {
    let names = || credentials.iter().copied().chain(values.clone());
    let replace = |path: Vec<u8>| Edit::Replace(b":path".to_vec(), path);
    match Query::parse(head.target(), names(), MOST_PAIRS) {
        Ok(query) => {
            edits.extend(query.without(credentials).map(replace));
            Ok(query)
        }
        Err(_) if is_shadow => {
            let query = Query::parse(head.target(), credentials.iter().copied(), usize::MAX);
            edits.extend(query.ok().and_then(|query| query.without(credentials)).map(replace));
            Err(Denial::InvalidPath)
        }
        Err(_) => {
            edits.push(replace(query::cut_whole(head.target().unwrap_or_default()).to_vec()));
            Err(Denial::InvalidPath)
        }
    }
}

/// The edits that take what these sources read as a credential out of the request, and leave what
/// merely stands in the same place (`Authorization: Basic …` beside a `Bearer` source).
pub(super) fn without_credential(sources: &[Source], head: &RequestHead<'_>) -> Vec<Edit> {
    let cookies: Vec<&str> = sources
        .iter()
        .filter_map(|source| match source {
            Source::Cookie { name, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let is_credential =
        |(name, value): &(&[u8], &[u8])| sources.iter().any(|source| source.is_credential(name, value));
    let mut edits = removals(head.pairs().iter().copied().filter(is_credential).map(|(name, _)| name));
    let lines: Vec<&[u8]> = head.values("cookie").collect();
    if lines.iter().any(|line| credential::without_cookies(line, &cookies).is_some()) {
        edits.push(Edit::Remove(b"cookie".to_vec()));
        let kept = lines
            .iter()
            .map(|line| credential::without_cookies(line, &cookies).unwrap_or_else(|| line.to_vec()));
        edits.extend(kept.filter(|line| !line.is_empty()).map(|line| Edit::Add(b"cookie".to_vec(), line)));
    }
    edits
}

/// A preflight carries no credential (Fetch); one that does is not from a browser, and its
/// credential was not looked at.
pub(super) fn without_any_credential(sources: &[Source], head: &RequestHead<'_>) -> Vec<Edit> {
    let mut names = vec!["authorization", "cookie"];
    names.extend(sources.iter().filter_map(Source::header_name));
    // Nor does it carry a method or path for the service to see in place of its own.
    names.extend(overrides::ALL.iter().map(|known| known.name));
    without_headers(&names, head)
}
