//! News of changes below the root: what the kernel tells of the folders that entries of the cache come from.
//!
//! News only shortens the time that an entry is believed. It may be late, lost or wrong: every entry is compared with the disk after a
//! second all the same. So a folder that can not be watched costs freshness of at most that second, and nothing else.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, RandomState};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
#[cfg(debug_assertions)]
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
use rustix::io::Errno;

use crate::observe::say;

/// Folders that are watched at most, by all names that they are reached by: an eighth of what kernels allow a user by default on a machine with little memory.
const FOLDERS: usize = 16_384;
/// Counters of changes that folders share.
const SEATS: usize = 1024;
/// Bytes of news that are read at once.
const NEWS_BYTES: usize = 16 << 10;
/// Rest between two readings: what comes in bursts is taken in together.
const REST: Duration = Duration::from_millis(3);

/// Counts changes, so that an entry can tell whether there was one since it was checked.
///
/// Each folder has a seat by its hash; a change in one that shares it only makes an entry be checked again. A change that may move
/// whole trees (a folder, a symbolic link) counts for all.
#[derive(Debug)]
pub struct Epochs {
    structure: AtomicU32,
    seats: Box<[AtomicU32; SEATS]>,
}

/// Where the changes of a folder are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat(u16);

impl Default for Epochs {
    fn default() -> Epochs {
        Epochs { structure: AtomicU32::new(0), seats: Box::new([const { AtomicU32::new(0) }; SEATS]) }
    }
}

impl Epochs {
    /// The seat of a folder, by its path below the root, without a slash at either end.
    pub fn seat(folder: &[u8]) -> Seat {
        let hash = BuildHasherDefault::<DefaultHasher>::new().hash_one(folder);
        Seat((hash % SEATS as u64) as u16)
    }

    /// A number that is another one after every change in the folder that was told.
    pub fn now(&self, seat: Seat) -> u64 {
        let structure = u64::from(self.structure.load(Ordering::Acquire));
        structure << 32 | u64::from(self.seats[usize::from(seat.0)].load(Ordering::Acquire))
    }

    fn changed(&self, folder: &[u8]) {
        self.seats[usize::from(Epochs::seat(folder).0)].fetch_add(1, Ordering::AcqRel);
    }

    fn all_changed(&self) {
        self.structure.fetch_add(1, Ordering::AcqRel);
    }
}

/// Watches folders below a root.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    /// Ends the thread.
    stop: Arc<OwnedFd>,
    /// What the thread is to do for tests.
    #[cfg(debug_assertions)]
    work: mpsc::Sender<Work>,
}

/// Something that a test has the thread do.
#[cfg(debug_assertions)]
type Work = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    epochs: Arc<Epochs>,
    inotify: OwnedFd,
    /// Folders that were asked for since the last change of structure, by their hash: two with the same cost freshness, and no more.
    seen: RwLock<HashSet<u64>>,
    hasher: RandomState,
    watched: Mutex<Watched>,
    /// Names of folders in `watched`.
    names: AtomicUsize,
}

#[derive(Debug, Default)]
struct Watched {
    /// The folders of each watch: one that is reached in two ways has one watch.
    folders: HashMap<i32, Vec<Box<[u8]>>>,
    /// Symbolic links on the way to watched folders.
    links: HashSet<Box<[u8]>>,
    told: bool,
}

