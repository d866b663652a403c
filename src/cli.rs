//! The command line. The flags themselves are fields of `config::File` and `config::limits::Limits`; man page and completions can
//! be made from `Cli`.

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, CommandFactory, FromArgMatches, Parser};

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
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed, Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    match command().try_get_matches_from(&args).and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => Ok(Parsed::Run(Box::new(cli))),
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => Ok(Parsed::Print(e.render().to_string())),
        Err(e) => Err(Error(told(&e, &args))),
    }
}

/// The command: what `Cli` says, with the finer flags left to the long help.
fn command() -> Command {
    const FINE: [&str; 4] = ["Clients", "Deadlines", "Bounds", "Files"];
    Cli::command().mut_args(|arg| {
        let is_fine = arg.get_help_heading().is_some_and(|heading| FINE.contains(&heading));
        let is_fine = is_fine || arg.is_hide_short_help_set();
        // -1 behind a flag that takes a value is a bad value of that flag, and no flag of its own
        let takes_number = arg.get_long().is_some() && arg.get_action().takes_values();
        arg.hide_env(true).hide_short_help(is_fine).allow_negative_numbers(takes_number)
    })
}

/// An error of the argument parser, without its usage and in one line, with what the parser does not tell.
fn told(e: &clap::Error, args: &[OsString]) -> String {
    let mut line = String::new();
    for part in e.render().to_string().lines().map(str::trim) {
        let is_left_out = ["Usage:", "For more information", "tip: to pass"].iter().any(|start| part.starts_with(start));
        if part.is_empty() || is_left_out {
            continue;
        }
        let (tip, between) = part.strip_prefix("tip: ").map_or((part, " "), |tip| (tip, "; "));
        line.push_str(if line.is_empty() { "" } else { between });
        line.push_str(tip);
    }
    let mut line = line.trim_start_matches("error: ").to_owned();
    let mut command = command();
    // before that an argument can not tell how it is written
    command.build();
    if let Some(ContextValue::String(name)) = e.get(ContextKind::InvalidArg) {
        let arg = command.get_arguments().find(|arg| arg.to_string() == *name);
        // what is on the command line goes before the environment
        if matches!(e.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue)
            && let Some(variable) = arg.filter(|arg| !is_given(arg, args)).and_then(Arg::get_env).and_then(OsStr::to_str)
        {
            line = line.replacen(&format!("'{name}'"), &format!("'{name}', from {variable} in the environment"), 1);
        }
    }
    if e.kind() == ErrorKind::UnknownArgument
        && let Some((flag, value)) = apart(&command, args)
    {
        line.push_str(&format!("; a value of {flag} is written as {flag}={value}"));
    }
    format!("{line}; try: millpond --help")
}

/// Whether the command line has this flag.
fn is_given(arg: &Arg, args: &[OsString]) -> bool {
    let flag = format!("--{}", arg.get_long().unwrap_or_default());
    args.iter()
        .filter_map(|arg| arg.to_str())
        .any(|arg| arg.strip_prefix(&flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')))
}

/// A flag whose value stands behind an equals sign, and the word behind it that may have been meant as that.
fn apart<'a>(command: &Command, args: &'a [OsString]) -> Option<(&'a str, &'a str)> {
    let takes_equals =
        |flag: &str| command.get_arguments().any(|arg| arg.is_require_equals_set() && arg.get_long() == flag.strip_prefix("--"));
    let mut pairs = args.windows(2).filter_map(|pair| Some((pair[0].to_str()?, pair[1].to_str()?)));
    pairs.rfind(|(flag, value)| takes_equals(flag) && !value.starts_with('-'))
}

/// What to tell of variables that look like those of flags and are of none: a line for each.
pub fn strangers(variables: impl Iterator<Item = OsString>) -> Vec<String> {
    /// Letters in which a name may differ from one that is meant.
    const TYPOS: usize = 2;
    let mut command = command();
    // before that it has no --help
    command.build();
    let known: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str()).collect();
    let not_here = |name: &str| command.get_arguments().filter_map(Arg::get_long).find(|flag| variable(flag) == name);
    let ours = variables.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.starts_with("MILLPOND_"));
    ours.filter(|name| !known.contains(&&name[..]))
        .map(|name| match (not_here(&name), known.iter().map(|known| (distance(&name, known), known)).min()) {
            (Some(flag), _) => format!("{name} in the environment does nothing: --{flag} is for the command line alone"),
            (_, Some((..=TYPOS, likely))) => format!("{name} in the environment is of no flag and does nothing; is {likely} meant?"),
            _ => format!("{name} in the environment is of no flag and does nothing; see: millpond --help"),
        })
        .collect()
}

/// The variable of a flag.
fn variable(flag: &str) -> String {
    format!("MILLPOND_{}", flag.to_uppercase().replace('-', "_"))
}

/// How many bytes have to be put in, taken away or changed to make one text of the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut before = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.bytes().enumerate() {
            let changed = before + usize::from(a != b);
            before = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(before + 1);
        }
    }
    row[other.len()]
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
            assert_eq!(arg.get_env().and_then(|e| e.to_str()), Some(&variable(long)[..]));
        }
    }

    #[test]
    fn the_flags_have_the_bounds_of_the_protocol() {
        let Ok(Parsed::Run(cli)) = parse(["millpond".into()]) else { panic!("no flags at all are good") };
        assert_eq!(cli.file.limits.http(), crate::http::Bounds::default());
    }

    #[test]
    fn names_are_as_far_apart_as_they_have_letters_to_change() {
        for (one, other, expected) in
            [("", "", 0), ("a", "", 1), ("PROT", "PORT", 2), ("PORTS", "PORT", 1), ("HOST", "PORT", 2), ("AB", "XAB", 1)]
        {
            assert_eq!((distance(one, other), distance(other, one)), (expected, expected), "{one} {other}");
        }
    }

    #[test]
    fn mistakes_are_told_in_one_line() {
        for (args, told) in [
            (&["--port", "x"][..], "--port"),
            (&["--prot", "1"], "--port"),
            (&["--queue", "0"], "1 to 1000000"),
            (&["a", "b"], "'b'"),
            (&["--port", "-1"], "'-1' for '--port <PORT>': expected a whole number"),
            (&["--cache-size", "-1"], "'-1' for '--cache-size <SIZE>'"),
            (&["--cache-size", "-x"], "unexpected argument '-x'"),
            (&["--prot", "1"], "found; a similar argument exists: '--port'; try"),
            (&["--port", "abc"], "'abc' for '--port <PORT>': expected a whole number from 0 to 65535; try"),
            (&["--spa", "foo", "site"], "a value of --spa is written as --spa=foo; try"),
        ] {
            let args = ["millpond"].iter().chain(args).map(Into::into);
            let Err(Error(line)) = parse(args) else { panic!("{told}") };
            assert!(line.contains(told) && !line.contains('\n') && !line.starts_with("error") && !line.contains("tip: to pass"), "{line}");
        }
    }
}
