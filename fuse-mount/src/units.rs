//! Durations and sizes with units, as people write them in options and TOML.

use serde::Deserialize;
use std::time::Duration;

/// A duration such as `120s`, `500ms`, `2m` or `1h`. The unit is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// A size in bytes such as `64MiB`, `4k` or `65536`; units are powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (number, unit) = split(s);
        let wrong = || format!("`{s}` is not a duration: write it like 120s, 500ms, 2m or 1h");
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let factor_ms = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let ms = number.checked_mul(factor_ms).ok_or_else(wrong)?;
        Ok(Span(Duration::from_millis(ms)))
    }
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (number, unit) = split(s);
        let wrong = || format!("`{s}` is not a size: write it like 64MiB, 512KiB or 65536");
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let factor: u64 = match unit {
            "" | "B" => 1,
            "k" | "K" | "KiB" => 1 << 10,
            "m" | "M" | "MiB" => 1 << 20,
            "g" | "G" | "GiB" => 1 << 30,
            _ => return Err(wrong()),
        };
        Ok(Size(number.checked_mul(factor).ok_or_else(wrong)?))
    }
}

/// The leading digits, and what follows without space around it.
fn split(s: &str) -> (&str, &str) {
    let s = s.trim();
    let at = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let (number, unit) = s.split_at(at);
    (number, unit.trim())
}

macro_rules! from_text {
    ($name:ident) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

from_text!(Span);
from_text!(Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!("120s".parse(), Ok(Span(Duration::from_secs(120))));
        assert_eq!("500 ms".parse(), Ok(Span(Duration::from_millis(500))));
        assert_eq!("2m".parse(), Ok(Span(Duration::from_secs(120))));
        for bad in ["120", "", "s", "-1s", "1d", "99999999999999999999s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        assert!("18446744073709551615h".parse::<Span>().is_err());
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!("64MiB".parse(), Ok(Size(64 << 20)));
        assert_eq!("4k".parse(), Ok(Size(4096)));
        assert_eq!("65536".parse(), Ok(Size(65536)));
        for bad in ["MiB", "1XB", "1.5GiB", "18446744073709551615k"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }
}
