//! Later arguments held against what a directory was made with.

use crate::exit::{Failure, Outcome};

/// Refuses an option that is given and not what is stored.
///
/// # Errors
/// Status 2, with both.
pub fn same<T: PartialEq + std::fmt::Display>(
    name: &str,
    given: Option<T>,
    stored: T,
) -> Outcome<()> {
    match given {
        Some(given) if given != stored => Err(Failure::usage(format!(
            "{name} {given}: this directory was made with {stored}, leave the option out or take another directory"
        ))),
        _ => Ok(()),
    }
}

/// An option that is not what the directory was made with.
pub fn differs(name: &str) -> Failure {
    Failure::usage(format!(
        "{name} is not what this directory was made with: leave the option out or take another directory"
    ))
}
