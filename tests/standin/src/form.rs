//! Strict `application/x-www-form-urlencoded` decoding.
//!
//! Strict, because a client that encodes wrongly must fail here rather than be understood by luck.

use std::fmt;

/// What is wrong with a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormError {
    /// A `%` that two hexadecimal digits do not follow.
    Percent,
    /// A byte that an encoder would have escaped.
    RawByte(u8),
    /// The decoded bytes are not UTF-8.
    Utf8,
    /// A pair without `=`, an empty pair, or an empty name.
    Pair,
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormError::Percent => write!(f, "a % without two hexadecimal digits"),
            FormError::RawByte(byte) => write!(f, "byte 0x{byte:02x} has to be escaped"),
            FormError::Utf8 => write!(f, "the decoded bytes are not UTF-8"),
            FormError::Pair => write!(f, "a pair is not name=value"),
        }
    }
}

impl std::error::Error for FormError {}

/// Decodes a whole form into its pairs, in order; repeated names stay repeated.
pub fn decode(form: &[u8]) -> Result<Vec<(String, String)>, FormError> {
    if form.is_empty() {
        return Ok(Vec::new());
    }
    form.split(|&byte| byte == b'&')
        .map(|pair| {
            let equals = pair.iter().position(|&byte| byte == b'=');
            let (name, value) = pair.split_at(equals.ok_or(FormError::Pair)?);
            if name.is_empty() {
                return Err(FormError::Pair);
            }
            Ok((decode_component(name)?, decode_component(&value[1..])?))
        })
        .collect()
}

/// Decodes one name or value: `+` is a space, `%XX` a byte.
pub fn decode_component(text: &[u8]) -> Result<String, FormError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || {
                    let digit = rest.next().map(|&byte| char::from(byte));
                    digit.and_then(|digit| digit.to_digit(16)).ok_or(FormError::Percent)
                };
                (digit()? * 16 + digit()?) as u8
            }
            // What may stand unescaped in the query of a URI, less the form's own separators.
            _ if byte.is_ascii_alphanumeric() || b"-._~!$'()*,:@/?".contains(&byte) => byte,
            _ => return Err(FormError::RawByte(byte)),
        });
    }
    String::from_utf8(bytes).map_err(|_| FormError::Utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Result<Vec<(String, String)>, FormError> {
        Ok(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    #[test]
    fn decodes_plus_and_percent() {
        assert_eq!(decode(b"a=b+c&d=%2B%26%3D%c3%bc"), pairs(&[("a", "b c"), ("d", "+&=ü")]));
        assert_eq!(decode(b"a+b=&a+b=2"), pairs(&[("a b", ""), ("a b", "2")]));
        assert_eq!(decode(b""), pairs(&[]));
    }

    #[test]
    fn refuses_what_an_encoder_never_writes() {
        for (form, error) in [
            (&b"a=%"[..], FormError::Percent),
            (b"a=%4", FormError::Percent),
            (b"a=%zz", FormError::Percent),
            (b"a=%+1", FormError::Percent),
            (b"a=b c", FormError::RawByte(b' ')),
            (b"a=b=c", FormError::RawByte(b'=')),
            (b"a=b;c", FormError::RawByte(b';')),
            (b"a=\xc3\xbc", FormError::RawByte(0xc3)),
            (b"a=%ff", FormError::Utf8),
            (b"a", FormError::Pair),
            (b"=b", FormError::Pair),
            (b"a=b&", FormError::Pair),
            (b"a=b&&c=d", FormError::Pair),
        ] {
            assert_eq!(decode(form), Err(error), "{}", form.escape_ascii());
        }
    }
}
