//! Percent-encoding (RFC 3986).

use std::fmt::Write;

/// The bytes as ASCII: unreserved characters (RFC 3986 §2.3) and the bytes of `plain`
/// stand for themselves, each other byte is `%XX`.
pub fn encode(bytes: &[u8], plain: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || plain.contains(&byte) {
            text.push(char::from(byte));
        } else {
            // writing to a string does not fail
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_unreserved_and_plain_bytes_are_encoded() {
        assert_eq!(encode(b"aZ09-._~", b""), "aZ09-._~");
        let path = "/a b/\u{fc}%".as_bytes();
        assert_eq!(encode(path, b"/"), "/a%20b/%C3%BC%25");
        assert_eq!(encode(path, b""), "%2Fa%20b%2F%C3%BC%25");
    }
}
