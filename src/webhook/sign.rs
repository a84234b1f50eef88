//! Signs a body as a sender would, for trials and tests.

use super::format::{Format, Grammar, Piece};
use super::mac::Mac;
use super::signature::plain_id;

/// The headers that a delivery needs, with the signature of each key, as a sender sets them. `id`
/// and `timestamp` (Unix time in seconds) go where the format has a place for them; `None` if the
/// id cannot stand there.
pub(crate) fn sign(
    format: &Format,
    keys: &[&[u8]],
    timestamp: u64,
    id: &str,
    body: &[u8],
) -> Option<Vec<(String, String)>> {
    let names = format.names.first()?;
    if format.signs_id() {
        plain_id(id.as_bytes(), format.behind_id())?;
    }
    let timestamp = timestamp.to_string();
    let signature = |key: &&[u8]| {
        let mut mac = Mac::new(format.algorithm, key)?;
        for piece in format.content.iter() {
            mac.update(match piece {
                Piece::Timestamp => timestamp.as_bytes(),
                Piece::Id => id.as_bytes(),
                Piece::Literal(text) => text.as_bytes(),
            });
        }
        mac.update(body);
        Some(format.encoding.encode(&mac.tag()))
    };
    let signatures: Vec<String> = keys.iter().filter_map(signature).collect();
    let value = match &format.grammar {
        Grammar::One(prefix) => format!("{prefix}{}", signatures.first()?),
        Grammar::Versioned => signatures.iter().map(|s| format!("v1,{s}")).collect::<Vec<_>>().join(" "),
        Grammar::Pairs => signatures.iter().fold(format!("t={timestamp}"), |all, s| format!("{all},v1={s}")),
    };
    let mut headers = vec![(names.signature.clone().into_owned(), value)];
    headers.extend(names.timestamp.iter().map(|name| (name.clone().into_owned(), timestamp.clone())));
    headers.extend(names.id.iter().map(|name| (name.clone().into_owned(), id.to_owned())));
    Some(headers)
}
