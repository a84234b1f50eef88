//! Durations as they are written: a number and a unit.

use std::time::Duration;

/// A number with `ms`, `s`, `m` or `h`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit: u64 = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = match number.split_once('.') {
        Some((_, "")) => return None,
        Some((whole, fraction)) => (whole, nanoseconds(fraction, unit)?),
        None => (number, 0),
    };
    let nanos = whole.parse::<u64>().ok()?.checked_mul(unit)?.checked_add(fraction)?;
    Some(Duration::from_nanos(nanos))
}

/// The value of the digits after the decimal point of a unit, to the nearest nanosecond.
fn nanoseconds(fraction: &str, unit: u64) -> Option<u64> {
    // Picoseconds, so that no digit is lost to rounding. The longest unit leaves room for ten times
    // as many.
    let unit = unit.checked_mul(1000)?;
    let mut picos: u64 = 0;
    for byte in fraction.bytes().rev() {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        picos = unit.checked_mul(digit.into())?.checked_add(picos)? / 10;
    }
    Some(picos.checked_add(500)? / 1000)
}

/// A duration in the notation of the configuration.
pub(in crate::config) fn spelled(duration: Duration) -> String {
    let (secs, millis) = (duration.as_secs(), duration.subsec_millis());
    match (secs, millis) {
        (0, 0) => "0s".to_owned(),
        (secs, 0) if secs % 3600 == 0 => format!("{}h", secs / 3600),
        (secs, 0) => format!("{secs}s"),
        _ => format!("{}ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations() {
        let cases = [
            ("250ms", Some(Duration::from_millis(250))),
            ("1s", Some(Duration::from_secs(1))),
            ("1.5s", Some(Duration::from_millis(1500))),
            ("2m", Some(Duration::from_secs(120))),
            ("1h", Some(Duration::from_secs(3600))),
            ("0s", Some(Duration::ZERO)),
            ("0.5s", Some(Duration::from_millis(500))),
            ("1.5m", Some(Duration::from_secs(90))),
            ("0.5ms", Some(Duration::from_micros(500))),
            ("0.1h", Some(Duration::from_secs(360))),
            ("0.000000001s", Some(Duration::from_nanos(1))),
            ("59.9999999999s", Some(Duration::from_secs(60))),
            ("60.0000000009s", Some(Duration::from_nanos(60_000_000_001))),
            ("0.00000000000000000000000000001h", Some(Duration::ZERO)),
            ("0000000000000000000000000000001s", Some(Duration::from_secs(1))),
            ("18446744073s", Some(Duration::from_secs(18_446_744_073))),
            ("18446744074s", None),
            ("18446744073709551616ms", None),
            ("99999999999999999999h", None),
            ("1", None),
            ("s", None),
            ("-1s", None),
            ("1 s", None),
            ("1d", None),
            (".5s", None),
            ("1.s", None),
            ("1.2.3s", None),
            ("1..2s", None),
            (".s", None),
            ("+1s", None),
            ("1.+5s", None),
            ("1_0s", None),
            ("\u{661}s", None),
            ("1e3s", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    /// The same text read with floating point, as it once was.
    fn in_floating_point(text: &str) -> Option<Duration> {
        let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, unit) = text.split_at(digits);
        let scale = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let number = Some(number).filter(|n| !n.starts_with('.') && !n.ends_with('.'))?;
        Duration::try_from_secs_f64(number.parse::<f64>().ok()? * scale).ok()
    }

    proptest! {
        #[test]
        fn every_spelling_is_taken_or_refused_as_floating_point_did(
            text in "[0-9]{0,6}(\\.[0-9.]{0,20})?(ms|s|m|h|d|)"
        ) {
            let (now, once) = (duration(&text), in_floating_point(&text));
            prop_assert_eq!(now.is_some(), once.is_some());
            // A day is exact to less than a microsecond in floating point.
            let apart = now.unwrap_or_default().abs_diff(once.unwrap_or_default());
            prop_assert!(apart < Duration::from_micros(1), "{:?} {:?}", now, once);
        }

        #[test]
        fn no_text_is_too_much_for_a_duration(text in "[0-9.]{0,400}(ms|s|m|h)") {
            let _ = duration(&text);
        }
    }
}
