//! The configuration, made sure of and compiled: plain data. To make it, names are resolved and the folder is looked at; nothing is
//! opened for longer than that, and nothing is started.

use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use nix::unistd::{Group, User};

use super::limits::{self, Limits};
use super::rules::Rules;
use super::units::{AccessLog, Account, Identity, Rate, Sandbox, Threads, UploadsTo};
use super::{DEFAULT_ROOT, DEFAULT_UPLOADS, Error, File};

/// All that the server needs to know to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The folder that is served: absolute, without symbolic links.
    pub root: PathBuf,
    /// The addresses to listen on, at least one.
    pub listen: Vec<SocketAddr>,
    /// The congestion control of connections; `None` leaves it to the system, or to us where both ends are on this machine.
    pub congestion_control: Option<String>,
    /// Where a new process asks this one for its listeners, if it may.
    pub control: Option<PathBuf>,
    /// Worker threads.
    pub threads: usize,
    /// Accepted connections that may wait for a worker.
    pub queue: usize,
    /// Connections served at once.
    pub connections: usize,
    /// Whether nobody has named that number.
    pub connections_by_default: bool,
    /// Where requests are logged.
    pub access_log: AccessLog,
    /// How long requests in flight may take at the end.
    pub shutdown_grace: Duration,
    /// How the folder is served as a site.
    pub rules: Rules,
    /// Whether folders without an index are listed.
    pub listing: bool,
    /// Whether folders that are listed can be downloaded as a whole.
    pub archive: bool,
    /// Whether files are compressed here.
    pub compress: bool,
    /// Whether files are loaded before they are asked for.
    pub cache_warm: bool,
    /// Connections that were told 503 and may still be there at the same time.
    pub lingering: usize,
    /// Files that may be written to for uploads at the same time: a form holds all of its files open until it is complete.
    pub open_uploads: usize,
    /// Open files that the cache may hold.
    pub cached_descriptors: usize,
    /// The limits for each client.
    pub clients: Clients,
    /// What uploads there may be, if any.
    pub uploads: Option<Uploads>,
    /// How far the kernel has to confine the process.
    pub sandbox: Sandbox,
    /// The user to become, if any.
    pub user: Option<RunAs>,
    /// The bounds and deadlines.
    pub limits: Limits,
}

/// The limits for each client.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Connections at once.
    pub connections: Option<usize>,
    /// Requests.
    pub rate: Option<Rate>,
    /// Proxies that are believed for which client they speak.
    pub trusted: Vec<IpNet>,
}

/// A user to become.
#[derive(Clone, Debug)]
pub struct RunAs {
    /// How it was written.
    pub written: String,
    /// Its name, if it has one: its further groups are found by it.
    pub name: Option<String>,
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
}

/// What uploads there may be.
#[derive(Clone, Debug)]
pub struct Uploads {
    /// The folder they go to: absolute. It may not be there yet.
    pub folder: PathBuf,
    /// Whether nobody asked for them: they are on because only this machine can reach the server.
    pub by_default: bool,
    /// Whether only this machine can reach the server: then it has to be addressed by one of its own names.
    pub local: bool,
    /// Further names by which it may be addressed.
    pub hosts: Vec<String>,
    /// Whether they can be made but not read.
    pub write_only: bool,
    /// Who may make them; everybody if there is nobody here.
    pub accounts: Vec<Account>,
}

impl Plan {
    /// Checks what the user wrote. `descriptors` is how many files the process may have open.
    ///
    /// # Errors
    ///
    /// A line that says what is wrong and what to do.
    pub fn compile(file: File, descriptors: usize) -> Result<Plan, Error> {
        let mut listen: Vec<SocketAddr> = Vec::new();
        for host in &file.host {
            for address in addresses(host, file.port)? {
                if !listen.contains(&address) {
                    listen.push(address);
                }
            }
        }
        let threads = match file.threads {
            Threads::Auto => std::thread::available_parallelism().map_or(1, usize::from),
            Threads::Count(n) => n,
        };
        let reserved = limits::RESERVED_DESCRIPTORS + limits::WORKER_DESCRIPTORS * threads;
        let Some(free) = descriptors.checked_sub(reserved).filter(|free| *free > 0) else {
            let advice = format!("raise the limit to more than {reserved} (ulimit -n), or lower --threads");
            return Err(Error(format!("{descriptors} file descriptors are too few for {threads} threads: {advice}")));
        };
        if file.archive && !file.listing {
            return Err(Error("--archive is about folders that are listed; give --listing too".into()));
        }
        if file.limits.compress_min > file.limits.compress_max {
            return Err(Error("--compress-min is more than --compress-max: nothing would be compressed; --compress off says so".into()));
        }
        let root = folder(&file.root)?;
        let local = listen.iter().all(|address| address.ip().is_loopback());
        Ok(Plan {
            uploads: uploads(&file, &root, local)?,
            root,
            listen,
            congestion_control: file.congestion_control,
            control: file.control,
            threads,
            queue: file.queue,
            connections_by_default: file.connections.is_none(),
            connections: file.connections.unwrap_or((free / 2).clamp(1, limits::MAX_DEFAULT_CONNECTIONS)),
            access_log: file.access_log,
            shutdown_grace: file.shutdown_grace,
            rules: file.rules,
            listing: file.listing,
            archive: file.archive,
            compress: file.compress.0,
            cache_warm: file.cache_warm,
            // half of the descriptors are connections, a quarter files, and an eighth each of these two
            lingering: (free / 8).clamp(1, limits::MAX_LINGERING),
            open_uploads: (free / 8).max(1),
            cached_descriptors: (free / 4).max(1),
            clients: Clients { connections: file.connections_per_ip, rate: file.rate_limit, trusted: file.trusted_proxy },
            sandbox: file.sandbox,
            user: file.user.as_ref().map(run_as).transpose()?,
            limits: file.limits,
        })
    }
}

