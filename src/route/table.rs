//! All routes of a policy as one tree per host, so that a lookup among ten thousand costs as much
//! as one among ten.

use super::pattern::Pattern;
use super::reading;
use super::trie::{Rank, Tree};
use super::{Compared, Demand, HostPattern, Methods};
use crate::hash::TrustedKeyHasher;
use crate::http::host::Host;
use crate::http::path::CanonicalPath;
use std::collections::HashMap;

/// The routes of a policy, found by host, path and method. `R`: what represents a route.
#[derive(Debug)]
pub(crate) struct RouteTable<R> {
    exact: HashMap<String, Tree<R>, TrustedKeyHasher>,
    /// Keyed by the suffix with its leading dot.
    suffixes: HashMap<String, Tree<R>, TrustedKeyHasher>,
    any: Option<Tree<R>>,
}

impl<R> Default for RouteTable<R> {
    fn default() -> Self {
        Self { exact: HashMap::default(), suffixes: HashMap::default(), any: None }
    }
}

/// What [`RouteTable::find`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<R> {
    /// The route, with the values of its pattern's parameters in order.
    Route(R, Vec<String>),
    /// A server that reads the path more leniently would match it to a more specific pattern. The
    /// request is refused, whatever the default for unmatched requests is.
    Ambiguous {
        /// A route with that pattern.
        with: R,
    },
    /// A pattern matches host and path, but none of its routes matches the method. The request is
    /// refused, whatever the default for unmatched requests is.
    NoMethod,
    /// No pattern matches host and path.
    Nothing,
}

impl<R> RouteTable<R> {
    /// The first route with this host and pattern whose methods overlap with these.
    pub(crate) fn conflict(&self, host: &HostPattern, pattern: &Pattern, methods: &Methods) -> Option<&R> {
        let tree = match host {
            HostPattern::Exact(name) => self.exact.get(name),
            HostPattern::Suffix(suffix) => self.suffixes.get(suffix),
            HostPattern::Any => self.any.as_ref(),
        };
        let leaf = tree?.leaf(pattern)?;
        leaf.routes().find(|(taken, _)| taken.overlaps(methods)).map(|(_, route)| route)
    }

    /// Adds a route. If two routes match the same request, the first one applies.
    pub(crate) fn insert(&mut self, route: R, host: &HostPattern, pattern: &Pattern, methods: &Methods) {
        let tree = match host {
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
            HostPattern::Suffix(suffix) => self.suffixes.entry(suffix.clone()).or_default(),
            HostPattern::Any => self.any.get_or_insert_default(),
        };
        tree.insert(route, pattern, methods);
    }

