//! The query of a request target: pairs split at `&`, decoded once, `+` as a space.

use super::head::{self, Reading};
use std::borrow::Cow;

/// The query's bytes, without the `?`; `None` if the target has none.
pub(crate) fn of(target: &[u8]) -> Option<&[u8]> {
    target.iter().position(|b| *b == b'?').and_then(|at| target.get(at.saturating_add(1)..))
}

/// The decoded value of the pair with this exact name, if no other pair could be read as it.
///
/// Frameworks differ in which of two pairs wins, in which names they treat as equal (another case,
/// `name[]`, `[name]`, `name]`, `user.id` for `user_id`), and in whether `;` separates pairs. A
/// second pair that any of them reads as this one makes the name ambiguous, and so does a raw `;`
/// in a value, which some of them truncate there.
pub(crate) fn read<'a>(query: &'a [u8], name: &str) -> Reading<'a> {
    let mut found = Reading::Missing;
    let mut seen = false;
    for pair in query.split(|b| *b == b'&') {
        for part in pair.split(|b| *b == b';') {
            if !names_fold(&decode(split(part).0), name) {
                continue;
            }
            if seen || pair.contains(&b';') {
                return Reading::Ambiguous;
            }
            seen = true;
            let (exact, value) = split(pair);
            if decode(exact) == name.as_bytes() {
                found = Reading::One(decode(value));
            }
        }
    }
    found
}

/// The target without the pairs that could be read as one of `names`; `None` if there are none.
pub(crate) fn cut(target: &[u8], names: &[&str]) -> Option<Vec<u8>> {
    let query = of(target)?;
    // A pair with a `;` is removed as a whole: some servers read it as two pairs.
    let is_named = |pair: &[u8]| {
        pair.split(|b| *b == b';').any(|part| {
            let name = decode(split(part).0);
            names.iter().any(|n| names_fold(&name, n))
        })
    };
    let pairs = || query.split(|b| *b == b'&');
    if !pairs().any(is_named) {
        return None;
    }
    let path_len = target.len().saturating_sub(query.len()).saturating_sub(1);
    let mut out = target.get(..path_len)?.to_vec();
    for (nth, pair) in pairs().filter(|pair| !is_named(pair)).enumerate() {
        out.push(if nth == 0 { b'?' } else { b'&' });
        out.extend(pair);
    }
    Some(out)
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

/// Whether some framework reads a decoded name as the other: it may ignore case, treat all
/// non-alphanumeric bytes as equal, drop leading brackets, or truncate the name at a bracket or
/// NUL.
fn names_fold(name: &[u8], other: &str) -> bool {
    let leading = name.iter().take_while(|b| b"[] ".contains(b)).count();
    let name = name.get(leading..).unwrap_or_default();
    let stem = |n: &[u8]| n.iter().position(|b| b"[]\0".contains(b)).unwrap_or(n.len());
    let stems_fold = head::normalized_eq(
        name.get(..stem(name)).unwrap_or_default(),
        other.as_bytes().get(..stem(other.as_bytes())).unwrap_or_default(),
    );
    stems_fold || head::normalized_eq(name, other.as_bytes())
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
            ("id=1&id]=2", Reading::Ambiguous),
            ("id=1&[id]=2", Reading::Ambiguous),
            ("id=1&+id=2", Reading::Ambiguous),
            ("id=1&id%00x=2", Reading::Ambiguous),
            ("id=1&x=y;id=2", Reading::Ambiguous),
            ("id=1;2", Reading::Ambiguous),
            ("x=y;id=2", Reading::Ambiguous),
            ("x=1;y=2&id=3", one("3")),
        ];
        for (query, expected) in cases {
            assert_eq!(read(query.as_bytes(), "id"), expected, "{query}");
        }
        assert_eq!(read(b"user_id=1&user.id=2", "user_id"), Reading::Ambiguous);
        assert_eq!(read(b"user_id=1&user[id=2", "user_id"), Reading::Ambiguous);
    }

    #[test]
    fn every_spelling_of_a_credential_is_cut() {
        const CASES: [(&str, Option<&str>); 8] = [
            ("/a", None),
            ("/a?x=1", None),
            ("/a?access_token=t", Some("/a")),
            ("/a?x=1&access_token=t&y=2", Some("/a?x=1&y=2")),
            ("/a?Access_Token=t&access%5Ftoken[]=u&y", Some("/a?y")),
            ("/a?", None),
            ("/a?x=1;access_token=t&y", Some("/a?y")),
            ("/a?[access_token]=t&access.token=u", Some("/a")),
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
