//! Entries, kept in memory within a bound.
//!
//! An entry is what a path came to: a file made ready, a folder, or nothing. It never changes; what is learnt of its file later makes
//! a new one in its place. It is believed for a second, or until there is news of its folder; after that it has to be compared with
//! the disk before it is used again. Whatever is not there is loaded once, however many ask for it at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quick_cache::sync::{DefaultLifecycle, EntryAction, EntryResult, PlaceholderGuard};
use quick_cache::{DefaultHashBuilder, Weighter};
use smallvec::SmallVec;

use super::ready::Ready;
use super::watch::{Epochs, Seat};
use crate::http::path::CleanPath;

/// How long an entry is believed without a look at the disk.
const BELIEVED_MS: u64 = 1000;
/// What an entry costs beside its path, its lines and its bytes, roughly.
const ENTRY_BYTES: u64 = 640;
/// The least that a shard of the cache is given, in bytes and in descriptors.
const SHARD_BYTES: u64 = 4 << 20;
const SHARD_DESCRIPTORS: u64 = 64;
/// How long a look at a file is waited for by who has learnt something of it.
const LOOK: Duration = Duration::from_millis(100);
/// Entries to make room for at first; the cache grows beyond by itself.
const FIRST_ENTRIES: u64 = 1024;

/// What a path came to.
#[derive(Debug)]
pub struct Entry {
    /// What is there.
    pub kind: Kind,
    /// Where changes of its folder are counted.
    seat: Seat,
    checked_ms: AtomicU64,
    /// How far changes had been counted when it was checked.
    epoch: AtomicU64,
}

/// What is at a path.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are files, and a box would be one more step on the way of every answer")]
pub enum Kind {
    /// A file.
    File(Ready),
    /// A folder that was asked for without its slash.
    Folder,
    /// A folder that was asked for with its slash and has no index.
    Bare,
    /// Something that has another address.
    Moved(CleanPath),
    /// Nothing.
    Nothing,
    /// Something that may not be read.
    Denied,
}

/// When an entry was compared with the disk: the time, and how far changes of its folder had been counted then.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    /// Milliseconds since the start.
    pub at_ms: u64,
    /// Where changes are counted.
    pub seat: Seat,
    /// How far, before the disk was looked at.
    pub epoch: u64,
}

impl Entry {
    /// What was found in this check.
    pub fn new(kind: Kind, checked: Checked) -> Entry {
        Entry { kind, seat: checked.seat, checked_ms: AtomicU64::new(checked.at_ms), epoch: AtomicU64::new(checked.epoch) }
    }

    /// The same file, of which more is known now.
    pub fn with(&self, ready: Ready) -> Entry {
        Entry {
            kind: Kind::File(ready),
            seat: self.seat,
            checked_ms: AtomicU64::new(self.checked_ms.load(Ordering::Relaxed)),
            epoch: AtomicU64::new(self.epoch.load(Ordering::Relaxed)),
        }
    }

    /// The file, if it is one.
    pub fn ready(&self) -> Option<&Ready> {
        if let Kind::File(ready) = &self.kind { Some(ready) } else { None }
    }

    /// Notes that the disk still agrees.
    pub fn touch(&self, checked: Checked) {
        self.epoch.store(checked.epoch, Ordering::Relaxed);
        self.checked_ms.store(checked.at_ms, Ordering::Relaxed);
    }

    /// Whether it may be used without a look at the disk.
    pub fn is_believed(&self, now_ms: u64, epochs: &Epochs) -> bool {
        now_ms.saturating_sub(self.checked_ms.load(Ordering::Relaxed)) < BELIEVED_MS
            && self.epoch.load(Ordering::Relaxed) == epochs.now(self.seat)
    }

    fn weight(&self) -> u64 {
        ENTRY_BYTES + self.ready().map_or(0, Ready::bytes_in_memory)
    }
}

/// A path; most are short enough to stand in the table itself, which saves a step into cold memory.
type Key = SmallVec<[u8; 32]>;
type Entries = quick_cache::sync::Cache<Key, Arc<Entry>, Weigh>;
type Guard<'a> = PlaceholderGuard<'a, Key, Arc<Entry>, Weigh, DefaultHashBuilder, DefaultLifecycle<Key, Arc<Entry>>>;

/// The entries, by path. What is kept and what goes is decided by how often it is asked for.
#[derive(Debug)]
pub struct Cache {
    entries: Option<Entries>,
    weigh: Weigh,
}

/// Who loads an entry.
#[derive(Debug)]
pub enum Claim<'a> {
    /// Nobody has to: here it is.
    There(Arc<Entry>),
    /// Whoever asked; the old entry, if there was one that does not do any more.
    Ours(Room<'a>, Option<Arc<Entry>>),
    /// Another does so right now.
    Busy,
}

/// Room for an entry that is being loaded. If it is dropped, the next one who waits for it loads the entry.
#[derive(Debug)]
pub struct Room<'a>(Option<Guard<'a>>);

