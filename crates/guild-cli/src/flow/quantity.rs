//! Reads durations, rates and sizes as people write them: `30s`, `600/min`, `16 MiB`.

use std::time::Duration;

use guild::QuotaSpec;

/// Longest duration a flow may name; longer is taken for a mistake.
pub(crate) const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads `250ms`, `30s`, `1.5m`, `2h` or `1d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!("`{text}` is no duration; write a number and a unit (ms, s, m, h, d), like \"30s\"")
    };
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" | "sec" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    } * number;
    if seconds > DURATION_MAX.as_secs_f64() {
        return Err(format!("`{text}` is longer than 366 days"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Reads `600/min` with periods s, min, h and d.
pub(crate) fn rate(text: &str, burst: Option<u32>) -> Result<QuotaSpec, String> {
    let wrong = || {
        format!("`{text}` is no rate; write a whole number per s, min, h or d, like \"600/min\"")
    };
    let (amount, period) = text.split_once('/').ok_or_else(wrong)?;
    let amount = amount.trim().parse::<u32>().ok().filter(|amount| *amount > 0);
    let amount = amount.ok_or_else(wrong)?;
    let per = Duration::from_secs(match period.trim() {
        "s" | "sec" | "second" => 1,
        "m" | "min" | "minute" => 60,
        "h" | "hour" => 3600,
        "d" | "day" => 86_400,
        _ => return Err(wrong()),
    });
    Ok(QuotaSpec::Rate { amount, per, burst: burst.unwrap_or(amount) })
}

/// Reads `100`, `64 KiB`, `16MiB`, `10 MB`: a number of bytes.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let wrong =
        || format!("`{text}` is no size; write a number and a unit (B, KB, KiB, MB, MiB, GB, GiB)");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KB" | "kB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    Ok((number * factor as f64) as usize)
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
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5 m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "30", "-1s", "1e3s", "s", "1x", "nans", "infs", "1..2s", "400d", "１s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_are_read_and_save_up_one_period() {
        let per = Duration::from_secs(60);
        assert_eq!(rate("600/min", None), Ok(QuotaSpec::Rate { amount: 600, per, burst: 600 }));
        assert_eq!(rate("6 / min", Some(2)), Ok(QuotaSpec::Rate { amount: 6, per, burst: 2 }));
        for wrong in ["600", "0/s", "-1/s", "1.5/s", "1/week", "/s", "99999999999/s"] {
            assert!(rate(wrong, None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_read_in_both_kinds_of_units() {
        assert_eq!(bytes("100"), Ok(100));
        assert_eq!(bytes("16 MiB"), Ok(16 << 20));
        assert_eq!(bytes("1.5KB"), Ok(1_500));
        assert!(bytes("-1").is_err() && bytes("1 QB").is_err());
    }
}
