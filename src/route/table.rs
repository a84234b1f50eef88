//! All routes of a policy as one tree per host, so that ten thousand of them cost what ten do.

use super::pattern::{Pattern, Segment};
use super::{HostPattern, Methods};
use crate::http::host::Host;
use crate::http::path::CanonicalPath;
use crate::secret::Unchosen;
use std::borrow::Cow;
use std::collections::HashMap;

/// The routes of a policy, found by host, path and method.
#[derive(Debug, Default)]
pub struct RouteTable {
    exact: HashMap<String, Tree, Unchosen>,
    /// Keyed by the suffix with its leading dot.
    suffixes: HashMap<String, Tree, Unchosen>,
    any: Option<Tree>,
}

/// What [`RouteTable::find`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// This route, with the values of its pattern's parameters in order.
    Route(usize, Vec<String>),
    /// A pattern names the host and path, but no route of it the method; or a server that folds case or trailing slashes would read the
    /// path as a more specific pattern's. Refused, whatever the default for unnamed requests is.
    Barred,
    /// No pattern names the host and path.
    Nothing,
}

/// Two routes with the same host and path pattern share a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The route that was there first.
    pub with: usize,
}

impl RouteTable {
    /// Adds a route.
    ///
    /// # Errors
    /// [`Conflict`] where a route with the same host and path pattern shares a method with it.
    pub fn insert(
        &mut self,
        route: usize,
        host: &HostPattern,
        pattern: &Pattern,
        methods: &Methods,
    ) -> Result<(), Conflict> {
        let tree = match host {
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
            HostPattern::Suffix(suffix) => self.suffixes.entry(suffix.clone()).or_default(),
            HostPattern::Any => self.any.get_or_insert_default(),
        };
        tree.insert(route, pattern, methods)
    }

    /// Finds the route of a request.
    ///
    /// The first host and path pattern decides, in the order: exact host, longest suffix, no host; then segment by segment literal before
    /// parameter before rest. Frameworks behind the gate may ignore ASCII case and a trailing slash, so a path that would then reach a
    /// *more specific* pattern is barred: the wider rule must not open what the narrower one guards.
    pub fn find(&self, host: &Host, path: &CanonicalPath<'_>, method: &str) -> Found {
        let segments = path.segments();
        let mut barred = false;
        for tree in self.trees(host.as_str()) {
            let exact = tree.find(segments);
            let folded = match &exact {
                // Nothing is more specific than literals all the way, and no tree of a closer host matched.
                Some(found) if found.rank.is_literal() && !barred => None,
                // No other reading of this path finds anything else, and nothing where this one found nothing.
                _ if tree.has_one_reading(segments) => None,
                _ => tree.folded(segments),
            };
            let Some(found) = exact else {
                // A closer host's tree would take the folded path: remember, and bar whatever a wider host says.
                barred |= folded.is_some();
                continue;
            };
            if barred || folded.is_some_and(|f| f > found.rank) {
                return Found::Barred;
            }
            return match found.leaf.routes.iter().find(|(methods, _)| methods.cover(method)) {
                Some((_, route)) => Found::Route(*route, found.captures),
                None => Found::Barred,
            };
        }
        if barred { Found::Barred } else { Found::Nothing }
    }

    fn trees<'t>(&'t self, host: &'t str) -> impl Iterator<Item = &'t Tree> + 't {
        let dots = if self.suffixes.is_empty() { "" } else { host };
        // From the left: the first dot begins the longest suffix.
        let suffixes =
            dots.match_indices('.').filter_map(|(at, _)| dots.get(at..)).filter_map(|s| self.suffixes.get(s));
        let exact = if self.exact.is_empty() { None } else { self.exact.get(host) };
        exact.into_iter().chain(suffixes).chain(self.any.as_ref())
    }
}

#[derive(Debug, Default)]
struct Tree {
    root: Node,
    /// Whether some pattern has an upper-case letter, so that ignoring case can find another one for a lower-case path.
    has_upper_case: bool,
    /// Whether some pattern ends with a slash or goes on, so that a slash more can find another one.
    has_open_end: bool,
}

