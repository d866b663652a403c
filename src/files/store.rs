//! From a path to its entry: what is remembered, as long as it holds, or what the disk says.

use std::borrow::Cow;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::blocking::Blocking;
use super::cache::{Cache, Checked, Claim, Entry, Kind, Room};
use super::compress::{self, Compressor, Effort, ZSTD_HEAD_BYTES};
use super::ready::{self, About, Asked, Coded, Content, Ready, Variant, Way};
use super::root::{self, Contents, Found, How, NoAnswer, Root, Stamp};
use super::watch::{Epochs, Watch};
use super::{Policy, is_in_memory, read_whole};
use crate::config::plan::Plan;
use crate::config::rules::Rules;
use crate::http::body::OpenFile;
use crate::http::coding::Coding;
use crate::http::path::CleanPath;
use crate::observe::say;

/// Files up to this size are kept in memory; larger ones are sent by the kernel from the open file.
const MEMORY_BYTES: u64 = 16 << 10;
/// The same for a file that has changed just now: it may be written to again while it is sent, and what the kernel has on its way
/// would change with it.
const YOUNG_MEMORY_BYTES: u64 = 1 << 20;
/// Files up to this size are looked at as a whole: whether they are in memory, so that they can be sent without a further look.
const LOOKED_AT_BYTES: u64 = 1 << 20;
/// How often a file that changes while it is read is read again, before it is served from the open file instead.
const READS: usize = 3;
/// Pieces of work that take long, because whole large files are read for them, at the same time: digests, and codings of large files.
/// What else waits for the blocking pool does not wait for all of them, and their memory is bounded.
const LONG: usize = 2;
/// Files of one folder that are loaded before they are asked for.
const WARMED: usize = 100_000;
/// What clean addresses leave out.
const HTML: &str = ".html";
/// Where coded files are found: the coding, and what is behind the name of the file.
const SIDECARS: [(Coding, &[u8]); 3] = [(Coding::Br, b".br"), (Coding::Zstd, b".zst"), (Coding::Gzip, b".gz")];

/// The files of one root, and what is remembered of them.
#[derive(Debug)]
pub struct Store {
    pub(super) root: Root,
    pub(super) cache: Cache,
    pub(super) rules: Rules,
    policy: Policy,
    /// Paths at which something else answers, without a slash at their end: what is below them is not served from these files.
    elsewhere: Vec<Vec<u8>>,
    epochs: Arc<Epochs>,
    pub(super) watch: Option<Watch>,
    compressor: Option<Compressor>,
    /// Sizes of files that are compressed.
    compressed: RangeInclusive<u64>,
    blocking: Arc<Blocking>,
    /// Who has one may do what takes long.
    turns: Arc<Semaphore>,
}

/// What a path comes to by the names that are there: a file, with what is known of it, or what else its entry may be.
enum Place<T> {
    File(Way, T),
    Folder,
    Bare,
    Moved(CleanPath),
    Nothing,
    Denied,
}

impl Store {
    /// Opens a root.
    ///
    /// # Errors
    ///
    /// It can not be opened, or there is no thread to be had.
    pub fn open(
        path: &Path,
        plan: &Plan,
        cache: Cache,
        policy: Policy,
        rules: Rules,
        elsewhere: Vec<Vec<u8>>,
        blocking: Arc<Blocking>,
    ) -> io::Result<Store> {
        let epochs = Arc::new(Epochs::default());
        let watch = Watch::start(path, Arc::clone(&epochs))
            .map_err(|e| say(&format!("changes of files are seen after a second, since folders can not be watched: {e}")))
            .ok();
        let compressor = if policy == Policy::Uploads || !cache.is_on() || !plan.compress { None } else { Some(Compressor::start()?) };
        let compressed = plan.limits.compress_min..=plan.limits.compress_max;
        let root = Root::open(path, rules.symlinks)?;
        let turns = Arc::new(Semaphore::new(LONG));
        Ok(Store { root, cache, rules, policy, elsewhere, epochs, watch, compressor, compressed, blocking, turns })
    }

