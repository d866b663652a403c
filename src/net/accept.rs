//! The door: from the kernel's backlog into the queue.
//!
//! Workers come to it themselves. One of them, the keeper, watches the listeners in its event loop; what it finds there it puts into
//! the queue, takes its share, and wakes another for the rest. So on a quiet machine a connection is accepted and served by one
//! thread, which wakes up once. A thread of its own, the guardian, looks after the door while the workers are busy with something
//! else; it sleeps while they do.

use std::future::poll_fn;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;
use tokio::sync::{Notify, watch};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::clients;
use super::conn::{self, Io};
use super::gate::{Gate, Means, Sight, Wall};
use super::queue::Queue;
use super::worker::Watch;
use super::{Accepted, Shared, spare};
use crate::observe::say;

/// How often the guardian looks whether somebody minds the door.
const TICK: Duration = Duration::from_millis(5);
/// Looks for which all workers have to sleep before the guardian does.
const QUIET_TICKS: u32 = 20;
/// How long the door rests when the process is out of descriptors.
const SHORTAGE_REST: Duration = Duration::from_millis(50);
/// How often a shortage is told.
const SHORTAGE_TOLD: Duration = Duration::from_secs(5);
/// Connections that are accepted in vain in one go, because they are turned away or have gone: the others that wait come first then.
const IN_VAIN: usize = 64;
/// How often something is looked at that sends no event, at the end.
const END_LOOK: Duration = Duration::from_millis(1);
/// What a stream is: so many connections in such a time, about half of what a processor can serve.
const STREAM: (u32, Duration) = (200, Duration::from_millis(10));
/// How long the keeper lets connections of a stream gather before it sleeps: to be woken for each would cost more than they do.
const STREAM_GATHER: Duration = Duration::from_micros(100);
/// How often somebody looks whether the gate may open, while nothing else happens.
const HELD_LOOK: Duration = Duration::from_millis(5);
/// How often one look fills the queue again after what was late has left it.
const LATE_ROUNDS: u32 = 8;
/// The keeper when there is none.
const NOBODY: usize = usize::MAX;

/// The answer to a connection that is not served.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 43\r\nconnection: close\r\n\r\nThe server is busy. Try again in a moment.\n";

/// The gate is open.
const OPEN: u64 = u64::MAX;

/// Where connections come in.
#[derive(Debug)]
pub struct Door {
    inside: Mutex<Inside>,
    /// The worker that watches the listeners.
    keeper: AtomicUsize,
    /// Whether the kernel may have connections that were left there.
    is_behind: AtomicBool,
    /// Since when the gate holds connections back, but for short times, in milliseconds since the door was made, or `OPEN`.
    held_since_ms: AtomicU64,
    made: Instant,
    /// How it does that.
    means: Means,
    /// Until when connections are taken to come in a stream, in milliseconds since the door was made.
    stream_until_ms: AtomicU64,
    /// How often somebody has looked.
    looks: AtomicU64,
    /// Connections that were told 503 and are still there.
    lingering: AtomicUsize,
    /// Workers whose thread sleeps.
    asleep: Box<[AtomicBool]>,
    /// Whether the guardian is awake, and what wakes it.
    is_guarded: AtomicBool,
    guard: Notify,
}

/// What one thread at a time may use.
#[derive(Debug)]
struct Inside {
    listeners: Vec<Listener>,
    gate: Gate,
    /// Connections that came into the queue since the gate was last told, and all that were served by then.
    came: usize,
    served: usize,
    /// Connections on their way into the queue.
    fresh: Vec<Accepted>,
    /// Until when nothing is accepted, for want of descriptors.
    rests_until: Option<Instant>,
    /// When that was last told.
    told: Option<Instant>,
}

#[derive(Debug)]
struct Listener {
    /// Closed first: without the listener it would keep clients waiting.
    _wall: Option<Wall>,
    socket: Arc<TcpListener>,
    /// Since when the kernel may hold connections for it: they are counted as waiting since then.
    behind_since: Option<Instant>,
}