#[derive(Debug, Default)]
struct Node {
    /// Keyed by the literal in lower case; the spellings of it that stand in patterns, few.
    literals: HashMap<String, Vec<(String, Node)>, Unchosen>,
    param: Option<Box<Node>>,
    rest: Option<Leaf>,
    leaf: Option<Leaf>,
}

#[derive(Debug, Default)]
struct Leaf {
    routes: Vec<(Methods, usize)>,
}

struct Match<'t> {
    leaf: &'t Leaf,
    rank: Rank,
    captures: Vec<String>,
}

/// How specific a pattern is, compared segment by segment: two bits for each, the first segment's highest. A trailing slash counts as nothing.
///
/// A pattern that fits ends with [`Kind::End`] or a rest, so the zeros after that are no segment of any other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u128);

/// Least specific first, so that the order of ranks is the order of precedence; 0 is a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    End = 1,
    Param = 2,
    Literal = 3,
}

impl Rank {
    const LITERAL: u128 = 3;

    fn then(kind: Kind, tail: Self) -> Self {
        Self((tail.0 >> 2) | ((kind as u128) << 126))
    }

    /// Whether it is literals all the way.
    fn is_literal(self) -> bool {
        let end = Kind::End as u128;
        // Rest is zero, and so is everything after the end: what is left of the last bits that are set must be an end, and all before it literals.
        let shift = self.0.trailing_zeros() & !1;
        let kinds = self.0.checked_shr(shift).unwrap_or_default();
        if kinds & Self::LITERAL != end {
            return false;
        }
        let literals = kinds >> 2;
        let segments = 126_u32.saturating_sub(shift);
        let all = 1_u128.checked_shl(segments).unwrap_or_default().wrapping_sub(1);
        literals == all
    }
}

impl Tree {
    fn insert(&mut self, route: usize, pattern: &Pattern, methods: &Methods) -> Result<(), Conflict> {
        let literals = || pattern.segments().iter().filter_map(Segment::literal);
        self.has_upper_case |= literals().any(|text| text.bytes().any(|b| b.is_ascii_uppercase()));
        let goes_on =
            |segment: &Segment| matches!(segment, Segment::Rest(_)) || segment.literal() == Some("");
        self.has_open_end |= pattern.segments().last().is_some_and(goes_on);
        let mut node = &mut self.root;
        for segment in pattern.segments() {
            node = match segment {
                Segment::Literal(text) => node.literal_mut(text),
                Segment::Param(_) => node.param.get_or_insert_default(),
                Segment::Rest(_) => return node.rest.get_or_insert_default().insert(route, methods),
            };
        }
        node.leaf.get_or_insert_default().insert(route, methods)
    }

