//! The main thread: binds the sockets, gives up its rights, starts the threads, waits for signals, and brings everything to an end.

mod budget;
mod listen;
mod sandbox;
mod takeover;
mod user;

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::panic;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::Access;
use rustix::process::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

use crate::config::Error;
use crate::config::plan::{Plan, Uploads};
use crate::config::rules::{Dotfiles, Symlinks};
use crate::config::units::AccessLog;
use crate::files::blocking::Blocking;
use crate::files::upload;
use crate::http::path::CleanPath;
use crate::net::accept::Door;
use crate::net::clients::Clients;
use crate::net::gate::Wall;
use crate::net::queue::Queue;
use crate::net::resting::Resting;
use crate::net::{Shared, accept, worker};
use crate::observe::log::{self, Log};
use crate::observe::{Counters, say};
use crate::site::Site;
use budget::Budget;
use takeover::{Control, Offer, Predecessor};

/// How long to wait before a worker that could not be replaced is tried again.
const REPLACE_AGAIN: Duration = Duration::from_millis(200);
/// How often the end looks whether all threads have ended.
const END_LOOK: Duration = Duration::from_millis(5);
/// How long a process that stops may take to close its listeners.
const STOPPING: Duration = Duration::from_secs(1);
/// How long the threads may take to cut off what is in flight, and to log it.
const CUT_OFF: Duration = Duration::from_secs(1);
/// What a process that was ended by a signal exits with, less the signal's number.
const EXIT_BY_SIGNAL: i32 = 128;

pub use budget::fit;

