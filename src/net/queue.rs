//! The bounded queue between the acceptor and the workers.
//!
//! Workers take from it, a few connections at a time, once they have served what is ready: how long a connection waits here tells
//! how busy they are. A worker that holds clearly more connections than the others leaves the next ones to them, for as long as
//! they come for it in time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Accepted;

/// Connections that a worker takes in one go.
const FEW: usize = 8;
/// After this time in the queue connections go to whichever worker is there, however many it holds: a few in each such time, so
/// that a worker that was only late still finds its share.
pub const FAIR: Duration = Duration::from_millis(10);
/// How many that are.
const HELP: usize = 4;
/// After this time without coming for work a worker is not counted on.
const ABSENT_MS: u64 = 100;

/// The queue, and what has to be known of the workers to share it out.
#[derive(Debug)]
pub struct Queue {
    workers: Box<[Seat]>,
    depth: usize,
    connections: usize,
    /// Told when there is room again, while the acceptor waits for it.
    room: Notify,
    room_wanted: AtomicBool,
    /// Whether a worker found connections in the queue but all slots taken.
    slot_wanted: AtomicBool,
    waiting: Mutex<Waiting>,
    draining: AtomicBool,
    closed: AtomicBool,
    started: Instant,
}

#[derive(Debug, Default)]
struct Waiting {
    all: VecDeque<Accepted>,
    /// When a worker last took connections beyond its share.
    helped: Option<Instant>,
}

/// A worker as the queue sees it.
#[derive(Debug, Default)]
struct Seat {
    /// Connections that it holds.
    active: AtomicUsize,
    /// Connections that it was ever given.
    served: AtomicUsize,
    /// Whether it waits for work.
    idle: AtomicBool,
    /// When it last came for work or was woken for it, in milliseconds since the queue began.
    seen_ms: AtomicU64,
    wake: Arc<Notify>,
}

/// What a worker got.
#[derive(Debug)]
pub enum Taken {
    /// Connections to serve; more may be waiting.
    Some(Vec<Accepted>),
    /// Nothing now: wait to be woken, or for this time.
    Wait(Option<Duration>),
    /// Nothing any more.
    Closed,
}

