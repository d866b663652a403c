//! A worker: a thread with an event loop of its own, which serves many connections at once.
//!
//! It takes connections from the queue a few at a time, and only once it has served what was ready before.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::accept::Keeper;
use super::conn::Link;
use super::queue::{FEW, Taken};
use super::{Shared, turns};
use crate::http::date::{DATE_BYTES, Rendered};

/// How often somebody looks, while all slots are taken, whether a connection may make room by now.
const CROWDED_LOOK: Duration = Duration::from_millis(100);
/// How often the end looks for connections that were told 503.
const LINGERING_LOOK: Duration = Duration::from_millis(5);

/// How long a worker lets requests gather that come fast, and how many of them are enough without that: to be woken costs little
/// beside them.
const GATHER: Duration = Duration::from_micros(50);
const FEW_ANSWERS: u32 = 8;

/// What the connections of a worker share.
#[derive(Debug)]
pub struct Worker {
    /// Its number.
    pub index: usize,
    /// Whether connections that rest are to end, and others after their next response.
    pub draining: AtomicBool,
    /// When that began.
    pub draining_since: OnceLock<Instant>,
    /// Whether the thread is to fail: a fault for tests.
    #[cfg(debug_assertions)]
    pub fail: AtomicBool,
    /// Wakes it.
    pub wake: Arc<Notify>,
}

thread_local! {
    static DATE: RefCell<Rendered> = RefCell::default();
}

impl Worker {
    /// The worker of this number.
    pub fn new(index: usize, wake: Arc<Notify>) -> Worker {
        Worker {
            index,
            draining: AtomicBool::new(false),
            draining_since: OnceLock::new(),
            #[cfg(debug_assertions)]
            fail: AtomicBool::new(false),
            wake,
        }
    }

    /// Tells all connections that the server stops.
    fn drain(&self, shared: &Shared) {
        self.draining_since.get_or_init(Instant::now);
        self.draining.store(true, Ordering::SeqCst);
        shared.resting.wake(self.index);
    }

    /// Hands out the value of Date for this second.
    pub fn with_date<T>(&self, unix_s: u64, use_it: impl FnOnce(&[u8; DATE_BYTES]) -> T) -> T {
        DATE.with_borrow_mut(|date| use_it(date.at(unix_s)))
    }
}

/// Starts the thread of a worker. `ended` is called on it if it ends before the queue does.
///
/// # Errors
///
/// No thread or no event loop can be had.
pub fn start(index: usize, shared: Arc<Shared>, ended: impl FnOnce(usize) + Send + 'static) -> io::Result<JoinHandle<()>> {
    let (at_sleep, at_waking) = (Arc::clone(&shared), Arc::clone(&shared));
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .on_thread_park(move || {
            gather();
            turns::rest();
            at_sleep.door.sleeps(index);
        })
        .on_thread_unpark(move || at_waking.door.is_awake(index, &at_waking.queue))
        .build()?;
    thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let left = Arc::clone(&shared);
        let watch = Watch::new(move || {
            left.queue.vacate(index);
            left.door.vacate(index, &left.queue);
            ended(index);
        });
        // naps as short as they are meant; if it is refused they are a little longer
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1000));
        // ends before the watch tells of it, and its connections with it
        let runtime = runtime;
        runtime.block_on(run(index, shared));
        watch.done();
    })
}

/// How a worker has been woken lately.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Requests that it has answered since it last was about to sleep.
    answered: u32,
    since: Option<Instant>,
}

thread_local! {
    static PACE: Cell<Pace> = const { Cell::new(Pace { answered: 0, since: None }) };
}

/// Counts a request that was answered.
pub fn count_answer() {
    PACE.with(|pace| pace.set(Pace { answered: pace.get().answered + 1, ..pace.get() }));
}

/// Before a worker sleeps: where requests come fast, and each wakes it anew for little, it lets some gather first.
fn gather() {
    let pace = PACE.get();
    if pace.answered == 0 {
        return;
    }
    let now = Instant::now();
    if pace.answered < FEW_ANSWERS && pace.since.is_some_and(|since| now.saturating_duration_since(since) < GATHER * pace.answered) {
        thread::sleep(GATHER);
    }
    PACE.set(Pace { answered: 0, since: Some(now) });
}

/// Tells of a thread that ends when it should not, also by a panic.
pub(super) struct Watch<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Watch<F> {
    /// A watch that calls this unless it is done before.
    pub(super) fn new(ended: F) -> Watch<F> {
        Watch(Some(ended))
    }

    /// The thread ends as it should.
    pub(super) fn done(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for Watch<F> {
    fn drop(&mut self) {
        if let Some(ended) = self.0.take() {
            ended();
        }
    }
}

async fn run(index: usize, shared: Arc<Shared>) {
    let worker = Arc::new(Worker::new(index, Arc::clone(shared.queue.waker(index))));
    let mut keeper = Keeper::default();
    let mut rest = None;
    let mut is_back = true;
    loop {
        let now = Instant::now();
        if is_back {
            rest = keeper.look(&shared, index, now).await;
        }
        is_back = true;
        match shared.queue.take(index, now) {
            Taken::Some(connections) => {
                let count = connections.len();
                for accepted in connections {
                    tokio::spawn(Link::new(accepted, Arc::clone(&shared), Arc::clone(&worker)).serve());
                }
                if count == FEW || shared.door.is_wanted() {
                    // back once everything that is ready has been served
                    yield_now().await;
                } else {
                    is_back = false;
                }
            }
            Taken::Wait(time) => {
                let is_crowded = shared.queue.is_crowded();
                if is_crowded {
                    shared.resting.make_room(shared.queue.waiting_since().0, now);
                }
                let (most, is_watched) = shared.door.wait(&shared, index, now);
                let time = [time, most, rest, is_crowded.then_some(CROWDED_LOOK)].into_iter().flatten().min();
                wait(&worker, is_watched.then_some(&mut keeper), time).await;
            }
            Taken::Closed => break,
        }
        #[cfg(debug_assertions)]
        assert!(!worker.fail.load(Ordering::Relaxed), "fault: the worker ends");
        if shared.queue.is_draining() && !worker.draining.load(Ordering::Relaxed) {
            worker.drain(&shared);
        }
    }
    worker.drain(&shared);
    while shared.queue.active_of(index) > 0 {
        worker.wake.notified().await;
    }
    // those that were told 503 may still read it
    while shared.door.lingering() > 0 {
        sleep(LINGERING_LOOK).await;
    }
}

/// Waits to be woken, for a connection if there is a keeper, or for this time. Whichever it was, the worker looks again.
async fn wait(worker: &Worker, mut keeper: Option<&mut Keeper>, time: Option<Duration>) {
    let told = poll_fn(|cx| if keeper.as_mut().is_some_and(|keeper| keeper.poll_told(cx)) { Poll::Ready(()) } else { Poll::Pending });
    let either = async {
        tokio::select! {
            biased;
            () = told => {}
            () = worker.wake.notified() => {}
        }
    };
    match time {
        None => either.await,
        Some(time) => drop(timeout(time, either).await),
    }
}
