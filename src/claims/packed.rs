//! The members of a response as one byte string: a worker stores a hundred thousand of them.
//!
//! ```text
//! members = member*, in the order of their codes
//! member = name value          name = code | SPELLED length bytes
//! value  = NULL | FALSE | TRUE | WHOLE n | BELOW n | FLOAT 8 bytes | TEXT length bytes
//!        | LIST length value* | OBJECT length (length name value)* | DUPLICATE
//! ```
//!
//! Numbers and lengths are LEB128. The bytes may come from another worker, so no reader panics:
//! reading stops at what does not parse, and [`Members::unpack`] accepts only what parses to its
//! end.

use super::MAX_DEPTH;
use std::rc::Rc;

/// Members with their values; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Members(Rc<[u8]>);

/// A JSON value, as far as decisions read it, borrowed from its members.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'m> {
    /// `null`, which counts as absent.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// A string, byte for byte.
    Text(&'m str),
    /// An array.
    List(Items<'m>),
    /// An object, which matches nothing; a pointer leads into it.
    Object(Fields<'m>),
    /// The member appears twice; parsers differ in which one they use.
    Duplicate,
}

/// The items of an array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Items<'m>(&'m [u8]);

impl<'m> Iterator for Items<'m> {
    type Item = Value<'m>;

    fn next(&mut self) -> Option<Value<'m>> {
        let (value, rest) = value(self.0)?;
        self.0 = rest;
        Some(value)
    }
}

/// The members of an object in a response, in the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fields<'m>(&'m [u8]);

impl<'m> Iterator for Fields<'m> {
    type Item = (&'m [u8], Value<'m>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = counted(self.0)?;
        let (value, rest) = value(rest)?;
        self.0 = rest;
        Some((name, value))
    }
}

impl<'m> Fields<'m> {
    /// The member with this name; [`Value::Duplicate`] if there are two.
    pub(super) fn get(&mut self, name: &str) -> Option<Value<'m>> {
        let mut named = self.filter(|(n, _)| *n == name.as_bytes());
        let (_, found) = named.next()?;
        Some(if named.next().is_some() { Value::Duplicate } else { found })
    }
}

impl Members {
    /// Packs members: each is a name and a value that a `push_*` function has written.
    pub(super) fn pack(members: &[(String, Vec<u8>)]) -> Self {
        // There are few, and the library's sorts are ten kilobytes of code.
        let mut coded: Vec<(u8, &String, &Vec<u8>)> = Vec::with_capacity(members.len());
        for (name, value) in members {
            let code = code_of(name).unwrap_or(SPELLED);
            let at = coded.partition_point(|(other, ..)| *other <= code);
            coded.insert(at, (code, name, value));
        }
        let mut bytes = Vec::new();
        for (code, name, value) in coded {
            bytes.push(code);
            if code == SPELLED {
                push_bytes(&mut bytes, name.as_bytes());
            }
            bytes.extend(value);
        }
        Self(bytes.into())
    }

    /// Reads bytes that [`Self::bytes`] returned; `None` if they are invalid.
    pub(super) fn unpack(bytes: &[u8]) -> Option<Self> {
        // At `depth` as in the response, which bounds the recursion.
        fn is_whole(value: Value<'_>, depth: usize) -> bool {
            let Some(depth) = depth.checked_add(1).filter(|depth| *depth <= MAX_DEPTH) else { return false };
            let is_item = |value: Value<'_>| value != Value::Duplicate && is_whole(value, depth);
            match value {
                Value::List(mut items) => items.all(is_item) && items.0.is_empty(),
                Value::Object(mut fields) => {
                    fields.all(|(name, value)| std::str::from_utf8(name).is_ok() && is_item(value))
                        && fields.0.is_empty()
                }
                _ => true,
            }
        }
        let mut rest = bytes;
        let mut last = 0;
        while let Some(code) = rest.first() {
            let (value, after) = member(rest)?;
            if !is_whole(value, 0) || *code < last {
                return None;
            }
            (last, rest) = (*code, after);
        }
        Some(Self(bytes.into()))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The members with the first `N` codes, in one pass.
    pub(super) fn first<const N: usize>(&self) -> [Option<Value<'_>>; N] {
        let mut found = [None; N];
        let mut rest = &self.0[..];
        while let Some((code, after)) = rest.split_first()
            && let Some(place) = found.get_mut(usize::from(*code))
            && let Some((value, after)) = value(after)
        {
            *place = Some(value);
            rest = after;
        }
        found
    }

    /// Compares only names, and stops where the order rules the name out: most calls read one
    /// member of a dozen, on every request.
    pub(super) fn get(&self, name: &str) -> Option<Value<'_>> {
        let wanted = code_of(name).unwrap_or(SPELLED);
        let mut rest = &self.0[..];
        loop {
            let (code, after) = rest.split_first()?;
            if *code > wanted {
                return None;
            }
            rest = after;
            let mut is_it = *code == wanted;
            if *code == SPELLED {
                let (spelled, after) = counted(rest)?;
                rest = after;
                is_it = spelled == name.as_bytes();
            }
            if is_it {
                return value(rest).map(|(value, _)| value);
            }
            rest = skip(rest)?;
        }
    }
}

