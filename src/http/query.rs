//! The query of a request target: pairs split at `&`, decoded once, `+` as a space.

use super::fold;
use super::head::{self, Reading};
use std::borrow::Cow;

/// The most pairs of a query, or cookies of a request, that are looked at.
pub(crate) const MOST_PAIRS: usize = 1024;

/// A query has more pairs than anybody needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyPairs;

/// What may be read from a query: the pairs that could be read as one of some names, found in one
/// pass, whatever the number of names is.
///
/// Frameworks differ in which of two pairs wins, in which names they treat as equal (another case,
/// `name[]`, `[name]`, `name]`, `user.id` for `user_id`, `%u0069d`), and in whether `;` separates
/// pairs. A second pair that any of them reads as this one makes the name ambiguous, and so does a
/// raw `;` in a value, which some of them truncate there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query<'a> {
    target: &'a [u8],
    names: Vec<&'a str>,
    hits: Vec<Hit<'a>>,
}

/// A pair that some framework reads as a name's.
#[derive(Clone, Copy, Debug)]
struct Hit<'a> {
    /// Where in the target the pair begins.
    at: usize,
    pair: &'a [u8],
    /// Which name.
    name: usize,
}

impl<'a> Query<'a> {
    /// Looks for these names in the query of a target, and at this many pairs at most.
    ///
    /// # Errors
    /// [`TooManyPairs`] if there are more.
    pub(crate) fn parse(
        target: Option<&'a [u8]>,
        names: impl Iterator<Item = &'a str>,
        most: usize,
    ) -> Result<Self, TooManyPairs> {
        let mut query = Self { target: target.unwrap_or_default(), ..Self::default() };
        for name in names {
            if !query.names.contains(&name) {
                query.names.push(name);
            }
        }
        let begins = query.target.iter().position(|b| *b == b'?').map(|at| at.saturating_add(1));
        let Some(begins) = begins.filter(|_| !query.names.is_empty()) else { return Ok(query) };
        let wanted: Vec<Wanted> = query.names.iter().map(|name| Wanted::of(name)).collect();
        let longest = wanted.iter().map(|wanted| wanted.whole.len()).max().unwrap_or_default();
        let mut name = Vec::with_capacity(longest.saturating_add(1));
        let mut at = begins;
        let mut left = most;
        for pair in query.target.get(begins..).unwrap_or_default().split(|b| *b == b'&') {
            for part in pair.split(|b| *b == b';') {
                left = left.checked_sub(1).ok_or(TooManyPairs)?;
                let raw = split(part).0;
                if raw.is_empty() {
                    continue;
                }
                let stem = normalize(raw, longest, &mut name);
                for (nth, wanted) in wanted.iter().enumerate() {
                    let is_it = name.get(..stem) == Some(wanted.whole.get(..wanted.stem).unwrap_or_default())
                        || name == wanted.whole;
                    let is_new = || query.hits.last().is_none_or(|hit| (hit.at, hit.name) != (at, nth));
                    // A second part of the same pair makes it no more ambiguous than its `;` does.
                    if is_it && is_new() {
                        query.hits.push(Hit { at, pair, name: nth });
                    }
                }
            }
            at = at.saturating_add(pair.len()).saturating_add(1);
        }
        Ok(query)
    }

    /// The decoded value of the pair with this exact name, if no other pair could be read as it.
    pub(crate) fn read(&self, name: &str) -> Reading<'a> {
        let Some(nth) = self.names.iter().position(|known| *known == name) else { return Reading::Missing };
        let mut hits = self.hits.iter().filter(|hit| hit.name == nth);
        let pair = match (hits.next(), hits.next()) {
            (None, _) => return Reading::Missing,
            (Some(hit), None) if !hit.pair.contains(&b';') => hit.pair,
            _ => return Reading::Ambiguous,
        };
        let (exact, value) = split(pair);
        if decode(exact) == name.as_bytes() { Reading::One(decode(value)) } else { Reading::Missing }
    }

    /// The target without the pairs that could be read as one of `names`; `None` if there are none.
    ///
    /// A pair with a `;` is removed as a whole: some servers read it as two pairs.
    pub(crate) fn without(&self, names: &[&str]) -> Option<Vec<u8>> {
        let is_named = |hit: &&Hit<'_>| self.names.get(hit.name).is_some_and(|name| names.contains(name));
        let mut removed = self.hits.iter().filter(is_named).peekable();
        removed.peek()?;
        let begins = self.target.iter().position(|b| *b == b'?')?;
        let mut out = self.target.get(..begins)?.to_vec();
        let mut keep = |from: usize, to: usize| {
            if let Some(kept) = self.target.get(from..to) {
                out.push(if out.len() == begins { b'?' } else { b'&' });
                out.extend(kept);
            }
        };
        // What stands between two removed pairs, without the `&` beside each.
        let mut from = begins.saturating_add(1);
        for hit in removed {
            if let Some(to) = hit.at.checked_sub(1).filter(|to| *to >= from) {
                keep(from, to);
            }
            from = hit.at.saturating_add(hit.pair.len()).saturating_add(1);
        }
        if from <= self.target.len() {
            keep(from, self.target.len());
        }
        Some(out)
    }
}

