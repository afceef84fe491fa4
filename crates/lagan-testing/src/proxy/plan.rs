//! The plan: the fault, and the requests that it hits.

use std::str::FromStr;

/// One way to break a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// The request goes through unharmed.
    #[default]
    Pass,
    /// Connections are refused, open ones reset.
    Refuse,
    /// The request is read and never answered.
    Hang,
    /// The request is answered with that status and not forwarded.
    Status(u16),
    /// The request is answered with 503 and S3's code `SlowDown`, and not forwarded.
    SlowDown,
    /// The request is forwarded after that many milliseconds.
    Delay(u64),
    /// The request is forwarded; the answer is dropped with the connection.
    Lose,
    /// The answer's body ends after that many bytes, with the connection.
    Cut(u64),
    /// One bit of that byte of the answer's body is flipped.
    Corrupt(u64),
    /// One bit of that byte of the request's body is flipped.
    CorruptUpload(u64),
}

/// A fault, and which requests it hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The fault.
    pub fault: Fault,
    /// Each n-th request is hit; 1 hits all.
    pub every: u64,
    /// Only requests of this method are hit; `None`: of any.
    pub method: Option<&'static str>,
}

impl Default for Plan {
    fn default() -> Self {
        Plan::from(Fault::Pass)
    }
}

impl From<Fault> for Plan {
    fn from(fault: Fault) -> Self {
        Plan {
            fault,
            every: 1,
            method: None,
        }
    }
}

impl Plan {
    /// True if requests of that method are hit.
    pub(super) fn is_for(&self, method: &str) -> bool {
        self.method.is_none_or(|m| m == method)
    }
}

/// The methods of S3.
const METHODS: [&str; 5] = ["GET", "HEAD", "PUT", "POST", "DELETE"];

impl FromStr for Plan {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut plan = Plan::default();
        let mut words = Vec::new();
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some(("every", n)) => plan.every = number(n)?.max(1),
                Some(("method", name)) => {
                    let known = METHODS.into_iter().find(|m| *m == name);
                    plan.method = Some(known.ok_or_else(|| format!("no such method: {name}"))?);
                }
                Some(_) => return Err(format!("no such option: {word}")),
                None => words.push(word),
            }
        }
        plan.fault = match words.as_slice() {
            [] | ["pass"] => Fault::Pass,
            ["refuse"] => Fault::Refuse,
            ["hang"] => Fault::Hang,
            ["slow-down"] => Fault::SlowDown,
            ["lose"] => Fault::Lose,
            ["status", code] => Fault::Status(status(code)?),
            ["delay", ms] => Fault::Delay(number(ms)?),
            ["cut", at] => Fault::Cut(number(at)?),
            ["corrupt", at] => Fault::Corrupt(number(at)?),
            ["corrupt-upload", at] => Fault::CorruptUpload(number(at)?),
            _ => return Err(format!("no such fault: {}", line.trim())),
        };
        Ok(plan)
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("no number: {word}"))
}

fn status(word: &str) -> Result<u16, String> {
    let code = word.parse().ok().filter(|code| (200..600).contains(code));
    code.ok_or_else(|| format!("no HTTP status: {word}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read_from_a_line() {
        let plan = |fault, every, method| {
            Ok(Plan {
                fault,
                every,
                method,
            })
        };
        assert_eq!("".parse(), plan(Fault::Pass, 1, None));
        assert_eq!(
            "status 503 every=3\n".parse(),
            plan(Fault::Status(503), 3, None)
        );
        assert_eq!(
            "method=GET corrupt 0".parse(),
            plan(Fault::Corrupt(0), 1, Some("GET"))
        );
        assert_eq!("hang".parse(), plan(Fault::Hang, 1, None));
        for wrong in [
            "status",
            "status 99",
            "explode",
            "cut x",
            "hang method=get",
            "pass often=2",
        ] {
            assert!(wrong.parse::<Plan>().is_err(), "{wrong}");
        }
    }
}
