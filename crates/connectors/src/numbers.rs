//! Numbers of requests by their digits: what a double makes of them is not asked.

/// The most zeros that an exponent may stand for.
const MOST_DIGITS: usize = 40;

/// A whole number that is written with a point or an exponent (`7.0`, `1e3`), written plainly; none for what is no whole number or needs no other way of writing.
pub(crate) fn whole(text: &str) -> Option<String> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().ok()?;
    let (sign, digits) = mantissa.strip_prefix('-').map_or(("", mantissa), |digits| ("-", digits));
    let (before, after) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{before}{after}");
    if text == mantissa && !digits.contains('.') || before.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return Some(format!("{sign}0"));
    }
    // Where the point stands, counted from the first digit that is not zero.
    let point = before.len() as i64 + i64::from(exponent) - (all.len() - significant.len()) as i64;
    let kept = significant.trim_end_matches('0');
    let point = usize::try_from(point).ok().filter(|point| *point >= kept.len() && *point <= MOST_DIGITS)?;
    Some(format!("{sign}{kept}{}", "0".repeat(point - kept.len())))
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn whole_numbers_are_known_whatever_their_form() {
        let table = [
            ("7.0", "7"),
            ("-7.000", "-7"),
            ("1e3", "1000"),
            ("1E+3", "1000"),
            ("12.50e1", "125"),
            ("1500e-2", "15"),
            ("0.0", "0"),
            ("-0e5", "-0"),
            ("0.5e1", "5"),
            ("9007199254740993.0", "9007199254740993"),
        ];
        for (text, expected) in table {
            assert_eq!(whole(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["7", "-7", "7.5", "0.99999999999999999999", "1e-3", "1e99", "1e999999999999", ".5", "x", "", "NaN", "1.x"] {
            assert_eq!(whole(text), None, "{text}");
        }
    }
}