impl Watch {
    /// Begins to watch, with no folder at first.
    ///
    /// # Errors
    ///
    /// The kernel has no means for it, or no thread can be had.
    pub fn start(root: &Path, epochs: Arc<Epochs>) -> io::Result<Watch> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE)?);
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            epochs,
            inotify: init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            seen: RwLock::default(),
            hasher: RandomState::new(),
            watched: Mutex::default(),
            names: AtomicUsize::new(0),
        });
        let (news, stopped) = (Arc::clone(&shared), Arc::clone(&stop));
        #[cfg(debug_assertions)]
        let (work, given) = mpsc::channel::<Work>();
        let follow = move || {
            news.follow(&stopped);
            // whoever wakes the thread without any work ends it
            #[cfg(debug_assertions)]
            while let Ok(work) = given.try_recv() {
                work();
                let _ = rustix::io::read(&*stopped, &mut [0; 8]);
                news.follow(&stopped);
            }
        };
        thread::Builder::new().name("watcher".into()).spawn(follow)?;
        Ok(Watch {
            shared,
            stop,
            #[cfg(debug_assertions)]
            work,
        })
    }

    /// Has the thread do something.
    #[cfg(debug_assertions)]
    pub fn run(&self, work: impl FnOnce() + Send + 'static) {
        // if the thread has ended, the work is dropped, which whoever waits for it sees
        let _ = self.work.send(Box::new(work));
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
    }

    /// Whether a folder may still have to be watched; says so once for each, until the structure changes or too many were asked for.
    pub fn wants(&self, folder: &[u8]) -> bool {
        let hash = self.shared.hasher.hash_one(folder);
        let is_full = self.shared.names.load(Ordering::Relaxed) >= FOLDERS;
        let is_known = |seen: &HashSet<u64>| seen.contains(&hash) || is_full && seen.len() >= FOLDERS;
        if is_known(&self.shared.seen.read().unwrap_or_else(PoisonError::into_inner)) {
            return false;
        }
        let mut seen = self.shared.seen.write().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= FOLDERS {
            // most of them are not there: whoever asks for such does not use up what can be watched
            seen.clear();
        }
        seen.insert(hash)
    }

    /// What watches a folder and those above it; it may wait for the disk.
    pub fn add(&self, folder: &[u8]) -> impl FnOnce() + Send + use<> {
        let (shared, folder) = (Arc::clone(&self.shared), Box::<[u8]>::from(folder));
        move || shared.add(&folder)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // the thread ends; if it can not be told, it stays and does no harm
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
    }
}