    /// Finds the route of a request. `fallback`: the route of requests that none matches.
    ///
    /// The first match applies, in the order: exact host, longest suffix, any host; then, segment
    /// by segment, literal before parameter before rest. Frameworks behind the gate may ignore
    /// ASCII case and a trailing slash, so a path that would then match a *more specific* pattern
    /// is refused: the wider rule must not allow what the narrower one protects. Where the wider
    /// rule asks less, so is a path that does for a still more lenient service.
    pub(crate) fn find<'t>(
        &'t self,
        host: &Host,
        path: &CanonicalPath<'_>,
        method: &str,
        fallback: Option<&'t R>,
    ) -> Found<&'t R>
    where
        R: Compared,
    {
        let (found, at) = self.find_exactly(host, path, method);
        let wider = match &found {
            Found::Route(route, _) => *route,
            Found::Nothing => match fallback {
                Some(fallback) => fallback,
                None => return found,
            },
            Found::Ambiguous { .. } | Found::NoMethod => return found,
        };
        match self.lenient_twin(host, path, method, wider, at) {
            Some(with) => Found::Ambiguous { with },
            None => found,
        }
    }

    /// What the path matches as it is written, and where: how many trees of more specific hosts
    /// match nothing, and how specific the pattern is.
    fn find_exactly(
        &self,
        host: &Host,
        path: &CanonicalPath<'_>,
        method: &str,
    ) -> (Found<&R>, Option<(usize, Rank)>) {
        let segments = path.segments();
        // A route of a more specific host that matches only if case or a trailing slash is ignored.
        let mut twin: Option<&R> = None;
        for (nth, tree) in self.trees(host.as_str()).enumerate() {
            let exact = tree.find(segments);
            let folded = match &exact {
                // Nothing is more specific than a pattern of literals only, and no tree of a more
                // specific host matched.
                Some(found) if found.rank.is_literal() && twin.is_none() => None,
                // Ignoring case or a trailing slash does not change what this path matches, if
                // anything.
                _ if tree.has_one_reading(segments) => None,
                _ => tree.folded(segments),
            };
            let Some(found) = exact else {
                // The tree of a more specific host matches the folded path, whatever a wider host
                // matches.
                twin = twin.or(folded.map(|(leaf, _)| leaf.first()));
                continue;
            };
            let narrower = folded.filter(|(_, rank)| *rank > found.rank);
            if let Some(with) = twin.or(narrower.map(|(leaf, _)| leaf.first())) {
                return (Found::Ambiguous { with }, None);
            }
            let found_route = found.leaf.routes().find(|(methods, _)| methods.covers(method));
            let at = Some((nth, found.rank));
            return match found_route {
                Some((_, route)) => (Found::Route(route, found.captures), at),
                None => (Found::NoMethod, at),
            };
        }
        (twin.map_or(Found::Nothing, |with| Found::Ambiguous { with }), None)
    }

    /// A route with a more specific pattern that asks more than this one, for a service that reads
    /// the path more leniently.
    fn lenient_twin(
        &self,
        host: &Host,
        path: &CanonicalPath<'_>,
        method: &str,
        wider: &R,
        at: Option<(usize, Rank)>,
    ) -> Option<&R>
    where
        R: Compared,
    {
        if wider.demand() == Demand::Proof {
            return None;
        }
        let readings = reading::lenient(path.segments(), !wider.takes_suffix_literally());
        for reading in &readings {
            for (nth, tree) in self.trees(host.as_str()).enumerate() {
                let least = match at {
                    Some((last, _)) if nth > last => break,
                    Some((last, rank)) if nth == last => Some(rank),
                    _ => None,
                };
                let Some((leaf, rank)) = tree.lenient(reading) else { continue };
                // A method that no route of the pattern names is refused there.
                let route = leaf.routes().find(|(methods, _)| methods.covers(method));
                let demand = route.map_or(Demand::Proof, |(_, route)| route.demand());
                if least.is_none_or(|least| rank > least) && demand > wider.demand() {
                    return Some(leaf.first());
                }
            }
        }
        None
    }

    fn trees<'t, 'h>(&'t self, host: &'h str) -> impl Iterator<Item = &'t Tree<R>> + use<'t, 'h, R> {
        let dots = if self.suffixes.is_empty() { "" } else { host };
        // From the left: the first dot begins the longest suffix.
        let suffixes =
            dots.match_indices('.').filter_map(|(at, _)| dots.get(at..)).filter_map(|s| self.suffixes.get(s));
        let exact = if self.exact.is_empty() { None } else { self.exact.get(host) };
        exact.into_iter().chain(suffixes).chain(self.any.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Routes below ten ask nothing, as all do in most tests; others are asked for proof.
    impl Compared for usize {
        fn demand(&self) -> Demand {
            if *self < 10 { Demand::Nothing } else { Demand::Proof }
        }

        fn takes_suffix_literally(&self) -> bool {
            false
        }
    }

    fn table(routes: &[(&str, &str, &[&str])]) -> RouteTable<usize> {
        let mut table = RouteTable::default();
        for (nth, (host, path, methods)) in routes.iter().enumerate() {
            let host = if host.is_empty() { HostPattern::Any } else { HostPattern::parse(host).unwrap() };
            let methods = if methods.is_empty() {
                Methods::Any
            } else {
                Methods::Only(methods.iter().map(ToString::to_string).collect())
            };
            table.insert(nth, &host, &Pattern::parse(path).unwrap(), &methods);
        }
        table
    }

    fn find(table: &RouteTable<usize>, host: &str, path: &str, method: &str) -> Found<usize> {
        let found = table.find(
            &Host::parse(host.as_bytes()).unwrap(),
            &CanonicalPath::parse(path.as_bytes()).unwrap(),
            method,
            None,
        );
        match found {
            Found::Route(nth, captures) => Found::Route(*nth, captures),
            Found::Ambiguous { with } => Found::Ambiguous { with: *with },
            Found::NoMethod => Found::NoMethod,
            Found::Nothing => Found::Nothing,
        }
    }

    fn near(nth: usize) -> Found<usize> {
        Found::Ambiguous { with: nth }
    }

    fn route(nth: usize, captures: &[&str]) -> Found<usize> {
        Found::Route(nth, captures.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn precedence_is_host_then_path_then_method() {
        let table = table(&[
            ("", "/{*all}", &[]),
            ("", "/orgs/{id}/{*rest}", &["GET"]),
            ("", "/orgs/{id}/settings", &["PUT"]),
            ("*.example.com", "/orgs/{*rest}", &[]),
            ("*.api.example.com", "/x", &[]),
            ("api.example.com", "/orgs/{id}", &["GET"]),
            ("", "/", &[]),
        ]);
        assert_eq!(find(&table, "other.test", "/orgs/1/a/b", "GET"), route(1, &["1", "a/b"]));
        assert_eq!(find(&table, "other.test", "/orgs/1/", "HEAD"), route(1, &["1", ""]));
        assert_eq!(
            find(&table, "other.test", "/orgs/1", "GET"),
            near(1),
            "the slash is ignored by some: /orgs/{{id}}/{{*rest}}"
        );
        assert_eq!(find(&table, "other.test", "/orgs/1/settings", "PUT"), route(2, &["1"]));
        assert_eq!(
            find(&table, "other.test", "/orgs/1/settings", "GET"),
            Found::NoMethod,
            "no fall-through to a wider pattern"
        );
        assert_eq!(find(&table, "other.test", "/", "GET"), route(6, &[]));
        assert_eq!(find(&table, "www.example.com", "/orgs/1", "GET"), route(3, &["1"]));
        assert_eq!(find(&table, "a.api.example.com", "/x", "GET"), route(4, &[]));
        assert_eq!(
            find(&table, "a.api.example.com", "/orgs/1", "GET"),
            route(3, &["1"]),
            "a wider host's tree where the closer one has no pattern"
        );
        assert_eq!(find(&table, "api.example.com", "/orgs/1", "GET"), route(5, &["1"]));
        assert_eq!(find(&table, "api.example.com", "/orgs/1", "POST"), Found::NoMethod);
        assert_eq!(
            find(&table, "example.com", "/orgs/1/x", "GET"),
            route(1, &["1", "x"]),
            "*.example.com is not example.com"
        );
    }

    #[test]
    fn what_a_folding_server_would_read_as_a_stricter_pattern_is_ambiguous() {
        let table = table(&[
            ("", "/{*all}", &[]),
            ("", "/admin", &[]),
            ("", "/files/{*rest}", &[]),
            ("", "/a/{id}", &[]),
            ("", "/a/Me", &[]),
            ("", "/b", &[]),
            ("", "/b/", &[]),
            ("", "/c", &[]),
            ("", "/c/{*rest}", &[]),
            ("api.example.com", "/only-here", &[]),
        ]);
        let look = |path| find(&table, "x.test", path, "GET");
        assert_eq!(look("/Admin"), near(1));
        assert_eq!(look("/admin/"), near(1));
        assert_eq!(look("/admin"), route(1, &[]));
        assert_eq!(look("/other"), route(0, &["other"]));
        assert_eq!(look("/files"), near(2));
        assert_eq!(look("/FILES/x"), near(2));
        assert_eq!(look("/files/x"), route(2, &["x"]));
        assert_eq!(look("/a/me"), near(4));
        assert_eq!(look("/a/Me"), route(4, &[]));
        assert_eq!(look("/a/you"), route(3, &["you"]));
        assert_eq!(look("/a/you/"), near(3));
        assert_eq!(look("/b"), route(5, &[]));
        assert_eq!(look("/b/"), route(6, &[]));
        assert_eq!(look("/c/"), near(7), "a pattern that ends is more specific than one that goes on");
        assert_eq!(look("/c"), route(7, &[]));
        assert_eq!(find(&table, "api.example.com", "/Only-Here", "GET"), near(9));
        assert_eq!(find(&table, "x.test", "/Only-Here", "GET"), route(0, &["Only-Here"]));
    }

    #[test]
    fn unnamed_and_conflicting() {
        let table = table(&[("", "/a/{x}", &["GET"])]);
        assert_eq!(find(&table, "x.test", "/b", "GET"), Found::Nothing);
        assert_eq!(find(&table, "x.test", "/A/1", "GET"), near(0));
        let same = Pattern::parse("/a/{y}").unwrap();
        let conflict = |methods| table.conflict(&HostPattern::Any, &same, &methods).copied();
        assert_eq!(conflict(Methods::Any), Some(0));
        assert_eq!(conflict(Methods::Only(vec!["HEAD".into()])), Some(0));
        assert_eq!(conflict(Methods::Only(vec!["POST".into()])), None);
        assert_eq!(
            table.conflict(&HostPattern::Any, &Pattern::parse("/a/{*y}").unwrap(), &Methods::Any),
            None,
            "another pattern"
        );
        let host = HostPattern::parse("x.test").unwrap();
        assert_eq!(table.conflict(&host, &same, &Methods::Any), None, "another host");
    }
}
