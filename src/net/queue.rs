//! The bounded queue between the door and the workers, and how it is shared out.
//!
//! Workers take from it, a few connections at a time, once they have served what is ready: how long a connection waits here tells
//! how busy they are. As many workers are used as there are processors, and more only when those hold many connections: threads
//! that wake up for little cost more than they bring. A worker that holds clearly more connections than the others leaves the next
//! ones to them, for as long as they come for it in time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::Notify;

use super::Accepted;

/// Connections that a worker takes in one go.
pub const FEW: usize = 8;
/// Connections that a worker holds before one more worker than there are processors is used.
const MANY: usize = 64;
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
    seats: Box<[Seat]>,
    depth: usize,
    processors: usize,
    connections: usize,
    /// Whether a worker found connections in the queue but all slots taken.
    slot_wanted: AtomicBool,
    /// Whether connections wait because all slots are taken.
    crowded: AtomicBool,
    waiting: Mutex<Waiting>,
    draining: AtomicBool,
    closed: AtomicBool,
    is_cut_off: AtomicBool,
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

/// How connections are shared out at this time.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// Workers beyond this one are not used.
    last: usize,
    /// Connections that a worker may hold before it leaves the next ones to the others.
    most: usize,
}

/// A few connections.
pub type Few = SmallVec<[Accepted; FEW]>;

/// What a worker got.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it is looked at where it is made, and a box would be an allocation for each connection")]
pub enum Taken {
    /// Connections to serve; more may be waiting.
    Some(Few),
    /// Nothing now: wait to be woken, or for this time.
    Wait(Option<Duration>),
    /// Nothing any more.
    Closed,
}

