//! The patterns of one host as a tree of segments.

use super::Methods;
use super::pattern::{Pattern, Segment};
use crate::hash::TrustedKeyHasher;
use crate::http::fold;
use std::borrow::Cow;
use std::collections::HashMap;

#[derive(Debug)]
pub(super) struct Tree<R> {
    root: TrieNode<R>,
    /// Whether some pattern has an upper-case letter, so that a lower-case path may match another
    /// one if case is ignored.
    has_upper_case: bool,
    /// Whether some pattern ends with a slash or a rest, so that a path may match another one with
    /// a slash added.
    has_open_end: bool,
}

#[derive(Debug)]
struct TrieNode<R> {
    /// By the literal's [key](fold::key); each has the few spellings that appear in patterns.
    literals: HashMap<String, Vec<(String, TrieNode<R>)>, TrustedKeyHasher>,
    param: Option<Box<TrieNode<R>>>,
    rest: Option<Leaf<R>>,
    leaf: Option<Leaf<R>>,
}

/// The routes of one pattern.
#[derive(Debug)]
pub(super) struct Leaf<R> {
    first: (Methods, R),
    others: Vec<(Methods, R)>,
}

/// A pattern that matches a path, and how specific it is.
pub(super) type Fit<'t, R> = (&'t Leaf<R>, Rank);

// A derived `Default` would require `R: Default`.
impl<R> Default for Tree<R> {
    fn default() -> Self {
        Self { root: TrieNode::default(), has_upper_case: false, has_open_end: false }
    }
}

impl<R> Default for TrieNode<R> {
    fn default() -> Self {
        Self { literals: HashMap::default(), param: None, rest: None, leaf: None }
    }
}

pub(super) struct Match<'t, R> {
    pub(super) leaf: &'t Leaf<R>,
    pub(super) rank: Rank,
    pub(super) captures: Vec<String>,
}

