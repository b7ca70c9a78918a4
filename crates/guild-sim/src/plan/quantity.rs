//! Reads durations as people write them: `250ms`, `30s`, `1.5m`.

use std::time::Duration;

/// Longest duration a plan may name; longer is taken for a mistake.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads `50us`, `250ms`, `30s`, `1.5m`, `2h` or `1d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "`{text}` is no duration; write a number and a unit (us, ms, s, m, h, d), like \"30s\""
        )
    };
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    } * number;
    if seconds > DURATION_MAX.as_secs_f64() {
        return Err(format!("`{text}` is longer than 366 days"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Splits `1.5 s` into a finite number that is not negative, and its unit.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse::<f64>().ok().filter(|number| number.is_finite())?;
    Some((number, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        assert_eq!(duration("50us"), Ok(Duration::from_micros(50)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5 m"), Ok(Duration::from_secs(90)));
        for wrong in ["", "30", "-1s", "1e3s", "s", "1x", "nans", "infs", "1..2s", "400d", "１s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
