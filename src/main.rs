//! The program: arguments to plan to `control::run` to exit code.

use std::io::Write;
use std::process::ExitCode;

use millpond::cli::{self, Cli, Parsed};
use millpond::config::Error;
use millpond::config::plan::Plan;
use millpond::{control, observe};

/// The exit code of a mistake in the configuration.
const MISTAKE: u8 = 2;

fn main() -> ExitCode {
    let result = cli::parse(std::env::args_os()).and_then(|parsed| match parsed {
        Parsed::Print(text) => print(&text),
        Parsed::Run(cli) => start(*cli),
    });
    let code = result.unwrap_or_else(|Error(line)| {
        observe::say(&line);
        MISTAKE
    });
    observe::finish_saying();
    ExitCode::from(code)
}

fn start(cli: Cli) -> Result<u8, Error> {
    for line in cli::strangers(std::env::vars_os().map(|(name, _)| name)) {
        observe::say(&line);
    }
    let descriptors = control::raise_descriptors();
    let plan = control::fit(Plan::compile(cli.file, descriptors)?, descriptors);
    if cli.check {
        let worst_case = control::check(&plan, descriptors)?;
        return print(&format!("{worst_case}millpond: everything is in order\n"));
    }
    control::run(&plan).map(|code| u8::try_from(code).unwrap_or(u8::MAX))
}

fn print(text: &str) -> Result<u8, Error> {
    // whoever closed standard output does not want to read it
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(0)
}