/// Common names, encoded as one byte each; those that every request reads come first. The order is
/// part of the format that workers share.
pub(super) const KNOWN: [&str; 20] = [
    "exp",
    "nbf",
    "token_type",
    "token_use",
    "cnf",
    "scope",
    "sub",
    "client_id",
    "iss",
    "aud",
    "org_id",
    "aal",
    "active",
    "iat",
    "jti",
    "username",
    "org_name",
    "organization_id",
    "user_id",
    "session_id",
];

/// The code of any other name, which follows in full.
const SPELLED: u8 = 255;

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const WHOLE: u8 = 3;
const BELOW: u8 = 4;
const FLOAT: u8 = 5;
const TEXT: u8 = 6;
const LIST: u8 = 7;
const OBJECT: u8 = 8;
const DUPLICATE: u8 = 9;

/// The value of a member that appears twice.
pub(super) const DUPLICATE_VALUE: [u8; 1] = [DUPLICATE];

pub(super) fn push_null(out: &mut Vec<u8>) {
    out.push(NULL);
}

pub(super) fn push_bool(out: &mut Vec<u8>, b: bool) {
    out.push(if b { TRUE } else { FALSE });
}

pub(super) fn push_whole(out: &mut Vec<u8>, n: u64) {
    out.push(WHOLE);
    push_number(out, n);
}

/// A negative integer, by its absolute value.
pub(super) fn push_below(out: &mut Vec<u8>, distance: u64) {
    out.push(BELOW);
    push_number(out, distance);
}

pub(super) fn push_float(out: &mut Vec<u8>, n: f64) {
    out.push(FLOAT);
    out.extend(n.to_le_bytes());
}

pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(TEXT);
    push_bytes(out, text.as_bytes());
}

/// A list of values that were pushed to `items`.
pub(super) fn push_list(out: &mut Vec<u8>, items: &[u8]) {
    out.push(LIST);
    push_bytes(out, items);
}

/// An object of fields that were pushed to `fields`, each a name and a value.
pub(super) fn push_object(out: &mut Vec<u8>, fields: &[u8]) {
    out.push(OBJECT);
    push_bytes(out, fields);
}

pub(super) fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_number(out, u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    out.extend(bytes);
}

fn push_number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(0x80 | low_bits(n));
        n >>= 7;
    }
    out.push(low_bits(n));
}

fn low_bits(n: u64) -> u8 {
    (n & 0x7f) as u8
}

fn code_of(name: &str) -> Option<u8> {
    KNOWN.iter().zip(0..).find(|(known, _)| **known == name).map(|(_, code)| code)
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    // Nearly all numbers are lengths of one byte.
    if let Some((first, rest)) = bytes.split_first()
        && *first < 0x80
    {
        return Some((u64::from(*first), rest));
    }
    let mut n = 0_u64;
    for (nth, byte) in (0_u32..10).zip(bytes) {
        let bits = u64::from(byte & 0x7f);
        let shift = nth.checked_mul(7)?;
        // The tenth byte has room for one bit.
        if shift == 63 && bits > 1 {
            return None;
        }
        n |= bits.checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((n, bytes.get(usize::try_from(nth).ok()?.checked_add(1)?..)?));
        }
    }
    None
}

fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = number(bytes)?;
    rest.split_at_checked(usize::try_from(len).ok()?)
}

fn member(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let (code, rest) = bytes.split_first()?;
    if *code == SPELLED {
        let (_, rest) = counted(rest)?;
        return value(rest);
    }
    KNOWN.get(usize::from(*code))?;
    value(rest)
}

/// The bytes after a value, which is not decoded.
fn skip(bytes: &[u8]) -> Option<&[u8]> {
    let (tag, rest) = bytes.split_first()?;
    match *tag {
        NULL | FALSE | TRUE | DUPLICATE => Some(rest),
        WHOLE | BELOW => number(rest).map(|(_, rest)| rest),
        FLOAT => rest.get(8..),
        TEXT | LIST | OBJECT => counted(rest).map(|(_, rest)| rest),
        _ => None,
    }
}

