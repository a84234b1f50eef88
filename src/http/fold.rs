//! Text as services read it that ignore case, or normalise Unicode to its compatible form (NFKC).

mod table;

use std::borrow::Cow;
use table::{RUNS, TEXT, TEXTS};

/// The text in lower case, with each character that case or NFKC turns into ASCII as that ASCII.
///
/// Two texts with the same key are one to some service. Not every two that are one to some service
/// have the same key: a letter and its combining mark are not composed.
pub(crate) fn key(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return if text.bytes().any(|b| b.is_ascii_uppercase()) {
            Cow::Owned(text.to_ascii_lowercase())
        } else {
            Cow::Borrowed(text)
        };
    }
    let mut key = String::with_capacity(text.len());
    text.chars().for_each(|c| push(c, &mut key));
    Cow::Owned(key)
}

/// Adds the key of one character.
pub(crate) fn push(c: char, key: &mut String) {
    if c.is_ascii() {
        key.push(c.to_ascii_lowercase());
    } else if let Some(ascii) = run(c.into()) {
        key.push(ascii.into());
    } else if let Some(text) = text(c.into()) {
        key.push_str(text);
    } else {
        key.push(lower_case(c));
    }
}

/// The lower case of a letter of the scripts that paths are written in: Latin, Greek, Cyrillic and
/// Armenian. All of Unicode's would be a fiftieth of the module.
fn lower_case(c: char) -> char {
    let code = u32::from(c);
    let lower = match code {
        0xc0..=0xd6 | 0xd8..=0xde | 0x391..=0x3a1 | 0x3a3..=0x3ab | 0x410..=0x42f => code.checked_add(0x20),
        0x400..=0x40f => code.checked_add(0x50),
        0x531..=0x556 => code.checked_add(0x30),
        0x386 => Some(0x3ac),
        0x388..=0x38a => code.checked_add(0x25),
        0x38c => Some(0x3cc),
        0x38e..=0x38f => code.checked_add(0x3f),
        0x3c2 => Some(0x3c3),
        0x178 => Some(0xff),
        0x4c0 => Some(0x4cf),
        // Pairs that begin with an even and with an odd number.
        0x100..=0x137 | 0x14a..=0x177 | 0x1e00..=0x1eff | 0x460..=0x481 | 0x48a..=0x4bf | 0x4d0..=0x52f => {
            Some(code | 1)
        }
        0x139..=0x148 | 0x179..=0x17e | 0x4c1..=0x4ce => code.checked_add(code & 1),
        _ => None,
    };
    lower.and_then(char::from_u32).unwrap_or(c)
}

/// The ASCII of a character that is one of a run, such as the letters of a mathematical alphabet.
fn run(code: u32) -> Option<u8> {
    let after = RUNS.partition_point(|(first, ..)| *first <= code);
    let (first, last, ascii) = RUNS.get(after.checked_sub(1)?)?;
    let nth = u8::try_from(code.checked_sub(*first)?).ok().filter(|nth| nth <= last)?;
    ascii.checked_add(nth)
}

/// The ASCII of a character that is several, such as a ligature.
fn text(code: u32) -> Option<&'static str> {
    let begin = |entry: &u32| usize::try_from(entry & BEGIN).ok();
    let after = TEXTS.partition_point(|entry| entry >> BEGIN_BITS <= code);
    let found = TEXTS.get(after.checked_sub(1)?)?;
    let end = TEXTS.get(after).map_or(Some(TEXT.len()), begin)?;
    if found >> BEGIN_BITS == code { TEXT.get(begin(found)?..end) } else { None }
}

