//! What the fuzzers of `tests/fuzz` need and no host does.

use crate::claims::TokenInfo;

/// Reads a fact as another worker has left it, behind its seal, and everything that is asked of
/// one. Returns what is written back; `None` if it is refused.
pub fn unpack(bytes: &[u8]) -> Option<Vec<u8>> {
    let info = TokenInfo::unpack(bytes)?;
    let _ = info.standard_claims();
    for name in ["sub", "scope", "aud", "exp", "iss", "x", "/x", "/x/0/y", "/~1~0"] {
        let _ = info.header_text(name);
    }
    let _ = (info.subject(), info.scopes(), info.audiences());
    Some(info.packed().to_vec())
}

/// Reads a provider's answer, and writes the members as they are kept.
pub fn pack(body: &[u8]) -> Option<Vec<u8>> {
    TokenInfo::parse(body).ok().map(|info| info.packed().to_vec())
}
