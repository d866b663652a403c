//! From root to a user with fewer rights: for the whole process and for good, before any thread exists.

use std::ffi::CString;

use nix::unistd::{Gid, Uid, getegid, geteuid, initgroups, setgid, setgroups, setuid};

use crate::config::Error;
use crate::config::plan::{Plan, RunAs};

/// Becomes the user of the plan, with its groups and no others. Without one it stays what it is.
///
/// # Errors
///
/// That was refused, or the folder can not be read by that user.
pub fn become_planned(plan: &Plan) -> Result<(), Error> {
    let Some(user) = &plan.user else { return Ok(()) };
    // asked for twice, as by a service manager and here
    if (geteuid().as_raw(), getegid().as_raw()) != (user.uid, user.gid) {
        if !geteuid().is_root() {
            return Err(Error(format!("--user {}: only root can become another user; leave it out", user.written)));
        }
        become_user(user).map_err(|e| Error(format!("can not become user {} ({e}); name another one with --user", user.written)))?;
    }
    std::fs::read_dir(&plan.root).map(drop).map_err(|e| {
        let advice = "open it, and the folders above it, to that user, or name another folder";
        Error(format!("user {} can not read {:?} ({e}); {advice}", user.written, plan.root))
    })
}

/// The groups go first: without root's rights they could not be given up any more.
fn become_user(user: &RunAs) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    match user.name.as_ref().and_then(|name| CString::new(name.as_str()).ok()) {
        Some(name) => initgroups(&name, gid)?,
        None => setgroups(&[gid])?,
    }
    setgid(gid)?;
    // real, effective and saved: there is no way back
    setuid(uid)
}

/// A warning, if all that a client may bring this process to do is done as root.
pub fn warning(plan: &Plan) -> Option<&'static str> {
    (plan.user.is_none() && geteuid().is_root()).then_some("this runs as root; give it a user with fewer rights: --user NAME")
}
