//! The health of the way to S3, as `lagan status` shows it.
//!
//! The breaker opens after a few failures in a row, but a person should hear of
//! the first. So the last failure is shown until a call succeeds, and for at least
//! [`SHOWN_MS`], since on a bad line some calls succeed too.

use lagan_object::ObjectError;

/// Shortest time for which a failure is shown.
const SHOWN_MS: u64 = 5_000;

/// State of a node's way to S3.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct S3Health {
    /// The trouble in one line; empty: none.
    pub error: String,
    /// True if a person must act; otherwise the trouble may pass by itself.
    pub permanent: bool,
    /// True once the endpoint has answered, since the start, that uploads may go. If
    /// this is false and there is no error, the state is not known yet.
    pub ready: bool,
}

/// The last failure of one kind of calls. Times are milliseconds of one clock.
#[derive(Debug, Default)]
pub(crate) struct LastFailure {
    error: Option<ObjectError>,
    at_ms: u64,
    well_since: bool,
}

impl LastFailure {
    /// A call failed.
    pub fn failed(&mut self, error: &ObjectError, now_ms: u64) {
        *self = LastFailure {
            error: Some(error.clone()),
            at_ms: now_ms,
            well_since: false,
        };
    }

    /// A call went well.
    pub fn succeeded(&mut self) {
        self.well_since = true;
    }

    /// The failure to show now, if there is one.
    pub fn shown(&self, now_ms: u64) -> Option<&ObjectError> {
        let over = self.well_since && now_ms >= self.at_ms.saturating_add(SHOWN_MS);
        self.error.as_ref().filter(|_| !over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_object::ErrorKind;

    #[test]
    fn first_failure_is_shown_until_a_call_went_well_and_a_moment_longer() {
        let mut last = LastFailure::default();
        last.succeeded();
        assert_eq!(last.shown(0), None);
        let error = ObjectError::new(ErrorKind::Transient, "put", "k", "503");
        last.failed(&error, 100);
        assert_eq!(last.shown(1_000_000), Some(&error));
        last.succeeded();
        assert_eq!(last.shown(100 + SHOWN_MS - 1), Some(&error));
        assert_eq!(last.shown(100 + SHOWN_MS), None);
    }
}