impl Queue {
    /// A queue of this depth for so many workers, which serve at most so many connections together.
    pub fn new(depth: usize, workers: usize, connections: usize) -> Queue {
        Queue {
            workers: (0..workers).map(|_| Seat::default()).collect(),
            depth,
            connections,
            room: Notify::new(),
            room_wanted: AtomicBool::new(false),
            slot_wanted: AtomicBool::new(false),
            waiting: Mutex::default(),
            draining: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            started: Instant::now(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a connection in, and wakes a worker for it.
    ///
    /// # Errors
    ///
    /// The connection, if the queue is full.
    pub fn put(&self, accepted: Accepted) -> Result<(), Accepted> {
        let mut waiting = self.waiting();
        if waiting.all.len() >= self.depth {
            return Err(accepted);
        }
        waiting.all.push_back(accepted);
        drop(waiting);
        self.wake_one(usize::MAX);
        Ok(())
    }

    /// If the queue is full: how long its oldest connection has waited.
    pub fn full_for(&self) -> Option<Duration> {
        let waiting = self.waiting();
        if waiting.all.len() < self.depth { None } else { waiting.all.front().map(|oldest| oldest.at.elapsed()) }
    }

    /// Whether a connection waits.
    pub fn has_waiting(&self) -> bool {
        !self.waiting().all.is_empty()
    }

    /// Wakes another worker if the oldest connection was not taken in time: the one that was woken for it is busy with something.
    pub fn hurry(&self) {
        if self.waiting().all.front().is_some_and(|oldest| oldest.at.elapsed() >= FAIR) {
            self.wake_one(usize::MAX);
        }
    }

    /// Waits until there may be room.
    pub async fn room(&self) {
        self.room_wanted.store(true, Ordering::SeqCst);
        if self.full_for().is_some() {
            self.room.notified().await;
        }
    }

    /// Wakes the waiting worker with the fewest connections, if one with fewer than `below` waits.
    fn wake_one(&self, below: usize) {
        let idle = self.workers.iter().filter(|w| w.idle.load(Ordering::SeqCst));
        if let Some(worker) = idle.min_by_key(|w| w.active.load(Ordering::Relaxed))
            && worker.active.load(Ordering::Relaxed) < below
        {
            // from now on it has time to come
            worker.seen_ms.store(self.ms(Instant::now()), Ordering::Relaxed);
            worker.idle.store(false, Ordering::SeqCst);
            worker.wake.notify_one();
        }
    }

    /// Connections that a worker may hold before it leaves the next ones to the others: a tenth more than the mean of all that are
    /// there. One that has been busy with something for long is not there.
    fn share(&self, waiting: usize, now: Instant) -> usize {
        let now_ms = self.ms(now);
        let there = self
            .workers
            .iter()
            .filter(|w| w.idle.load(Ordering::SeqCst) || now_ms.saturating_sub(w.seen_ms.load(Ordering::Relaxed)) < ABSENT_MS);
        let (count, active) = there.fold((0, 0), |(count, active), w| (count + 1, active + w.active.load(Ordering::Relaxed)));
        let mean = (active + waiting) / count.max(1);
        mean + (mean / 10).max(4)
    }

    fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64
    }

    /// Takes a few connections for this worker.
    pub fn take(&self, worker: usize, now: Instant) -> Taken {
        let seat = &self.workers[worker];
        // said before the look, so that a connection put in after it wakes this worker
        seat.idle.store(true, Ordering::SeqCst);
        seat.seen_ms.store(self.ms(now), Ordering::Relaxed);
        let mut waiting = self.waiting();
        let Some(oldest) = waiting.all.front() else {
            return if self.is_closed() { Taken::Closed } else { Taken::Wait(None) };
        };
        let age = now.saturating_duration_since(oldest.at);
        if self.active() >= self.connections {
            // said before the second look, so that whoever ends after it wakes a worker
            self.slot_wanted.store(true, Ordering::SeqCst);
        }
        let slots = self.connections.saturating_sub(self.active());
        if slots == 0 {
            return Taken::Wait(None);
        }
        let all = self.share(waiting.all.len(), now);
        let share = all.saturating_sub(seat.active.load(Ordering::Relaxed));
        let is_late = share == 0 && age >= FAIR && waiting.helped.is_none_or(|at| now.saturating_duration_since(at) >= FAIR);
        let share = if is_late { HELP } else { share };
        if is_late {
            waiting.helped = Some(now);
        }
        if share == 0 {
            drop(waiting);
            self.wake_one(all);
            return Taken::Wait(Some(FAIR.saturating_sub(age).max(FAIR / 4)));
        }
        let count = waiting.all.len().min(FEW).min(slots).min(share);
        let taken: Vec<Accepted> = waiting.all.drain(..count).collect();
        seat.active.fetch_add(count, Ordering::Relaxed);
        seat.served.fetch_add(count, Ordering::Relaxed);
        seat.idle.store(false, Ordering::SeqCst);
        let more = !waiting.all.is_empty();
        drop(waiting);
        if self.room_wanted.swap(false, Ordering::SeqCst) {
            self.room.notify_one();
        }
        if more {
            self.wake_one(all);
        }
        Taken::Some(taken)
    }

    /// A connection of this worker has ended.
    pub fn ended(&self, worker: usize) {
        self.workers[worker].active.fetch_sub(1, Ordering::SeqCst);
        if self.slot_wanted.load(Ordering::SeqCst) && self.slot_wanted.swap(false, Ordering::SeqCst) {
            self.wake_one(usize::MAX);
        }
        if self.is_closed() {
            self.workers[worker].wake.notify_one();
        }
    }

    /// The thread of this worker has ended: it is not to be woken until another has taken its place.
    pub fn vacate(&self, worker: usize) {
        self.workers[worker].idle.store(false, Ordering::SeqCst);
        self.wake_one(usize::MAX);
    }

    /// What wakes this worker.
    pub fn waker(&self, worker: usize) -> Arc<Notify> {
        Arc::clone(&self.workers[worker].wake)
    }

    /// Tells the workers that the server stops: connections that rest end, and make room for those that wait.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.wake_all();
    }

    /// Whether the server stops.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Ends the queue: what waits is still taken, and then workers are told so.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.wake_all();
    }

