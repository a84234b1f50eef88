//! Parses JSON into packed members, in one pass and with limits.

use super::MAX_DEPTH;
use super::packed::{self, Members};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Reads an object's members. `limit`: which one was exceeded, if one was.
pub(super) struct MembersVisitor<'l> {
    pub(super) limit: &'l mut Option<&'static str>,
}

impl<'de> Visitor<'de> for MembersVisitor<'_> {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members: Vec<(String, Vec<u8>)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let mut packed = Vec::new();
            map.next_value_seed(Packing { depth: 1, out: &mut packed, limit: self.limit })?;
            if let Some((_, first)) = members.iter_mut().find(|(n, _)| *n == name) {
                *first = packed::DUPLICATE_VALUE.into();
            } else if members.len() < MAX_MEMBERS {
                members.push((name, packed));
            } else {
                *self.limit = Some("it has more than 256 members");
                return Err(serde::de::Error::custom("too many members"));
            }
        }
        Ok(Members::pack(&members))
    }
}

/// Reads a value at this depth (the response itself is at depth 1) and packs it.
struct Packing<'o> {
    depth: usize,
    out: &'o mut Vec<u8>,
    limit: &'o mut Option<&'static str>,
}

impl Packing<'_> {
    fn deeper<E: serde::de::Error>(&mut self) -> Result<usize, E> {
        if self.depth >= MAX_DEPTH {
            *self.limit = Some("it is nested deeper than 128");
            Err(E::custom("nested too deep"))
        } else {
            Ok(self.depth.saturating_add(1))
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
        packed::push_null(self.out);
        Ok(())
    }

    fn visit_bool<E>(self, b: bool) -> Result<(), E> {
        packed::push_bool(self.out, b);
        Ok(())
    }

    fn visit_i64<E>(self, n: i64) -> Result<(), E> {
        push_integer(self.out, n);
        Ok(())
    }

    fn visit_u64<E>(self, n: u64) -> Result<(), E> {
        packed::push_whole(self.out, n);
        Ok(())
    }

    fn visit_f64<E>(self, n: f64) -> Result<(), E> {
        packed::push_float(self.out, n);
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        packed::push_text(self.out, text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        let mut items = Vec::new();
        while seq.next_element_seed(Packing { depth, out: &mut items, limit: self.limit })?.is_some() {}
        packed::push_list(self.out, &items);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        let mut fields = Vec::new();
        // A name that occurs twice stays twice, for whoever reads it.
        while let Some(name) = map.next_key::<String>()? {
            packed::push_bytes(&mut fields, name.as_bytes());
            map.next_value_seed(Packing { depth, out: &mut fields, limit: self.limit })?;
        }
        packed::push_object(self.out, &fields);
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
pub(super) const MAX_MEMBERS: usize = 256;