impl Shared {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, below: &[u8]) -> PathBuf {
        self.root.join(Path::new(std::ffi::OsStr::from_bytes(below)))
    }

    fn add(&self, folder: &[u8]) {
        let ends = folder.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        for end in std::iter::once(0).chain(ends).chain([folder.len()]) {
            if !self.add_one(&folder[..end]) {
                return;
            }
        }
    }

    /// Watches one folder; false if there is none.
    fn add_one(&self, folder: &[u8]) -> bool {
        use WatchFlags as W;
        let flags = W::CREATE | W::DELETE | W::MODIFY | W::ATTRIB | W::MOVED_FROM | W::MOVED_TO | W::DELETE_SELF | W::MOVE_SELF;
        let path = self.path(folder);
        let is_link = !folder.is_empty() && path.is_symlink();
        let mut watched = self.watched();
        if self.names.load(Ordering::Relaxed) >= FOLDERS {
            return false;
        }
        if is_link {
            watched.links.insert(folder.into());
        }
        match add_watch(&self.inotify, path, flags | W::ONLYDIR) {
            Ok(watch) => {
                let folders = watched.folders.entry(watch).or_default();
                if !folders.iter().any(|known| **known == *folder) {
                    folders.push(folder.into());
                    self.names.fetch_add(1, Ordering::Relaxed);
                    // what changed before it was watched is looked for
                    self.epochs.changed(folder);
                }
                true
            }
            Err(Errno::NOSPC | Errno::NOMEM) => {
                if !std::mem::replace(&mut watched.told, true) {
                    say("not every folder can be watched for changes (fs.inotify.max_user_watches): there they are seen after a second");
                }
                false
            }
            Err(_) => false,
        }
    }

    /// Follows the news until it is told to stop.
    fn follow(&self, stop: &OwnedFd) {
        let mut buffer = [MaybeUninit::uninit(); NEWS_BYTES];
        loop {
            let mut fds = [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) if fds[1].revents().is_empty() => {}
                Err(Errno::INTR) => continue,
                _ => return,
            }
            let mut news = Reader::new(&self.inotify, &mut buffer);
            while let Ok(event) = news.next() {
                self.tell(event.wd(), event.events(), event.file_name().map_or(b"", |name| name.to_bytes()));
            }
            thread::sleep(REST);
        }
    }

    fn tell(&self, watch: i32, what: ReadFlags, name: &[u8]) {
        use ReadFlags as R;
        if what.contains(R::QUEUE_OVERFLOW) {
            return self.structure();
        }
        let mut watched = self.watched();
        let folders = if what.contains(R::IGNORED) {
            let gone = watched.folders.remove(&watch).unwrap_or_default();
            self.names.fetch_sub(gone.len(), Ordering::Relaxed);
            gone
        } else {
            watched.folders.get(&watch).cloned().unwrap_or_default()
        };
        let mut moves_trees = what.intersects(R::DELETE_SELF | R::MOVE_SELF | R::IGNORED);
        moves_trees |= what.contains(R::ISDIR) && what.intersects(R::CREATE | R::DELETE | R::MOVED_FROM | R::MOVED_TO | R::ATTRIB);
        for folder in &folders {
            let path = if folder.is_empty() { name.to_vec() } else { [&**folder, b"/", name].concat() };
            let appears = what.intersects(R::CREATE | R::MOVED_TO);
            moves_trees |= appears && self.path(&path).is_symlink();
            moves_trees |= what.intersects(R::DELETE | R::MOVED_FROM | R::MOVED_TO) && watched.links.remove(&*path);
        }
        drop(watched);
        if moves_trees {
            self.structure();
        }
        for folder in &folders {
            self.epochs.changed(folder);
        }
    }

    /// Whole trees may have changed: everything is checked again, and folders are watched anew.
    fn structure(&self) {
        self.seen.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.epochs.all_changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_folder_is_wanted_once_and_those_that_are_not_there_use_nothing_up() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("late")).unwrap();
        let watch = Watch::start(dir.path(), Arc::default()).unwrap();
        for i in 0..FOLDERS {
            let missing = format!("missing-{i}");
            assert!(watch.wants(missing.as_bytes()));
            if i < 100 {
                watch.add(missing.as_bytes())();
            }
        }
        assert!(!watch.wants(b"missing-0"));
        assert!(watch.wants(b"late"));
        watch.add(b"late")();
        assert_eq!(watch.shared.names.load(Ordering::Relaxed), 2, "the root and the one that is there");
    }

    #[test]
    fn names_of_watched_folders_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        ["a", "b"].iter().for_each(|name| std::fs::create_dir(dir.path().join(name)).unwrap());
        let watch = Watch::start(dir.path(), Arc::default()).unwrap();
        watch.shared.names.store(FOLDERS - 2, Ordering::Relaxed);
        ["a", "b"].iter().for_each(|name| watch.add(name.as_bytes())());
        assert_eq!(watch.shared.names.load(Ordering::Relaxed), FOLDERS);
        assert_eq!(watch.shared.watched().folders.len(), 2, "the root and the first");
        (0..FOLDERS).for_each(|i| _ = watch.wants(format!("{i}").as_bytes()));
        assert!(!watch.wants(b"c"), "there is no room for it");
    }

    #[test]
    fn what_is_removed_gives_its_room_back_and_the_thread_ends() {
        let dir = tempfile::tempdir().unwrap();
        let epochs = Arc::new(Epochs::default());
        let watch = Watch::start(dir.path(), Arc::clone(&epochs)).unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        watch.add(b"a")();
        assert_eq!(watch.shared.names.load(Ordering::Relaxed), 2);
        std::fs::remove_dir(dir.path().join("a")).unwrap();
        let shared = Arc::clone(&watch.shared);
        let wait = |done: &dyn Fn() -> bool| {
            let begun = Instant::now();
            while !done() {
                assert!(begun.elapsed() < Duration::from_secs(10));
                thread::sleep(REST);
            }
        };
        wait(&|| shared.names.load(Ordering::Relaxed) == 1);
        drop(watch);
        wait(&|| Arc::strong_count(&shared) == 1);
    }
}
