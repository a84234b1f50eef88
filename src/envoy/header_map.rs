//! Header maps as proxy-wasm hosts pass them: a count, then length-prefixed names and values.
//!
//! The bytes are untrusted: a wrong length is an error here, never a read past the end.

use crate::http::head::{Pair, RequestHead};

/// The bytes are not a header map: they are truncated, or contain a wrong length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads a serialised header map in place.
///
/// Layout, all integers little-endian `u32`: the number of pairs, then per pair the lengths of name
/// and value, then per pair name, NUL, value, NUL. Bytes after the last pair are ignored. An empty
/// input is an empty map.
///
/// # Errors
/// [`Malformed`] where the counts and lengths do not fit the bytes.
pub fn parse(bytes: &[u8]) -> Result<Vec<Pair<'_>>, Malformed> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let (count, rest) = word(bytes)?;
    let table = count.checked_mul(8).ok_or(Malformed)?;
    let (mut lengths, mut data) = rest.split_at_checked(table).ok_or(Malformed)?;
    // `count` is bounded by the input here: the table of lengths is known to fit.
    let mut pairs = Vec::with_capacity(count);
    while !lengths.is_empty() {
        let (name_len, after) = word(lengths)?;
        let (value_len, after) = word(after)?;
        lengths = after;
        let name;
        let value;
        (name, data) = field(data, name_len)?;
        (value, data) = field(data, value_len)?;
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// The head of a request. One that cannot be parsed is passed on as such: the core refuses it and
/// reports why.
pub fn request_head(bytes: &[u8], end_of_stream: bool) -> RequestHead<'_> {
    match parse(bytes) {
        Ok(pairs) => RequestHead::new(pairs, end_of_stream),
        Err(Malformed) => RequestHead::unreadable(),
    }
}

/// Writes a header map in the layout that [`parse`] reads.
///
/// Lengths beyond `u32` cannot occur: every name and value the core makes is bounded far below.
pub fn encode<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: &[(N, V)]) -> Vec<u8> {
    let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = Vec::new();
    out.extend(word(pairs.len()));
    for (name, value) in pairs {
        out.extend(word(name.as_ref().len()));
        out.extend(word(value.as_ref().len()));
    }
    for (name, value) in pairs {
        out.extend(name.as_ref());
        out.push(0);
        out.extend(value.as_ref());
        out.push(0);
    }
    out
}

fn word(bytes: &[u8]) -> Result<(usize, &[u8]), Malformed> {
    let (head, rest) = bytes.split_first_chunk::<4>().ok_or(Malformed)?;
    let n = usize::try_from(u32::from_le_bytes(*head)).map_err(|_| Malformed)?;
    Ok((n, rest))
}

fn field(data: &[u8], len: usize) -> Result<(&[u8], &[u8]), Malformed> {
    let (value, rest) = data.split_at_checked(len).ok_or(Malformed)?;
    match rest.split_first() {
        Some((0, rest)) => Ok((value, rest)),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_input_is_an_empty_map() {
        assert_eq!(parse(&[]), Ok(vec![]));
        assert_eq!(parse(&[0, 0, 0, 0]), Ok(vec![]));
    }

    #[test]
    fn every_truncation_and_every_lying_length_is_an_error() {
        let whole = encode(&[("a", "1"), ("bb", "22")]);
        for end in 1..whole.len() {
            assert_eq!(parse(&whole[..end]), Err(Malformed), "cut at {end}");
        }
        for lie in 0..20 {
            let mut bytes = whole.clone();
            bytes[lie] = bytes[lie].wrapping_add(0x7f);
            assert_eq!(parse(&bytes), Err(Malformed), "lie at {lie}");
        }
        assert_eq!(parse(&[0xff; 64]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(pairs in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..9), proptest::collection::vec(any::<u8>(), 0..9)), 0..9)) {
            let bytes = encode(&pairs);
            let read: Vec<(Vec<u8>, Vec<u8>)> = parse(&bytes).unwrap().into_iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            prop_assert_eq!(read, pairs);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(pairs) = parse(&bytes) {
                prop_assert!(pairs.len() <= bytes.len());
            }
        }
    }
}
