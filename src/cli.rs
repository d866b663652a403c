//! The command line. The flags themselves are fields of `config::File` and `config::limits::Limits`; man page and completions can
//! be made from `Cli`.

use clap::error::ErrorKind;
use clap::{Command, CommandFactory, FromArgMatches, Parser};

use crate::config::{Error, File};

/// A web server for files: fast, confined to its folder, and calm under load.
///
/// Millpond serves a folder over HTTP/1.1. It puts connections into one bounded queue, from which a fixed pool of worker threads
/// takes them; past its capacity it holds most of the surplus back and tells some 503 at once, so that those it lets in are
/// served fast. No request ever leaves the folder.
#[derive(Debug, Parser)]
#[command(
    name = "millpond",
    version,
    max_term_width = 100,
    after_help = "Every flag but --check can also be set in the environment: --head-timeout as MILLPOND_HEAD_TIMEOUT."
)]
pub struct Cli {
    /// What to serve, and how.
    #[command(flatten)]
    pub file: File,

    /// Check everything, and start nothing
    #[arg(long)]
    pub check: bool,
}

/// What came of reading the command line.
#[derive(Debug)]
pub enum Parsed {
    /// Flags to act on.
    Run(Box<Cli>),
    /// A text that was asked for: help or version.
    Print(String),
}

/// Reads flags and environment.
///
/// # Errors
///
/// The first thing that is wrong, in one line.
pub fn parse(args: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Parsed, Error> {
    match command().try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => Ok(Parsed::Run(Box::new(cli))),
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => Ok(Parsed::Print(e.render().to_string())),
        Err(e) => Err(Error(one_line(&e.render().to_string()))),
    }
}

/// The command: what `Cli` says, with the finer flags left to the long help.
fn command() -> Command {
    const FINE: [&str; 4] = ["Clients", "Deadlines", "Bounds", "Files"];
    Cli::command().mut_args(|arg| {
        let is_fine = arg.get_help_heading().is_some_and(|heading| FINE.contains(&heading));
        let is_fine = is_fine || arg.is_hide_short_help_set();
        arg.hide_env(true).hide_short_help(is_fine)
    })
}

/// An error of the argument parser, without its usage and in one line.
fn one_line(text: &str) -> String {
    let told: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !["Usage:", "For more information", "tip: to pass"].iter().any(|start| l.starts_with(start)))
        .collect();
    format!("{}; try: millpond --help", told.join(" ").trim_start_matches("error: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_variable() {
        for arg in command().get_arguments() {
            let Some(long) = arg.get_long().filter(|l| !["check", "help", "version"].contains(l)) else { continue };
            let expected = format!("MILLPOND_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().and_then(|e| e.to_str()), Some(&expected[..]));
        }
    }

    #[test]
    fn the_flags_have_the_bounds_of_the_protocol() {
        let Ok(Parsed::Run(cli)) = parse(["millpond".into()]) else { panic!("no flags at all are good") };
        assert_eq!(cli.file.limits.http(), crate::http::Bounds::default());
    }

    #[test]
    fn mistakes_are_told_in_one_line() {
        for (args, told) in [
            (&["--port", "x"][..], "--port"),
            (&["--prot", "1"], "--port"),
            (&["--queue", "0"], "1 to 1000000"),
            (&["a", "b"], "'b'"),
            (&["--port", "-1"], "'-1'"),
        ] {
            let args = ["millpond"].iter().chain(args).map(Into::into);
            let Err(Error(line)) = parse(args) else { panic!("{told}") };
            assert!(line.contains(told) && !line.contains('\n') && !line.starts_with("error") && !line.contains("tip: to pass"), "{line}");
        }
    }
}
