//! Secrets as senders hand them out, and the keys that they are.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

/// What a configured secret is. There is no falling back from one to another: a secret that is not
/// what its format says is a mistake, and another key would be used than the sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyEncoding {
    /// The key itself.
    Utf8,
    /// The key in hexadecimal, in either case.
    Hex,
    /// The key in base64 (RFC 4648 section 4), with its padding.
    Base64,
    /// The same with or without padding, and with or without `whsec_` before it.
    Whsec,
}

impl KeyEncoding {
    /// The key.
    ///
    /// # Errors
    /// What was expected, if the secret is not that.
    pub(crate) fn decode(self, secret: &str) -> Result<Vec<u8>, &'static str> {
        let key = match self {
            Self::Utf8 => secret.as_bytes().to_vec(),
            Self::Hex => base16ct::mixed::decode_vec(secret).map_err(|_| "hexadecimal digits")?,
            Self::Base64 => STANDARD.decode(secret).map_err(|_| "base64 with its padding")?,
            Self::Whsec => {
                if ["whpk_", "whsk_"].iter().any(|prefix| secret.starts_with(prefix)) {
                    return Err("`whsec_` and base64: a key of `v1a` (ed25519) is not supported");
                }
                let secret = secret.strip_prefix("whsec_").unwrap_or(secret);
                INDIFFERENT.decode(secret).map_err(|_| "`whsec_` and base64")?
            }
        };
        if key.is_empty() { Err("a key that is not empty") } else { Ok(key) }
    }
}

const INDIFFERENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_what_its_format_says_and_nothing_else() {
        let cases = [
            (KeyEncoding::Utf8, "whsec_YQ==", Ok("whsec_YQ==")),
            (KeyEncoding::Hex, "6a6B", Ok("jk")),
            (KeyEncoding::Hex, "6a6", Err("hexadecimal digits")),
            (KeyEncoding::Hex, "xx", Err("hexadecimal digits")),
            (KeyEncoding::Base64, "amtsbQ==", Ok("jklm")),
            (KeyEncoding::Base64, "amtsbQ", Err("base64 with its padding")),
            (KeyEncoding::Base64, "whsec_amtsbQ==", Err("base64 with its padding")),
            (KeyEncoding::Whsec, "whsec_amtsbQ==", Ok("jklm")),
            (KeyEncoding::Whsec, "whsec_amtsbQ", Ok("jklm")),
            (KeyEncoding::Whsec, "amtsbQ==", Ok("jklm")),
            (KeyEncoding::Whsec, "amtsbQ", Ok("jklm")),
            (KeyEncoding::Whsec, "am-sbQ", Err("`whsec_` and base64")),
            (KeyEncoding::Whsec, "amtsb", Err("`whsec_` and base64")),
            (KeyEncoding::Whsec, "whsec_", Err("a key that is not empty")),
            (
                KeyEncoding::Whsec,
                "whpk_amtsbQ==",
                Err("`whsec_` and base64: a key of `v1a` (ed25519) is not supported"),
            ),
        ];
        for (encoding, secret, expected) in cases {
            let expected = expected.map(|key| key.as_bytes().to_vec());
            assert_eq!(encoding.decode(secret), expected, "{secret}");
        }
    }
}
