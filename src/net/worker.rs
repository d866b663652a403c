//! A worker: a thread with an event loop of its own, which serves many connections at once.
//!
//! It takes connections from the queue a few at a time, and only once it has served what was ready before.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::Shared;
use super::conn::Link;
use super::queue::Taken;
use crate::http::date::{DATE_BYTES, Rendered};

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
    wakers: Mutex<Wakers>,
}

/// How to wake each connection that has ever waited.
#[derive(Debug, Default)]
struct Wakers {
    all: Vec<Option<Waker>>,
    free: Vec<usize>,
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
            wakers: Mutex::default(),
        }
    }

    fn wakers(&self) -> MutexGuard<'_, Wakers> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a connection's waker; returns its place.
    pub fn add_waker(&self, waker: Waker) -> usize {
        let mut wakers = self.wakers();
        match wakers.free.pop() {
            Some(place) => {
                wakers.all[place] = Some(waker);
                place
            }
            None => {
                wakers.all.push(Some(waker));
                wakers.all.len() - 1
            }
        }
    }

    /// Forgets the waker at this place.
    pub fn remove_waker(&self, place: usize) {
        let mut wakers = self.wakers();
        wakers.all[place] = None;
        wakers.free.push(place);
    }

    /// Tells all connections that the server stops.
    fn drain(&self) {
        self.draining_since.get_or_init(Instant::now);
        self.draining.store(true, Ordering::SeqCst);
        for waker in self.wakers().all.iter().flatten() {
            waker.wake_by_ref();
        }
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
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let queue = Arc::clone(&shared);
        let watch = Watch::new(move || {
            queue.queue.vacate(index);
            ended(index);
        });
        // ends before the watch tells of it, and its connections with it
        let runtime = runtime;
        runtime.block_on(run(index, shared));
        watch.done();
    })
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
    let worker = Arc::new(Worker::new(index, shared.queue.waker(index)));
    loop {
        match shared.queue.take(index, Instant::now()) {
            Taken::Some(connections) => {
                for accepted in connections {
                    tokio::spawn(Link::new(accepted, Arc::clone(&shared), Arc::clone(&worker)).serve());
                }
                // back once everything that is ready has been served
                yield_now().await;
            }
            Taken::Wait(None) => worker.wake.notified().await,
            Taken::Wait(Some(time)) => {
                // whether it was woken or not: it looks again
                let _ = timeout(time, worker.wake.notified()).await;
            }
            Taken::Closed => break,
        }
        #[cfg(debug_assertions)]
        assert!(!worker.fail.load(Ordering::Relaxed), "fault: the worker ends");
        if shared.queue.is_draining() && !worker.draining.load(Ordering::Relaxed) {
            worker.drain();
        }
    }
    worker.drain();
    while shared.queue.active_of(index) > 0 {
        worker.wake.notified().await;
    }
}
