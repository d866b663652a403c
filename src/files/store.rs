//! From a path to its entry: what is remembered, as long as it holds, or what the disk says.

use std::borrow::Cow;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::blocking::Blocking;
use super::cache::{Cache, Checked, Claim, Entry, Kind};
use super::compress::{self, Compressor, Effort};
use super::ready::{About, Asked, Coded, Content, Ready, Variant};
use super::root::{self, Found, How, NoAnswer, Root, Stamp};
use super::watch::{Epochs, Watch};
use super::{Policy, is_in_memory, read_whole};
use crate::config::plan::Plan;
use crate::http::coding::Coding;
use crate::http::digest::Sha256;
use crate::http::path::CleanPath;
use crate::observe::say;

/// Files up to this size are kept in memory; larger ones are sent by the kernel from the open file.
const MEMORY_BYTES: u64 = 24 << 10;
/// How often a file that changes while it is read is read again, before it is served from the open file instead.
const READS: usize = 3;
/// Files of one folder that are loaded before they are asked for.
const WARMED: usize = 100_000;
/// What a folder is served by.
const INDEX: &[u8] = b"index.html";
/// Where coded files are found: the coding, and what is behind the name of the file.
const SIDECARS: [(Coding, &[u8]); 3] = [(Coding::Br, b".br"), (Coding::Zstd, b".zst"), (Coding::Gzip, b".gz")];

/// The files of one root, and what is remembered of them.
#[derive(Debug)]
pub struct Store {
    pub(super) root: Root,
    pub(super) cache: Cache,
    policy: Policy,
    epochs: Arc<Epochs>,
    watch: Option<Watch>,
    compressor: Option<Compressor>,
    /// Sizes of files that are compressed.
    compressed: RangeInclusive<u64>,
    blocking: Arc<Blocking>,
}

/// Where the file of a path is.
struct Place<'a> {
    /// Its path below the root.
    at: Cow<'a, [u8]>,
    /// Whether it is the index of the folder that was asked for.
    is_index: bool,
}

impl Place<'_> {
    fn name(&self) -> &[u8] {
        self.at.rsplit(|&b| b == b'/').next().unwrap_or_default()
    }

    fn folder(&self) -> &[u8] {
        self.at.iter().rposition(|&b| b == b'/').map_or(b"", |end| &self.at[..end])
    }
}

impl Store {
    /// Opens a root.
    ///
    /// # Errors
    ///
    /// It can not be opened, or there is no thread to be had.
    pub fn open(path: &Path, plan: &Plan, cache: Cache, policy: Policy, blocking: Arc<Blocking>) -> io::Result<Store> {
        let epochs = Arc::new(Epochs::default());
        let watch = Watch::start(path, Arc::clone(&epochs))
            .map_err(|e| say(&format!("changes of files are seen after a second, since folders can not be watched: {e}")))
            .ok();
        let compressor = if policy == Policy::Uploads || !cache.is_on() || !plan.compress { None } else { Some(Compressor::start()?) };
        let compressed = plan.limits.compress_min..=plan.limits.compress_max;
        Ok(Store { root: Root::open(path)?, cache, policy, epochs, watch, compressor, compressed, blocking })
    }

    /// The entry of a path, checked within the last second. Does not wait for the disk.
    ///
    /// # Errors
    ///
    /// `Cold` if it would have to wait, or what the system said.
    pub fn find(&self, path: &CleanPath, now_ms: u64) -> Result<Arc<Entry>, NoAnswer> {
        let does = |entry: &Arc<Entry>| entry.is_believed(now_ms, &self.epochs) && !entry.has_changed_in_place();
        let old = self.cache.get(path.as_bytes());
        if let Some(entry) = &old
            && does(entry)
        {
            return Ok(Arc::clone(entry));
        }
        let place = self.place(path);
        let checked = self.check(&place, now_ms);
        if let Some(old) = &old
            && self.holds(old, &place, How::Cached)?
        {
            old.touch(checked);
            return Ok(Arc::clone(old));
        }
        match self.cache.claim(path.as_bytes(), does) {
            Claim::There(entry) => Ok(entry),
            Claim::Ours(room, _) => {
                let entry = Arc::new(Entry::new(self.load(path, &place, How::Cached)?, checked));
                if self.is_kept(&entry) {
                    room.fill(&entry);
                }
                Ok(entry)
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
        let does = |entry: &Arc<Entry>| entry.is_believed(now_ms, &self.epochs) && !entry.has_changed_in_place();
        match self.cache.claim_later(path.as_bytes(), does).await {
            Claim::There(entry) => Ok(entry),
            Claim::Ours(room, old) => {
                let (store, path) = (Arc::clone(self), path.clone());
                let entry = self.blocking.run(move || store.look(&path, old, now_ms)).await?;
                if self.is_kept(&entry) {
                    room.fill(&entry);
                }
                Ok(entry)
            }
            Claim::Busy => Err(NoAnswer::Cold),
        }
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
                Some(path) if is_folder => self.warm(&path, now_ms),
                Some(path) => self.load_unasked(&path, now_ms),
                None => {}
            }
        }
    }

