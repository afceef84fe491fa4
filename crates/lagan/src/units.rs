//! Durations and sizes with units, as people write and read them.

use std::time::Duration;

/// Parses `10m`, `30s`, `1500ms`, `2h`, `7d`; `0` needs no unit.
///
/// # Errors
/// In words, when there is no number or no known unit, or the value is too large.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` is no duration, write for example 10m"))?;
    let unit_ms: u64 = match unit.trim() {
        "" if number == 0 => 0,
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("`{text}` needs a unit: ms, s, m, h or d")),
    };
    number
        .checked_mul(unit_ms)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is too long"))
}

/// `512 B`, `1.5 MiB`, `12 GiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64;
    let mut unit = "B";
    for u in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = u;
    }
    if value < 10.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// `45 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`.
pub fn age(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs} s"),
        60..3_600 => format!("{} min {} s", secs / 60, secs % 60),
        3_600..86_400 => format!("{} h {} min", secs / 3_600, secs % 3_600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let ms = |s: &str| parse_duration(s).map(|d| d.as_millis() as u64);
        assert_eq!(ms("10m"), Ok(600_000));
        assert_eq!(ms("1500ms"), Ok(1500));
        assert_eq!(ms("2 h"), Ok(7_200_000));
        assert_eq!(ms("0"), Ok(0));
        for bad in ["", "10", "m", "-1s", "1y", "99999999999999999999s", "1.5s"] {
            assert!(ms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_ages_read_well() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(64 << 20), "64 MiB");
        assert_eq!(bytes(u64::MAX), "16 EiB");
        assert_eq!(age(59), "59 s");
        assert_eq!(age(185), "3 min 5 s");
        assert_eq!(age(90_000), "1 d 1 h");
    }
}