fn value(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    Some(match *tag {
        NULL => (Value::Null, rest),
        FALSE => (Value::Bool(false), rest),
        TRUE => (Value::Bool(true), rest),
        WHOLE => number(rest).map(|(n, rest)| (Value::Integer(n.into()), rest))?,
        BELOW => {
            let (n, rest) = number(rest)?;
            (Value::Integer(i128::from(n).checked_neg()?), rest)
        }
        FLOAT => {
            let (n, rest) = rest.split_first_chunk::<8>()?;
            (Value::Float(f64::from_le_bytes(*n)), rest)
        }
        TEXT => {
            let (text, rest) = counted(rest)?;
            (Value::Text(std::str::from_utf8(text).ok()?), rest)
        }
        LIST => counted(rest).map(|(items, rest)| (Value::List(Items(items)), rest))?,
        OBJECT => counted(rest).map(|(fields, rest)| (Value::Object(Fields(fields)), rest))?,
        DUPLICATE => (Value::Duplicate, rest),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packed(name: &str, push: impl FnOnce(&mut Vec<u8>)) -> Members {
        let mut value = Vec::new();
        push(&mut value);
        Members::pack(&[("x".to_owned(), vec![NULL]), (name.to_owned(), value)])
    }

    #[test]
    fn values_are_read_back() {
        assert_eq!(packed("sub", |v| push_text(v, "usr_1")).get("sub"), Some(Value::Text("usr_1")));
        assert_eq!(packed("other", |v| push_bool(v, true)).get("other"), Some(Value::Bool(true)));
        assert_eq!(packed("n", |v| push_float(v, 0.5)).get("n"), Some(Value::Float(0.5)));
        assert_eq!(packed("n", |v| push_object(v, &[])).get("n"), Some(Value::Object(Fields(&[]))));
        assert_eq!(packed("n", push_null).get("absent"), None);
        for n in [0, 1, 127, 128, 1 << 32, u64::MAX] {
            assert_eq!(packed("exp", |v| push_whole(v, n)).get("exp"), Some(Value::Integer(n.into())));
            assert_eq!(packed("exp", |v| push_below(v, n)).get("exp"), Some(Value::Integer(-i128::from(n))));
        }
        let list = packed("aud", |v| {
            let mut items = Vec::new();
            push_text(&mut items, "a");
            push_object(&mut items, &[]);
            push_list(v, &items);
        });
        let Some(Value::List(items)) = list.get("aud") else { panic!("a list") };
        assert_eq!(items.collect::<Vec<_>>(), [Value::Text("a"), Value::Object(Fields(&[]))]);
    }

    #[test]
    fn the_first_members_are_read_in_one_pass() {
        let exp = |v: &mut Vec<u8>| push_whole(v, 7);
        let mut values = [Vec::new(), Vec::new(), Vec::new()];
        exp(&mut values[0]);
        push_text(&mut values[1], "access");
        push_null(&mut values[2]);
        let [exp, token_use, sub] = values;
        let names = ["sub".to_owned(), "token_use".to_owned(), "exp".to_owned()];
        let members: Vec<_> = names.into_iter().zip([sub, token_use, exp]).collect();
        let expected = [Some(Value::Integer(7)), None, None, Some(Value::Text("access")), None];
        assert_eq!(Members::pack(&members).first::<5>(), expected);
        assert_eq!(Members::pack(&[]).first::<2>(), [None, None]);
    }

    #[test]
    fn only_whole_bytes_are_taken_over() {
        let whole = packed("sub", |v| push_text(v, "usr_1"));
        assert_eq!(Members::unpack(whole.bytes()), Some(whole.clone()));
        // Only a cut between the two members leaves whole members.
        for cut in (1..whole.bytes().len()).filter(|cut| *cut != 8) {
            assert_eq!(Members::unpack(&whole.bytes()[..cut]), None, "{cut}");
        }
        assert!(Members::unpack(&[2, LIST, 2, LIST, 0]).is_some(), "a list in a list");
        assert_eq!(Members::unpack(&[2, LIST, 1, DUPLICATE]), None, "a duplicate in a list");
        assert!(Members::unpack(&[2, OBJECT, 3, 1, b'a', NULL]).is_some(), "an object");
        assert_eq!(Members::unpack(&[2, OBJECT, 3, 1, 0xff, NULL]), None, "a name that is no text");
        assert_eq!(Members::unpack(&[2, OBJECT, 2, 1, b'a']), None, "a name without a value");
        let nested = |depth: usize| {
            let mut value = vec![NULL];
            for _ in 0..depth {
                let mut around = Vec::new();
                push_list(&mut around, &value);
                value = around;
            }
            Members::unpack(&[&[2], value.as_slice()].concat())
        };
        assert!(nested(MAX_DEPTH - 1).is_some());
        assert_eq!(nested(MAX_DEPTH), None);
        assert_eq!(nested(20_000), None);
        assert_eq!(Members::unpack(&[200, NULL]), None, "an unknown name");
        assert_eq!(Members::unpack(&[3, NULL, 2, NULL]), None, "not in their order");
        assert_eq!(Members::unpack(&[2, 77]), None, "an unknown value");
        assert_eq!(number(&[0xff; 10]), None, "a number that does not end");
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let members = Members(bytes.as_slice().into());
            let _ = members.get("sub");
            if let Some(Value::List(items)) = members.get("aud") {
                prop_assert!(items.count() <= bytes.len());
            }
            if let Some(Value::Object(mut fields)) = members.get("aud") {
                let _ = fields.get("x");
            }
            let _ = Members::unpack(&bytes);
        }
    }
}
