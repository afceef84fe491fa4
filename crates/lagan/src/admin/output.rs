//! What a command prints beside its result in words: JSON, and how far it is.

use crate::exit::{Doing, Outcome};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Prints a JSON document with its schema.
///
/// # Errors
/// Never for the values of this program.
pub fn print_json(value: &impl serde::Serialize) -> Outcome<()> {
    let text = serde_json::to_string_pretty(value).doing(|| "encode the answer".into())?;
    println!("{text}");
    Ok(())
}

/// A line on stderr that is written over, on terminals; elsewhere a line every
/// ten seconds. Silent with `--json`.
pub struct Progress {
    silent: bool,
    terminal: bool,
    every: Duration,
    last: Option<Instant>,
    shown: usize,
}

impl Progress {
    /// The progress of a command; with `json` it shows nothing.
    pub fn new(json: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Progress {
            silent: json,
            terminal,
            every: Duration::from_millis(if terminal { 200 } else { 10_000 }),
            last: None,
            shown: 0,
        }
    }

    /// Shows how far it is, if it is time to.
    pub fn show(&mut self, text: impl FnOnce() -> String) {
        let now = Instant::now();
        let last = *self.last.get_or_insert(now);
        if self.silent || now.duration_since(last) < self.every {
            return;
        }
        self.last = Some(now);
        let text = text();
        if self.terminal {
            eprint!("\r{text:<width$}", width = self.shown);
            let _ = std::io::stderr().flush();
            self.shown = text.len();
        } else {
            eprintln!("{text}");
        }
    }

    /// Wipes the line, before the result is printed.
    pub fn end(&mut self) {
        if self.shown > 0 {
            eprint!("\r{:<width$}\r", "", width = self.shown);
            self.shown = 0;
        }
    }
}