    fn find(&self, segments: &[Cow<'_, str>]) -> Option<Match<'_>> {
        let mut captures = Vec::new();
        let (leaf, rank) = self.root.find(segments, &mut captures)?;
        Some(Match { leaf, rank, captures })
    }

    /// The most specific pattern that a server would find which ignores ASCII case, with or without the trailing slash.
    fn folded(&self, segments: &[Cow<'_, str>]) -> Option<Rank> {
        let as_it_is = self.root.folded(segments, Slash::AsItIs);
        as_it_is.max(self.toggled(segments))
    }

    /// Whether only the path itself, as it is written, can find a pattern here.
    fn has_one_reading(&self, segments: &[Cow<'_, str>]) -> bool {
        !self.has_upper_case
            && !self.has_open_end
            && segments.last().is_some_and(|last| !last.is_empty())
            && !segments.iter().any(|segment| segment.bytes().any(|b| b.is_ascii_uppercase()))
    }

    fn toggled(&self, segments: &[Cow<'_, str>]) -> Option<Rank> {
        match segments.split_last() {
            Some((last, [])) if last.is_empty() => None,
            Some((last, front)) if last.is_empty() => self.root.folded(front, Slash::AsItIs),
            _ => self.root.folded(segments, Slash::Added),
        }
    }
}

/// Whether a path is read as if a slash followed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slash {
    AsItIs,
    Added,
}

impl Node {
    fn literal_mut(&mut self, text: &str) -> &mut Self {
        let spellings = self.literals.entry(text.to_ascii_lowercase()).or_default();
        let at = spellings.iter().position(|(spelling, _)| spelling == text).unwrap_or_else(|| {
            spellings.push((text.to_owned(), Self::default()));
            spellings.len().saturating_sub(1)
        });
        // `at` is an index that was just found or made.
        #[expect(
            clippy::indexing_slicing,
            reason = "in bounds by construction, and only at configuration time"
        )]
        &mut spellings[at].1
    }

    fn spellings(&self, segment: &str) -> &[(String, Self)] {
        if self.literals.is_empty() {
            return &[];
        }
        let found = if segment.bytes().any(|b| b.is_ascii_uppercase()) {
            self.literals.get(&segment.to_ascii_lowercase())
        } else {
            self.literals.get(segment)
        };
        found.map(Vec::as_slice).unwrap_or_default()
    }

    /// Depth is bounded by the deepest pattern, visits by the number of nodes.
    fn find(&self, segments: &[Cow<'_, str>], captures: &mut Vec<String>) -> Option<(&Leaf, Rank)> {
        let Some((segment, remaining)) = segments.split_first() else {
            return self.leaf.as_ref().map(|leaf| (leaf, Rank::then(Kind::End, Rank::default())));
        };
        let captured = captures.len();
        if let Some((_, child)) = self.spellings(segment).iter().find(|(spelling, _)| spelling == segment) {
            if let Some((leaf, tail)) = child.find(remaining, captures) {
                // A trailing slash counts as nothing.
                return Some((leaf, if segment.is_empty() { tail } else { Rank::then(Kind::Literal, tail) }));
            }
            captures.truncate(captured);
        }
        if let Some(child) = &self.param
            && !segment.is_empty()
        {
            captures.push(segment.to_string());
            if let Some((leaf, tail)) = child.find(remaining, captures) {
                return Some((leaf, Rank::then(Kind::Param, tail)));
            }
            captures.truncate(captured);
        }
        let leaf = self.rest.as_ref()?;
        captures.push(segments.join("/"));
        Some((leaf, Rank::default()))
    }

    fn folded(&self, segments: &[Cow<'_, str>], slash: Slash) -> Option<Rank> {
        let (segment, remaining, slash) = match (segments.split_first(), slash) {
            (Some((segment, remaining)), slash) => (segment.as_ref(), remaining, slash),
            (None, Slash::Added) => ("", segments, Slash::AsItIs),
            (None, Slash::AsItIs) => {
                return self.leaf.as_ref().map(|_| Rank::then(Kind::End, Rank::default()));
            }
        };
        let children = self.spellings(segment).iter();
        let literal = children.filter_map(|(_, child)| child.folded(remaining, slash)).max();
        if let Some(tail) = literal {
            return Some(if segment.is_empty() { tail } else { Rank::then(Kind::Literal, tail) });
        }
        let child = self.param.as_ref().filter(|_| !segment.is_empty());
        if let Some(tail) = child.and_then(|child| child.folded(remaining, slash)) {
            return Some(Rank::then(Kind::Param, tail));
        }
        self.rest.as_ref().map(|_| Rank::default())
    }
}

impl Leaf {
    fn insert(&mut self, route: usize, methods: &Methods) -> Result<(), Conflict> {
        if let Some((_, with)) = self.routes.iter().find(|(taken, _)| taken.overlap(methods)) {
            return Err(Conflict { with: *with });
        }
        self.routes.push((methods.clone(), route));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_path_with_one_reading_finds_folded_what_it_finds(
            patterns in proptest::collection::vec("/(a|b|aB|\\{p\\})(/(a|b|\\{q\\}))?(/|/\\{\\*r\\})?", 0..6),
            path in "/(a|b|A|aB|ab)(/(a|b|B))?/?",
        ) {
            let mut tree = Tree::default();
            for (nth, pattern) in patterns.iter().enumerate() {
                let _ = tree.insert(nth, &Pattern::parse(pattern).unwrap(), &Methods::Any);
            }
            let path = CanonicalPath::parse(path.as_bytes()).unwrap();
            if tree.has_one_reading(path.segments()) {
                prop_assert_eq!(tree.folded(path.segments()), tree.find(path.segments()).map(|found| found.rank));
            }
        }
    }

    fn table(routes: &[(&str, &str, &[&str])]) -> RouteTable {
        let mut table = RouteTable::default();
        for (nth, (host, path, methods)) in routes.iter().enumerate() {
            let host = if host.is_empty() { HostPattern::Any } else { HostPattern::parse(host).unwrap() };
            let methods = if methods.is_empty() {
                Methods::Any
            } else {
                Methods::Only(methods.iter().map(ToString::to_string).collect())
            };
            table.insert(nth, &host, &Pattern::parse(path).unwrap(), &methods).unwrap();
        }
        table
    }

    fn find(table: &RouteTable, host: &str, path: &str, method: &str) -> Found {
        table.find(
            &Host::parse(host.as_bytes()).unwrap(),
            &CanonicalPath::parse(path.as_bytes()).unwrap(),
            method,
        )
    }

    fn route(nth: usize, captures: &[&str]) -> Found {
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
            Found::Barred,
            "the slash is ignored by some: /orgs/{{id}}/{{*rest}}"
        );
        assert_eq!(find(&table, "other.test", "/orgs/1/settings", "PUT"), route(2, &["1"]));
        assert_eq!(
            find(&table, "other.test", "/orgs/1/settings", "GET"),
            Found::Barred,
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
        assert_eq!(find(&table, "api.example.com", "/orgs/1", "POST"), Found::Barred);
        assert_eq!(
            find(&table, "example.com", "/orgs/1/x", "GET"),
            route(1, &["1", "x"]),
            "*.example.com is not example.com"
        );
    }

    #[test]
    fn what_a_folding_server_would_read_as_a_stricter_pattern_is_barred() {
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
        assert_eq!(look("/Admin"), Found::Barred);
        assert_eq!(look("/admin/"), Found::Barred);
        assert_eq!(look("/admin"), route(1, &[]));
        assert_eq!(look("/other"), route(0, &["other"]));
        assert_eq!(look("/files"), Found::Barred);
        assert_eq!(look("/FILES/x"), Found::Barred);
        assert_eq!(look("/files/x"), route(2, &["x"]));
        assert_eq!(look("/a/me"), Found::Barred);
        assert_eq!(look("/a/Me"), route(4, &[]));
        assert_eq!(look("/a/you"), route(3, &["you"]));
        assert_eq!(look("/a/you/"), Found::Barred);
        assert_eq!(look("/b"), route(5, &[]));
        assert_eq!(look("/b/"), route(6, &[]));
        assert_eq!(look("/c/"), Found::Barred, "a pattern that ends is more specific than one that goes on");
        assert_eq!(look("/c"), route(7, &[]));
        assert_eq!(find(&table, "api.example.com", "/Only-Here", "GET"), Found::Barred);
        assert_eq!(find(&table, "x.test", "/Only-Here", "GET"), route(0, &["Only-Here"]));
    }

    #[test]
    fn unnamed_and_conflicting() {
        let mut table = table(&[("", "/a/{x}", &["GET"])]);
        assert_eq!(find(&table, "x.test", "/b", "GET"), Found::Nothing);
        assert_eq!(find(&table, "x.test", "/A/1", "GET"), Found::Barred);
        let insert = |table: &mut RouteTable, methods| {
            table.insert(1, &HostPattern::Any, &Pattern::parse("/a/{y}").unwrap(), &methods)
        };
        assert_eq!(insert(&mut table, Methods::Any), Err(Conflict { with: 0 }));
        assert_eq!(insert(&mut table, Methods::Only(vec!["HEAD".into()])), Err(Conflict { with: 0 }));
        assert_eq!(insert(&mut table, Methods::Only(vec!["POST".into()])), Ok(()));
    }
}
