use super::*;

/// Every size that is understood, and its bytes.
const SIZES: [(&str, u64); 22] = [
    ("0", 0),
    ("4096", 4096),
    ("65536", 65536),
    (" 7 ", 7),
    ("7B", 7),
    ("4k", 4 << 10),
    ("4K", 4 << 10),
    ("4KiB", 4 << 10),
    ("16m", 16 << 20),
    ("16M", 16 << 20),
    ("64MiB", 64 << 20),
    ("64 MiB", 64 << 20),
    (" 64  MiB ", 64 << 20),
    ("1g", 1 << 30),
    ("1G", 1 << 30),
    ("2GiB", 2 << 30),
    ("2 GiB", 2 << 30),
    ("1t", 1 << 40),
    ("1T", 1 << 40),
    ("1TiB", 1 << 40),
    ("007KiB", 7 << 10),
    ("18446744073709551615", u64::MAX),
];

const NO_SIZES: [&str; 16] = [
    "", " ", "B", "MiB", "-1", "+1", "1.5GiB", "1XB", "1MB", "1kB", "1Kib", "1b", "1 2", "0x10",
    "1_000", "1e3",
];

const SIZES_TOO_LARGE: [&str; 5] = [
    "18446744073709551616",
    "99999999999999999999",
    "18446744073709551615k",
    "18446744073709551615KiB",
    "16777216TiB",
];

/// Every duration that is understood, and its milliseconds.
const DURATIONS: [(&str, u64); 17] = [
    ("0", 0),
    ("00", 0),
    ("0s", 0),
    ("1ms", 1),
    ("500ms", 500),
    ("500 ms", 500),
    ("1500ms", 1_500),
    ("5s", 5_000),
    (" 120 s ", 120_000),
    ("2m", 120_000),
    ("10min", 600_000),
    ("10 min", 600_000),
    ("1h", 3_600_000),
    ("2 h", 7_200_000),
    ("1d", 86_400_000),
    ("7d", 604_800_000),
    ("18446744073709551615ms", u64::MAX),
];

const NO_DURATIONS: [&str; 14] = [
    "", "s", "m", "10", "120", "-1s", "+1s", "1.5s", "1y", "1S", "5sec", "1h30min", "1 0", "1M",
];

const DURATIONS_TOO_LONG: [&str; 3] = [
    "18446744073709551616ms",
    "99999999999999999999s",
    "18446744073709551615h",
];

#[test]
fn sizes_are_powers_of_1024() {
    for (text, bytes) in SIZES {
        assert_eq!(parse_size(text), Ok(bytes), "{text}");
    }
    for text in NO_SIZES {
        assert_eq!(parse_size(text), Err(UnitError::Size(text.into())));
    }
    for text in SIZES_TOO_LARGE {
        assert_eq!(parse_size(text), Err(UnitError::TooLarge(text.into())));
    }
}

#[test]
fn durations_need_a_unit() {
    for (text, ms) in DURATIONS {
        assert_eq!(
            parse_duration(text),
            Ok(Duration::from_millis(ms)),
            "{text}"
        );
    }
    for text in NO_DURATIONS {
        assert_eq!(parse_duration(text), Err(UnitError::Duration(text.into())));
    }
    for text in DURATIONS_TOO_LONG {
        assert_eq!(parse_duration(text), Err(UnitError::TooLarge(text.into())));
    }
}

#[test]
fn errors_say_how_to_write_it() {
    let size = parse_size("1MB").unwrap_err().to_string();
    assert!(size.contains("`1MB`") && size.contains("64MiB"), "{size}");
    let duration = parse_duration("10").unwrap_err().to_string();
    assert!(
        duration.contains("`10`") && duration.contains("unit"),
        "{duration}"
    );
}

#[derive(Debug, serde::Deserialize)]
struct File {
    size: Option<Size>,
    span: Option<Span>,
}

fn file(text: &str) -> Result<File, String> {
    toml::from_str(text).map_err(|e| e.message().to_owned())
}

#[test]
fn files_hold_sizes_as_texts_or_integers_and_durations_as_texts() {
    let size = |text: &str| file(text).map(|f| f.size);
    assert_eq!(size("size = \"4k\""), Ok(Some(Size(4096))));
    assert_eq!(size("size = 65536"), Ok(Some(Size(65536))));
    assert!(size("size = -1").unwrap_err().contains("64MiB"));
    assert!(size("size = 1.5").unwrap_err().contains("64MiB"));
    assert!(size("size = \"1MB\"").unwrap_err().contains("1MB"));
    let span = |text: &str| file(text).map(|f| f.span);
    let ten = Some(Span(Duration::from_secs(600)));
    assert_eq!(span("span = \"10min\""), Ok(ten));
    assert!(span("span = \"10\"").unwrap_err().contains("duration"));
    assert!(span("span = 10").is_err());
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
