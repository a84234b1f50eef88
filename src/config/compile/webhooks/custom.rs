//! `format: custom`.

use crate::config::compile::Compiler;
use crate::config::compile::headers::{is_hop_by_hop, is_token};
use crate::config::fields::webhook::custom as fields;
use crate::config::raw;
use crate::http::head::normalized_eq;
use crate::webhook::Format;
use crate::webhook::format::{EventPlaces, Grammar, Names, Piece};
use std::borrow::Cow;

impl Compiler<'_> {
    pub(super) fn custom_format(&mut self, raw: &raw::Custom) -> Option<Format> {
        let fields = [
            ("signature_header", &raw.signature_header),
            ("timestamp_header", &raw.timestamp_header),
            ("id_header", &raw.id_header),
        ];
        let names =
            fields.map(|(field, name)| self.header_name(&format!("{}.{field}", raw.at), name.as_ref()?));
        for (nth, name) in names.iter().enumerate() {
            let earlier = names.iter().take(nth).flatten();
            if let (Some(name), Some((field, _))) = (name, fields.get(nth))
                && earlier.clone().any(|other| normalized_eq(other.as_bytes(), name.as_bytes()))
            {
                self.problems.push(
                    format!("{}.{field}", raw.at),
                    format!("`{name}` twice"),
                    "a header of its own",
                );
            }
        }
        let content = raw.content.as_deref().unwrap_or(fields::CONTENT.default());
        let content = match pieces(content) {
            Ok(content) => content,
            Err(expected) => {
                self.problems.push(format!("{}.content", raw.at), format!("`{content}`"), expected);
                return None;
            }
        };
        let [signature, timestamp, id] = names;
        for (field, variable, piece, name) in [
            ("timestamp_header", "{timestamp}", Piece::Timestamp, &raw.timestamp_header),
            ("id_header", "{id}", Piece::Id, &raw.id_header),
        ] {
            let at = format!("{}.{field}", raw.at);
            match (content.contains(&piece), name) {
                (true, None) => self.problems.push(
                    at,
                    "nothing",
                    format!("a header's name: `content` holds `{variable}`"),
                ),
                (false, Some(_)) => self.problems.push(
                    at,
                    "a header that is not signed",
                    format!("none, or `{variable}` in `content`: anybody could set it"),
                ),
                _ => {}
            }
        }
        let prefix = raw.prefix.clone().unwrap_or_default();
        if !prefix.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            self.problems.push(format!("{}.prefix", raw.at), "bytes outside visible ASCII", "visible ASCII");
        }
        let names = Names {
            signature: Cow::Owned(signature?),
            timestamp: timestamp.map(Cow::Owned),
            id: id.map(Cow::Owned),
        };
        Some(Format {
            algorithm: fields::ALGORITHM.of(raw.algorithm),
            encoding: fields::ENCODING.of(raw.encoding),
            key: fields::KEY.of(raw.key),
            grammar: Grammar::One(Cow::Owned(prefix)),
            content: Cow::Owned(content),
            names: Cow::Owned(vec![names]),
            events: EventPlaces::default(),
        })
    }

    /// A header that a sender sets, in lower case.
    pub(super) fn header_name(&mut self, at: &str, name: &str) -> Option<String> {
        let lower = name.to_ascii_lowercase();
        let danger = match lower.as_str() {
            _ if !is_token(&lower) => Some("malformed"),
            "host" => Some("the authority"),
            _ if is_hop_by_hop(&lower) => Some("about the connection"),
            _ if self.owned.contains(lower.as_bytes()) => Some("removed from every request"),
            _ => None,
        };
        if let Some(danger) = danger {
            self.problems.push(at, format!("`{name}`"), format!("a header that is not {danger}"));
        }
        danger.is_none().then_some(lower)
    }
}

/// What is signed before the body.
fn pieces(content: &str) -> Result<Vec<Piece>, &'static str> {
    let before = content.strip_suffix("{body}").ok_or("`{body}` at its end")?;
    let mut pieces: Vec<Piece> = Vec::new();
    let mut rest = before;
    while !rest.is_empty() {
        let (literal, after) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
        if !literal.is_empty() {
            pieces.push(Piece::Literal(Cow::Owned(literal.to_owned())));
            rest = after;
            continue;
        }
        let variables = [("{timestamp}", Piece::Timestamp), ("{id}", Piece::Id)];
        let found = variables.into_iter().find_map(|(text, piece)| Some((piece, rest.strip_prefix(text)?)));
        let (piece, after) = found.ok_or("no other variable than `{timestamp}`, `{id}` and one `{body}`")?;
        if pieces.contains(&piece) {
            return Err("each variable once");
        }
        // Where one ends and the next begins, nobody but the signer may choose.
        let is_separator = |b: u8| !b.is_ascii_alphanumeric() && b != b'-' && b != b'_' && b != b'{';
        if !after.bytes().next().is_some_and(is_separator) {
            return Err(
                "text behind `{timestamp}` and `{id}` that begins with neither letter, digit, `-` nor `_`",
            );
        }
        pieces.push(piece);
        rest = after;
    }
    Ok(pieces)
}