/// Raises the number of files that this process may have open as far as it is allowed to; returns it.
pub fn raise_descriptors() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // if that is refused, the old limit holds
        let _ = setrlimit(Resource::Nofile, limit);
    }
    getrlimit(Resource::Nofile).current.map_or(1 << 20, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

/// Checks what can be checked without starting anything: that the root can be opened, that the ports are free, and that this machine,
/// with so many descriptors, can hold what the plan allows. Returns the worst case of it, for people.
///
/// # Errors
///
/// What would keep the server from starting, or from holding what it may have to.
pub fn check(plan: &Plan, descriptors: usize) -> Result<String, Error> {
    let budget = Budget::new(plan, descriptors);
    budget.check()?;
    // what a running process would hand over can not be bound beside it
    if !plan.control.as_deref().is_some_and(takeover::is_running) {
        plan.control.as_deref().map_or(Ok(()), takeover::check)?;
        listen::bind(plan, &mut Vec::new(), false)?;
    }
    user::become_planned(plan)?;
    open_log(plan, false)?;
    match &plan.uploads {
        Some(uploads) if uploads.by_default => {}
        Some(uploads) if uploads.folder.is_dir() => can_write(uploads)?,
        Some(uploads) if uploads.folder.symlink_metadata().is_ok() => {
            return Err(uploads_failed(uploads, "can not be made (it is no folder)"));
        }
        Some(uploads) if !can_create_in(uploads.folder.parent()) => return Err(uploads_failed(uploads, "can not be made")),
        _ => {}
    }
    Ok(budget.describe())
}

/// What happens while the server runs.
enum Event {
    Signal(i32),
    Relieved,
    WorkerEnded(usize),
    GuardianEnded,
}

/// Serves until a signal ends it; returns the exit code.
///
/// # Errors
///
/// What kept the server from starting.
pub fn run(plan: &Plan) -> Result<i32, Error> {
    let failed = |what: &'static str| move |e: io::Error| Error(format!("{what}: {e}"));
    // a file that would become larger than this process may make one is an error of that write (EFBIG), and no end of the process
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(failed("can not stay alive at the limit of file sizes"))?;
    // up to the sandbox no thread is started: what is given up here is given up by the whole process
    let Sockets { listeners, is_activated, control, predecessor } = sockets(plan)?;
    let is_local = listeners.iter().all(|(listener, _)| listener.local_addr().is_ok_and(|address| address.ip().is_loopback()));
    let processors = thread::available_parallelism().map_or(1, usize::from);
    user::become_planned(plan)?;
    let (plan, uploads_off) = make_uploads(plan.clone(), is_local)?;
    let plan = &plan;
    let sink = open_log(plan, true)?;
    let holds = sandbox::enter(plan)?;
    let blocking = Arc::new(Blocking::new(plan.limits.blocking_threads).map_err(failed("no blocking pool"))?);
    let site = Site::open(plan, &blocking, Instant::now()).map_err(failed("can not open the folder"))?;
    let log = sink.map_or_else(|| Ok(Log::off()), |sink| Log::start(plan.threads, sink)).map_err(failed("no thread for the log"))?;
    let addresses: Vec<SocketAddr> = listeners.iter().filter_map(|(l, _)| l.local_addr().ok()).collect();
    let offered =
        control.map(|control| Ok((control, Offer::new(&listeners)?))).transpose().map_err(failed("can not offer the listeners"))?;
    let queue = Queue::new(plan.queue, plan.threads, processors, plan.connections);
    let shared = share(plan, site, Door::new(listeners, plan.threads, plan.limits.queue_wait), queue, blocking, log, is_activated);
    tell_panics(&shared);
    let (tell, events) = mpsc::channel();
    watch_signals(&tell).map_err(failed("can not wait for signals"))?;
    let workers: Result<Vec<_>, _> = (0..plan.threads).map(|index| start_worker(index, &shared, &tell)).collect();
    let mut workers = workers.map_err(failed("no thread for a worker"))?;
    // from here on the one that ran before accepts nothing any more
    predecessor.map_or(Ok(()), Predecessor::relieve)?;
    let offer =
        offered.map(|(control, offer)| start_offer(control, offer, &tell)).transpose().map_err(failed("no thread for takeovers"))?;
    let (stop, guardian) = start_guardian(&shared, &tell).map_err(failed("no thread for the guardian"))?;
    greet(plan, &addresses, &holds, uploads_off.as_deref(), shared.site.missing_page(plan));
    if let Some(warning) = user::warning(plan) {
        say(warning);
    }
    tell_manager(NotifyState::Ready);
    let signal = serve(plan, &mut workers, &shared, &tell, &events);
    offer.inspect(Offer::withdraw);
    match signal {
        Some(_) => tell_manager(NotifyState::Stopping),
        None => {
            shared.is_succeeded.store(true, Ordering::Relaxed);
            shared.is_relieved.store(true, Ordering::Relaxed);
            // who reads the line can count on it
            shared.queue.drain();
            say("another process has taken over: this one finishes what it has begun");
        }
    }
    // the guardian is still there, so this is heard
    let _ = stop.send(true);
    let by_force = end(plan, &shared, guardian, workers, &events);
    farewell(&shared);
    Ok(by_force.map_or(0, |signal| EXIT_BY_SIGNAL + signal))
}

/// The sockets that are there before anything else.
struct Sockets {
    listeners: Vec<(TcpListener, Option<Wall>)>,
    /// Whether the listeners are those of the service manager, which keeps them when this process ends.
    is_activated: bool,
    control: Option<Control>,
    predecessor: Option<Predecessor>,
}

/// Gets the listeners from systemd or from the process that runs, or binds them.
fn sockets(plan: &Plan) -> Result<Sockets, Error> {
    let asked = plan.control.as_deref().map(takeover::ask).transpose()?;
    let is_one_stopping = asked.as_ref().is_some_and(|asked| asked.is_one_stopping);
    let (control, mut taken, predecessor) =
        asked.map_or((None, Vec::new(), None), |asked| (Some(asked.control), asked.listeners, asked.predecessor));
    let activated = listen::activated(plan)?;
    let is_activated = activated.is_some();
    let patience = if is_one_stopping { STOPPING } else { Duration::ZERO };
    let listeners = activated.map_or_else(|| bind(plan, &mut taken, patience), Ok)?;
    Ok(Sockets { listeners: listen::walls(listeners, taken), is_activated, control, predecessor })
}

/// Binds the listeners; if they are still those of a process that stops, as soon as it has closed them.
fn bind(plan: &Plan, taken: &mut Vec<TcpListener>, patience: Duration) -> Result<Vec<TcpListener>, Error> {
    let until = Instant::now() + patience;
    loop {
        match listen::bind(plan, taken, true) {
            Err(_) if Instant::now() < until => thread::sleep(END_LOOK),
            bound => return bound,
        }
    }
}

fn share(plan: &Plan, site: Site, door: Door, queue: Queue, blocking: Arc<Blocking>, log: Log, is_activated: bool) -> Arc<Shared> {
    Arc::new(Shared {
        site,
        door,
        queue,
        resting: Resting::new(plan.threads),
        bounds: Arc::new(plan.limits.http()),
        limits: plan.limits.clone(),
        lingering: plan.lingering,
        clients: Arc::new(Clients::new(&plan.clients)),
        log,
        counters: Counters::new(plan.threads),
        blocking,
        is_succeeded: AtomicBool::new(is_activated),
        is_relieved: AtomicBool::new(false),
    })
}

/// Starts the guardian; it ends when it is told so through the sender.
fn start_guardian(shared: &Arc<Shared>, tell: &Sender<Event>) -> io::Result<(watch::Sender<bool>, JoinHandle<()>)> {
    let (stop, stopped) = watch::channel(false);
    let tell = tell.clone();
    let ended = move || {
        // at the very end nobody listens any more
        let _ = tell.send(Event::GuardianEnded);
    };
    Ok((stop, accept::start(Arc::clone(shared), stopped, ended)?))
}

/// Offers the listeners to a new process.
fn start_offer(control: Control, offer: Offer, tell: &Sender<Event>) -> io::Result<Offer> {
    let tell = tell.clone();
    control.start(offer.clone(), move || {
        // at the very end nobody listens any more
        let _ = tell.send(Event::Relieved);
    })?;
    Ok(offer)
}

/// Tells systemd, if that is what started us and wants to know.
fn tell_manager(state: NotifyState) {
    if let Err(e) = sd_notify::notify(&[state]) {
        say(&format!("the service manager can not be told of the state of this process: {e}"));
    }
}

/// Makes the folder of uploads. Where nobody asked for uploads and there can be none, there are none; then why not is returned. What
/// was planned to be for this machine alone may have other listeners, which are those of the service manager.
fn make_uploads(mut plan: Plan, is_local: bool) -> Result<(Plan, Option<String>), Error> {
    let Some(uploads) = &mut plan.uploads else { return Ok((plan, None)) };
    if uploads.by_default && !is_local {
        plan.uploads = None;
        return Ok((plan, Some("others can reach these listeners, and nobody asked for uploads; --uploads names a folder".into())));
    }
    uploads.local = is_local;
    let uploads = &*uploads;
    let made = upload::make_folder(&uploads.folder).map_err(|e| uploads_failed(uploads, &format!("can not be made ({e})")));
    match made.and_then(|()| can_write(uploads)) {
        Ok(()) => Ok((plan, None)),
        Err(e) if !uploads.by_default => Err(e),
        Err(Error(why)) => {
            plan.uploads = None;
            Ok((plan, Some(why)))
        }
    }
}

/// Whether this user can put files into the folder of uploads.
fn can_write(uploads: &Uploads) -> Result<(), Error> {
    let wanted = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::access(&uploads.folder, wanted).map_err(|e| {
        let user = rustix::process::geteuid().as_raw();
        uploads_failed(uploads, &format!("can not be written to by this user, number {user} ({e})"))
    })
}

fn uploads_failed(uploads: &Uploads, why: &str) -> Error {
    let folder = &uploads.folder;
    Error(format!("the folder of uploads {folder:?} {why}; open it to the user, name another one with --uploads, or --uploads off"))
}

/// Opens the access log; `create` makes a file that is not there.
fn open_log(plan: &Plan, create: bool) -> Result<Option<Box<dyn Write + Send>>, Error> {
    match &plan.access_log {
        AccessLog::Off => Ok(None),
        AccessLog::Stdout => Ok(Some(Box::new(io::stdout()))),
        AccessLog::File(path) if !create && !path.exists() && can_create_in(path.parent()) => Ok(None),
        AccessLog::File(path) => match log::open(path) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(e) => Err(Error(format!("can not write the access log {path:?} ({e}); choose another file with --access-log"))),
        },
    }
}

