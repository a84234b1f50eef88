//! Parses JSON into packed members, in one pass and with limits.

use super::MAX_DEPTH;
use super::packed::{self, Members};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Reads an object's members.
pub(super) struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members: Vec<(String, Vec<u8>)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let mut packed = Vec::new();
            map.next_value_seed(Packing { depth: 1, out: Some(&mut packed) })?;
            if let Some((_, first)) = members.iter_mut().find(|(n, _)| *n == name) {
                *first = packed::DUPLICATE_VALUE.into();
            } else if members.len() < MAX_MEMBERS {
                members.push((name, packed));
            } else {
                return Err(serde::de::Error::custom("too many members"));
            }
        }
        Ok(Members::pack(&members))
    }
}

/// Reads a value at this depth (the response itself is at depth 1) and packs it, if a decision can
/// read it.
struct Packing<'o> {
    depth: usize,
    out: Option<&'o mut Vec<u8>>,
}

impl Packing<'_> {
    fn deeper<E: serde::de::Error>(&self) -> Result<usize, E> {
        if self.depth >= MAX_DEPTH {
            Err(E::custom("nested too deep"))
        } else {
            Ok(self.depth.saturating_add(1))
        }
    }

    fn pack(self, push: impl FnOnce(&mut Vec<u8>)) {
        if let Some(out) = self.out {
            push(out);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Packing<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Packing<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.pack(packed::push_null);
        Ok(())
    }

    fn visit_bool<E>(self, b: bool) -> Result<(), E> {
        self.pack(|out| packed::push_bool(out, b));
        Ok(())
    }

    fn visit_i64<E>(self, n: i64) -> Result<(), E> {
        self.pack(|out| push_integer(out, n));
        Ok(())
    }

    fn visit_u64<E>(self, n: u64) -> Result<(), E> {
        self.pack(|out| packed::push_whole(out, n));
        Ok(())
    }

    fn visit_f64<E>(self, n: f64) -> Result<(), E> {
        self.pack(|out| packed::push_float(out, n));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.pack(|out| packed::push_text(out, text));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        let mut items = Vec::new();
        // A list in a list matches nothing, so it is stored as an object, which matches nothing
        // either.
        let mut item = |items: &mut Vec<u8>| {
            let before = items.len();
            let read = seq.next_element_seed(Packing { depth, out: Some(items) })?.is_some();
            if items.get(before) == Some(&packed::LIST) {
                items.truncate(before);
                packed::push_object(items);
            }
            Ok(read)
        };
        while item(&mut items)? {}
        self.pack(|out| packed::push_list(out, &items));
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        while map.next_key::<serde::de::IgnoredAny>()?.is_some() {
            map.next_value_seed(Packing { depth, out: None })?;
        }
        self.pack(packed::push_object);
        Ok(())
    }
}

pub(super) fn push_integer(out: &mut Vec<u8>, n: i64) {
    match u64::try_from(n) {
        Ok(n) => packed::push_whole(out, n),
        Err(_) => packed::push_below(out, n.unsigned_abs()),
    }
}

/// A response with more members is unusable: the search for duplicates must not cost more than the
/// parsing.
const MAX_MEMBERS: usize = 256;