impl Door {
    /// A door with these listeners, and the walls beside them, for so many workers, at which connections may wait for this time.
    pub fn new(listeners: Vec<(TcpListener, Option<Wall>)>, workers: usize, wait: Duration) -> Door {
        let (means, why) = Means::of(&listeners);
        if let Some(why) = why {
            say(&format!("connections can not be held back at these listeners ({why}): under overload some clients will wait in vain"));
        }
        let listener = |(socket, wall)| Listener { _wall: wall, socket: Arc::new(socket), behind_since: None };
        Door {
            inside: Mutex::new(Inside {
                listeners: listeners.into_iter().map(listener).collect(),
                gate: Gate::new(wait),
                came: 0,
                served: 0,
                fresh: Vec::new(),
                rests_until: None,
                told: None,
            }),
            keeper: AtomicUsize::new(0),
            is_behind: AtomicBool::new(false),
            held_since_ms: AtomicU64::new(OPEN),
            made: Instant::now(),
            means,
            stream_until_ms: AtomicU64::new(0),
            looks: AtomicU64::new(0),
            lingering: AtomicUsize::new(0),
            asleep: (0..workers).map(|_| AtomicBool::new(true)).collect(),
            is_guarded: AtomicBool::new(false),
            guard: Notify::new(),
        }
    }

