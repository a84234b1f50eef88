//! The query of a request target: pairs split at `&`, decoded once, `+` as a space.

use super::head::Reading;
use std::borrow::Cow;

/// The query's bytes, without the `?`; `None` where the target has none.
pub fn of(target: &[u8]) -> Option<&[u8]> {
    target.iter().position(|b| *b == b'?').and_then(|at| target.get(at.saturating_add(1)..))
}

/// The decoded value of the pair of this exact name, if no other pair could be read as it.
///
/// Frameworks differ in case, in `name[]` and `name[0]`, and in which of two pairs wins: a second pair that any of them reads as this one
/// makes the name ambiguous.
pub fn read<'a>(query: &'a [u8], name: &str) -> Reading<'a> {
    let mut found = Reading::Missing;
    let mut seen = false;
    for (pair_name, pair_value) in pairs(query) {
        if !folds_to(&pair_name, name) {
            continue;
        }
        if seen {
            return Reading::Ambiguous;
        }
        seen = true;
        if pair_name == name.as_bytes() {
            found = Reading::One(decode(pair_value));
        }
    }
    found
}

/// The target without every pair that could be read as one of `names`; `None` where there is none to cut.
pub fn cut(target: &[u8], names: &[&str]) -> Option<Vec<u8>> {
    let query = of(target)?;
    let is_named = |raw: &[u8]| {
        let (name, _) = split(raw);
        let name = decode(name);
        names.iter().any(|n| folds_to(&name, n))
    };
    let raws = || query.split(|b| *b == b'&');
    if !raws().any(is_named) {
        return None;
    }
    let kept: Vec<&[u8]> = raws().filter(|raw| !is_named(raw)).collect();
    let path_len = target.len().saturating_sub(query.len()).saturating_sub(1);
    let mut out = target.get(..path_len)?.to_vec();
    for (nth, pair) in kept.into_iter().enumerate() {
        out.push(if nth == 0 { b'?' } else { b'&' });
        out.extend(pair);
    }
    Some(out)
}

fn pairs(query: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, &[u8])> {
    query.split(|b| *b == b'&').map(|raw| {
        let (name, value) = split(raw);
        (decode(name), value)
    })
}

fn split(raw: &[u8]) -> (&[u8], &[u8]) {
    match raw.iter().position(|b| *b == b'=') {
        Some(at) => (raw.get(..at).unwrap_or_default(), raw.get(at.saturating_add(1)..).unwrap_or_default()),
        None => (raw, &[]),
    }
}

fn decode(raw: &[u8]) -> Cow<'_, [u8]> {
    if raw.contains(&b'+') {
        let spaced: Vec<u8> = raw.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
        return Cow::Owned(percent_encoding::percent_decode(&spaced).collect());
    }
    percent_encoding::percent_decode(raw).into()
}

/// Compared decoded, without case, cut at the first `[`.
fn folds_to(name: &[u8], other: &str) -> bool {
    let stem = |n: &[u8]| n.iter().position(|b| *b == b'[').unwrap_or(n.len());
    let name = name.get(..stem(name)).unwrap_or_default();
    let other = other.as_bytes();
    name.eq_ignore_ascii_case(other.get(..stem(other)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ];
        for (query, expected) in cases {
            assert_eq!(read(query.as_bytes(), "id"), expected, "{query}");
        }
    }

    #[test]
    fn every_spelling_of_a_credential_is_cut() {
        const CASES: [(&str, Option<&str>); 6] = [
            ("/a", None),
            ("/a?x=1", None),
            ("/a?access_token=t", Some("/a")),
            ("/a?x=1&access_token=t&y=2", Some("/a?x=1&y=2")),
            ("/a?Access_Token=t&access%5Ftoken[]=u&y", Some("/a?y")),
            ("/a?", None),
        ];
        for (target, expected) in CASES {
            assert_eq!(
                cut(target.as_bytes(), &["access_token"]),
                expected.map(|e| e.as_bytes().to_vec()),
                "{target}"
            );
        }
    }
}
