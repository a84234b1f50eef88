//! Every field of the configuration, declared once: its name, type, range, default and meaning.
//!
//! The reader takes names and ranges from here, the compiler takes defaults, and the tables of
//! docs/configuration.md are generated from it. A new field needs a declaration in the file of its
//! object, an entry in `objects.rs`, and the code that reads and compiles it.

pub(crate) mod document;
pub(crate) mod limits;
pub(crate) mod provider;
pub(crate) mod route;
pub(crate) mod webhook;

// Descriptions for people are not compiled into the WebAssembly module.
#[cfg(not(target_family = "wasm"))]
pub mod describe;
#[cfg(not(target_family = "wasm"))]
mod objects;
#[cfg(not(target_family = "wasm"))]
pub mod tables;

use std::time::Duration;

/// A field: `K` is its type, `P` what applies if it is not set.
#[derive(Clone, Copy)]
pub(crate) struct Field<K, P> {
    pub(crate) name: &'static str,
    pub(crate) kind: K,
    pub(crate) presence: P,
    #[cfg(not(target_family = "wasm"))]
    meaning: &'static str,
}

impl<K: Copy, P: Copy> Field<K, P> {
    /// Declares a field. `meaning` is a sentence in Markdown, which may link within
    /// docs/configuration.md.
    const fn new(name: &'static str, kind: K, presence: P, meaning: &'static str) -> Self {
        #[cfg(target_family = "wasm")]
        let _ = meaning;
        Self {
            name,
            kind,
            presence,
            #[cfg(not(target_family = "wasm"))]
            meaning,
        }
    }
}

impl<K, V: Copy> Field<K, Or<V>> {
    /// The default of the field.
    pub(crate) const fn default(&self) -> V {
        self.presence.0
    }

    /// The value that was set, or else the default.
    pub(crate) fn of(&self, written: Option<V>) -> V {
        written.unwrap_or(self.presence.0)
    }
}

/// A string.
#[derive(Clone, Copy)]
pub(crate) struct Text;

/// `true` or `false`.
#[derive(Clone, Copy)]
pub(crate) struct Flag;

/// A whole number.
#[derive(Clone, Copy)]
pub(crate) struct Number {
    pub(crate) min: u32,
    pub(crate) max: u32,
}

/// A number with a unit of time.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

/// One of these words.
#[derive(Clone, Copy)]
pub(crate) struct Choice<T: 'static> {
    pub(crate) words: &'static [(&'static str, T)],
}

/// A list of strings.
#[derive(Clone, Copy)]
pub(crate) struct Texts;

/// A string, or a list of them.
#[derive(Clone, Copy)]
pub(crate) struct OneOrMore;

/// An object of strings whose names are the user's.
#[derive(Clone, Copy)]
pub(crate) struct TextMap;

/// An object whose names are the user's, each with a string or a list of them.
#[derive(Clone, Copy)]
pub(crate) struct TextsMap;

/// `true`, `false`, or an object whose names are the user's, each with a string or a list of them.
#[derive(Clone, Copy)]
pub(crate) struct FlagOrTextsMap;

/// An environment variable, or a string for trials.
#[derive(Clone, Copy)]
pub(crate) struct Secret;

/// A list of secrets.
#[derive(Clone, Copy)]
pub(crate) struct Secrets;

/// An object with fields of its own.
#[derive(Clone, Copy)]
pub(crate) struct Object;

/// Such an object, or the word `off`.
#[derive(Clone, Copy)]
pub(crate) struct ObjectOrOff;

/// A list of such objects.
#[derive(Clone, Copy)]
pub(crate) struct Objects;

/// An object of such objects, whose names are the user's.
#[derive(Clone, Copy)]
pub(crate) struct ObjectMap;

/// The field must be set. If it is not, the message names this as expected.
///
/// For a [`Choice`], the message lists the words instead, and this is not used.
#[derive(Clone, Copy)]
pub(crate) struct Required(pub(crate) &'static str);

/// Like [`Required`], but reported by the compiler, after the reader's problems.
#[derive(Clone, Copy)]
pub(crate) struct RequiredLater(pub(crate) &'static str);

/// If the field is not set, this applies.
#[derive(Clone, Copy)]
pub(crate) struct Or<V>(V);

/// If the field is not set, nothing applies, or another field's setting.
#[derive(Clone, Copy)]
pub(crate) struct Optional {
    #[cfg(not(target_family = "wasm"))]
    otherwise: &'static str,
}

impl Optional {
    const NONE: Self = Self::otherwise("none");

    /// What applies instead, in words.
    const fn otherwise(words: &'static str) -> Self {
        #[cfg(target_family = "wasm")]
        let _ = words;
        Self {
            #[cfg(not(target_family = "wasm"))]
            otherwise: words,
        }
    }
}

/// Whether the reader reports a field that is not set.
pub(crate) trait Presence {
    /// What the message names as expected if the field is not set; `None` if there is no message.
    fn expected(&self) -> Option<&'static str> {
        None
    }
}

impl Presence for Required {
    fn expected(&self) -> Option<&'static str> {
        Some(self.0)
    }
}

impl Presence for RequiredLater {}
impl<V> Presence for Or<V> {}
impl Presence for Optional {}

/// The shapes of a secret, for a message.
pub(crate) const SECRET_SHAPE: &str = "`{\"env\": \"NAME\"}` or a string";

/// `mode` of the document, a route or a webhook: whether refusals are only counted.
const MODES: Choice<bool> = Choice { words: &[("enforce", false), ("shadow", true)] };

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[cfg(test)]
mod tests;