    fn wake_all(&self) {
        for worker in &self.workers {
            worker.wake.notify_one();
        }
    }

    /// Whether nothing more is put in.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Connections that this worker serves.
    pub fn active_of(&self, worker: usize) -> usize {
        self.workers[worker].active.load(Ordering::SeqCst)
    }

    /// Connections that are served at this time.
    pub fn active(&self) -> usize {
        self.workers.iter().map(|w| w.active.load(Ordering::SeqCst)).sum()
    }

    /// Connections that each worker was given.
    pub fn served(&self) -> Vec<usize> {
        self.workers.iter().map(|w| w.served.load(Ordering::Relaxed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    /// Connections that were accepted at this time; all are the same socket.
    fn connections(at: Instant) -> impl Iterator<Item = Accepted> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        std::iter::repeat_with(move || Accepted { socket: socket.try_clone().unwrap(), at, place: Default::default() })
    }

    fn is_put(queue: &Queue, accepted: Accepted) -> bool {
        queue.put(accepted).is_ok()
    }

    #[test]
    fn the_queue_takes_its_depth_and_no_more() {
        let now = Instant::now();
        let mut connections = connections(now);
        let queue = Queue::new(3, 1, 100);
        for n in 1..=4 {
            assert_eq!(queue.full_for().is_some(), n == 4, "before the {n}th");
            assert_eq!(is_put(&queue, connections.next().unwrap()), n <= 3, "the {n}th");
        }
        assert!(matches!(queue.take(0, now), Taken::Some(all) if all.len() == 3));
        assert!(is_put(&queue, connections.next().unwrap()));
    }

    #[test]
    fn connections_served_at_once_are_bounded() {
        let now = Instant::now();
        let mut connections = connections(now);
        let queue = Queue::new(10, 1, 2);
        for accepted in connections.by_ref().take(3) {
            assert!(is_put(&queue, accepted));
        }
        assert!(matches!(queue.take(0, now), Taken::Some(all) if all.len() == 2));
        assert!(matches!(queue.take(0, now), Taken::Wait(None)));
        queue.ended(0);
        assert!(matches!(queue.take(0, now), Taken::Some(all) if all.len() == 1));
        assert_eq!((queue.active(), queue.served()), (2, vec![3]));
    }

    #[test]
    fn an_eager_worker_leaves_the_others_their_share() {
        const ALL: usize = 200;
        let now = Instant::now();
        let queue = Queue::new(ALL, 4, 1000);
        for accepted in connections(now).take(ALL) {
            assert!(is_put(&queue, accepted));
        }
        while queue.active() < ALL {
            // the first worker comes ten times as often as the others
            for worker in [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3] {
                queue.take(worker, now);
            }
        }
        let served = queue.served();
        assert!(*served.iter().max().unwrap() * 10 <= ALL / 4 * 12, "{served:?}");
    }

    #[test]
    fn what_the_others_do_not_come_for_is_taken_all_the_same() {
        let now = Instant::now();
        let queue = Queue::new(100, 4, 1000);
        for accepted in connections(now).take(100) {
            assert!(is_put(&queue, accepted));
        }
        while let Taken::Some(_) = queue.take(0, now) {}
        assert!(queue.active() < 100);
        let mut later = now;
        while queue.active() < 100 {
            later += FAIR;
            let before = queue.active();
            while let Taken::Some(_) = queue.take(0, later) {}
            assert!(queue.active() > before, "{before}");
        }
        // that took no longer than it takes to see that the others are not there
        assert!(later <= now + 2 * Duration::from_millis(ABSENT_MS));
    }

    #[test]
    fn a_closed_queue_is_emptied_first() {
        let now = Instant::now();
        let queue = Queue::new(10, 1, 10);
        assert!(is_put(&queue, connections(now).next().unwrap()));
        queue.close();
        assert!(matches!(queue.take(0, now), Taken::Some(_)));
        assert!(matches!(queue.take(0, now), Taken::Closed));
    }
}
