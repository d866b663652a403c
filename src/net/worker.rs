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
/// Clients that have to ask within a span for that. Fewer are all waiting for their answer: nothing would gather but delay.
const MANY_CLIENTS: u32 = 20;
const SPAN: Duration = Duration::from_millis(1);

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
            match at_sleep.door.gathering(index) {
                Some(time) => thread::sleep(time),
                None => gather(),
            }
            turns::rest();
            at_sleep.door.sleeps(index);
        })
        .on_thread_unpark(move || at_waking.door.is_awake(index))
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
    /// Requests that it has answered since it last was about to sleep, and when that was.
    answered: u32,
    slept: Option<Instant>,
    /// The number of this span of time, when it began, the clients that have asked in it, and those of the one before.
    span: u32,
    began: Option<Instant>,
    clients: u32,
    clients_before: u32,
}

thread_local! {
    static PACE: Cell<Pace> = const { Cell::new(Pace { answered: 0, slept: None, span: 0, began: None, clients: 0, clients_before: 0 }) };
}

/// When a client was last counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted(Option<u32>);

/// Counts a request of this client that was answered.
pub fn count_answer(client: &mut Counted) {
    let mut pace = PACE.get();
    pace.count(client);
    PACE.set(pace);
}

/// Before a worker sleeps: where requests of many clients come fast, and each wakes it anew for little, it lets some gather first.
fn gather() {
    let mut pace = PACE.get();
    if pace.gathers() {
        thread::sleep(GATHER);
    }
    PACE.set(pace);
}

impl Pace {
    fn count(&mut self, client: &mut Counted) {
        self.answered += 1;
        if client.0 != Some(self.span) {
            client.0 = Some(self.span);
            self.clients += 1;
        }
    }

    /// Whether the worker, which is about to sleep, lets some gather.
    fn gathers(&mut self) -> bool {
        self.answered > 0 && self.gathers_at(Instant::now())
    }

    fn gathers_at(&mut self, now: Instant) -> bool {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= SPAN) {
            (self.span, self.began) = (self.span.wrapping_add(1), Some(now));
            self.clients_before = std::mem::take(&mut self.clients);
        }
        let is_few = self.answered < FEW_ANSWERS;
        let is_fast = self.slept.is_some_and(|slept| now.saturating_duration_since(slept) < GATHER * self.answered);
        (self.answered, self.slept) = (0, Some(now));
        self.clients_before >= MANY_CLIENTS && is_few && is_fast
    }
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
        if shared.queue.is_cut_off() {
            break;
        }
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
                let (most, is_watched) = shared.door.wait(&shared, now);
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
    // what is cut off ends with the event loop
    while shared.queue.active_of(index) > 0 && !shared.queue.is_cut_off() {
        worker.wake.notified().await;
    }
    // those that were told 503 may still read it
    while shared.door.lingering() > 0 && !shared.queue.is_cut_off() {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a worker lets requests gather that is woken for so many at once, with so many clients that ask in turn, each this long
    /// after the one before.
    fn gathers(clients: usize, at_once: u32, apart: Duration) -> bool {
        let mut pace = PACE.get();
        let mut marks = vec![Counted::default(); clients];
        let mut now = Instant::now();
        let mut gathers = false;
        for turn in 0..100 * clients {
            now += apart;
            pace.count(&mut marks[turn % clients]);
            if (turn + 1) % at_once as usize == 0 {
                gathers = pace.gathers_at(now);
            }
        }
        gathers
    }

    #[test]
    fn requests_gather_where_many_clients_ask_fast_and_one_by_one() {
        const FAST: Duration = Duration::from_micros(20);
        let many = MANY_CLIENTS as usize;
        assert_eq!([many - 1, many, many + 1].map(|clients| gathers(clients, 1, FAST)), [false, true, true]);
        assert_eq!([7, 8, 9].map(|at_once| gathers(72, at_once, FAST)), [true, false, false]);
        assert_eq!([49, 50, 51].map(|us| gathers(many, 1, Duration::from_micros(us))), [true, false, false]);
    }

    #[test]
    fn clients_that_rest_do_not_count() {
        let (mut pace, mut marks, mut now) = (PACE.get(), vec![Counted::default(); 1000], Instant::now());
        marks.iter_mut().for_each(|client| pace.count(client));
        let end = now + 2 * SPAN;
        let mut gathers = true;
        while now < end {
            now += GATHER / 2;
            pace.count(&mut marks[0]);
            gathers = pace.gathers_at(now);
        }
        assert!(!gathers, "one is left that asks");
    }
}
