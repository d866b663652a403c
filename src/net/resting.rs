//! Connections that wait for their client: to wake them when the server stops, and to have some of them make room when all places
//! are taken and others wait for one.
//!
//! Kept connections between two requests go first, the one that has rested the longest before the others, and then those that have
//! been the slowest to send a head. Whoever is being answered keeps its place.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

/// Connections that make room in one go: as many as a few turns of the workers can use.
const AT_ONCE: usize = 64;
/// A head may take this long before its connection makes room: a crowd of new clients should not drive each other out.
const HEAD_PATIENCE: Duration = Duration::from_secs(1);

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Another request, after at least one.
    Kept(Instant),
    /// The rest of a head, or the first one.
    Head(Instant),
    /// Something that it keeps its place for.
    Busy,
}

/// The connections of all workers that have ever waited.
#[derive(Debug)]
pub struct Resting {
    workers: Box<[Mutex<Places>]>,
    started: Instant,
    /// Connections that were told to make room and are still there.
    leaving: AtomicUsize,
}

#[derive(Debug, Default)]
struct Places {
    all: Vec<Option<Arc<State>>>,
    free: Vec<usize>,
}

/// A connection as the others see it. Only its own worker writes `rest`, with each request; the others look at it when there is no
/// place.
#[derive(Debug)]
struct State {
    waker: Waker,
    /// What it waits for, as a number: those that make room first have the lower ones.
    rest: AtomicU64,
    is_leaving: AtomicBool,
}

/// The seat of a connection among the others of its worker.
#[derive(Debug)]
pub struct Seat {
    at: usize,
    state: Arc<State>,
}

/// From here on `rest` tells of a head, at this of nothing that could be given up.
const HEAD: u64 = 1 << 62;
const BUSY: u64 = u64::MAX;

impl Resting {
    /// Nobody yet, with so many workers.
    pub fn new(workers: usize) -> Resting {
        Resting { workers: (0..workers).map(|_| Mutex::default()).collect(), started: Instant::now(), leaving: AtomicUsize::new(0) }
    }

    fn places(&self, worker: usize) -> MutexGuard<'_, Places> {
        self.workers[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self, rest: Rest) -> u64 {
        let ns = |at: Instant| (at.saturating_duration_since(self.started).as_nanos() as u64).min(HEAD - 1);
        match rest {
            Rest::Kept(since) => ns(since),
            Rest::Head(since) => HEAD + ns(since),
            Rest::Busy => BUSY,
        }
    }

    /// Takes in a connection of this worker.
    pub fn add(&self, worker: usize, waker: Waker, rest: Rest) -> Seat {
        let state = Arc::new(State { waker, rest: AtomicU64::new(self.number(rest)), is_leaving: AtomicBool::new(false) });
        let mut places = self.places(worker);
        let at = places.free.pop().unwrap_or_else(|| {
            places.all.push(None);
            places.all.len() - 1
        });
        places.all[at] = Some(Arc::clone(&state));
        Seat { at, state }
    }

    /// Notes what a connection waits for; returns whether it is to make room.
    pub fn set(&self, seat: &Seat, rest: Rest) -> bool {
        seat.state.rest.store(self.number(rest), Ordering::Relaxed);
        seat.state.is_leaving.load(Ordering::Acquire)
    }

    /// A connection of this worker has ended.
    pub fn remove(&self, worker: usize, seat: &Seat) {
        let mut places = self.places(worker);
        if places.all[seat.at].take().is_some_and(|state| state.is_leaving.load(Ordering::Relaxed)) {
            self.leaving.fetch_sub(1, Ordering::Relaxed);
        }
        places.free.push(seat.at);
    }

    /// Wakes the connections of a worker.
    pub fn wake(&self, worker: usize) {
        for state in self.places(worker).all.iter().flatten() {
            state.waker.wake_by_ref();
        }
    }

    /// Has connections make room for so many that wait.
    pub fn make_room(&self, waiting: usize, now: Instant) {
        let count = waiting.min(AT_ONCE).saturating_sub(self.leaving.load(Ordering::Relaxed));
        if count == 0 {
            return;
        }
        let slowest = now.checked_sub(HEAD_PATIENCE).map_or(HEAD, |since| self.number(Rest::Head(since)));
        let mut found = Vec::new();
        for worker in 0..self.workers.len() {
            let places = self.places(worker);
            let states = places.all.iter().enumerate().filter_map(|(at, state)| Some((state.as_ref()?, at)));
            let rests = states.filter(|(state, _)| !state.is_leaving.load(Ordering::Relaxed));
            let rests = rests.map(|(state, at)| (state.rest.load(Ordering::Relaxed), worker, at));
            found.extend(rests.filter(|(rest, ..)| *rest <= slowest));
        }
        if found.len() > count {
            found.select_nth_unstable(count);
            found.truncate(count);
        }
        for (rest, worker, at) in found {
            let places = self.places(worker);
            // it may have gone on in between; one that does so right now makes room when it rests again
            if let Some(state) = &places.all[at]
                && state.rest.load(Ordering::Relaxed) == rest
                && !state.is_leaving.swap(true, Ordering::Release)
            {
                self.leaving.fetch_add(1, Ordering::Relaxed);
                state.waker.wake_by_ref();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_go_first_and_then_the_slowest_heads() {
        let now = Instant::now();
        let ago = |s| now - Duration::from_secs(s);
        let resting = Resting { started: ago(10), ..Resting::new(2) };
        let all = [
            (0, Rest::Kept(ago(1)), 1),
            (1, Rest::Kept(ago(5)), 0),
            (0, Rest::Head(ago(2)), 3),
            (1, Rest::Head(ago(9)), 2),
            (0, Rest::Head(ago(0)), usize::MAX),
            (1, Rest::Busy, usize::MAX),
        ];
        let places = all.map(|(worker, rest, order)| (worker, resting.add(worker, Waker::noop().clone(), rest), rest, order));
        for waiting in 0..8 {
            resting.make_room(waiting, now);
            for (_, at, rest, order) in &places {
                assert_eq!(resting.set(at, *rest), *order < waiting, "{waiting} wait: {rest:?}");
            }
        }
        // who has gone makes room for one more
        let (worker, seat, ..) = &places[1];
        resting.remove(*worker, seat);
        assert_eq!(resting.leaving.load(Ordering::Relaxed), 3);
    }
}
