//! Spaces out repetitions: exponential backoff with jitter, for tasks and for agents alike.

use std::time::Duration;

/// Returns the delay before repetition `n` (from 1): `first * factor^(n - 1)`, at most `max`, less a
/// share of up to `jitter` that `draw` (`0.0..1.0`) picks. A factor below 1 counts as 1, and a
/// jitter outside of 0 to 1 as the nearer bound, so that no policy makes a delay that grows shorter
/// or negative. No delay stays none, however large the factor has grown.
pub(crate) fn delay(
    (first, max): (Duration, Duration),
    factor: f64,
    jitter: f64,
    n: u32,
    draw: f64,
) -> Duration {
    if first.is_zero() {
        return Duration::ZERO;
    }
    let exponent = f64::from(n.saturating_sub(1).min(1_000));
    let full = (first.as_secs_f64() * factor.max(1.0).powf(exponent)).min(max.as_secs_f64());
    Duration::from_secs_f64(full * (1.0 - jitter.clamp(0.0, 1.0) * draw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_their_bound_and_none_stays_none() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));

        assert_eq!(delay((second, minute), 2.0, 0.0, 3, 0.5), Duration::from_secs(4));
        assert_eq!(delay((second, minute), 1_000.0, 0.0, 1_000, 0.5), minute);
        assert_eq!(delay((second, minute), 2.0, 1.0, 1, 0.25), Duration::from_millis(750));
        assert_eq!(delay((Duration::ZERO, minute), 1_000.0, 0.0, 1_000, 0.5), Duration::ZERO);
    }
}
