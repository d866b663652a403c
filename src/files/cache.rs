//! Files made ready, kept in memory within a bound.
//!
//! An entry is what a path came to: a file with its fields rendered and its bytes or its descriptor, a folder, or nothing. It is
//! believed for a second; after that it has to be checked against the disk before it is used again.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::DefaultLifecycle;

use super::Policy;
use super::root::Stamp;
use crate::http::conditional::Validators;
use crate::http::fields::Fields;
use crate::http::{date, header, mime};

/// How long an entry is believed without a look at the disk.
const BELIEVED_MS: u64 = 1000;
/// A change this young may be followed by another with the same time: kernels keep times by a tick of up to 10 ms.
const RACY: Duration = Duration::from_millis(50);
/// What an entry costs beside its path and its bytes, roughly.
const ENTRY_BYTES: u64 = 512;
/// The least that a shard of the cache is given, in bytes and in descriptors.
const SHARD_BYTES: u64 = 4 << 20;
const SHARD_DESCRIPTORS: u64 = 64;

/// What a path came to.
#[derive(Debug)]
pub struct Entry {
    /// What is there.
    pub kind: Kind,
    checked_ms: AtomicU64,
}

/// What is at a path, ready to be served.
#[derive(Debug)]
pub enum Kind {
    /// A file.
    File(Ready),
    /// A folder that was asked for without its slash.
    Folder,
    /// Nothing.
    Nothing,
    /// Something that may not be read.
    Denied,
}

/// A file made ready: all of an answer that does not depend on the request.
#[derive(Debug)]
pub struct Ready {
    /// The state of the file that this was made from.
    pub stamp: Stamp,
    /// The fields of a 200.
    pub fields: Bytes,
    /// The fields of a 304 (RFC 9110 section 15.4.5).
    pub unchanged: Bytes,
    /// The bytes.
    pub content: Content,
    /// Whether the file had just changed: a second change within the same tick of the kernel's clock would not show in its state.
    pub is_racy: bool,
    etag: String,
    modified_s: u64,
}

/// Where the bytes of a file are.
#[derive(Debug)]
pub enum Content {
    /// In memory.
    Mem(Bytes),
    /// In the open file.
    Open(Arc<OwnedFd>),
}

impl Entry {
    /// An entry that was checked at this time, in milliseconds since the start.
    pub fn new(kind: Kind, now_ms: u64) -> Entry {
        Entry { kind, checked_ms: AtomicU64::new(now_ms) }
    }

    /// Notes that the disk still agrees.
    pub fn touch(&self, now_ms: u64) {
        self.checked_ms.store(now_ms, Ordering::Relaxed);
    }

    fn is_believed(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.checked_ms.load(Ordering::Relaxed)) < BELIEVED_MS
    }

    fn weight(&self) -> u64 {
        ENTRY_BYTES
            + match &self.kind {
                Kind::File(ready) => (ready.fields.len() + ready.unchanged.len() + ready.content.bytes_in_memory()) as u64,
                _ => 0,
            }
    }
}

impl Content {
    fn bytes_in_memory(&self) -> usize {
        if let Content::Mem(bytes) = self { bytes.len() } else { 0 }
    }
}

impl Ready {
    /// Renders what there is to say about a file of this name and state.
    pub fn new(name: &[u8], stamp: Stamp, content: Content, policy: Policy) -> Ready {
        let etag = format!("\"{:016x}\"", fingerprint(&stamp));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // never later than Date (RFC 9110 section 8.8.2.1)
        let modified_s = u64::try_from(stamp.modified.0).unwrap_or(0).min(now.as_secs());
        let changed = Duration::new(u64::try_from(stamp.changed.0).unwrap_or(0), u32::try_from(stamp.changed.1).unwrap_or(0));
        let is_racy = now.saturating_sub(changed) < RACY;
        let modified = date::format(modified_s);
        let content_type = mime::content_type(name);
        let cache_control = match policy {
            Policy::Site { immutable: true } if mime::is_immutable(name) => "public, max-age=31536000, immutable",
            Policy::Site { .. } => "no-cache",
            Policy::Uploads => "no-store",
        };
        let unchanged = Fields::default()
            .with(&header::LAST_MODIFIED, &modified)
            .with(&header::ETAG, &etag)
            .with(&header::CACHE_CONTROL, cache_control)
            .with(&header::X_CONTENT_TYPE_OPTIONS, "nosniff")
            .into_shared();
        let mut fields = Fields::shared(unchanged.clone()).with(&header::CONTENT_TYPE, &content_type).with(&header::ACCEPT_RANGES, "bytes");
        if policy == Policy::Uploads {
            // whatever it is, it can not act in the name of this site
            fields.push(&header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'");
            if !mime::is_plain(&content_type) {
                fields.push(&header::CONTENT_DISPOSITION, "attachment");
            }
        }
        let fields = fields.into_shared();
        Ready { stamp, fields, unchanged, content, is_racy, etag, modified_s }
    }

    /// What the file is compared by.
    pub fn validators(&self) -> Validators<'_> {
        Validators { etag: self.etag.as_bytes(), modified_s: self.modified_s }
    }
}