    fn load_unasked(&self, path: &CleanPath, now_ms: u64) {
        if let Claim::Ours(room, _) = self.cache.claim(path.as_bytes(), |_| true)
            && let Ok(entry) = self.look(path, None, now_ms)
        {
            room.fill(&entry);
        }
    }

    /// What the disk says of a path; waits for it.
    fn look(&self, path: &CleanPath, old: Option<Arc<Entry>>, now_ms: u64) -> Result<Arc<Entry>, NoAnswer> {
        let place = self.place(path);
        let checked = self.check(&place, now_ms);
        if let Some(old) = old
            && self.holds(&old, &place, How::Any)?
        {
            old.touch(checked);
            return Ok(old);
        }
        Ok(Arc::new(Entry::new(self.load(path, &place, How::Any)?, checked)))
    }

    fn place<'a>(&self, path: &'a CleanPath) -> Place<'a> {
        if path.is_folder() && self.policy != Policy::Uploads {
            Place { at: [path.as_bytes(), INDEX].concat().into(), is_index: true }
        } else {
            Place { at: path.as_bytes().into(), is_index: false }
        }
    }

    /// Begins a check: from here on changes count. The folder is watched from now on.
    fn check(&self, place: &Place, now_ms: u64) -> Checked {
        let folder = place.folder();
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
        self.policy != Policy::Uploads || matches!(&entry.kind, Kind::File(ready) if matches!(ready.plain.content, Content::Mem(_)))
    }

    /// Whether the disk still agrees with an entry.
    fn holds(&self, entry: &Entry, place: &Place, how: How) -> Result<bool, NoAnswer> {
        let ready = match &entry.kind {
            Kind::File(ready) if !ready.is_racy => ready,
            Kind::Folder => return Ok(self.root.look(&place.at, how)? == Found::Folder),
            Kind::Nothing if !place.is_index => return Ok(self.root.look(&place.at, how)? == Found::Nothing),
            _ => return Ok(false),
        };
        if self.root.look(&place.at, how)? != Found::File(ready.stamp) {
            return Ok(false);
        }
        if let Content::Open(file) = &ready.plain.content {
            file.is_warm.store(is_in_memory(&file.fd, 0, file.state.0), Ordering::Relaxed);
        }
        let Some(coded) = &ready.coded else { return Ok(true) };
        for (coding, extension) in SIDECARS {
            if self.root.look(&[&place.at, extension].concat(), how)? != coded.beside(coding) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is at a path.
    fn load(&self, path: &CleanPath, place: &Place, how: How) -> Result<Kind, NoAnswer> {
        let (file, stamp) = match self.root.open_file(&place.at, how)? {
            Ok(found) => found,
            Err(Found::Folder) if !path.is_folder() && self.policy != Policy::Uploads => return Ok(Kind::Folder),
            Err(Found::Denied) => return Ok(Kind::Denied),
            Err(_) if place.is_index && self.root.look(path.as_bytes(), how)? == Found::Folder => return Ok(Kind::Bare),
            Err(_) => return Ok(Kind::Nothing),
        };
        let (content, stamp) = self.content(file, stamp, how)?;
        let about = About::new(place.name(), &stamp, self.policy);
        let mut ready = Ready::new(&about, stamp, content);
        if about.is_codable() {
            let mut coded = Coded::new(about);
            for (coding, extension) in SIDECARS {
                self.put_sidecar(&[&place.at, extension].concat(), coding, &mut coded, &ready.stamp, how)?;
            }
            ready.put_codings(coded);
        }
        Ok(Kind::File(ready))
    }

    /// Puts in the coded file beside a file, unless it is older: then it is of an earlier state.
    fn put_sidecar(&self, path: &[u8], coding: Coding, coded: &mut Coded, of: &Stamp, how: How) -> Result<(), NoAnswer> {
        let found = self.root.look(path, how)?;
        coded.put_beside(coding, found);
        match found {
            Found::File(stamp) if stamp.modified >= of.modified => {}
            _ => return Ok(()),
        }
        let Ok((file, stamp)) = self.root.open_file(path, how)? else { return Ok(()) };
        let (content, stamp) = self.content(file, stamp, how)?;
        coded.put_beside(coding, Found::File(stamp));
        if stamp.modified >= of.modified {
            let etag = super::ready::sidecar_etag(of, &stamp, coding);
            let mut variant = coded.about.variant(coding, etag, content);
            variant.sidecar = Some(stamp);
            coded.put(coding, variant);
        }
        Ok(())
    }

    /// Reads a small file, or keeps a large one open; the state that this is of.
    fn content(&self, file: std::os::fd::OwnedFd, stamp: Stamp, how: How) -> Result<(Content, Stamp), NoAnswer> {
        let mut stamp = stamp;
        for _ in 0..READS {
            if stamp.len > MEMORY_BYTES {
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
        Ok((Content::open(file, &stamp), stamp))
    }

    /// Makes a coding of a file and keeps it with the file; `None` if there is none to be had.
    pub fn make(&self, path: &[u8], entry: &Entry, coding: Coding, effort: Effort) -> Option<Variant> {
        let Kind::File(ready) = &entry.kind else { return None };
        let coded = ready.coded.as_ref()?;
        let bytes = whole(&ready.plain.content)?;
        let Some(bytes) = compress::encode(coding, effort, &bytes) else {
            coded.refuse(coding);
            return None;
        };
        let mut variant = coded.about.variant(coding, coded.about.etag(coding, effort), Content::Mem(bytes.into()));
        if let Some(quick) = coded.get(coding).filter(|quick| quick.content.size() <= variant.content.size()) {
            // that happens with files that say little
            variant = quick.clone();
        }
        variant.is_quick = effort == Effort::Quick;
        self.keep(path, &ready.stamp, coding, &variant);
        Some(variant)
    }

    /// Keeps a representation with the newest entry of its file, if that is still of the same state.
    pub fn keep(&self, path: &[u8], stamp: &Stamp, coding: Coding, variant: &Variant) {
        for _ in 0..READS {
            let Some(current) = self.cache.get(path) else { return };
            let Kind::File(ready) = &current.kind else { return };
            let improves = ready.variant(coding).is_none_or(|there| there.is_quick || there.etag() == variant.etag());
            if ready.stamp != *stamp || !improves {
                return;
            }
            let new = Arc::new(current.with(ready.with(coding, variant.clone())));
            match &ready.coded {
                _ if self.cache.may_hold(&new) => {}
                Some(coded) => return coded.refuse(coding),
                None => return,
            }
            if self.cache.exchange(path, &current, &new) {
                return;
            }
        }
    }

    /// The digest of a representation, if it is known by now.
    pub fn digest(&self, path: &[u8], stamp: &Stamp, coding: Coding, variant: &Variant) -> Option<Sha256> {
        let current = self.cache.get(path)?;
        let Kind::File(ready) = &current.kind else { return None };
        let same = ready.variant(coding).filter(|there| ready.stamp == *stamp && there.etag() == variant.etag());
        same.and_then(|there| there.digest)
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
                && let Kind::File(ready) = &entry.kind
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

/// All bytes of a file, unless it changes meanwhile; waits for the disk.
fn whole(content: &Content) -> Option<bytes::Bytes> {
    match content {
        Content::Mem(bytes) => Some(bytes.clone()),
        Content::Open(file) => {
            let bytes = read_whole(&file.fd, file.state.0, How::Any).ok()?;
            let is_same = bytes.len() as u64 == file.state.0 && root::has_state(&file.fd, file.state);
            is_same.then(|| bytes.into())
        }
    }
}
