//! The sandbox: what the process may still do once everything is bound and opened. The kernel holds it (Landlock).
//!
//! It can read below the folder that is served, write below the folder of uploads, and make and write files in the folder of the
//! access log, so that the log can be opened anew. It can open nothing else, run nothing, bind no other port, connect to nobody, and
//! send no signal to another process. What was opened before stays open. If links may lead out of the folder, it can read everything.
//!
//! It holds for the thread that enters it and for those that this one starts: it has to be entered before there is another.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use crate::config::Error;
use crate::config::plan::Plan;
use crate::config::rules::Symlinks;
use crate::config::units::{AccessLog, Sandbox};

/// The version of Landlock that has all that is asked for: Linux 6.12.
const FULL: ABI = ABI::V6;
/// What each part of it needs.
const PARTS: [(ABI, &str); 4] = [(ABI::V1, "files"), (ABI::V4, "connections"), (ABI::V5, "devices"), (ABI::V6, "signals")];

/// Enters the sandbox of the plan; returns what holds from now on, in words.
///
/// # Errors
///
/// Not all of it can be had, and the plan insists on it.
pub fn enter(plan: &Plan) -> Result<String, Error> {
    if plan.sandbox == Sandbox::Off {
        return Ok("off".into());
    }
    let (is_full, holds) = match restrict(plan) {
        Ok(status) => {
            (status.ruleset == RulesetStatus::FullyEnforced, describe(status.landlock, status.ruleset != RulesetStatus::NotEnforced))
        }
        Err(e) => (false, format!("none ({e})")),
    };
    if !is_full && plan.sandbox == Sandbox::Require {
        let advice = "it takes Linux 6.12 or later with Landlock; --sandbox on does what this one can";
        return Err(Error(format!("the sandbox is not whole on this kernel: {holds}; {advice}")));
    }
    Ok(holds)
}

fn restrict(plan: &Plan) -> Result<RestrictionStatus, RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(FULL))?
        // no port has a rule: none can be bound or connected to any more
        .handle_access(AccessNet::from_all(FULL))?
        .scope(Scope::from_all(FULL))?
        .create()?;
    // where links lead is known when they are followed
    let readable = if plan.rules.symlinks == Symlinks::Follow { Path::new("/") } else { &plan.root };
    rules = allow(rules, readable, AccessFs::ReadFile | AccessFs::ReadDir)?;
    if let Some(uploads) = &plan.uploads {
        let access = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile;
        rules = allow(rules, &uploads.folder, access)?;
    }
    if let AccessLog::File(path) = &plan.access_log {
        for folder in log_folders(path) {
            rules = allow(rules, &folder, AccessFs::WriteFile | AccessFs::MakeReg)?;
        }
    }
    rules.restrict_self()
}

/// Adds a rule for all that is below a folder. One that can not be opened needs none: the server could not use it either.
fn allow(rules: RulesetCreated, folder: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(folder) {
        Ok(folder) => rules.add_rule(PathBeneath::new(folder, access)),
        Err(_) => Ok(rules),
    }
}

/// The folder that the log is in, and that of the file itself if the log is a link. A device or a pipe is not opened anew.
fn log_folders(path: &Path) -> Vec<PathBuf> {
    if !path.is_file() {
        return Vec::new();
    }
    let named = path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder }.to_owned());
    let real = path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_owned));
    named.into_iter().chain(real).collect()
}

/// What this kernel holds of it, for people.
fn describe(landlock: LandlockStatus, is_enforced: bool) -> String {
    let has = match landlock {
        LandlockStatus::Available { effective_abi, .. } if is_enforced => effective_abi,
        LandlockStatus::NotEnabled => return "none (Landlock is not enabled here)".into(),
        _ => return "none (there is no Landlock here)".into(),
    };
    let parts =
        |held: bool| PARTS.iter().filter(|(needs, _)| (*needs <= has) == held).map(|(_, part)| *part).collect::<Vec<_>>().join(", ");
    match parts(false) {
        missing if missing.is_empty() => format!("{} (Landlock {has})", parts(true)),
        missing => format!("{}, but not {missing} (Landlock {has}; version {FULL} has all)", parts(true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_is_told() {
        let on = |effective_abi| LandlockStatus::Available { effective_abi, kernel_abi: None };
        let rows = [
            (on(ABI::V1), true, "files, but not connections, devices, signals (Landlock 1; version 6 has all)"),
            (on(ABI::V4), true, "files, connections, but not devices, signals (Landlock 4; version 6 has all)"),
            (on(ABI::V6), true, "files, connections, devices, signals (Landlock 6)"),
            (on(ABI::V9), true, "files, connections, devices, signals (Landlock 9)"),
            (on(ABI::V6), false, "none (there is no Landlock here)"),
            (LandlockStatus::NotEnabled, false, "none (Landlock is not enabled here)"),
            (LandlockStatus::NotImplemented, false, "none (there is no Landlock here)"),
        ];
        for (landlock, is_enforced, told) in rows {
            assert_eq!(describe(landlock, is_enforced), told, "{landlock:?}");
        }
    }
}
