//! Connections that wait for their client: to wake them when the server stops, and to have some of them make room when all places
//! are taken and others wait for one.
//!
//! Kept connections between two requests go first, the one that has rested the longest before the others, and then those that have
//! been the slowest to send a head. Whoever is being answered keeps its place.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

/// Connections that make room in one go: as many as a few turns of the workers can use.
const AT_ONCE: usize = 64;
/// A head may take this long before its connection makes room: a crowd of new clients should not drive each other out.
const HEAD_PATIENCE: Duration = Duration::from_secs(1);

/// What a connection waits for. The order is that in which they make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// Connections that were told to make room and are still there.
    leaving: AtomicUsize,
}

#[derive(Debug, Default)]
struct Places {
    all: Vec<Option<Place>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Place {
    waker: Waker,
    rest: Rest,
    is_leaving: bool,
}

impl Resting {
    /// Nobody yet, with so many workers.
    pub fn new(workers: usize) -> Resting {
        Resting { workers: (0..workers).map(|_| Mutex::default()).collect(), leaving: AtomicUsize::new(0) }
    }

    fn places(&self, worker: usize) -> MutexGuard<'_, Places> {
        self.workers[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a connection of this worker; returns its place.
    pub fn add(&self, worker: usize, waker: Waker, rest: Rest) -> usize {
        let mut places = self.places(worker);
        let place = Some(Place { waker, rest, is_leaving: false });
        match places.free.pop() {
            Some(at) => {
                places.all[at] = place;
                at
            }
            None => {
                places.all.push(place);
                places.all.len() - 1
            }
        }
    }

    /// Notes what a connection waits for; returns whether it is to make room.
    pub fn set(&self, worker: usize, at: usize, rest: Rest) -> bool {
        let mut places = self.places(worker);
        let Some(place) = &mut places.all[at] else { return false };
        place.rest = rest;
        place.is_leaving
    }

    /// A connection has ended.
    pub fn remove(&self, worker: usize, at: usize) {
        let mut places = self.places(worker);
        if places.all[at].take().is_some_and(|place| place.is_leaving) {
            self.leaving.fetch_sub(1, Ordering::Relaxed);
        }
        places.free.push(at);
    }

    /// Wakes the connections of a worker.
    pub fn wake(&self, worker: usize) {
        for place in self.places(worker).all.iter().flatten() {
            place.waker.wake_by_ref();
        }
    }

    /// Has connections make room for so many that wait.
    pub fn make_room(&self, waiting: usize, now: Instant) {
        let count = waiting.min(AT_ONCE).saturating_sub(self.leaving.load(Ordering::Relaxed));
        if count == 0 {
            return;
        }
        let mut found = Vec::new();
        for worker in 0..self.workers.len() {
            let places = self.places(worker);
            let resting = places.all.iter().enumerate().filter_map(|(at, place)| place.as_ref().map(|place| (at, place)));
            found.extend(resting.filter(|(_, place)| place.may_leave(now)).map(|(at, place)| (place.rest, worker, at)));
        }
        if found.len() > count {
            found.select_nth_unstable(count);
            found.truncate(count);
        }
        for (rest, worker, at) in found {
            // it may have gone on in between
            if let Some(place) = &mut self.places(worker).all[at]
                && place.rest == rest
                && !place.is_leaving
            {
                place.is_leaving = true;
                self.leaving.fetch_add(1, Ordering::Relaxed);
                place.waker.wake_by_ref();
            }
        }
    }
}

impl Place {
    fn may_leave(&self, now: Instant) -> bool {
        !self.is_leaving
            && match self.rest {
                Rest::Kept(_) => true,
                Rest::Head(since) => now.saturating_duration_since(since) >= HEAD_PATIENCE,
                Rest::Busy => false,
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
        let resting = Resting::new(2);
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
            for (worker, at, rest, order) in places {
                assert_eq!(resting.set(worker, at, rest), order < waiting, "{waiting} wait: {rest:?}");
            }
        }
        // who has gone makes room for one more
        let (worker, at, ..) = places[1];
        resting.remove(worker, at);
        assert_eq!(resting.leaving.load(Ordering::Relaxed), 3);
    }
}