impl Room<'_> {
    /// Keeps the entry, and hands it to all who wait for it.
    pub fn fill(self, entry: &Arc<Entry>) {
        if let Some(guard) = self.0 {
            // refused if the path was forgotten while it was loaded: then this is not the newest
            let _ = guard.insert(Arc::clone(entry));
        }
    }
}

/// Weighs an entry: in bytes, or, for one that holds descriptors, their share of the descriptors if that is more.
#[derive(Clone, Debug)]
struct Weigh {
    descriptor: u64,
}

impl Weigh {
    fn of(&self, path_bytes: usize, entry: &Entry) -> u64 {
        let descriptors = entry.ready().map_or(0, Ready::descriptors) as u64;
        (entry.weight() + path_bytes as u64).max(self.descriptor.saturating_mul(descriptors))
    }
}

impl Weighter<Key, Arc<Entry>> for Weigh {
    fn weight(&self, path: &Key, entry: &Arc<Entry>) -> u64 {
        self.of(path.len(), entry)
    }
}

impl Cache {
    /// A cache of at most so many bytes and open files; none at all with 0 bytes.
    pub fn new(bytes: u64, descriptors: usize) -> Cache {
        let weigh = Weigh { descriptor: bytes.div_ceil(descriptors.max(1) as u64) };
        if bytes == 0 {
            return Cache { entries: None, weigh };
        }
        // the bound is split evenly over the shards: each has to be large beside any entry
        let shards = (bytes / SHARD_BYTES).min(descriptors as u64 / SHARD_DESCRIPTORS).clamp(1, 16) as usize;
        let options = quick_cache::OptionsBuilder::new()
            .estimated_items_capacity((bytes / (8 << 10)).clamp(16, FIRST_ENTRIES) as usize)
            .weight_capacity(bytes)
            .shards(shards)
            .build();
        // the builder has all that it needs
        let Ok(options) = options else { return Cache { entries: None, weigh } };
        let entries = Entries::with_options(options, weigh.clone(), DefaultHashBuilder::default(), DefaultLifecycle::default());
        Cache { entries: Some(entries), weigh }
    }

    /// The entry of a path; whether it may still be used is another question.
    pub fn get(&self, path: &[u8]) -> Option<Arc<Entry>> {
        self.entries.as_ref()?.get(path)
    }

    /// The same; waits for a moment for another who looks whether it still holds, during which it is in no one's reach.
    pub fn get_soon(&self, path: &[u8]) -> Option<Arc<Entry>> {
        let cache = self.entries.as_ref()?;
        match cache.entry(&Key::from_slice(path), Some(LOOK), |_, entry| EntryAction::Retain(Arc::clone(entry))) {
            EntryResult::Retained(entry) => Some(entry),
            _ => None,
        }
    }

    /// Forgets the entry of a path.
    pub fn remove(&self, path: &[u8]) {
        if let Some(cache) = &self.entries {
            cache.remove(path);
        }
    }

    /// Asks for an entry that `does`, or for the right to load it; does not wait.
    pub fn claim(&self, path: &[u8], does: impl FnOnce(&Arc<Entry>) -> bool) -> Claim<'_> {
        let Some(cache) = &self.entries else { return Claim::Ours(Room(None), None) };
        match cache.entry(&Key::from_slice(path), Some(Duration::ZERO), |_, entry| decide(entry, does)) {
            EntryResult::Retained(entry) => Claim::There(entry),
            EntryResult::Replaced(guard, old) => Claim::Ours(Room(Some(guard)), Some(old)),
            EntryResult::Vacant(guard) => Claim::Ours(Room(Some(guard)), None),
            EntryResult::Removed(..) | EntryResult::Timeout => Claim::Busy,
        }
    }

    /// The same; waits for another who loads it.
    pub async fn claim_later(&self, path: &[u8], does: impl FnOnce(&Arc<Entry>) -> bool) -> Claim<'_> {
        let Some(cache) = &self.entries else { return Claim::Ours(Room(None), None) };
        match cache.entry_async(&Key::from_slice(path), |_, entry| decide(entry, does)).await {
            EntryResult::Retained(entry) => Claim::There(entry),
            EntryResult::Replaced(guard, old) => Claim::Ours(Room(Some(guard)), Some(old)),
            EntryResult::Vacant(guard) => Claim::Ours(Room(Some(guard)), None),
            EntryResult::Removed(..) | EntryResult::Timeout => Claim::Busy,
        }
    }

    /// Whether an entry is small enough to be kept beside others, in bytes and in descriptors.
    pub fn may_hold(&self, entry: &Entry) -> bool {
        self.entries.as_ref().is_some_and(|cache| self.weigh.of(0, entry) <= cache.shard_capacity() / 4)
    }

    /// Whether anything is kept at all.
    pub fn is_on(&self) -> bool {
        self.entries.is_some()
    }

    /// Puts an entry of which more is known into the place of `old`, if that is still there.
    pub fn exchange(&self, path: &[u8], old: &Arc<Entry>, new: &Arc<Entry>) -> bool {
        let Some(cache) = &self.entries else { return false };
        let taken = cache.entry(&Key::from_slice(path), Some(Duration::ZERO), |_, entry| {
            if Arc::ptr_eq(entry, old) { EntryAction::ReplaceWithGuard } else { EntryAction::Retain(()) }
        });
        let EntryResult::Replaced(guard, _) = taken else { return false };
        // it is put in like any other, so that others go where it is heavier than the old one
        guard.insert(Arc::clone(new)).is_ok()
    }

    /// Whether more entries can be loaded without others having to go.
    pub fn has_room(&self) -> bool {
        self.entries.as_ref().is_some_and(|cache| cache.weight() < cache.capacity() / 10 * 9)
    }
}

