//! Mistakes in configuration files, told without the secrets that are in them.
//!
//! What a program refuses goes to a terminal, a log or a journal. A line of
//! `server.toml` may hold a secret key, also one that the parser takes for
//! something else (a key with a typo, a quote that is missing). So a mistake
//! is told by its line's number, its key and the parser's words, never by the
//! line's text and never by the value.

use std::fmt;

/// One mistake. Shown as `LINE: what is wrong`; comes after `FILE:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// In words, one line, with the key where it is known.
    pub what: String,
}

impl Mistake {
    /// One that a parser found in `text`: where it begins (in bytes), and the parser's words.
    pub fn parsing(text: &str, at: Option<usize>, message: &str) -> Self {
        let before = at.and_then(|at| text.get(..at)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let message = without_value(&message.trim().replace('\n', "; "));
        let what = match key_before(before) {
            Some(key) => format!("{key}: {message}"),
            None => message,
        };
        Mistake { line, what }
    }

    /// A value that parsed but is not allowed. `key` may be `table.key`; its last part
    /// finds the line.
    pub fn value(text: &str, key: &str, why: &str) -> Self {
        let last = key.rsplit('.').next().unwrap_or(key);
        let is_key = |line: &str| {
            let rest = line.trim_start().strip_prefix(last);
            rest.is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        Mistake {
            line: text.lines().position(is_key).map_or(1, |at| at + 1),
            what: format!("{key}: {why}"),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

/// The key whose value begins where `before` ends. Anything but a plain key may
/// be part of a value.
fn key_before(before: &str) -> Option<&str> {
    let line = before.rsplit('\n').next()?;
    let key = line.trim_end().strip_suffix('=')?.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (!key.is_empty() && key.chars().all(plain)).then_some(key)
}

/// serde's words for a value of the wrong type show the value: they lose it.
fn without_value(message: &str) -> String {
    for kind in ["invalid type: ", "invalid value: "] {
        let Some(found) = message.strip_prefix(kind) else {
            continue;
        };
        let Some(at) = found.rfind(", expected ") else {
            return kind.trim_end_matches(": ").to_owned();
        };
        let (found, expected) = found.split_at(at);
        let word = found.split(['"', '`']).next().unwrap_or_default();
        return format!("{kind}{}{expected}", word.trim_end());
    }
    message.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_line_nor_value_is_shown() {
        let text = "a = 1\n  [s3]\nkey = \"hush\"\n";
        let at = text.find("\"hush");
        let told = |message| Mistake::parsing(text, at, message).to_string();
        let wrong = "invalid type: string \"hush, expected \", expected u8";
        assert_eq!(told(wrong), "3: key: invalid type: string, expected u8");
        let wrong = "invalid type: integer `77`, expected a string";
        let told_of = told(wrong);
        assert_eq!(told_of, "3: key: invalid type: integer, expected a string");
        assert_eq!(told("invalid value: \"hush\""), "3: key: invalid value");
        assert_eq!(told("one\ntwo"), "3: key: one; two");
    }

    #[test]
    fn only_a_plain_key_is_named() {
        for (before, key) in [
            ("x = 1\nlisten = ", Some("listen")),
            ("s3.path_style=", Some("s3.path_style")),
            ("secret_key \"hush = ", None),
            ("s3 = { secret_key = \"hush\", path_style = ", None),
            ("", None),
            ("= ", None),
        ] {
            assert_eq!(key_before(before), key, "{before}");
        }
    }

    #[test]
    fn place_outside_the_text_is_its_beginning() {
        let told = Mistake::parsing("a", Some(9), "what").to_string();
        assert_eq!(told, "1: what");
        assert_eq!(Mistake::parsing("ä", Some(1), "what").line, 1);
    }

    #[test]
    fn value_is_found_by_its_key() {
        let text = "a = 1\nab = 2\n\n[s3]\n access_key = 'x'\n";
        let line = |key| Mistake::value(text, key, "no").line;
        assert_eq!(
            (line("ab"), line("s3.access_key"), line("missing")),
            (2, 5, 1)
        );
        let told = Mistake::value(text, "ab", "must be 3").to_string();
        assert_eq!(told, "2: ab: must be 3");
    }
}