/// How specific a pattern is, compared segment by segment: two bits for each, the first segment in
/// the highest bits. A trailing slash does not count.
///
/// A pattern that matches ends with [`Kind::End`] or a rest, so the zeros after that are never
/// compared with another pattern's segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(u128);

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

    /// Whether all segments are literals.
    pub(super) fn is_literal(self) -> bool {
        let end = Kind::End as u128;
        // A rest is zero, and so is everything after the end: the lowest pair of bits that is not
        // zero must be an end, and all pairs above it literals.
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

impl<R> Tree<R> {
    pub(super) fn insert(&mut self, route: R, pattern: &Pattern, methods: &Methods) {
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
                Segment::Rest(_) => return Leaf::add(&mut node.rest, route, methods),
            };
        }
        Leaf::add(&mut node.leaf, route, methods);
    }

    /// The routes with exactly this pattern, whatever the names of its parameters.
    pub(super) fn leaf(&self, pattern: &Pattern) -> Option<&Leaf<R>> {
        let mut node = &self.root;
        for segment in pattern.segments() {
            node = match segment {
                Segment::Literal(text) => node.spelled(text)?,
                Segment::Param(_) => node.param.as_deref()?,
                Segment::Rest(_) => return node.rest.as_ref(),
            };
        }
        node.leaf.as_ref()
    }

    pub(super) fn find(&self, segments: &[Cow<'_, str>]) -> Option<Match<'_, R>> {
        let mut captures = Vec::new();
        let (leaf, rank) = self.root.find(segments, &mut captures)?;
        Some(Match { leaf, rank, captures })
    }

    /// The most specific pattern for a server that ignores ASCII case and a trailing slash.
    pub(super) fn folded(&self, segments: &[Cow<'_, str>]) -> Option<Fit<'_, R>> {
        self.most_specific(segments, Reading::AsciiCase)
    }

    /// The most specific pattern for a service that ignores all case and compatible forms, and a
    /// trailing slash.
    pub(super) fn lenient(&self, segments: &[Cow<'_, str>]) -> Option<Fit<'_, R>> {
        self.most_specific(segments, Reading::Keys)
    }

    fn most_specific(&self, segments: &[Cow<'_, str>], reading: Reading) -> Option<Fit<'_, R>> {
        let as_it_is = self.root.folded(segments, Slash::AsItIs, reading);
        more_specific(as_it_is, self.toggled(segments, reading))
    }

    /// Whether ignoring case or a trailing slash cannot change what this path matches here.
    pub(super) fn has_one_reading(&self, segments: &[Cow<'_, str>]) -> bool {
        !self.has_upper_case
            && !self.has_open_end
            && segments.last().is_some_and(|last| !last.is_empty())
            && !segments.iter().any(|segment| segment.bytes().any(|b| b.is_ascii_uppercase()))
    }

    fn toggled(&self, segments: &[Cow<'_, str>], reading: Reading) -> Option<Fit<'_, R>> {
        match segments.split_last() {
            Some((last, [])) if last.is_empty() => None,
            Some((last, front)) if last.is_empty() => self.root.folded(front, Slash::AsItIs, reading),
            _ => self.root.folded(segments, Slash::Added, reading),
        }
    }
}

/// Whether a path is read with a slash added at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slash {
    AsItIs,
    Added,
}

/// Which spellings of a literal are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Those that differ in ASCII case alone.
    AsciiCase,
    /// Those that have the same key.
    Keys,
}

impl<R> TrieNode<R> {
    fn literal_mut(&mut self, text: &str) -> &mut Self {
        let spellings = self.literals.entry(fold::key(text).into_owned()).or_default();
        let at = spellings.iter().position(|(spelling, _)| spelling == text).unwrap_or_else(|| {
            spellings.push((text.to_owned(), Self::default()));
            spellings.len().saturating_sub(1)
        });
        // `at` is an index that was just found or pushed.
        #[expect(
            clippy::indexing_slicing,
            reason = "in bounds by construction, and only at configuration time"
        )]
        &mut spellings[at].1
    }

    /// The child with exactly this spelling.
    fn spelled(&self, segment: &str) -> Option<&Self> {
        self.spellings(segment).iter().find(|(spelling, _)| spelling == segment).map(|(_, child)| child)
    }

    fn spellings(&self, segment: &str) -> &[(String, Self)] {
        if self.literals.is_empty() {
            return &[];
        }
        self.literals.get(fold::key(segment).as_ref()).map(Vec::as_slice).unwrap_or_default()
    }

    /// Depth is bounded by the deepest pattern, visits by the number of nodes.
    fn find(&self, segments: &[Cow<'_, str>], captures: &mut Vec<String>) -> Option<Fit<'_, R>> {
        let Some((segment, remaining)) = segments.split_first() else {
            return self.leaf.as_ref().map(|leaf| (leaf, Rank::then(Kind::End, Rank::default())));
        };
        let captured = captures.len();
        if let Some(child) = self.spelled(segment) {
            if let Some((leaf, tail)) = child.find(remaining, captures) {
                // A trailing slash does not count.
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

    fn folded(&self, segments: &[Cow<'_, str>], slash: Slash, reading: Reading) -> Option<Fit<'_, R>> {
        let (segment, remaining, slash) = match (segments.split_first(), slash) {
            (Some((segment, remaining)), slash) => (segment.as_ref(), remaining, slash),
            (None, Slash::Added) => ("", segments, Slash::AsItIs),
            (None, Slash::AsItIs) => {
                let rank = Rank::then(Kind::End, Rank::default());
                return self.leaf.as_ref().map(|leaf| (leaf, rank));
            }
        };
        let is_one = |spelling: &str| reading == Reading::Keys || spelling.eq_ignore_ascii_case(segment);
        let children = self.spellings(segment).iter().filter(|(spelling, _)| is_one(spelling));
        let fits = children.map(|(_, child)| child.folded(remaining, slash, reading));
        if let Some((leaf, tail)) = fits.reduce(more_specific).flatten() {
            let is_slash = segment.is_empty();
            return Some((leaf, if is_slash { tail } else { Rank::then(Kind::Literal, tail) }));
        }
        let child = self.param.as_ref().filter(|_| !segment.is_empty());
        if let Some((leaf, tail)) = child.and_then(|child| child.folded(remaining, slash, reading)) {
            return Some((leaf, Rank::then(Kind::Param, tail)));
        }
        self.rest.as_ref().map(|leaf| (leaf, Rank::default()))
    }
}

/// The more specific of two; the second if they rank equally, since both are then the same pattern.
fn more_specific<'t, R>(one: Option<Fit<'t, R>>, other: Option<Fit<'t, R>>) -> Option<Fit<'t, R>> {
    let rank = |fit: &Option<Fit<'t, R>>| fit.as_ref().map(|(_, rank)| *rank);
    if rank(&one) > rank(&other) { one } else { other }
}

impl<R> Leaf<R> {
    fn add(place: &mut Option<Self>, route: R, methods: &Methods) {
        let route = (methods.clone(), route);
        match place {
            Some(leaf) => leaf.others.push(route),
            None => *place = Some(Self { first: route, others: Vec::new() }),
        }
    }

    /// Its routes in the order in which they were added; there is at least one.
    pub(super) fn routes(&self) -> impl Iterator<Item = &(Methods, R)> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The one that was added first.
    pub(super) fn first(&self) -> &R {
        &self.first.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::path::CanonicalPath;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_path_with_one_reading_finds_folded_what_it_finds(
            patterns in proptest::collection::vec("/(a|b|aB|\\{p\\})(/(a|b|\\{q\\}))?(/|/\\{\\*r\\})?", 0..6),
            path in "/(a|b|A|aB|ab)(/(a|b|B))?/?",
        ) {
            let mut tree = Tree::default();
            for (nth, pattern) in patterns.iter().enumerate() {
                tree.insert(nth, &Pattern::parse(pattern).unwrap(), &Methods::Any);
            }
            let path = CanonicalPath::parse(path.as_bytes()).unwrap();
            if tree.has_one_reading(path.segments()) {
                let folded = tree.folded(path.segments()).map(|(_, rank)| rank);
                prop_assert_eq!(folded, tree.find(path.segments()).map(|found| found.rank));
            }
        }
    }
}
