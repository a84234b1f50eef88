//! Other readings of a path: what a framework or a file system may take it for that is more lenient
//! than the routes are.

use crate::http::fold;
use std::borrow::Cow;

/// A decoded path.
pub(super) type Segments<'p> = Vec<Cow<'p, str>>;

/// The readings of a path that differ from it, with their keys as segments.
///
/// Everywhere, case and compatible forms (NFKC) beyond ASCII. At its end, trailing dots and spaces
/// and `::$DATA`, which Windows drops, and, with `cuts_suffix`, a format such as `.json`, which
/// Rails, Spring and others take off before they look for a route.
pub(super) fn lenient<'p>(segments: &'p [Cow<'_, str>], cuts_suffix: bool) -> Vec<Segments<'p>> {
    let is_ascii = segments.iter().all(|segment| segment.is_ascii());
    let folded: Segments<'p> = if is_ascii {
        segments.iter().map(|segment| Cow::Borrowed(segment.as_ref())).collect()
    } else {
        keys(segments)
    };
    let Some((at, last)) = folded.iter().enumerate().rfind(|(_, segment)| !segment.is_empty()) else {
        return if is_ascii { Vec::new() } else { vec![folded] };
    };
    let trimmed = trimmed(last);
    let mut readings = Vec::new();
    if !is_ascii || trimmed.len() != last.len() {
        readings.push(with_last(&folded, at, trimmed));
    }
    if cuts_suffix && let Some(stem) = without_format(trimmed) {
        readings.push(with_last(&folded, at, stem));
    }
    readings
}

/// The segments' keys. A key may hold what separates segments, or be a dot segment.
fn keys<'p>(segments: &'p [Cow<'_, str>]) -> Segments<'p> {
    let mut out: Segments<'p> = Vec::with_capacity(segments.len());
    let is_plain = |key: &str| !key.contains(['/', '\\', ';']) && key != "." && key != "..";
    for segment in segments {
        let key = fold::key(segment);
        if is_plain(&key) {
            out.push(key);
            continue;
        }
        for part in key.split(['/', '\\']) {
            match part.split(';').next().unwrap_or_default() {
                "" | "." => {}
                ".." => drop(out.pop()),
                part => out.push(Cow::Owned(part.to_owned())),
            }
        }
    }
    out
}

/// The path with another text for its last segment that is not empty; without it if that is empty.
fn with_last<'p>(segments: &[Cow<'p, str>], at: usize, text: &str) -> Segments<'p> {
    let mut reading = segments.to_vec();
    if let Some(last) = reading.get_mut(at) {
        *last = Cow::Owned(text.to_owned());
    }
    if text.is_empty() {
        // What is left of it is the slash before it.
        reading.truncate(at.saturating_add(1));
    }
    reading
}

/// A segment without what Windows drops at its end.
fn trimmed(segment: &str) -> &str {
    const STREAM: &str = "::$data";
    let mut rest = segment;
    loop {
        let shorter = rest.trim_end_matches(['.', ' ']);
        let cut = shorter.len().checked_sub(STREAM.len()).and_then(|at| shorter.split_at_checked(at));
        rest = match cut {
            Some((stem, stream)) if stream.eq_ignore_ascii_case(STREAM) => stem,
            _ => return shorter,
        };
    }
}

/// A segment without its format: a dot and letters.
fn without_format(segment: &str) -> Option<&str> {
    let (stem, format) = segment.rsplit_once('.')?;
    let is_format = !format.is_empty() && format.bytes().all(|b| b.is_ascii_alphabetic());
    is_format.then(|| trimmed(stem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::path::CanonicalPath;

    fn readings(target: &str, cuts_suffix: bool) -> Vec<String> {
        let encoded: String = target
            .bytes()
            .map(|b| if b.is_ascii() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect();
        let path = CanonicalPath::parse(encoded.as_bytes()).unwrap();
        lenient(path.segments(), cuts_suffix)
            .iter()
            .map(|reading| format!("/{}", reading.join("/")))
            .collect()
    }

    #[test]
    fn what_a_lenient_service_reads() {
        let cases: [(&str, &[&str]); 20] = [
            ("/admin", &[]),
            ("/v1.0/admin", &[]),
            ("/", &[]),
            ("/admin.json", &["/admin"]),
            ("/admin.json/", &["/admin/"]),
            ("/admin.j2", &[]),
            ("/admin.", &["/admin"]),
            ("/admin%20", &["/admin"]),
            ("/admin.%20.", &["/admin"]),
            ("/admin::$DATA", &["/admin"]),
            ("/admin.::$data.", &["/admin"]),
            ("/admin.json::$DATA", &["/admin.json", "/admin"]),
            ("/admin/...", &["/admin/"]),
            ("/v1/x:check", &[]),
            ("/\u{ff41}dmin", &["/admin"]),
            ("/a/\u{ff41}dmin.txt", &["/a/admin.txt", "/a/admin"]),
            ("/p/\u{ff0e}\u{ff0e}/admin", &["/admin"]),
            ("/p/\u{2025}\u{ff0f}admin", &["/admin"]),
            ("/admin\u{ff1b}x", &["/admin"]),
            ("/admin\u{a0}", &["/admin"]),
        ];
        for (target, expected) in cases {
            assert_eq!(readings(target, true), expected, "{target}");
        }
        assert_eq!(readings("/admin.json", false), Vec::<String>::new());
        assert_eq!(readings("/admin.", false), ["/admin"]);
    }
}