/// Uploads are on if they were asked for, or if only this machine can reach the server.
fn uploads(file: &File, root: &Path, local: bool) -> Result<Option<Uploads>, Error> {
    let (folder, by_default) = match &file.uploads {
        Some(UploadsTo::Folder(folder)) => (folder.clone(), false),
        None if local => (root.join(DEFAULT_UPLOADS), true),
        Some(UploadsTo::Off) | None if file.uploads_write_only => {
            return Err(Error("--uploads-write-only is about uploads, and there are none; name a folder with --uploads".into()));
        }
        Some(UploadsTo::Off) | None => return Ok(None),
    };
    let folder = std::path::absolute(&folder).map_err(|e| Error(format!("can not tell where {folder:?} is: {e}")))?;
    if folder.canonicalize().is_ok_and(|folder| folder == root) {
        return Err(Error("uploads can not go into the folder that is served itself; name another one with --uploads".into()));
    }
    let (hosts, accounts) = (file.allow_host.clone(), file.upload_auth.clone());
    Ok(Some(Uploads { folder, by_default, local, hosts, write_only: file.uploads_write_only, accounts }))
}

/// The user and the group that are meant.
fn run_as(identity: &Identity) -> Result<RunAs, Error> {
    let Identity { user, group } = identity;
    let failed = |e: nix::Error| Error(format!("--user {user:?}: the users of this machine can not be looked up: {e}"));
    let number: Option<u32> = user.parse().ok();
    let known = match (User::from_name(user).map_err(failed)?, number) {
        (None, Some(number)) => User::from_uid(number.into()).map_err(failed)?,
        (known, _) => known,
    };
    let Some(uid) = known.as_ref().map(|user| user.uid.as_raw()).or(number) else {
        return Err(Error(format!("--user {user:?}: there is no such user; create it, or name another one")));
    };
    if uid == 0 {
        return Err(Error(format!("--user {user:?} is root itself; name a user with no more rights than it needs")));
    }
    let gid = match group {
        Some(group) => match Group::from_name(group).map_err(failed)?.map(|group| group.gid.as_raw()).or(group.parse().ok()) {
            Some(gid) => gid,
            None => return Err(Error(format!("--user: there is no group {group:?}; create it, or name another one"))),
        },
        None => match &known {
            Some(user) => user.gid.as_raw(),
            None => return Err(Error(format!("--user {user:?}: this number has no group of its own; name one, such as {user}:{user}"))),
        },
    };
    let written = group.as_ref().map_or_else(|| user.clone(), |group| format!("{user}:{group}"));
    Ok(RunAs { written, name: known.map(|user| user.name), uid, gid })
}

/// The addresses of a host: an IP address, with or without brackets, or a name.
fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let found: Vec<_> = match (bare, port).to_socket_addrs() {
        Ok(found) => found.collect(),
        Err(e) => {
            return Err(Error(format!(
                "--host {host:?} is neither an address nor a name that resolves ({e}); give an address such as 127.0.0.1"
            )));
        }
    };
    if found.is_empty() { Err(Error(format!("--host {host:?} has no address; give an address such as 127.0.0.1"))) } else { Ok(found) }
}

/// The folder to serve, absolute.
fn folder(root: &PathBuf) -> Result<PathBuf, Error> {
    let problem = match root.canonicalize() {
        Ok(path) => match std::fs::read_dir(&path) {
            Ok(_) => return Ok(path),
            Err(e) if e.kind() == ErrorKind::NotADirectory => "it is a file; name the folder that it is in".to_owned(),
            Err(e) => format!("it can not be read ({e}); give the user that runs this the right to, or name another folder"),
        },
        Err(e) if e.kind() == ErrorKind::NotFound && root.as_os_str() == DEFAULT_ROOT => {
            return Err(Error(format!("there is no folder {DEFAULT_ROOT:?} here; to serve this folder, run: millpond .")));
        }
        Err(e) if e.kind() == ErrorKind::NotFound => "there is no such folder; check the name, or create it".to_owned(),
        Err(e) => format!("it can not be reached ({e})"),
    };
    Err(Error(format!("can not serve {root:?}: {problem}")))
}
