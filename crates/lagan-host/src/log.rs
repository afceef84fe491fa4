//! Log lines of a daemon: where they go and how they look.
//!
//! The rule for users: each line has time, level, module and fields, as `text` for people
//! or as one JSON object; it goes to standard error unless a file is named. Lines that
//! libraries repeat too often are filtered out at every level.

use serde::Deserialize;
use std::fs::File;
use std::io::IsTerminal;
use std::sync::Mutex;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where log lines go.
#[derive(Debug)]
pub enum Output {
    /// Standard error, with colours if that is a terminal.
    Terminal,
    /// Standard error, without colours.
    Stderr,
    /// A file that is open for appending.
    File(File),
}

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be understood.
    #[error("level: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process logs already.
    #[error("{0}")]
    Started(String),
}

/// What is logged, where to and how.
#[derive(Debug)]
pub struct Setup<'a> {
    /// A level, or a filter as `EnvFilter` of tracing-subscriber reads it.
    pub filter: &'a str,
    /// Directives (`target=level`) that apply whatever `filter` says.
    pub quiet: &'a [&'a str],
    /// How a line looks.
    pub format: LogFormat,
    /// In JSON: fields stand beside time and level, not in an object `fields`.
    pub is_flat: bool,
    /// Where lines go.
    pub output: Output,
}

/// Starts logging for the process.
///
/// # Errors
/// The filter cannot be understood, or the process logs already.
pub fn start(setup: Setup<'_>) -> Result<(), LogError> {
    let filter = with_quiet(EnvFilter::try_new(setup.filter)?, setup.quiet)?;
    let is_terminal = matches!(setup.output, Output::Terminal);
    let writer = match setup.output {
        Output::Terminal | Output::Stderr => BoxMakeWriter::new(std::io::stderr),
        Output::File(file) => BoxMakeWriter::new(Mutex::new(file)),
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(is_terminal && std::io::stderr().is_terminal());
    match setup.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(setup.is_flat).try_init(),
    }
    .map_err(|e| LogError::Started(e.to_string()))
}

fn with_quiet(mut filter: EnvFilter, quiet: &[&str]) -> Result<EnvFilter, LogError> {
    for directive in quiet {
        filter = filter.add_directive(directive.parse()?);
    }
    Ok(filter)
}