impl Queue {
    /// A queue of this depth for so many workers on so many processors, which serve at most so many connections together.
    pub fn new(depth: usize, workers: usize, processors: usize, connections: usize) -> Queue {
        Queue {
            seats: (0..workers).map(|_| Seat::default()).collect(),
            depth,
            processors,
            connections,
            slot_wanted: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            waiting: Mutex::default(),
            draining: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            is_cut_off: AtomicBool::new(false),
            started: Instant::now(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Places that are free.
    pub fn room(&self) -> usize {
        self.depth - self.waiting().all.len()
    }

    /// Puts connections in, oldest first. There has to be room for them.
    pub fn put(&self, accepted: impl IntoIterator<Item = Accepted>) {
        let mut waiting = self.waiting();
        waiting.all.extend(accepted);
        debug_assert!(waiting.all.len() <= self.depth, "more than there was room for");
    }

    /// How many connections wait, and when the oldest of them came.
    pub fn waiting_since(&self) -> (usize, Option<Instant>) {
        let waiting = self.waiting();
        (waiting.all.len(), waiting.all.front().map(|oldest| oldest.at))
    }

    /// When the connection that waits the longest came.
    pub fn oldest(&self) -> Option<Instant> {
        self.waiting_since().1
    }

    /// Takes out the oldest connection if it came before this time.
    pub fn pop_older(&self, than: Instant) -> Option<Accepted> {
        let mut waiting = self.waiting();
        if waiting.all.front().is_some_and(|oldest| oldest.at <= than) { waiting.all.pop_front() } else { None }
    }

    /// Wakes a worker that waits, if a connection does. Those in use come first, unless the connection has waited for long: then the
    /// ones that were woken for it are busy with something.
    pub fn wake_one(&self, now: Instant) {
        let (count, oldest) = self.waiting_since();
        let Some(oldest) = oldest else { return };
        if now.saturating_duration_since(oldest) >= FAIR {
            self.wake_below(self.seats.len() - 1, usize::MAX, now);
        } else {
            let share = self.share(count, now);
            self.wake_below(share.last, share.most, now);
        }
    }

    /// Wakes the waiting worker with the fewest connections up to the `last` one, if it holds fewer than `most`.
    fn wake_below(&self, last: usize, most: usize, now: Instant) {
        let idle = self.seats[..=last].iter().filter(|seat| seat.idle.load(Ordering::SeqCst));
        if let Some(seat) = idle.min_by_key(|seat| seat.active.load(Ordering::Relaxed))
            && seat.active.load(Ordering::Relaxed) < most
        {
            // from now on it has time to come
            seat.seen_ms.store(self.ms(now), Ordering::Relaxed);
            seat.idle.store(false, Ordering::SeqCst);
            seat.wake.notify_one();
        }
    }

    /// How connections are shared out: over as many workers as there are processors, and over more when those would hold many. The
    /// first ones are taken that are there; one that has been busy with something for long is not. Each may hold a tenth more than
    /// the mean.
    fn share(&self, waiting: usize, now: Instant) -> Share {
        let now_ms = self.ms(now);
        let there =
            |seat: &Seat| seat.idle.load(Ordering::SeqCst) || now_ms.saturating_sub(seat.seen_ms.load(Ordering::Relaxed)) < ABSENT_MS;
        let (mut count, mut active, mut last) = (0, 0, 0);
        for (index, seat) in self.seats.iter().enumerate().filter(|(_, seat)| there(seat)) {
            if count >= self.processors && active + waiting <= count * MANY {
                break;
            }
            (count, active, last) = (count + 1, active + seat.active.load(Ordering::Relaxed), index);
        }
        let mean = (active + waiting) / count.max(1);
        Share { last, most: mean + (mean / 10).max(4) }
    }

    fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64
    }

    /// Takes a few connections for this worker.
    pub fn take(&self, worker: usize, now: Instant) -> Taken {
        let seat = &self.seats[worker];
        // said before the look, so that a connection put in after it wakes this worker
        seat.idle.store(true, Ordering::SeqCst);
        seat.seen_ms.store(self.ms(now), Ordering::Relaxed);
        let mut waiting = self.waiting();
        let Some(oldest) = waiting.all.front() else {
            self.crowded.store(false, Ordering::Relaxed);
            return if self.is_closed() { Taken::Closed } else { Taken::Wait(None) };
        };
        let age = now.saturating_duration_since(oldest.at);
        if self.active() >= self.connections {
            // said before the second look, so that whoever ends after it wakes a worker
            self.slot_wanted.store(true, Ordering::SeqCst);
        }
        let slots = self.connections.saturating_sub(self.active());
        self.crowded.store(slots == 0, Ordering::Relaxed);
        if slots == 0 {
            return Taken::Wait(None);
        }
        let share = self.share(waiting.all.len(), now);
        let mut most = if worker <= share.last { share.most.saturating_sub(seat.active.load(Ordering::Relaxed)) } else { 0 };
        if most == 0 && age >= FAIR && waiting.helped.is_none_or(|at| now.saturating_duration_since(at) >= FAIR) {
            waiting.helped = Some(now);
            most = HELP;
        }
        if most == 0 {
            drop(waiting);
            self.wake_below(share.last, share.most, now);
            return Taken::Wait(Some(FAIR.saturating_sub(age).max(FAIR / 4)));
        }
        let count = waiting.all.len().min(FEW).min(slots).min(most);
        let taken: Few = waiting.all.drain(..count).collect();
        seat.active.fetch_add(count, Ordering::Relaxed);
        seat.served.fetch_add(count, Ordering::Relaxed);
        seat.idle.store(false, Ordering::SeqCst);
        let more = !waiting.all.is_empty();
        drop(waiting);
        if more {
            self.wake_below(share.last, share.most, now);
        }
        Taken::Some(taken)
    }

    /// Whether connections wait because all slots are taken.
    pub fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    /// A connection of this worker has ended.
    pub fn ended(&self, worker: usize) {
        self.seats[worker].active.fetch_sub(1, Ordering::SeqCst);
        if self.slot_wanted.load(Ordering::SeqCst) && self.slot_wanted.swap(false, Ordering::SeqCst) {
            self.wake_below(self.seats.len() - 1, usize::MAX, Instant::now());
        }
        if self.is_closed() {
            self.seats[worker].wake.notify_one();
        }
    }

    /// The thread of this worker has ended: it is not to be woken until another has taken its place.
    pub fn vacate(&self, worker: usize) {
        self.seats[worker].idle.store(false, Ordering::SeqCst);
        self.wake_below(self.seats.len() - 1, usize::MAX, Instant::now());
    }

    /// What wakes this worker.
    pub fn waker(&self, worker: usize) -> &Arc<Notify> {
        &self.seats[worker].wake
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

    /// Nobody waits any longer for what is still served.
    pub fn cut_off(&self) {
        self.is_cut_off.store(true, Ordering::SeqCst);
        self.close();
    }

    /// Whether that is so.
    pub fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::SeqCst)
    }

    fn wake_all(&self) {
        for seat in &self.seats {
            seat.wake.notify_one();
        }
    }

    /// Whether nothing more is put in.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Workers.
    pub fn workers(&self) -> usize {
        self.seats.len()
    }

    /// Connections that this worker serves.
    pub fn active_of(&self, worker: usize) -> usize {
        self.seats[worker].active.load(Ordering::SeqCst)
    }

    /// Connections that are served at this time.
    pub fn active(&self) -> usize {
        self.seats.iter().map(|seat| seat.active.load(Ordering::SeqCst)).sum()
    }

    /// Connections that were given to workers.
    pub fn served_in_all(&self) -> usize {
        self.seats.iter().map(|seat| seat.served.load(Ordering::Relaxed)).sum()
    }

    /// Connections that each worker was given.
    pub fn served(&self) -> Vec<usize> {
        self.seats.iter().map(|seat| seat.served.load(Ordering::Relaxed)).collect()
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

    #[test]
    fn the_queue_has_room_for_its_depth_and_no_more() {
        let now = Instant::now();
        let mut connections = connections(now);
        let queue = Queue::new(3, 1, 1, 100);
        for n in 1..=3 {
            assert_eq!(queue.room(), 4 - n, "before the {n}th");
            queue.put(connections.next());
        }
        assert_eq!(queue.room(), 0);
        assert!(matches!(queue.take(0, now), Taken::Some(all) if all.len() == 3));
        assert_eq!(queue.room(), 3);
    }

    #[test]
    fn only_what_is_old_enough_is_taken_out_and_the_oldest_first() {
        let now = Instant::now();
        let queue = Queue::new(3, 1, 1, 100);
        for ms in 0..3 {
            queue.put(connections(now + Duration::from_millis(ms)).next());
        }
        assert!(queue.pop_older(now - Duration::from_millis(1)).is_none());
        for ms in 0..2 {
            let late = queue.pop_older(now + Duration::from_millis(1));
            assert_eq!(late.map(|late| late.at), Some(now + Duration::from_millis(ms)));
        }
        assert!(queue.pop_older(now + Duration::from_millis(1)).is_none());
        assert_eq!(queue.oldest(), Some(now + Duration::from_millis(2)));
    }

    #[test]
    fn connections_served_at_once_are_bounded() {
        let now = Instant::now();
        let mut connections = connections(now);
        let queue = Queue::new(10, 1, 1, 2);
        queue.put(connections.by_ref().take(3));
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
        let queue = Queue::new(ALL, 4, 4, 1000);
        queue.put(connections(now).take(ALL));
        while queue.active() < ALL {
            // the first worker comes ten times as often as the others
            for worker in [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3] {
                queue.take(worker, now);
            }
        }
        let served = queue.served();
        assert!(*served.iter().max().unwrap() * 10 <= ALL / 4 * 12, "{served:?}");
    }

    /// More threads than processors do not wake up for a few connections each.
    #[test]
    fn few_connections_keep_to_as_many_workers_as_there_are_processors() {
        for (all, used) in [(2 * MANY, 2), (2 * MANY + 1, 3), (10 * MANY, 10)] {
            let now = Instant::now();
            let queue = Queue::new(all, 10, 2, 1000);
            let mut connections = connections(now);
            for _ in 0..all {
                queue.put(connections.next());
                for worker in (0..10).rev() {
                    queue.take(worker, now);
                }
            }
            let served = queue.served();
            assert_eq!(served.iter().filter(|count| **count > 0).count(), used, "{all}: {served:?}");
            assert_eq!(served.iter().sum::<usize>(), all);
        }
    }

    #[test]
    fn what_the_others_do_not_come_for_is_taken_all_the_same() {
        let now = Instant::now();
        let queue = Queue::new(100, 4, 4, 1000);
        queue.put(connections(now).take(100));
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
        let queue = Queue::new(10, 1, 1, 10);
        queue.put(connections(now).next());
        queue.close();
        assert!(matches!(queue.take(0, now), Taken::Some(_)));
        assert!(matches!(queue.take(0, now), Taken::Closed));
    }
}