/// A target without its query.
pub(crate) fn cut_whole(target: &[u8]) -> &[u8] {
    target.split(|b| *b == b'?').next().unwrap_or_default()
}

/// A name as it is compared.
struct Wanted {
    /// Every byte normalised.
    whole: Vec<u8>,
    /// How many bytes stand before the first bracket.
    stem: usize,
}

impl Wanted {
    fn of(name: &str) -> Self {
        let is_end = |b: &u8| ENDS.contains(b);
        let stem = name.as_bytes().iter().position(is_end).unwrap_or(name.len());
        Self { whole: name.bytes().map(head::normalize_byte).collect(), stem }
    }
}

/// Where some frameworks end a name.
const ENDS: &[u8] = b"[]\0";

/// Writes a raw name as it is compared, up to one byte more than the longest name, since a longer
/// one is none of them. Returns where its stem ends.
///
/// A framework may ignore case, treat all non-alphanumeric bytes as equal, drop leading brackets
/// and spaces, or truncate the name at a bracket or NUL.
fn normalize(raw: &[u8], longest: usize, name: &mut Vec<u8>) -> usize {
    name.clear();
    let mut stem = None;
    let mut rest = raw;
    while let Some((byte, after)) = decode_first(rest) {
        rest = after;
        if name.is_empty() && stem.is_none() && b"[] ".contains(&byte) {
            continue;
        }
        if stem.is_none() && ENDS.contains(&byte) {
            stem = Some(name.len());
        }
        name.push(head::normalize_byte(byte));
        if name.len() > longest {
            break;
        }
    }
    stem.unwrap_or(name.len())
}

/// The first byte of a raw name and what follows it: `+`, `%XX`, and IIS's `%uXXXX`, whose
/// character counts if it is, or is commonly folded to, one of ASCII.
fn decode_first(raw: &[u8]) -> Option<(u8, &[u8])> {
    match raw {
        [b'+', after @ ..] => Some((b' ', after)),
        [b'%', b'u' | b'U', rest @ ..] => match rest.split_first_chunk::<4>() {
            Some((digits, after)) if digits.iter().all(u8::is_ascii_hexdigit) => {
                let code = digits.iter().fold(0, |code, digit| code << 4 | hex(*digit).unwrap_or_default());
                let mut folded = String::new();
                fold::push(char::from_u32(code).unwrap_or_default(), &mut folded);
                let byte = if folded.is_ascii() { folded.bytes().next() } else { None };
                Some((byte.unwrap_or(0xff), after))
            }
            _ => Some((b'%', raw.get(1..)?)),
        },
        [b'%', a, b, after @ ..] => match (hex(*a), hex(*b)) {
            (Some(high), Some(low)) => Some((u8::try_from(high << 4 | low).ok()?, after)),
            _ => Some((b'%', raw.get(1..)?)),
        },
        [byte, after @ ..] => Some((*byte, after)),
        [] => None,
    }
}

fn hex(digit: u8) -> Option<u32> {
    char::from(digit).to_digit(16)
}

fn split(raw: &[u8]) -> (&[u8], &[u8]) {
    match raw.iter().position(|b| *b == b'=') {
        Some(at) => (raw.get(..at).unwrap_or_default(), raw.get(at.saturating_add(1)..).unwrap_or_default()),
        None => (raw, &[]),
    }
}

pub(crate) fn decode(raw: &[u8]) -> Cow<'_, [u8]> {
    if raw.contains(&b'+') {
        let spaced: Vec<u8> = raw.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
        return Cow::Owned(percent_encoding::percent_decode(&spaced).collect());
    }
    percent_encoding::percent_decode(raw).into()
}