/// Opens the log file anew, after a rotation has taken it away.
fn reopen_log(plan: &Plan, log: &Log) {
    match (&plan.access_log, open_log(plan, true)) {
        (AccessLog::File(path), Ok(Some(sink))) => {
            log.replace(sink);
            say(&format!("the access log {path:?} was opened anew"));
        }
        (_, Err(Error(e))) => say(&format!("{e}; lines go on to where they went")),
        _ => say("a hangup opens the access log anew, and there is no file for it"),
    }
}

/// Whether a file can be made in this folder; an empty name is the current one.
fn can_create_in(folder: Option<&Path>) -> bool {
    let Some(folder) = folder else { return false };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    folder.is_dir() && rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

fn start_worker(index: usize, shared: &Arc<Shared>, tell: &Sender<Event>) -> io::Result<JoinHandle<()>> {
    let tell = tell.clone();
    worker::start(index, Arc::clone(shared), move |index| {
        // at the very end nobody listens any more
        let _ = tell.send(Event::WorkerEnded(index));
    })
}

/// Panics are our bugs: each is counted and told, with where it happened.
fn tell_panics(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    panic::set_hook(Box::new(move |info| {
        shared.counters.panics.fetch_add(1, Ordering::Relaxed);
        let place = info.location().map_or_else(String::new, |l| format!("{}:{}", l.file(), l.line()));
        let why = info.payload_as_str().unwrap_or("no message");
        say(&format!("{} panicked at {place}: {why}", thread::current().name().unwrap_or("a thread")));
    }));
}

fn watch_signals(tell: &Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let tell = tell.clone();
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if tell.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Keeps the workers running until a signal comes, which is returned, or another process has taken over.
fn serve(plan: &Plan, workers: &mut [JoinHandle<()>], shared: &Arc<Shared>, tell: &Sender<Event>, events: &Receiver<Event>) -> Option<i32> {
    let mut told = false;
    loop {
        match events.recv() {
            Ok(Event::Signal(SIGHUP)) => reopen_log(plan, &shared.log),
            Ok(Event::Signal(signal)) => return Some(signal),
            Ok(Event::Relieved) => return None,
            Ok(Event::WorkerEnded(index)) => match start_worker(index, shared, tell) {
                Ok(handle) => {
                    workers[index] = handle;
                    told = false;
                    say(&format!("worker {index} ended and was replaced"));
                }
                Err(e) => {
                    if !told {
                        say(&format!("worker {index} ended and can not be replaced yet: {e}"));
                    }
                    told = true;
                    thread::sleep(REPLACE_AGAIN);
                    // heard by this same loop
                    let _ = tell.send(Event::WorkerEnded(index));
                }
            },
            Ok(Event::GuardianEnded) | Err(_) => {
                say("the guardian ended: this server stops");
                return Some(SIGTERM);
            }
        }
    }
}

/// Waits until all that is in flight has ended. What is left when the grace is over, or a second signal comes, which is returned, is
/// cut off.
fn end(plan: &Plan, shared: &Shared, guardian: JoinHandle<()>, workers: Vec<JoinHandle<()>>, events: &Receiver<Event>) -> Option<i32> {
    let mut threads: Vec<_> = std::iter::once(guardian).chain(workers).collect();
    let hangup = || reopen_log(plan, &shared.log);
    let Err(signal) = wait_for(&mut threads, plan.shutdown_grace, events, hangup) else { return None };
    if signal.is_none() {
        say("the grace is over: what is still in flight is cut off");
    }
    shared.queue.cut_off();
    // whether they ended or not: this is the end
    let _ = wait_for(&mut threads, CUT_OFF, events, hangup);
    signal
}

/// Waits until all these threads have ended; an error if that takes longer, or if a signal comes that ends the process.
fn wait_for(threads: &mut Vec<JoinHandle<()>>, time: Duration, events: &Receiver<Event>, hangup: impl Fn()) -> Result<(), Option<i32>> {
    let deadline = Instant::now() + time;
    loop {
        // a panic in one of them was told already
        threads.retain(|thread| !thread.is_finished());
        let left = deadline.saturating_duration_since(Instant::now());
        if threads.is_empty() {
            return Ok(());
        }
        if left.is_zero() {
            return Err(None);
        }
        // the end of a thread is no event, and there may be no other thread to be had that waits for it
        match events.recv_timeout(left.min(END_LOOK)) {
            Ok(Event::Signal(SIGHUP)) => hangup(),
            Ok(Event::Signal(signal)) => return Err(Some(signal)),
            Ok(Event::Relieved | Event::WorkerEnded(_) | Event::GuardianEnded) | Err(_) => {}
        }
    }
}

/// Says where and what is served.
fn greet(plan: &Plan, addresses: &[SocketAddr], sandbox: &str, uploads_off: Option<&str>, missing_page: Option<&CleanPath>) {
    let mut text = format!("millpond {} serves {}\n", env!("CARGO_PKG_VERSION"), log::printable(&plan.root.to_string_lossy()));
    for address in addresses.iter().flat_map(|a| reachable(*a)) {
        text.push_str(&format!("  http://{address}/\n"));
    }
    if let Some(uploads) = &plan.uploads {
        text.push_str(&format!("uploads go to {}\n", log::printable(&uploads.folder.to_string_lossy())));
    }
    if let Some(why) = uploads_off {
        text.push_str(&format!("uploads are off: {}\n", log::printable(why)));
    }
    text.push_str(&format!("sandbox: {}\n", log::printable(sandbox)));
    if let Some(user) = &plan.user {
        text.push_str(&format!("runs as {}\n", log::printable(&user.written)));
    }
    if plan.rules.symlinks == Symlinks::Follow {
        text.push_str("symbolic links are followed out of the folder: the sandbox lets everything be read\n");
    }
    if let Some(page) = missing_page {
        let page = String::from_utf8_lossy(page.as_bytes());
        text.push_str(&format!("there is no {} for --spa yet: unknown addresses get 404\n", log::printable(&page)));
    }
    if plan.rules.dotfiles == Dotfiles::Allow {
        text.push_str("names that begin with a dot are served\n");
    }
    let threads = if plan.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", plan.threads) };
    text.push_str(&format!("{threads}, a queue of {}, up to {} connections at once; Ctrl-C ends it\n", plan.queue, plan.connections));
    // a server whose standard error is closed still serves
    let _ = io::stderr().write_all(text.as_bytes());
}

/// The addresses by which a listener can be reached: its own, or all of this machine if it listens on every one.
fn reachable(address: SocketAddr) -> Vec<SocketAddr> {
    if !address.ip().is_unspecified() {
        return vec![address];
    }
    let is_usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => address.is_ipv4() && !ip.is_link_local(),
        IpAddr::V6(ip) => address.is_ipv6() && !ip.is_unicast_link_local(),
    };
    let mut found: Vec<IpAddr> = nix::ifaddrs::getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|interface| {
            let storage = interface.address?;
            storage.as_sockaddr_in().map(|a| IpAddr::V4(a.ip())).or_else(|| storage.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        .filter(is_usable)
        .collect();
    found.sort_by_key(|ip| (!ip.is_loopback(), *ip));
    found.dedup();
    if found.is_empty() {
        return vec![address];
    }
    found.into_iter().map(|ip| SocketAddr::new(ip, address.port())).collect()
}

/// Says what was done.
fn farewell(shared: &Shared) {
    let dropped = shared.log.finish();
    let served = shared.queue.served();
    let by_worker = served.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
    let counters = &shared.counters;
    let ends: Vec<_> = counters.ends().map(|(end, count)| format!("{count} {end}")).collect();
    if !ends.is_empty() {
        say(&format!("how connections ended: {}", ends.join(", ")));
    }
    say(&format!(
        "stopped: {} connections ({by_worker}), {} requests, {} shed, {} turned away, {} panics, {dropped} log lines dropped",
        served.iter().sum::<usize>(),
        counters.requests(),
        counters.shed.load(Ordering::Relaxed),
        counters.turned_away.load(Ordering::Relaxed),
        counters.panics.load(Ordering::Relaxed),
    ));
}