/// A number that changes whenever the bytes may have: FNV-1a over all that the kernel notes of a change.
fn fingerprint(stamp: &Stamp) -> u64 {
    let Stamp { id, len, modified, changed } = *stamp;
    [id.0, id.1, len, modified.0 as u64, modified.1, changed.0 as u64, changed.1]
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The entries, by path. What is kept and what goes is decided by how often it is asked for.
#[derive(Debug)]
pub struct Cache(Option<quick_cache::sync::Cache<Box<[u8]>, Arc<Entry>, Weigh>>);

/// Weighs an entry: in bytes, or, for one that holds a descriptor, its share of the descriptors if that is more.
#[derive(Clone, Debug)]
struct Weigh {
    descriptor: u64,
}

impl Weighter<Box<[u8]>, Arc<Entry>> for Weigh {
    fn weight(&self, path: &Box<[u8]>, entry: &Arc<Entry>) -> u64 {
        let bytes = entry.weight() + path.len() as u64;
        let holds_descriptor = matches!(&entry.kind, Kind::File(Ready { content: Content::Open(_), .. }));
        if holds_descriptor { bytes.max(self.descriptor) } else { bytes }
    }
}

impl Cache {
    /// A cache of at most so many bytes and open files; none at all with 0 bytes.
    pub fn new(bytes: u64, descriptors: usize) -> Cache {
        if bytes == 0 {
            return Cache(None);
        }
        // the bound is split evenly over the shards: each has to be large beside any entry
        let shards = (bytes / SHARD_BYTES).min(descriptors as u64 / SHARD_DESCRIPTORS).clamp(1, 16) as usize;
        let options = quick_cache::OptionsBuilder::new()
            // how many entries to make room for at first; the cache grows beyond by itself
            .estimated_items_capacity((bytes / (8 << 10)).clamp(16, 16_384) as usize)
            .weight_capacity(bytes)
            .shards(shards)
            .build();
        // the builder has all that it needs
        let Ok(options) = options else { return Cache(None) };
        let weigh = Weigh { descriptor: bytes.div_ceil(descriptors as u64) };
        Cache(Some(quick_cache::sync::Cache::with_options(
            options,
            weigh,
            quick_cache::DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        )))
    }

    /// The entry of a path, and whether it may be used without a look at the disk.
    pub fn get(&self, path: &[u8], now_ms: u64) -> Option<(Arc<Entry>, bool)> {
        let entry = self.0.as_ref()?.get(path)?;
        let believed = entry.is_believed(now_ms);
        Some((entry, believed))
    }

    /// Forgets the entry of a path.
    pub fn remove(&self, path: &[u8]) {
        if let Some(cache) = &self.0 {
            cache.remove(path);
        }
    }

    /// Keeps an entry.
    pub fn put(&self, path: &[u8], entry: &Arc<Entry>) {
        if let Some(cache) = &self.0 {
            cache.insert(path.into(), Arc::clone(entry));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { id: (1, 2), len: 3, modified: (784_111_777, 5), changed: (6, 7) };

    fn file(content: Content) -> Arc<Entry> {
        Arc::new(Entry::new(Kind::File(Ready::new(b"a.txt", STAMP, content, Policy::Uploads)), 0))
    }

    #[test]
    fn the_fingerprint_changes_with_everything_the_kernel_notes() {
        let mut seen = std::collections::HashSet::from([fingerprint(&STAMP)]);
        for other in [
            Stamp { id: (9, 2), ..STAMP },
            Stamp { id: (1, 9), ..STAMP },
            Stamp { len: 9, ..STAMP },
            Stamp { modified: (9, 5), ..STAMP },
            Stamp { modified: (784_111_777, 9), ..STAMP },
            Stamp { changed: (9, 7), ..STAMP },
            Stamp { changed: (6, 9), ..STAMP },
        ] {
            assert!(seen.insert(fingerprint(&other)), "{other:?}");
        }
    }

    #[test]
    fn entries_are_believed_for_a_second() {
        let cache = Cache::new(1 << 20, 10);
        cache.put(b"a", &file(Content::Mem(Bytes::new())));
        for (now, believed) in [(0, true), (999, true), (1000, false)] {
            assert_eq!(cache.get(b"a", now).unwrap().1, believed, "{now}");
        }
        cache.get(b"a", 1000).unwrap().0.touch(1000);
        assert!(cache.get(b"a", 1999).unwrap().1);
    }

    #[test]
    fn the_cache_keeps_within_its_bounds() {
        const BYTES: u64 = 4 << 20;
        let kept = |content: &dyn Fn() -> Content| {
            let cache = Cache::new(BYTES, 8);
            for i in 0..2000 {
                cache.put(format!("file-{i}").as_bytes(), &file(content()));
            }
            (0..2000).filter(|i| cache.get(format!("file-{i}").as_bytes(), 0).is_some()).count()
        };
        let bytes = kept(&|| Content::Mem(vec![0; 16 << 10].into()));
        assert!(bytes > 100 && bytes as u64 * (16 << 10) <= BYTES, "{bytes} entries of 16 KiB");
        let open = Arc::new(OwnedFd::from(tempfile::tempfile().unwrap()));
        let descriptors = kept(&|| Content::Open(Arc::clone(&open)));
        assert!((1..=8).contains(&descriptors), "{descriptors} descriptors");
        let nothing = Cache::new(0, 8);
        nothing.put(b"a", &file(Content::Mem(Bytes::new())));
        assert!(nothing.get(b"a", 0).is_none());
    }
}