fn decide(entry: &Arc<Entry>, does: impl FnOnce(&Arc<Entry>) -> bool) -> EntryAction<Arc<Entry>> {
    if does(entry) { EntryAction::Retain(Arc::clone(entry)) } else { EntryAction::ReplaceWithGuard }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::ready::tests::{in_memory, open};

    fn file(ready: Ready) -> Arc<Entry> {
        let epochs = Epochs::default();
        let seat = Epochs::seat(b"");
        Arc::new(Entry::new(Kind::File(ready), Checked { at_ms: 0, seat, epoch: epochs.now(seat) }))
    }

    fn put(cache: &Cache, path: &[u8], entry: &Arc<Entry>) {
        if let Claim::Ours(room, _) = cache.claim(path, |_| false) {
            room.fill(entry);
        }
    }

    #[test]
    fn entries_are_believed_for_a_second() {
        let epochs = Epochs::default();
        let entry = file(in_memory(0));
        for (now, believed) in [(0, true), (999, true), (1000, false)] {
            assert_eq!(entry.is_believed(now, &epochs), believed, "{now}");
        }
        let seat = Epochs::seat(b"");
        entry.touch(Checked { at_ms: 1000, seat, epoch: epochs.now(seat) });
        assert!(entry.is_believed(1999, &epochs));
    }

    #[test]
    fn one_loads_and_the_others_are_told() {
        let cache = Cache::new(1 << 20, 10);
        let Claim::Ours(room, None) = cache.claim(b"a", |_| true) else { panic!("there is nothing yet") };
        assert!(matches!(cache.claim(b"a", |_| true), Claim::Busy));
        let entry = file(in_memory(1));
        room.fill(&entry);
        assert!(matches!(cache.claim(b"a", |_| true), Claim::There(found) if Arc::ptr_eq(&found, &entry)));
        assert!(matches!(cache.claim(b"a", |_| false), Claim::Ours(_, Some(old)) if Arc::ptr_eq(&old, &entry)));
    }

    #[test]
    fn what_is_learnt_takes_the_place_of_its_own_entry_only() {
        let cache = Cache::new(1 << 20, 10);
        let (old, new) = (file(in_memory(1)), file(in_memory(2)));
        put(&cache, b"a", &old);
        assert!(cache.exchange(b"a", &old, &new));
        assert!(!cache.exchange(b"a", &old, &new), "the old one has gone");
        assert!(!cache.exchange(b"b", &old, &new), "nothing is there");
        assert!(Arc::ptr_eq(&cache.get(b"a").unwrap(), &new));
        assert!(cache.may_hold(&new) && !cache.may_hold(&file(in_memory(1 << 19))), "half of the cache is too much for one");
        let few = |descriptors| Cache::new(1 << 20, descriptors).may_hold(&file(open()));
        assert!(few(4) && !few(2), "and so is half of the descriptors");
    }

    #[test]
    fn the_cache_keeps_within_its_bounds() {
        const BYTES: u64 = 4 << 20;
        let kept = |ready: &dyn Fn() -> Ready| {
            let cache = Cache::new(BYTES, 8);
            for i in 0..2000 {
                put(&cache, format!("file-{i}").as_bytes(), &file(ready()));
            }
            (0..2000).filter(|i| cache.get(format!("file-{i}").as_bytes()).is_some()).count()
        };
        let bytes = kept(&|| in_memory(16 << 10));
        assert!(bytes > 100 && bytes as u64 * (16 << 10) <= BYTES, "{bytes} entries of 16 KiB");
        let descriptors = kept(&open);
        assert!((1..=8).contains(&descriptors), "{descriptors} descriptors");
        let grown = {
            let cache = Cache::new(BYTES, 1000);
            let entries: Vec<_> = (0..1000).map(|i| (format!("file-{i}"), file(in_memory(1 << 10)))).collect();
            entries.iter().for_each(|(path, entry)| put(&cache, path.as_bytes(), entry));
            entries.iter().for_each(|(path, entry)| _ = cache.exchange(path.as_bytes(), entry, &file(in_memory(64 << 10))));
            entries.iter().filter_map(|(path, _)| Some(cache.get(path.as_bytes())?.weight())).sum::<u64>()
        };
        assert!(grown > BYTES / 2 && grown <= BYTES, "{grown} bytes after all that there was has grown");
        let nothing = Cache::new(0, 8);
        put(&nothing, b"a", &file(in_memory(0)));
        assert!(nothing.get(b"a").is_none());
    }
}