/// Whether a raw name, such as a cookie's, is this one, or becomes it where `%XX` and `%uXXXX` are
/// decoded. Stops at the first byte that differs.
pub(crate) fn decodes_to(raw: &[u8], name: &[u8]) -> bool {
    let (mut rest, mut expected) = (raw, name.iter());
    while let Some((byte, after)) = decode_first(rest) {
        // In a cookie a plus is a plus.
        let byte = if rest.first() == Some(&b'+') { b'+' } else { byte };
        if expected.next() != Some(&byte) {
            return false;
        }
        rest = after;
    }
    expected.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(query: &str, name: &str) -> Reading<'static> {
        let target = format!("/?{query}");
        let query = Query::parse(Some(target.as_bytes()), [name].into_iter(), MOST_PAIRS).unwrap();
        match query.read(name) {
            Reading::One(value) => Reading::One(Cow::Owned(value.into_owned())),
            Reading::Missing => Reading::Missing,
            Reading::Ambiguous => Reading::Ambiguous,
        }
    }

    fn cut(target: &[u8], names: &[&str]) -> Option<Vec<u8>> {
        let query = Query::parse(Some(target), names.iter().copied(), MOST_PAIRS).unwrap();
        query.without(names)
    }

    #[test]
    fn a_value_is_read_under_the_exact_name_only() {
        let one = |value: &'static str| Reading::One(Cow::Borrowed(value.as_bytes()));
        let cases = [
            ("id=1", one("1")),
            ("ID=1", Reading::Missing),
            ("id=1&ID=2", Reading::Ambiguous),
            ("id=1&i%64[]=2", Reading::Ambiguous),
            ("id[0]=1", Reading::Missing),
            ("x=1&id=a+b%2B", one("a b+")),
            ("id", one("")),
            ("idx=1", Reading::Missing),
            ("id=1&id]=2", Reading::Ambiguous),
            ("id=1&[id]=2", Reading::Ambiguous),
            ("id=1&+id=2", Reading::Ambiguous),
            ("id=1&id%00x=2", Reading::Ambiguous),
            ("id=1&x=y;id=2", Reading::Ambiguous),
            ("id=1;2", Reading::Ambiguous),
            ("x=y;id=2", Reading::Ambiguous),
            ("x=1;y=2&id=3", one("3")),
            ("id=1&%u0069d=2", Reading::Ambiguous),
            ("id=1&%uff49%u0064=2", Reading::Ambiguous),
            ("%u0069d=2", Reading::Missing),
            ("id=1&%u00e9d=2", one("1")),
            ("id=1&%u69d=2", one("1")),
        ];
        for (query, expected) in cases {
            assert_eq!(read(query, "id"), expected, "{query}");
        }
        assert_eq!(read("user_id=1&user.id=2", "user_id"), Reading::Ambiguous);
        assert_eq!(read("user_id=1&user[id=2", "user_id"), Reading::Ambiguous);
    }

    #[test]
    fn every_spelling_of_a_credential_is_cut() {
        const CASES: [(&str, Option<&str>); 13] = [
            ("/a", None),
            ("/a?x=1", None),
            ("/a?access_token=t", Some("/a")),
            ("/a?x=1&access_token=t&y=2", Some("/a?x=1&y=2")),
            ("/a?Access_Token=t&access%5Ftoken[]=u&y", Some("/a?y")),
            ("/a?", None),
            ("/a?x=1;access_token=t&y", Some("/a?y")),
            ("/a?[access_token]=t&access.token=u", Some("/a")),
            ("/a?access%u005ftoken=t&y=1", Some("/a?y=1")),
            ("/a?&access_token=t", Some("/a?")),
            ("/a?access_token=t&", Some("/a?")),
            ("/a?a&&access_token=t&access_token=u&&b", Some("/a?a&&&b")),
            ("/a?access_token=t;x=1;access_token=u", Some("/a")),
        ];
        for (target, expected) in CASES {
            assert_eq!(
                cut(target.as_bytes(), &["access_token"]),
                expected.map(|e| e.as_bytes().to_vec()),
                "{target}"
            );
        }
    }

    #[test]
    fn more_pairs_than_anybody_needs_are_not_looked_at() {
        let parse = |query: &str, names: &[&'static str]| {
            let target = format!("/?{query}");
            Query::parse(Some(target.as_bytes()), names.iter().copied(), MOST_PAIRS).map(drop)
        };
        assert_eq!(parse(&"&".repeat(MOST_PAIRS - 1), &["id"]), Ok(()));
        assert_eq!(parse(&"&".repeat(MOST_PAIRS), &["id"]), Err(TooManyPairs));
        assert_eq!(parse(&";".repeat(MOST_PAIRS), &["id"]), Err(TooManyPairs));
        assert_eq!(parse(&"&".repeat(MOST_PAIRS), &[]), Ok(()), "nothing reads it");
    }

    /// Whether some framework reads a decoded name as the other: the rule, without its bounds.
    fn names_fold(name: &[u8], other: &str) -> bool {
        let leading = name.iter().take_while(|b| b"[] ".contains(b)).count();
        let name = &name[leading..];
        let stem = |n: &[u8]| n.iter().position(|b| b"[]\0".contains(b)).unwrap_or(n.len());
        head::normalized_eq(&name[..stem(name)], &other.as_bytes()[..stem(other.as_bytes())])
            || head::normalized_eq(name, other.as_bytes())
    }

    proptest! {
        #[test]
        fn a_pair_is_cut_where_its_name_folds(
            pairs in proptest::collection::vec("(%69|i|I|id|%5B|\\[|\\]|%00|\\+|d|x|%|\\.|_){0,6}(=v)?", 0..5),
            name in "(id|i_d|id\\[x\\])",
        ) {
            let target = format!("/?{}", pairs.join("&"));
            let kept: Vec<&String> =
                pairs.iter().filter(|pair| !names_fold(&decode(split(pair.as_bytes()).0), &name)).collect();
            let expected = (kept.len() < pairs.len()).then(|| {
                let kept: Vec<&str> = kept.iter().map(|pair| pair.as_str()).collect();
                let mark = if kept.is_empty() { "" } else { "?" };
                format!("/{mark}{}", kept.join("&")).into_bytes()
            });
            prop_assert_eq!(cut(target.as_bytes(), &[&name]), expected);
        }
    }
}
