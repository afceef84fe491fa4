//! The multi-call program. Called by a daemon's name it is that daemon, else the admin
//! command.

mod admin;
mod cli;
mod daemon;
mod discover;
mod down;
mod exit;
mod hang;
mod health;
mod layout;
mod net;
mod record;
mod sys;
mod up;

use clap::Parser;
use clap::error::ErrorKind;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(role) = args.first().and_then(|name| daemon::by_name(name)) {
        return daemon::run(role, args);
    }
    match cli::Cli::try_parse_from(args) {
        Ok(cli) => report(admin::run(cli)),
        Err(e) => refuse(&e),
    }
}

fn report(outcome: exit::Outcome<u8>) -> ExitCode {
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            eprintln!("lagan: {failure}");
            ExitCode::from(failure.status)
        }
    }
}

/// Prints clap's help as it is, and mistakes in one line.
fn refuse(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            print!("{}", error.render());
            return ExitCode::from(exit::OK);
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => eprint!("{}", error.render()),
        _ => eprintln!(
            "lagan: {}; see `lagan --help`",
            one_line(&error.to_string())
        ),
    }
    ExitCode::from(exit::USAGE)
}

/// The first paragraph of clap's text, without its `error: `.
fn one_line(text: &str) -> String {
    let paragraph: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let line = paragraph.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_option_gets_one_line() {
        let error = cli::Cli::try_parse_from(["lagan", "up", "--speed", "9"]).unwrap_err();
        let line = one_line(&error.to_string());
        assert!(line.contains("--speed"), "{line}");
        assert!(!line.contains('\n') && !line.starts_with("error"), "{line}");
    }

    #[test]
    fn bad_duration_names_the_option() {
        let error = cli::Cli::try_parse_from(["lagan", "up", "--archive-after", "10"]).unwrap_err();
        let line = one_line(&error.to_string());
        assert!(
            line.contains("--archive-after") && line.contains("unit"),
            "{line}"
        );
    }
}