    /// The entry of a path, checked within the last second. Does not wait for the disk.
    ///
    /// # Errors
    ///
    /// `Cold` if it would have to wait, or what the system said.
    pub fn find(&self, path: &CleanPath, now_ms: u64) -> Result<Arc<Entry>, NoAnswer> {
        let does = |entry: &Arc<Entry>| entry.is_believed(now_ms, &self.epochs);
        let old = self.cache.get(path.as_bytes());
        if let Some(entry) = &old
            && does(entry)
        {
            return Ok(Arc::clone(entry));
        }
        let checked = self.check(path, now_ms);
        if let Some(old) = &old
            && self.holds(old, path, How::Cached)?
        {
            old.touch(checked);
            return Ok(Arc::clone(old));
        }
        match self.cache.claim(path.as_bytes(), does) {
            Claim::There(entry) => Ok(entry),
            Claim::Ours(room, old) => {
                let entry = self.load(path, old.as_deref(), How::Cached).map(|kind| Arc::new(Entry::new(kind, checked)));
                self.settle(room, old, entry)
            }
            Claim::Busy => Err(NoAnswer::Cold),
        }
    }

    /// The same, on the blocking pool.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub async fn find_later(self: &Arc<Store>, path: &CleanPath, now_ms: u64) -> Result<Arc<Entry>, NoAnswer> {
        let does = |entry: &Arc<Entry>| entry.is_believed(now_ms, &self.epochs);
        match self.cache.claim_later(path.as_bytes(), does).await {
            Claim::There(entry) => Ok(entry),
            Claim::Ours(room, old) => {
                let (store, path, before) = (Arc::clone(self), path.clone(), old.clone());
                let entry = self.blocking.run(move || store.look(&path, before, now_ms)).await;
                self.settle(room, old, entry)
            }
            Claim::Busy => Err(NoAnswer::Cold),
        }
    }

    /// Keeps an entry that was loaded. Where none could be, the old one is kept, for what is known of the file: it is compared with the
    /// disk again before it is used.
    fn settle(&self, room: Room, old: Option<Arc<Entry>>, entry: Result<Arc<Entry>, NoAnswer>) -> Result<Arc<Entry>, NoAnswer> {
        let kept = entry.as_ref().ok().filter(|entry| self.is_kept(entry)).or(old.as_ref().filter(|_| entry.is_err()));
        if let Some(kept) = kept {
            room.fill(kept);
        }
        entry
    }

    /// Loads what is below a folder, as long as others need not go for it; waits for the disk. What can not be read is left to whoever
    /// asks for it.
    pub fn warm(&self, folder: &CleanPath, now_ms: u64) {
        self.load_unasked(folder, now_ms);
        let wanted = |name: &[u8]| !name.starts_with(b".");
        let Ok(Ok(contents)) = self.root.read_folder(folder.as_bytes(), WARMED, wanted) else { return };
        let (folders, files): (Vec<_>, Vec<_>) = contents.items.iter().partition(|item| item.len.is_none());
        // a link to a folder may lead back up
        for item in files.into_iter().chain(folders.into_iter().filter(|folder| !folder.is_link)) {
            let is_folder = item.len.is_none();
            match folder.child(&item.name, is_folder) {
                _ if !self.cache.has_room() => return,
                Some(path) if self.is_elsewhere(&path) => {}
                Some(path) if is_folder => self.warm(&path, now_ms),
                Some(path) => self.load_unasked(&path, now_ms),
                None => {}
            }
        }
    }

    /// Whether something else answers at a path.
    pub fn is_elsewhere(&self, path: &CleanPath) -> bool {
        self.elsewhere.iter().any(|folder| path.is_within(folder))
    }

    fn load_unasked(&self, path: &CleanPath, now_ms: u64) {
        if let Claim::Ours(room, _) = self.cache.claim(path.as_bytes(), |_| true)
            && let Ok(entry) = self.look(path, None, now_ms)
        {
            room.fill(&entry);
            // it is asked for at the other address
            if let Kind::Moved(to) = &entry.kind {
                self.load_unasked(to, now_ms);
            }
        }
    }

    /// What the disk says of a path; waits for it.
    fn look(&self, path: &CleanPath, old: Option<Arc<Entry>>, now_ms: u64) -> Result<Arc<Entry>, NoAnswer> {
        let checked = self.check(path, now_ms);
        if let Some(old) = &old
            && self.holds(old, path, How::Any)?
        {
            old.touch(checked);
            return Ok(Arc::clone(old));
        }
        Ok(Arc::new(Entry::new(self.load(path, old.as_deref(), How::Any)?, checked)))
    }

    /// What a path comes to. `probe` looks at a file: it opens it, or it tells its state.
    ///
    /// First a file of this name; then, for the address of a folder, its index; then, with clean addresses, the file with `.html`
    /// behind its name. Whatever decides is looked at each time, so what comes out is as new as the last look.
    fn place<T>(
        &self,
        path: &CleanPath,
        how: How,
        probe: impl Fn(&[u8]) -> Result<Result<T, Found>, NoAnswer>,
    ) -> Result<Place<T>, NoAnswer> {
        if path.is_folder() && self.policy == Policy::Site {
            for way in (0..self.rules.index.len()).map(Way::Index) {
                match probe(self.at(path, way).as_bytes())? {
                    Ok(file) => return Ok(Place::File(way, file)),
                    Err(Found::Denied) => return Ok(Place::Denied),
                    Err(_) => {}
                }
            }
            let is_there = self.root.look(path.as_bytes(), how)? == Found::Folder;
            return Ok(if is_there { Place::Bare } else { Place::Nothing });
        }
        let found = match probe(path.as_bytes())? {
            Ok(file) => return Ok(self.clean(path, how)?.map_or(Place::File(Way::Itself, file), Place::Moved)),
            Err(found) => found,
        };
        if self.rules.clean_urls && (found == Found::Nothing || found == Found::Folder && !self.has_index(path, how)?) {
            let html = self.at(path, Way::Clean);
            match probe(html.as_bytes())? {
                Ok(file) => {
                    let address = self.clean(&html, how)?.filter(|address| address != path);
                    return Ok(address.map_or(Place::File(Way::Clean, file), Place::Moved));
                }
                Err(Found::Denied) => return Ok(Place::Denied),
                Err(_) => {}
            }
        }
        Ok(match found {
            Found::Folder if self.policy == Policy::Site => Place::Folder,
            Found::Denied => Place::Denied,
            _ => Place::Nothing,
        })
    }

    /// The path of the file that a path comes to in this way.
    fn at<'a>(&self, path: &'a CleanPath, way: Way) -> Cow<'a, CleanPath> {
        match way {
            Way::Itself => Cow::Borrowed(path),
            Way::Index(nth) => Cow::Owned(self.rules.index.get(nth).map_or_else(|| path.clone(), |name| path.with(name.as_str()))),
            Way::Clean => Cow::Owned(path.with(HTML)),
        }
    }

    /// The clean address of a file: that of the folder whose index it is, or its own without `.html`. None if it has no such address, or
    /// if something else is there.
    fn clean(&self, path: &CleanPath, how: How) -> Result<Option<CleanPath>, NoAnswer> {
        if !self.rules.clean_urls || self.rules.is_page(path) {
            return Ok(None);
        }
        if let Some(nth) = self.rules.index.iter().position(|name| name.as_str().as_bytes() == path.name()) {
            let folder = path.folder();
            return Ok((self.index(&folder, how)? == Some(nth)).then_some(folder));
        }
        let Some(address) = path.without(HTML.as_bytes()).filter(|address| !self.is_elsewhere(address)) else { return Ok(None) };
        let is_free = match self.root.look(address.as_bytes(), how)? {
            Found::Nothing => true,
            Found::Folder => !self.has_index(&address, how)?,
            Found::File(_) | Found::Denied => false,
        };
        Ok(is_free.then_some(address))
    }

    /// Which index a folder has, by its path with a slash.
    fn index(&self, folder: &CleanPath, how: How) -> Result<Option<usize>, NoAnswer> {
        for nth in 0..self.rules.index.len() {
            if matches!(self.root.look(self.at(folder, Way::Index(nth)).as_bytes(), how)?, Found::File(_) | Found::Denied) {
                return Ok(Some(nth));
            }
        }
        Ok(None)
    }

    /// What is in a folder, as `Root::read_folder` tells, without folders that answer with an index which may not be read.
    ///
    /// # Errors
    ///
    /// As for `Root::read_folder`.
    pub fn read_folder(&self, path: &[u8], most: usize, wanted: impl Fn(&[u8]) -> bool) -> Result<Result<Contents, Found>, NoAnswer> {
        let mut contents = self.root.read_folder(path, most, wanted)?;
        if let Ok(contents) = &mut contents {
            contents.items.retain(|item| item.len.is_some() || !self.is_shut(&[path, &item.name, b"/"].concat()));
        }
        Ok(contents)
    }

    /// Whether a folder, by its path with a slash, has an index that may not be read.
    fn is_shut(&self, folder: &[u8]) -> bool {
        let indexes = self.rules.index.iter().map(|name| [folder, name.as_str().as_bytes()].concat());
        let mut found = indexes.filter_map(|index| match self.root.open_file(&index, How::Any) {
            Ok(Ok(_)) => Some(false),
            Ok(Err(Found::Denied)) => Some(true),
            _ => None,
        });
        found.next().unwrap_or(false)
    }

    /// Whether a folder, by its path without a slash, has an index.
    fn has_index(&self, folder: &CleanPath, how: How) -> Result<bool, NoAnswer> {
        Ok(self.index(&folder.to_folder(), how)?.is_some())
    }

    /// Begins a check: from here on changes count. The folder is watched from now on.
    fn check(&self, path: &CleanPath, now_ms: u64) -> Checked {
        let folder = folder(path);
        if let Some(watch) = &self.watch
            && watch.wants(folder)
        {
            // it is told to no one when it is done
            drop(self.blocking.run(watch.add(folder)));
        }
        let seat = Epochs::seat(folder);
        Checked { at_ms: now_ms, seat, epoch: self.epochs.now(seat) }
    }

    /// Of uploads only small files are remembered: a miss may be filled at any time, and an open file would keep its room on the disk
    /// after it was removed.
    fn is_kept(&self, entry: &Entry) -> bool {
        self.policy != Policy::Uploads || entry.ready().is_some_and(|ready| matches!(ready.plain.content, Content::Mem(_)))
    }

    /// Whether the disk still agrees with an entry.
    fn holds(&self, entry: &Entry, path: &CleanPath, how: How) -> Result<bool, NoAnswer> {
        let place = self.place(path, how, |at| match self.root.look(at, how)? {
            Found::File(stamp) => Ok(Ok(stamp)),
            other => Ok(Err(other)),
        })?;
        let ready = match (&entry.kind, place) {
            (Kind::File(ready), Place::File(way, stamp)) if !ready.is_racy && ready.way == way && ready.stamp == stamp => ready,
            (Kind::Folder, Place::Folder) | (Kind::Bare, Place::Bare) | (Kind::Nothing, Place::Nothing) => return Ok(true),
            // whether the file at another address may be read is seen when it is opened
            _ => return Ok(false),
        };
        let at = self.at(path, ready.way);
        if let Content::Mem(bytes) = &ready.plain.content {
            let is_young_no_more = bytes.len() as u64 > MEMORY_BYTES && !ready::is_young(&ready.stamp);
            if is_young_no_more || !ready.is_settled && ready::is_settled(&ready.stamp) {
                return Ok(false);
            }
        }
        for (_, variant) in ready.variants() {
            if let Content::Open(file) = &variant.content
                && !file.is_own
            {
                look_whether_warm(file);
            }
        }
        let Some(coded) = &ready.coded else { return Ok(true) };
        for (coding, extension) in SIDECARS {
            if self.root.look(&[at.as_bytes(), extension].concat(), how)? != coded.beside(coding) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is at a path, given the entry that it had before. As long as the bytes are the same, so is what is known of them.
    fn load(&self, path: &CleanPath, before: Option<&Entry>, how: How) -> Result<Kind, NoAnswer> {
        let (way, (file, stamp)) = match self.place(path, how, |at| self.root.open_file(at, how))? {
            Place::File(way, opened) => (way, opened),
            Place::Folder => return Ok(Kind::Folder),
            Place::Bare => return Ok(Kind::Bare),
            Place::Moved(to) => return Ok(Kind::Moved(to)),
            Place::Denied => return Ok(Kind::Denied),
            Place::Nothing => return Ok(Kind::Nothing),
        };
        let at = self.at(path, way);
        let (content, stamp) = self.content(file, stamp, how)?;
        let before = match before.map(|before| &before.kind) {
            Some(Kind::File(before)) if before.stamp == stamp => Some(before),
            _ => None,
        };
        let (tag, before) = match Self::known(&content, &stamp, before.map(|before| (&before.plain.content, before)), how)? {
            Ok(before) => (before.tag, Some(before)),
            Err(tag) => (tag, None),
        };
        let about = About::new(&at, &stamp, tag, self.policy, &self.rules);
        let mut ready = Ready { way, ..Ready::new(&about, stamp, content) };
        if about.is_codable() {
            let (mut coded, before) = (Coded::new(about), before.and_then(|before| before.coded.as_deref()));
            for (coding, extension) in SIDECARS {
                self.put_sidecar(&[at.as_bytes(), extension].concat(), coding, &mut coded, before, &ready, how)?;
            }
            if let Some(before) = before {
                coded.take_over(before);
            }
            ready.put_codings(coded);
        }
        Ok(Kind::File(ready))
    }

    /// What knew these bytes of a file in this state already, or else a number that stands for them.
    fn known<T>(now: &Content, stamp: &Stamp, before: Option<(&Content, T)>, how: How) -> Result<Result<T, u64>, NoAnswer> {
        Ok(match before {
            Some((then @ Content::Mem(_), known)) if is_same(then, now, how)? => Ok(known),
            // without a change that was noted they have become others: the number of the state is taken
            Some((Content::Mem(_), _)) => Err(now.tag(stamp)),
            _ if ready::is_racy(stamp) => Err(now.tag(stamp)),
            _ => Err(ready::fingerprint(stamp)),
        })
    }

    /// Puts in the coded file beside a file, unless it is older: then it is of an earlier state. One that browsers can not decode is
    /// left aside too.
    fn put_sidecar(
        &self,
        path: &[u8],
        coding: Coding,
        coded: &mut Coded,
        before: Option<&Coded>,
        of: &Ready,
        how: How,
    ) -> Result<(), NoAnswer> {
        let found = self.root.look(path, how)?;
        coded.put_beside(coding, found);
        match found {
            Found::File(stamp) if stamp.modified >= of.stamp.modified => {}
            _ => return Ok(()),
        }
        let Ok((file, stamp)) = self.root.open_file(path, how)? else { return Ok(()) };
        let (content, stamp) = self.content(file, stamp, how)?;
        coded.put_beside(coding, Found::File(stamp));
        if coding == Coding::Zstd && !is_for_browsers(&content, how)? {
            // told once for each state of it, as long as the file is remembered
            if before.is_none_or(|before| before.beside(coding) != Found::File(stamp)) {
                let path = String::from_utf8_lossy(path);
                say(&format!(
                    "{path} is not used: its window is larger than the 8 MiB that browsers decode; make it with zstd -19 or less"
                ));
            }
            return Ok(());
        }
        if stamp.modified >= of.stamp.modified {
            let before = before.and_then(|before| before.get(coding)).filter(|before| before.sidecar == Some(stamp));
            let etag = match Self::known(&content, &stamp, before.map(|before| (&before.content, before)), how)? {
                Ok(before) => before.etag().to_owned(),
                Err(tag) => ready::sidecar_etag(of.tag, tag, coding),
            };
            let mut variant = coded.about.variant(coding, etag, content);
            variant.sidecar = Some(stamp);
            coded.put(coding, variant);
        }
        Ok(())
    }

    /// Reads a small file, or keeps a large one open; the state that this is of.
    fn content(&self, file: OwnedFd, stamp: Stamp, how: How) -> Result<(Content, Stamp), NoAnswer> {
        let mut stamp = stamp;
        for _ in 0..READS {
            if stamp.len > if ready::is_young(&stamp) { YOUNG_MEMORY_BYTES } else { MEMORY_BYTES } {
                break;
            }
            let bytes = read_whole(&file, stamp.len, how)?;
            // the bytes are those of this state only if the file had it before and after they were read
            let after = root::stamp_of(&file).map_err(NoAnswer::Failed)?;
            if after == stamp && bytes.len() as u64 == stamp.len {
                return Ok((Content::Mem(bytes.into()), stamp));
            }
            stamp = after;
        }
        let content = Content::open(file, &stamp);
        if let Content::Open(file) = &content {
            look_whether_warm(file);
        }
        Ok((content, stamp))
    }

    /// Makes a coding of a file and keeps it with the file; `None` if there is none to be had.
    pub fn make(&self, path: &[u8], entry: &Entry, coding: Coding, effort: Effort) -> Option<Variant> {
        let ready = entry.ready()?;
        let coded = ready.coded.as_ref()?;
        let bytes = whole(&ready.plain.content)?;
        if ready.plain.has_changed_in_place(ready) {
            return None;
        }
        let made = compress::encode(coding, effort, &bytes);
        let size = made.as_ref().map_or(u64::MAX, |bytes| bytes.len() as u64);
        // with files that say little the quick one may be no larger
        let quick = coded.get(coding).filter(|quick| quick.content.size() <= size);
        let mut variant = match (quick, made) {
            (Some(quick), _) => quick.clone(),
            (None, Some(bytes)) => {
                let content = if size > MEMORY_BYTES { Content::own(&bytes).ok() } else { None };
                let content = content.unwrap_or_else(|| Content::Mem(bytes.into()));
                coded.about.variant(coding, coded.about.etag(coding, effort), content)
            }
            (None, None) => {
                coded.refuse(coding);
                return None;
            }
        };
        variant.is_quick = effort == Effort::Quick;
        self.keep(path, ready.tag, coding, &variant);
        Some(variant)
    }

    /// Keeps a representation with the newest entry of its file, if that still has this tag.
    pub fn keep(&self, path: &[u8], tag: u64, coding: Coding, variant: &Variant) {
        for _ in 0..READS {
            let Some(current) = self.cache.get_soon(path) else { return };
            let Some(ready) = current.ready() else { return };
            // what was found beside the file is there as long as it is found there, and does not come back
            let improves = match ready.variant(coding) {
                Some(there) => there.etag() == variant.etag() || there.is_quick && variant.sidecar.is_none(),
                None => variant.sidecar.is_none(),
            };
            if ready.tag != tag || !improves {
                return;
            }
            let new = Arc::new(current.with(ready.with(coding, variant.clone())));
            match &ready.coded {
                _ if self.cache.may_hold(&new) => {}
                Some(coded) => return coded.leave_unkept(coding),
                None => return,
            }
            if self.cache.exchange(path, &current, &new) {
                return;
            }
        }
    }

    /// Waits for the turn to do something that takes long with a file of this size; with a small one nothing does.
    pub async fn turn(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        if bytes <= compress::QUICK_BYTES { None } else { Arc::clone(&self.turns).acquire_owned().await.ok() }
    }

    /// What there is by now of a coding of the file with this tag; waits for another who looks at the file.
    pub async fn kept(&self, path: &[u8], tag: u64, coding: Coding) -> Option<Variant> {
        let Claim::There(entry) = self.cache.claim_later(path, |_| true).await else { return None };
        entry.ready().filter(|ready| ready.tag == tag)?.variant(coding).cloned()
    }

    /// Sees to it that a coding is made as well as it gets, later, unless too much is to be done already.
    pub fn make_later(self: &Arc<Store>, path: &[u8], coding: Coding, asked: Asked) {
        let Some(compressor) = &self.compressor else { return };
        let (store, path) = (Arc::downgrade(self), path.to_vec());
        compressor.later(move || {
            let _asked = asked;
            // the newest entry, unless the site or the file has gone
            if let Some(store) = store.upgrade()
                && let Some(entry) = store.cache.get(&path)
                && let Some(ready) = entry.ready()
                && ready.variant(coding).is_none_or(|there| there.is_quick)
            {
                store.make(&path, &entry, coding, Effort::Best);
            }
        });
    }

    /// Whether codings of a file of this length are made here.
    pub fn makes(&self, len: u64) -> bool {
        self.compressor.is_some() && self.compressed.contains(&len)
    }
}

/// The folder that a path comes to its file in, without a slash at its end.
fn folder(path: &CleanPath) -> &[u8] {
    let path = path.as_bytes();
    path.iter().rposition(|&b| b == b'/').map_or(b"", |end| &path[..end])
}

/// Whether bytes that were read before are still those of the file. Of a file that was kept open nothing was read.
fn is_same(before: &Content, now: &Content, how: How) -> Result<bool, NoAnswer> {
    Ok(match (before, now) {
        (Content::Mem(before), Content::Mem(now)) => before == now,
        (Content::Mem(before), Content::Open(file)) => *before == read_whole(&file.fd, file.state.0, how)?,
        (Content::Open(_), _) => false,
    })
}

/// All bytes of a file, unless it is shorter by now; waits for the disk.
fn whole(content: &Content) -> Option<bytes::Bytes> {
    match content {
        Content::Mem(bytes) => Some(bytes.clone()),
        Content::Open(file) => {
            let bytes = read_whole(&file.fd, file.state.0, How::Any).ok()?;
            (bytes.len() as u64 == file.state.0).then(|| bytes.into())
        }
    }
}

/// Whether browsers can decode a file that is coded with Zstandard.
fn is_for_browsers(zstd: &Content, how: How) -> Result<bool, NoAnswer> {
    Ok(match zstd {
        Content::Mem(bytes) => compress::is_for_browsers(bytes),
        Content::Open(file) => compress::is_for_browsers(&read_whole(&file.fd, ZSTD_HEAD_BYTES.min(file.state.0), how)?),
    })
}

/// Notes whether all of an open file is in memory. Larger ones are looked at slice by slice, when they are sent.
fn look_whether_warm(file: &OpenFile) {
    let is_warm = file.state.0 <= LOOKED_AT_BYTES && is_in_memory(&file.fd, 0, file.state.0);
    file.is_warm.store(is_warm, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::File;
    use crate::files::digest;
    use clap::Parser;
    use std::hash::{BuildHasher, RandomState};
    use std::time::Duration;

    #[derive(Parser)]
    struct Args {
        #[command(flatten)]
        file: File,
    }

    /// The store of a folder, with uploads at `/uploads/`, and a cache of 1 MiB.
    fn store(root: &Path) -> Store {
        let args = Args::try_parse_from(["millpond", "--port", "0", "--uploads", "off", root.to_str().unwrap()]).unwrap();
        let plan = Plan::compile(args.file, 1000).unwrap();
        let (cache, blocking) = (Cache::new(1 << 20, 100), Arc::new(Blocking::new(1).unwrap()));
        Store::open(&plan.root, &plan, cache, Policy::Site, plan.rules.clone(), vec![b"uploads".to_vec()], blocking).unwrap()
    }

    fn path(path: &str) -> CleanPath {
        let mut clean = CleanPath::default();
        clean.set(path.as_bytes()).unwrap();
        clean
    }

    #[test]
    fn what_is_served_elsewhere_is_not_loaded() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["uploads", "other"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
            std::fs::write(dir.path().join(folder).join("a.txt"), folder).unwrap();
        }
        let store = store(dir.path());
        store.warm(&CleanPath::default(), 0);
        assert!(store.cache.get(path("/other/a.txt").as_bytes()).is_some());
        assert!(store.cache.get(path("/uploads/a.txt").as_bytes()).is_none());
    }

    /// Some short texts are made a little smaller by the quick effort and not by the best one.
    #[test]
    fn the_best_that_there_is_is_not_improved_again() {
        const CODING: Coding = Coding::Gzip;
        let dir = tempfile::tempdir().unwrap();
        let random: Vec<u8> = (0..250).flat_map(|n| RandomState::new().hash_one(n).to_le_bytes()).collect();
        std::fs::write(dir.path().join("a.txt"), random).unwrap();
        let (store, path) = (store(dir.path()), path("/a.txt"));
        store.load_unasked(&path, 0);
        let entry = || store.cache.get(path.as_bytes()).unwrap();
        let before = entry();
        let (ready, coded) = (before.ready().unwrap(), before.ready().unwrap().coded.as_ref().unwrap());
        let mut quick = coded.about.variant(CODING, coded.about.etag(CODING, Effort::Quick), Content::Mem(vec![0; 1999].into()));
        quick.is_quick = true;
        store.keep(path.as_bytes(), ready.tag, CODING, &quick);
        let made = store.make(path.as_bytes(), &entry(), CODING, Effort::Best).unwrap();
        assert!(!made.is_quick && made.etag() == quick.etag());
        assert!(!entry().ready().unwrap().variant(CODING).unwrap().is_quick);
    }

    /// What is learnt of a coded file beside a file may come when that has gone.
    #[test]
    fn what_was_beside_a_file_does_not_come_back() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.js", "a.js.br"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let (store, path) = (store(dir.path()), path("/a.js"));
        store.load_unasked(&path, 0);
        let entry = || store.cache.get(path.as_bytes()).unwrap();
        let tag = entry().ready().unwrap().tag;
        let mut variant = entry().ready().unwrap().variant(Coding::Br).unwrap().clone();
        variant.digest = digest::of(&variant.content).unwrap();
        store.keep(path.as_bytes(), tag, Coding::Br, &variant);
        assert!(entry().ready().unwrap().variant(Coding::Br).unwrap().digest.is_some());
        std::fs::remove_file(dir.path().join("a.js.br")).unwrap();
        store.cache.remove(path.as_bytes());
        store.load_unasked(&path, 0);
        assert_eq!(entry().ready().unwrap().tag, tag, "the file itself is the same");
        store.keep(path.as_bytes(), tag, Coding::Br, &variant);
        assert!(entry().ready().unwrap().variant(Coding::Br).is_none());
    }

    /// Neither length nor time tell of every change, and a tag is for one state.
    #[test]
    fn nothing_is_made_of_a_file_that_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.txt");
        // one that is not kept in memory
        std::fs::write(&file, "line\n".repeat(300_000)).unwrap();
        let (store, path) = (store(dir.path()), path("/a.txt"));
        store.load_unasked(&path, 0);
        let entry = store.cache.get(path.as_bytes()).unwrap();
        assert!(store.make(path.as_bytes(), &entry, Coding::Gzip, Effort::Quick).is_some());
        let file = std::fs::File::options().write(true).open(file).unwrap();
        let (before, stamp) = (file.metadata().unwrap().modified().unwrap(), root::stamp_of(&file).unwrap());
        while root::stamp_of(&file).unwrap().changed == stamp.changed {
            std::os::unix::fs::FileExt::write_all_at(&file, b"LINE", 0).unwrap();
            file.set_modified(before).unwrap();
        }
        assert!(store.make(path.as_bytes(), &entry, Coding::Gzip, Effort::Quick).is_none());
    }

    #[test]
    fn what_is_known_of_a_file_stays_where_a_load_fails() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.txt"), "a").unwrap();
        let (store, path) = (store(dir.path()), path("/a.txt"));
        store.load_unasked(&path, 0);
        let known = store.cache.get(path.as_bytes()).unwrap();
        for (failed, is_kept) in [(Err(NoAnswer::Cold), true), (Ok(store.look(&path, None, 0).unwrap()), false)] {
            let Claim::Ours(room, old) = store.cache.claim(path.as_bytes(), |_| false) else { panic!("nobody else loads it") };
            let _ = store.settle(room, old, failed);
            assert_eq!(Arc::ptr_eq(&store.cache.get(path.as_bytes()).unwrap(), &known), is_kept);
        }
    }

    /// What is written through a mapping may escape the state of a file: it is read once more, when that is over.
    #[test]
    fn what_was_read_of_a_file_that_had_changed_lately_is_read_once_more() {
        let store = store(Path::new(env!("CARGO_MANIFEST_DIR")));
        let path = path("/rustfmt.toml");
        let entry = store.look(&path, None, 0).unwrap();
        let ready = entry.ready().unwrap();
        assert!(store.holds(&entry, &path, How::Any).unwrap());
        let read_before = entry.with(Ready { is_settled: false, ..ready.clone() });
        // the sources are older than that, unless they have been changed just now
        assert_eq!(store.holds(&read_before, &path, How::Any).unwrap(), !ready.is_settled);
    }

    /// What has left the kernel's memory since it was looked at would have a worker wait for the disk.
    #[test]
    fn each_check_looks_whether_all_that_is_open_is_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.js", "a.js.br"] {
            std::fs::write(dir.path().join(name), vec![b'x'; MEMORY_BYTES as usize + 1]).unwrap();
        }
        let (store, path) = (store(dir.path()), path("/a.js"));
        // files that have changed just now are kept in memory
        let entry = loop {
            let entry = store.look(&path, None, 0).unwrap();
            if !ready::is_young(&entry.ready().unwrap().stamp) && !entry.ready().unwrap().is_racy {
                break entry;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let open: Vec<_> = entry.ready().unwrap().variants().map(|(_, variant)| variant.content.clone()).collect();
        assert_eq!(open.len(), 2);
        for is_warm in [true, false] {
            for content in &open {
                let Content::Open(file) = content else { panic!("it is kept open") };
                // at first because it was looked at when it was opened, and then because it was looked at again
                assert!(file.is_warm.swap(false, Ordering::Relaxed), "{is_warm}");
            }
            assert!(store.holds(&entry, &path, How::Any).unwrap());
        }
    }
}