/// In an entry of [`TEXTS`], the bits that say where the text begins.
const BEGIN_BITS: u32 = 10;
const BEGIN: u32 = (1 << BEGIN_BITS) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use unicode_normalization::UnicodeNormalization as _;

    /// What case or NFKC makes of a character, if that is ASCII.
    fn ascii_form(c: char) -> Option<String> {
        // Its lower case is an `i` with a dot, for Java and .NET an `i` alone.
        if c == '\u{130}' {
            return Some("i".to_owned());
        }
        let forms = [c.to_string(), c.to_lowercase().collect(), c.to_uppercase().collect()];
        let ascii = |form: &String| form.nfkc().collect::<String>().to_ascii_lowercase();
        forms.iter().map(ascii).find(|form| form.is_ascii() && !form.is_empty())
    }

    fn generated() -> String {
        let mut runs: Vec<(u32, u8, u8)> = Vec::new();
        let mut texts: Vec<u32> = Vec::new();
        let mut text = String::new();
        for c in ('\u{80}'..=char::MAX).filter(|c| !c.is_ascii()) {
            let (code, Some(form)) = (u32::from(c), ascii_form(c)) else { continue };
            match (form.as_bytes(), runs.last_mut()) {
                ([ascii], Some((first, last, begin)))
                    if *first + u32::from(*last) + 1 == code && *begin + *last + 1 == *ascii =>
                {
                    *last += 1;
                }
                ([ascii], _) => runs.push((code, 0, *ascii)),
                _ => {
                    assert!(text.len() < 1 << BEGIN_BITS);
                    texts.push(code << BEGIN_BITS | text.len() as u32);
                    text.push_str(&form);
                }
            }
        }
        let lines = |entries: Vec<String>| -> String {
            entries.chunks(6).map(|line| format!("    {},\n", line.join(", "))).collect()
        };
        let (run_count, text_count) = (runs.len(), texts.len());
        let runs = runs.iter().map(|(first, last, ascii)| format!("({first:#x}, {last}, {ascii:#x})"));
        let runs = lines(runs.collect());
        let texts = lines(texts.iter().map(|entry| format!("{entry:#x}")).collect());
        format!(
            "//! Written by the test of `fold`: `UPDATE_TABLE=1 cargo test --lib fold`.\n\n\
             /// The first character of a run, how many follow it, and the ASCII of the first.\n\
             #[rustfmt::skip]\n\
             pub(super) const RUNS: [(u32, u8, u8); {run_count}] = [\n{runs}];\n\n\
             /// A character, and in the low ten bits where its ASCII begins in [`TEXT`].\n\
             #[rustfmt::skip]\n\
             pub(super) const TEXTS: [u32; {text_count}] = [\n{texts}];\n\n\
             #[rustfmt::skip]\n\
             pub(super) const TEXT: &str = {text:?};\n"
        )
    }

    #[test]
    fn the_table_is_what_unicode_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/fold/table.rs");
        let generated = generated();
        if std::env::var_os("UPDATE_TABLE").is_some() {
            std::fs::write(path, generated).unwrap();
            return;
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), generated, "UPDATE_TABLE=1 writes it");
        let bytes = size_of_val(&RUNS) + size_of_val(&TEXTS) + TEXT.len();
        assert!(bytes <= 4096, "{bytes} bytes");
        for c in '\0'..=char::MAX {
            if let Some(form) = ascii_form(c) {
                assert_eq!(key(&c.to_string()), form, "{c:?}");
            }
        }
    }

    #[test]
    fn letters_of_common_scripts_have_one_key_in_either_case() {
        let letters =
            ['\u{c0}'..='\u{17e}', '\u{391}'..='\u{3c9}', '\u{400}'..='\u{556}'].into_iter().flatten();
        for c in letters.filter(|c| ascii_form(*c).is_none()) {
            for other in c.to_lowercase().chain(c.to_uppercase()) {
                // Some have a case of several characters.
                if c.to_lowercase().count() + c.to_uppercase().count() == 2 {
                    assert_eq!(key(&c.to_string()), key(&other.to_string()), "{c} {other}");
                }
            }
        }
        assert_ne!(key("\u{e9}"), key("\u{e8}"));
        assert_ne!(key("\u{4ea7}"), key("\u{54c1}"));
    }

    #[test]
    fn keys() {
        const CASES: [(&str, &str); 9] = [
            ("admin", "admin"),
            ("ADMIN", "admin"),
            ("\u{ff41}\u{ff44}\u{ff4d}\u{ff49}\u{ff4e}", "admin"),
            ("adm\u{131}n", "admin"),
            ("ADM\u{130}N", "admin"),
            ("\u{212a}ey\u{17f}", "keys"),
            ("o\u{fb03}ce", "office"),
            ("\u{ff0e}\u{ff0f}", "./"),
            ("CAF\u{c9}", "caf\u{e9}"),
        ];
        for (text, expected) in CASES {
            assert_eq!(key(text), expected, "{text}");
        }
    }
}
