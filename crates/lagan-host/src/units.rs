//! Sizes and durations, as people write and read them.
//!
//! The rule for users: one dialect in every configuration file, mount option and command.
//! - A size is a whole number of bytes, or one with a unit: `B`, `KiB`, `MiB`, `GiB`, `TiB`
//!   (powers of 1024), short `k`, `m`, `g`, `t` in either case. In TOML it is also a plain
//!   integer. `MB` is refused: people mean two different things by it.
//! - A duration is a whole number with a unit: `ms`, `s`, `min` or `m`, `h`, `d`. Only `0`
//!   needs none.
//!
//! Fractions are refused; blanks around number and unit are not.

use serde::de::{self, Deserialize, Deserializer, Visitor};
use std::fmt;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// A text that is no size or no duration. The message says how to write one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a size.
    #[error(
        "`{0}` is not a size: write bytes, or a number with the unit KiB, MiB, GiB or TiB, as in 64MiB"
    )]
    Size(String),
    /// Not a duration.
    #[error(
        "`{0}` is not a duration: write a number with the unit ms, s, min, h or d, as in 10min"
    )]
    Duration(String),
    /// More than 64 bits of bytes or milliseconds.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

/// Reads a size in bytes.
///
/// # Errors
/// The text is no size, or one of 2^64 bytes or more.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let wrong = || UnitError::Size(text.to_owned());
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let factor = match unit {
        "" | "B" => 1,
        "k" | "K" | "KiB" => 1 << 10,
        "m" | "M" | "MiB" => 1 << 20,
        "g" | "G" | "GiB" => 1 << 30,
        "t" | "T" | "TiB" => 1 << 40,
        _ => return Err(wrong()),
    };
    times(text, number, factor)
}

/// Reads a duration, to the millisecond.
///
/// # Errors
/// The text is no duration, has no unit, or is one of 2^64 ms or more.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = || UnitError::Duration(text.to_owned());
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let factor_ms = match unit {
        "" if number.bytes().all(|b| b == b'0') => 0,
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    times(text, number, factor_ms).map(Duration::from_millis)
}

/// The leading digits, at least one, and what follows, without blanks around it.
fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (!number.is_empty()).then_some((number, unit.trim()))
}

fn times(text: &str, number: &str, factor: u64) -> Result<u64, UnitError> {
    let number: Option<u64> = number.parse().ok();
    number
        .and_then(|n| n.checked_mul(factor))
        .ok_or_else(|| UnitError::TooLarge(text.to_owned()))
}

/// A size in bytes in a TOML file: an integer, or a text that [`parse_size`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

/// A duration in a TOML file: a text that [`parse_duration`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"64MiB\" or 65536")
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<Size, E> {
        Ok(Size(n))
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<Size, E> {
        let wrong = |_| E::invalid_value(de::Unexpected::Signed(n), &self);
        u64::try_from(n).map(Size).map_err(wrong)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
        parse_size(text).map(Size).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        parse_duration(&text).map(Span).map_err(de::Error::custom)
    }
}

/// Writes a size for people: `512 B`, `1.5 MiB`, `12 GiB`.
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

/// Writes an age for people: `45 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`.
pub fn age(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs} s"),
        60..3_600 => format!("{} min {} s", secs / 60, secs % 60),
        3_600..86_400 => format!("{} h {} min", secs / 3_600, secs % 3_600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3_600),
    }
}