    /// The inside, unless another thread is there.
    fn enter(&self) -> Option<MutexGuard<'_, Inside>> {
        match self.inside.try_lock() {
            Ok(inside) => Some(inside),
            Err(TryLockError::Poisoned(inside)) => Some(inside.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The inside; waits while another thread is there.
    fn wait_to_enter(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread of this worker sleeps until something happens.
    pub fn sleeps(&self, worker: usize) {
        self.asleep[worker].store(true, Ordering::SeqCst);
    }

    /// The thread of this worker is awake; from now on somebody looks after the door for it.
    pub fn is_awake(&self, worker: usize) {
        self.asleep[worker].store(false, Ordering::SeqCst);
        if !self.is_guarded.load(Ordering::SeqCst) && !self.is_guarded.swap(true, Ordering::SeqCst) {
            self.guard.notify_one();
        }
    }

    /// How long this worker lets connections gather before it sleeps, if it is the keeper and they come in a stream.
    pub fn gathering(&self, worker: usize) -> Option<Duration> {
        let until_ms = self.stream_until_ms.load(Ordering::Relaxed);
        let is_stream = until_ms > 0 && self.keeper.load(Ordering::Relaxed) == worker && self.made.elapsed().as_millis() < until_ms.into();
        is_stream.then_some(STREAM_GATHER)
    }

    fn all_sleep(&self) -> bool {
        self.asleep.iter().all(|asleep| asleep.load(Ordering::SeqCst))
    }

    /// The thread of this worker has ended: if it was the keeper, another one is.
    pub fn vacate(&self, worker: usize, queue: &Queue) {
        self.sleeps(worker);
        let next = (worker + 1) % self.asleep.len();
        if self.keeper.compare_exchange(worker, next, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            queue.waker(next).notify_one();
        }
    }

    /// Whether somebody has to look, though nothing tells of a connection: some were left with the kernel, or the gate is not open.
    pub fn is_wanted(&self) -> bool {
        self.is_behind() || self.is_held()
    }

    /// Whether the gate holds connections back.
    pub fn is_held(&self) -> bool {
        self.held_since_ms.load(Ordering::Relaxed) != OPEN
    }

    /// Since when the gate holds connections back, but for short times, if it does.
    pub fn held_since(&self) -> Option<Instant> {
        let since_ms = self.held_since_ms.load(Ordering::Relaxed);
        (since_ms != OPEN).then(|| self.made + Duration::from_millis(since_ms))
    }

    /// Whether the kernel may have connections that were left there.
    fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// Connections that were told 503 and are still there.
    pub fn lingering(&self) -> usize {
        self.lingering.load(Ordering::Relaxed)
    }
}

/// What a worker knows of the listeners: something if it is the keeper.
#[derive(Debug, Default)]
pub struct Keeper {
    watched: Vec<AsyncFd<Arc<TcpListener>>>,
    /// Whether there may be connections.
    is_told: bool,
    stream: Stream,
}

/// How fast connections come.
#[derive(Debug, Default)]
struct Stream {
    since: Option<Instant>,
    came: u32,
}

impl Stream {
    /// Counts connections that came; returns whether that was the end of some time in which they came in a stream.
    fn count(&mut self, came: usize, now: Instant) -> bool {
        self.came += came as u32;
        let time = now.saturating_duration_since(*self.since.get_or_insert(now));
        if time < STREAM.1 {
            return false;
        }
        let came = std::mem::replace(self, Stream { since: Some(now), came: 0 }).came;
        STREAM.1 * came >= time * STREAM.0
    }
}

impl Keeper {
    /// Takes the listeners into this worker's event loop, or out of it, as its role is.
    fn attend(&mut self, door: &Door, worker: usize) {
        let is_keeper = door.keeper.load(Ordering::SeqCst) == worker;
        if is_keeper && self.watched.is_empty() {
            for listener in &door.wait_to_enter().listeners {
                // its replacement needs unsafe code, against types that lie about their descriptor; a TcpListener does not
                #[allow(deprecated)]
                match AsyncFd::new(Arc::clone(&listener.socket)) {
                    Ok(watched) => self.watched.push(watched),
                    Err(e) => say(&format!("a listener is lost: {e}")),
                }
            }
        } else if !is_keeper {
            self.watched.clear();
        }
        self.is_told = is_keeper && (self.is_told || self.watched.is_empty());
    }

    /// Whether there may be connections; the task is woken when there are.
    pub fn poll_told(&mut self, cx: &mut Context) -> bool {
        for listener in &self.watched {
            // an error is found by who accepts
            self.is_told |= listener.poll_read_ready(cx).map_ok(|mut ready| ready.retain_ready()).is_ready();
        }
        self.is_told
    }

    /// There are no more: the next one tells anew.
    fn forget(&mut self, cx: &mut Context) {
        for listener in &self.watched {
            if let Poll::Ready(Ok(mut ready)) = listener.poll_read_ready(cx) {
                ready.clear_ready();
            }
        }
        self.is_told = false;
    }

    /// Takes in what the kernel has, if there may be something; returns how long to wait before the next look, if that is known.
    pub async fn look(&mut self, shared: &Arc<Shared>, worker: usize, now: Instant) -> Option<Duration> {
        let door = &shared.door;
        self.attend(door, worker);
        let is_told = poll_fn(|cx| Poll::Ready(self.poll_told(cx))).await;
        let is_wanted = is_told
            || door.is_wanted()
            || shared.queue.oldest().is_some_and(|at| now.saturating_duration_since(at) >= shared.limits.queue_wait);
        if !is_wanted {
            return None;
        }
        let look = loop {
            match door.let_in(shared, now) {
                Some(look) => break look,
                // another thread is at it
                None => yield_now().await,
            }
        };
        if !look.is_behind {
            poll_fn(|cx| {
                self.forget(cx);
                Poll::Ready(())
            })
            .await;
        }
        if is_told && self.stream.count(look.came, now) {
            // they may go on like that
            let until = now + 2 * STREAM.1;
            door.stream_until_ms.store(until.saturating_duration_since(door.made).as_millis() as u64, Ordering::Relaxed);
        }
        look.rest
    }
}

/// What came of a look at the listeners.
#[derive(Debug)]
struct Look {
    /// Connections that came.
    came: usize,
    /// Whether some may have been left with the kernel.
    is_behind: bool,
    /// For how long the door rests.
    rest: Option<Duration>,
}

impl Door {
    /// Takes what the kernel has into the queue, as far as there is room, after what has waited there for too long was told so. None
    /// if another thread is at it.
    fn let_in(&self, shared: &Arc<Shared>, now: Instant) -> Option<Look> {
        let mut inside = self.enter()?;
        self.looks.fetch_add(1, Ordering::Relaxed);
        if let Some(until) = inside.rests_until
            && until > now
        {
            return Some(Look { came: 0, is_behind: true, rest: Some(until - now) });
        }
        let (mut came, mut is_behind, mut failure) = (0, false, None);
        // once more for what the late ones make room for
        for _ in 0..LATE_ROUNDS {
            let mut is_late = false;
            while let Some(late) = shared.pop_late(now) {
                shed(shared, late);
                is_late = true;
            }
            if came > 0 && !is_late {
                break;
            }
            let Inside { listeners, fresh, gate, .. } = &mut *inside;
            let mut room = shared.queue.room();
            for listener in listeners.iter_mut() {
                failure = failure.or(listener.take_in(fresh, &mut room, shared, now).err());
            }
            is_behind = listeners.iter().any(|listener| listener.behind_since.is_some());
            came += fresh.len();
            let may_refuse = !shared.queue.is_draining() && self.lingering() < shared.lingering;
            for refused in fresh.extract_if(.., |_| may_refuse && gate.refuses(now)) {
                shed(shared, refused);
            }
            let queued = fresh.len();
            shared.queue.put(fresh.drain(..));
            inside.came += queued;
            if !is_behind || failure.is_some() {
                break;
            }
        }
        if !shared.queue.is_draining() {
            self.move_gate(shared, &mut inside, now);
        }
        self.is_behind.store(is_behind, Ordering::Relaxed);
        inside.rests_until = failure.map(|_| now + SHORTAGE_REST);
        if let Some(e) = failure {
            inside.tell(e);
        }
        Some(Look { came, is_behind, rest: failure.map(|_| SHORTAGE_REST) })
    }

    /// Sets the gate by how long connections wait.
    fn move_gate(&self, shared: &Shared, inside: &mut Inside, now: Instant) {
        let behind_since = inside.listeners.iter().filter_map(|listener| listener.behind_since).min();
        let oldest = behind_since.into_iter().chain(shared.queue.oldest()).min();
        let served = shared.queue.served_in_all();
        let sight = Sight {
            came: std::mem::take(&mut inside.came),
            served: served - std::mem::replace(&mut inside.served, served),
            waited: oldest.map_or(Duration::ZERO, |at| now.saturating_duration_since(at)),
            is_behind: behind_since.is_some(),
        };
        let Some(pass) = inside.gate.judge(sight, now) else { return };
        for listener in &inside.listeners {
            // where it fails, connections come in and wait
            let _ = self.means.set(&listener.socket, pass);
        }
        let since_ms = inside.gate.held_since().map_or(OPEN, |since| since.saturating_duration_since(self.made).as_millis() as u64);
        self.held_since_ms.store(since_ms, Ordering::Relaxed);
    }

    /// How long a worker waits for this at most, and whether the listeners tell it of connections.
    pub fn wait(&self, shared: &Shared, now: Instant) -> (Option<Duration>, bool) {
        let late = shared.queue.oldest().map(|at| (at + shared.limits.queue_wait).saturating_duration_since(now));
        let held = self.is_held().then_some(HELD_LOOK);
        let time = late.into_iter().chain(held).min();
        (time, !self.is_behind())
    }
}

impl Listener {
    /// Accepts until there is no more, or no room, or so many have come that did not stay that others have waited for long enough.
    fn take_in(&mut self, fresh: &mut Vec<Accepted>, room: &mut usize, shared: &Shared, now: Instant) -> Result<(), Errno> {
        let at = *self.behind_since.get_or_insert(now);
        let mut in_vain = 0;
        while *room > 0 && in_vain < IN_VAIN {
            match rustix::net::accept_with(&*self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => {
                    let socket = OwnedFd::into(socket);
                    let Some(place) = shared.clients.enter(&socket) else {
                        clients::turn_away(&socket);
                        shared.counters.turned_away.fetch_add(1, Ordering::Relaxed);
                        in_vain += 1;
                        continue;
                    };
                    fresh.push(Accepted { socket, at, place });
                    *room -= 1;
                }
                Err(Errno::AGAIN) => {
                    self.behind_since = None;
                    break;
                }
                Err(e) if is_of_the_client(e) => in_vain += 1,
                Err(e) => {
                    // a shortage does not count as waiting: a refusal would need a descriptor too
                    self.behind_since = Some(now);
                    return Err(e);
                }
            }
        }
        Ok(())
    }
}

impl Inside {
    /// Tells the operator of a failure, but not each time.
    fn tell(&mut self, e: Errno) {
        if self.told.is_some_and(|told| told.elapsed() <= SHORTAGE_TOLD) {
            return;
        }
        self.told = Some(Instant::now());
        let advice = "new connections wait; raise the limit (ulimit -n) or lower --connections";
        match e {
            Errno::MFILE | Errno::NFILE => say(&format!("out of file descriptors: {advice}")),
            Errno::NOBUFS | Errno::NOMEM => say(&format!("out of memory for sockets: {advice}")),
            e => say(&format!("new connections can not be accepted: {e}")),
        }
    }
}

/// Whether a client is gone already, or its network is.
fn is_of_the_client(e: Errno) -> bool {
    use Errno as E;
    matches!(e, E::CONNABORTED | E::INTR | E::PROTO | E::NETDOWN | E::NETUNREACH | E::HOSTUNREACH | E::HOSTDOWN)
}

impl Shared {
    /// A connection that has waited for longer than it may, as long as there are not too many of its kind.
    fn pop_late(&self, now: Instant) -> Option<Accepted> {
        if self.queue.is_draining() || self.door.lingering() >= self.lingering {
            return None;
        }
        self.queue.pop_older(now.checked_sub(self.limits.queue_wait)?)
    }
}

/// Answers with 503, in a way that the client receives it.
fn shed(shared: &Arc<Shared>, accepted: Accepted) {
    shared.counters.shed.fetch_add(1, Ordering::Relaxed);
    let mut buffer = spare::input();
    let asked = rustix::net::recv(&accepted.socket, rustix::buffer::spare_capacity(&mut buffer), RecvFlags::empty());
    // the end follows at once, and leaves with this; fresh, the socket has room for it, and a client that is gone needs none
    let _ = rustix::net::send(&accepted.socket, BUSY, SendFlags::NOSIGNAL | SendFlags::MORE);
    // a client that has sent all of a request says nothing more
    let is_whole = asked.is_ok() && buffer.starts_with(b"GET ") && buffer.ends_with(b"\r\n\r\n");
    spare::keep_input(buffer);
    if is_whole {
        return;
    }
    let mut io = Io::new(accepted.socket);
    io.shutdown();
    let lingering = Lingering::new(shared);
    tokio::spawn(async move {
        conn::linger(&mut io, Instant::now() + lingering.0.limits.linger_timeout).await;
        drop(lingering);
    });
}

/// A connection that was told 503 and is still there.
struct Lingering(Arc<Shared>);

impl Lingering {
    fn new(shared: &Arc<Shared>) -> Lingering {
        shared.door.lingering.fetch_add(1, Ordering::Relaxed);
        Lingering(Arc::clone(shared))
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.0.door.lingering.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts the guardian. It ends, and the door with it, when `stop` is set or dropped. `ended` is called on its thread if it ends by a
/// panic.
///
/// # Errors
///
/// No thread or no event loop can be had.
pub fn start(shared: Arc<Shared>, stop: watch::Receiver<bool>, ended: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    thread::Builder::new().name("guardian".into()).spawn(move || {
        let watch = Watch::new(ended);
        runtime.block_on(async {
            guard(&shared, stop).await;
            close(&shared).await;
        });
        watch.done();
    })
}

/// Looks after the door, as long as a worker is awake, until the end.
async fn guard(shared: &Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let door = &shared.door;
    let watch = async {
        loop {
            door.guard.notified().await;
            let (mut quiet, mut missed, mut looks) = (0, 0, door.looks.load(Ordering::Relaxed));
            while quiet < QUIET_TICKS || !door.is_left() {
                sleep(TICK).await;
                quiet = if door.all_sleep() { quiet + 1 } else { 0 };
                missed = if door.looks.load(Ordering::Relaxed) == looks { missed + 1 } else { 0 };
                if missed > 1 {
                    let now = Instant::now();
                    door.let_in(shared, now);
                    shared.queue.wake_one(now);
                }
                looks = door.looks.load(Ordering::Relaxed);
            }
        }
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = watch => {}
    }
}

impl Door {
    /// Leaves the door to itself, if all workers sleep.
    fn is_left(&self) -> bool {
        self.is_guarded.store(false, Ordering::SeqCst);
        // said before the look: a worker that wakes up after it calls the guardian
        self.all_sleep() || self.is_guarded.swap(true, Ordering::SeqCst)
    }
}

/// Takes in what the kernel has accepted before the end, all of which is served, and closes the listeners and then the queue.
async fn close(shared: &Arc<Shared>) {
    let door = &shared.door;
    door.keeper.store(NOBODY, Ordering::SeqCst);
    shared.queue.drain();
    // whoever else has these listeners goes on with them
    for listener in &door.wait_to_enter().listeners {
        let _ = door.means.set(&listener.socket, 1.0);
    }
    // what waits with the kernel is left to the next process, if there is one
    while !shared.is_succeeded.load(Ordering::Relaxed) && !shared.queue.is_cut_off() {
        // once no worker watches the listeners, what is looked for last is what there is
        let is_last = door.wait_to_enter().listeners.iter().all(|listener| Arc::strong_count(&listener.socket) == 1);
        let now = Instant::now();
        let look = door.let_in(shared, now);
        shared.queue.wake_one(now);
        if is_last && look.is_some_and(|look| !look.is_behind) {
            break;
        }
        sleep(END_LOOK).await;
    }
    door.wait_to_enter().listeners.clear();
    shared.queue.close();
    // those that were told 503 may still read it
    while door.lingering() > 0 && !shared.queue.is_cut_off() {
        sleep(END_LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_as_many_as_that_in_such_a_time() {
        let begun = Instant::now();
        for (came, time, is_stream) in [
            (STREAM.0 - 1, STREAM.1, false),
            (STREAM.0, STREAM.1, true),
            (STREAM.0 + 1, STREAM.1, true),
            (STREAM.0 * 2, STREAM.1 - Duration::from_nanos(1), false),
            (STREAM.0, STREAM.1 + Duration::from_nanos(1), false),
            (STREAM.0 * 100, STREAM.1 * 101, false),
        ] {
            let mut stream = Stream::default();
            assert!(!stream.count(0, begun));
            assert_eq!(stream.count(came as usize, begun + time), is_stream, "{came} in {time:?}");
        }
    }
}
