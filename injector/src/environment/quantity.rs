//! Exact Kubernetes quantities (`500m`, `1Gi`, `1e3`), as far as containers need them.

/// Parses a quantity in billionths, the smallest unit of a quantity.
///
/// `None` if it is invalid or larger than any machine.
pub fn nanos(text: &str) -> Option<i128> {
    const NANOS: i128 = 1_000_000_000;
    let end = text
        .find(|char: char| !matches!(char, '0'..='9' | '.' | '+' | '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (factor, divisor) = match suffix {
        "n" => (1, 1),
        "u" => (1_000, 1),
        "m" => (1_000_000, 1),
        "" => (NANOS, 1),
        "k" => (NANOS * 1_000, 1),
        "M" => (NANOS * 1_000_000, 1),
        "G" => (NANOS * 1_000_000_000, 1),
        "T" => (NANOS * 1_000_000_000_000, 1),
        "P" => (NANOS * 1_000_000_000_000_000, 1),
        "E" => (NANOS * 1_000_000_000_000_000_000, 1),
        "Ki" => (NANOS << 10, 1),
        "Mi" => (NANOS << 20, 1),
        "Gi" => (NANOS << 30, 1),
        "Ti" => (NANOS << 40, 1),
        "Pi" => (NANOS << 50, 1),
        "Ei" => (NANOS << 60, 1),
        exponent => power(exponent)?,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let places = 10_i128.checked_pow(fraction.len().try_into().ok()?)?;
    let scaled = digits.checked_mul(factor)?;
    let divisor = places.checked_mul(divisor)?;
    // Rounded up, so a part that is too small counts as the smallest unit.
    scaled.checked_add(divisor - 1)?.checked_div(divisor)
}

/// Parses `e3` or `E-2` into a multiplier and a divisor.
fn power(suffix: &str) -> Option<(i128, i128)> {
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    let nanos = 1_000_000_000_i128;
    match exponent {
        0.. => Some((nanos.checked_mul(power)?, 1)),
        _ => Some((nanos, power)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        const NANO: i128 = 1_000_000_000;
        let cases = [
            ("0", Some(0)),
            ("2", Some(2 * NANO)),
            ("250m", Some(NANO / 4)),
            ("0.25", Some(NANO / 4)),
            ("1.5Gi", Some((3 << 29) * NANO)),
            ("64Mi", Some((64 << 20) * NANO)),
            ("1e3", Some(1_000 * NANO)),
            ("5E-1", Some(NANO / 2)),
            ("1E", Some(1_000_000_000_000_000_000 * NANO)),
            ("100n", Some(100)),
            ("", None),
            ("Gi", None),
            ("1Xi", None),
            ("1e99", None),
        ];
        for (text, expected) in cases {
            assert_eq!(nanos(text), expected, "{text}");
        }
    }
}
