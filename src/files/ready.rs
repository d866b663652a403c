//! A file made ready: all of an answer that does not depend on the request, for each coding that there is of it.

use std::fs::File;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustix::fs::{MemfdFlags, memfd_create};

use super::Policy;
use super::compress::Effort;
use super::root::{self, Found, Stamp};
use crate::config::rules::Rules;
use crate::http::body::{Chunk, OpenFile};
use crate::http::coding::Coding;
use crate::http::conditional::Validators;
use crate::http::digest::Sha256;
use crate::http::fields::Fields;
use crate::http::path::CleanPath;
use crate::http::{Head, StatusCode, date, header, mime};

/// A change this young may not be over, and another may follow with the same time: kernels note a write when it begins, and keep times
/// by a tick of up to 10 ms.
const RACY: Duration = Duration::from_millis(50);
/// A file this young is likely to be written to again: by an editor, a build, a copy that is not done. What was read of it is read once
/// more later.
const YOUNG: Duration = Duration::from_secs(1);
/// Of what a program writes through a mapping (mmap), kernels note the first write to a page, and the next ones only once they have
/// brought that to the disk: by default within 35 s. So what was read of a younger file is read once more then.
const SETTLED: Duration = Duration::from_secs(60);

/// A file made ready.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The state of the file that this was made from.
    pub stamp: Stamp,
    /// What its tags are made from: it stands for these bytes, and for no others.
    pub tag: u64,
    /// Whether it, or what is beside it, had just changed: a change that was under way would not show in its state.
    pub is_racy: bool,
    /// Whether nothing that is written to it escapes its state any more.
    pub is_settled: bool,
    /// How the path came to it.
    pub way: Way,
    /// The file as it is.
    pub plain: Variant,
    /// Its codings, if files of its type gain by them.
    pub coded: Option<Arc<Coded>>,
}

/// How a path comes to its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is the path of the file.
    Itself,
    /// It is the path of a folder, and the file is its index: the one of this number among the names of indexes.
    Index(usize),
    /// It is the path of the file without its `.html`.
    Clean,
}

/// The codings of a file, as far as there are any yet.
#[derive(Clone, Debug)]
pub struct Coded {
    /// What all variants of the file share.
    pub about: About,
    /// By `index`: what there is of each coding.
    variants: [Option<Variant>; CODINGS],
    /// A bit for each coding that is being made.
    asked: Arc<AtomicU8>,
    /// A bit for each coding that will not be made: it would not be smaller.
    refused: Arc<AtomicU8>,
    /// A bit for each coding that can not be kept: it is too large for that beside what is kept already.
    unkept: Arc<AtomicU8>,
    /// By `index`: what was found beside the file where a coded one would be.
    beside: [Found; CODINGS],
}

/// A coding that is being made. Whatever becomes of that, it may be asked for again when this is dropped.
#[derive(Debug)]
pub struct Asked {
    asked: Arc<AtomicU8>,
    bit: u8,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.asked.fetch_and(!self.bit, Ordering::Relaxed);
    }
}

/// Codings beside identity.
const CODINGS: usize = 3;

fn index(coding: Coding) -> usize {
    match coding {
        Coding::Gzip | Coding::Identity => 0,
        Coding::Br => 1,
        Coding::Zstd => 2,
    }
}

/// One representation of a file.
#[derive(Clone, Debug)]
pub struct Variant {
    /// The fields of a 200.
    pub fields: Bytes,
    /// The fields of a 304 (RFC 9110 section 15.4.5).
    pub unchanged: Bytes,
    /// The bytes.
    pub content: Content,
    /// The state of the file beside the file that it is, if it is one.
    pub sidecar: Option<Stamp>,
    /// Whether a better one of the same coding can be made.
    pub is_quick: bool,
    /// What the answer depends on beside the path.
    pub vary: Option<&'static str>,
    /// The digest of its bytes, once it was asked for.
    pub digest: Option<Sha256>,
    etag: Arc<str>,
    modified_s: u64,
}

/// Where the bytes of a file are.
#[derive(Clone, Debug)]
pub enum Content {
    /// In memory.
    Mem(Bytes),
    /// In the open file.
    Open(Arc<OpenFile>),
}

impl Content {
    /// A file that stays open, in this state.
    pub fn open(fd: OwnedFd, stamp: &Stamp) -> Content {
        Content::Open(Arc::new(OpenFile::new(fd, (stamp.len, stamp.modified.0, stamp.modified.1))))
    }

    /// Bytes that were made here, as a file of this process alone: the kernel sends that without a copy.
    ///
    /// # Errors
    ///
    /// There is no such file to be had.
    pub fn own(bytes: &[u8]) -> io::Result<Content> {
        let mut file = File::from(memfd_create("millpond", MemfdFlags::CLOEXEC)?);
        file.write_all(bytes)?;
        let stamp = root::stamp_of(&file)?;
        let file = OpenFile { is_own: true, ..OpenFile::new(file.into(), (stamp.len, stamp.modified.0, stamp.modified.1)) };
        file.is_warm.store(true, Ordering::Relaxed);
        Ok(Content::Open(Arc::new(file)))
    }

    /// A number that stands for these bytes, where the state of the file may stand for others too: it depends on the bytes themselves,
    /// or, where they are not at hand, it does not come again.
    pub fn tag(&self, stamp: &Stamp) -> u64 {
        let bytes = match self {
            Content::Mem(bytes) => BuildHasherDefault::<DefaultHasher>::default().hash_one(&bytes[..]),
            Content::Open(_) => now().as_nanos() as u64,
        };
        fnv(fingerprint(stamp), &bytes.to_le_bytes())
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Content::Mem(bytes) => bytes.len() as u64,
            Content::Open(file) => file.state.0,
        }
    }

    /// A part of it.
    pub fn part(&self, offset: u64, len: u64) -> Chunk {
        match self {
            Content::Mem(bytes) => Chunk::Mem(bytes.slice(offset as usize..(offset + len) as usize)),
            Content::Open(file) => Chunk::File { file: Arc::clone(file), offset, len },
        }
    }
}

/// What the fields of all variants of a file are rendered from.
#[derive(Clone, Debug)]
pub struct About {
    tag: u64,
    modified_s: u64,
    content_type: String,
    cache_control: String,
    /// The lines of the operator's own fields.
    own: Bytes,
    policy: Policy,
    is_codable: bool,
    vary: Option<&'static str>,
}

impl About {
    /// What there is to say about a file at this path below the root, in this state and with this tag.
    pub fn new(at: &CleanPath, stamp: &Stamp, tag: u64, policy: Policy, rules: &Rules) -> About {
        let content_type = rules.content_type(at.name());
        let cache_control = match policy {
            Policy::Uploads => "no-store",
            Policy::Site => rules.cache_control(at.as_bytes()).unwrap_or_else(|| {
                let is_immutable = rules.immutable.0 && mime::is_immutable(at.name());
                if is_immutable { "public, max-age=31536000, immutable" } else { "no-cache" }
            }),
        };
        let mut own = Fields::default();
        for field in rules.fields(at.as_bytes()) {
            own.push(&field.name, &field.value);
        }
        // never later than Date (RFC 9110 section 8.8.2.1), which may be that of the second before
        let (modified_s, now_s) = (u64::try_from(stamp.modified.0).unwrap_or(0), now().as_secs());
        let modified_s = if modified_s > now_s { now_s.saturating_sub(1) } else { modified_s };
        let is_codable = policy != Policy::Uploads && mime::is_compressible(&content_type);
        // whether it is the answer to an address where nothing is depends on what the client accepts
        let vary = match (is_codable, rules.is_fallback(at)) {
            (true, true) => Some("accept, accept-encoding"),
            (true, false) => Some("accept-encoding"),
            (false, true) => Some("accept"),
            (false, false) => None,
        };
        let (cache_control, own) = (cache_control.to_owned(), own.into_shared());
        About { tag, modified_s, content_type, cache_control, own, policy, is_codable, vary }
    }

    /// Whether files like this one gain by a coding.
    pub fn is_codable(&self) -> bool {
        self.is_codable
    }

    /// The entity tag of what is made from the file by a coding: another one for each coding and effort.
    pub fn etag(&self, coding: Coding, effort: Effort) -> String {
        let tag = self.tag ^ CODER;
        format!("\"{tag:016x}-{}{}\"", coding.name(), if effort == Effort::Quick { "-quick" } else { "" })
    }

    /// A representation with this entity tag. Its lines and bytes, if they are in memory, are one piece of it.
    pub fn variant(&self, coding: Coding, etag: String, content: Content) -> Variant {
        // what a 304 has comes first (RFC 9110 section 15.4.5)
        let mut fields = Fields::shared(self.own.clone())
            .with(&header::LAST_MODIFIED, date::format(self.modified_s))
            .with(&header::ETAG, &etag)
            .with(&header::CACHE_CONTROL, &self.cache_control)
            .with(&header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        if let Some(vary) = self.vary {
            fields.push(&header::VARY, vary);
        }
        let unchanged = fields.size();
        fields.push(&header::CONTENT_TYPE, &self.content_type);
        fields.push(&header::ACCEPT_RANGES, "bytes");
        if coding != Coding::Identity {
            fields.push(&header::CONTENT_ENCODING, coding.name());
        }
        if self.policy == Policy::Uploads {
            // whatever it is, it can not act in the name of this site
            fields.push(&header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'");
            if !mime::is_plain(&self.content_type) {
                fields.push(&header::CONTENT_DISPOSITION, "attachment");
            }
        }
        let (fields, content) = match content {
            Content::Mem(bytes) => {
                let size = fields.size();
                let all = Bytes::from([&fields.into_shared()[..], &bytes].concat());
                (all.slice(..size), Content::Mem(all.slice(size..)))
            }
            open => (fields.into_shared(), open),
        };
        let unchanged = fields.slice(..unchanged);
        let (etag, modified_s) = (etag.into(), self.modified_s);
        Variant { fields, unchanged, content, sidecar: None, is_quick: false, vary: self.vary, digest: None, etag, modified_s }
    }
}

impl Ready {
    /// A file of this state, without codings.
    pub fn new(about: &About, stamp: Stamp, content: Content) -> Ready {
        let is_racy = if let Content::Mem(_) = &content { is_young(&stamp) } else { is_racy(&stamp) };
        let (tag, is_settled) = (about.tag, is_settled(&stamp));
        let plain = about.variant(Coding::Identity, format!("\"{tag:016x}\""), content);
        Ready { stamp, tag, is_racy, is_settled, way: Way::Itself, plain, coded: None }
    }

    /// Puts in its codings.
    pub fn put_codings(&mut self, coded: Coded) {
        self.is_racy |= coded.beside.iter().any(|found| matches!(found, Found::File(stamp) if is_young(stamp)));
        self.coded = Some(Arc::new(coded));
    }

    /// The same file with this representation in the place of what there was of its coding.
    pub fn with(&self, coding: Coding, variant: Variant) -> Ready {
        let mut ready = self.clone();
        match &mut ready.coded {
            _ if coding == Coding::Identity => ready.plain = variant,
            Some(coded) => Arc::make_mut(coded).put(coding, variant),
            None => {}
        }
        ready
    }

    /// The representation in a coding, if there is one.
    pub fn variant(&self, coding: Coding) -> Option<&Variant> {
        if coding == Coding::Identity { Some(&self.plain) } else { self.coded.as_ref()?.get(coding) }
    }

    /// All representations that there are.
    pub fn variants(&self) -> impl Iterator<Item = (Coding, &Variant)> {
        let coded = self
            .coded
            .iter()
            .flat_map(|coded| [Coding::Br, Coding::Zstd, Coding::Gzip].into_iter().filter_map(|coding| Some((coding, coded.get(coding)?))));
        std::iter::once((Coding::Identity, &self.plain)).chain(coded)
    }

    /// Bytes of memory that it holds.
    pub fn bytes_in_memory(&self) -> u64 {
        self.variants().map(|(_, variant)| variant.bytes_in_memory()).sum()
    }

    /// Open files that it holds.
    pub fn descriptors(&self) -> usize {
        self.variants().filter(|(_, variant)| matches!(variant.content, Content::Open(_))).count()
    }
}

impl Coded {
    /// No codings yet.
    pub fn new(about: About) -> Coded {
        let beside = [Found::Nothing; CODINGS];
        Coded { about, variants: Default::default(), asked: Arc::default(), refused: Arc::default(), unkept: Arc::default(), beside }
    }

    /// What there is of a coding.
    pub fn get(&self, coding: Coding) -> Option<&Variant> {
        if coding == Coding::Identity { None } else { self.variants[index(coding)].as_ref() }
    }

    /// Takes over what was made of the same bytes before.
    pub fn take_over(&mut self, before: &Coded) {
        for (variant, made) in self.variants.iter_mut().zip(&before.variants) {
            if variant.is_none() {
                *variant = made.clone().filter(|made| made.sidecar.is_none());
            }
        }
        (self.asked, self.refused) = (Arc::clone(&before.asked), Arc::clone(&before.refused));
        self.unkept = Arc::clone(&before.unkept);
    }

    /// Puts in what there is of a coding.
    pub fn put(&mut self, coding: Coding, variant: Variant) {
        self.variants[index(coding)] = Some(variant);
    }

    /// What was found where a coded file would be; also one that is not used because it is too old.
    pub fn beside(&self, coding: Coding) -> Found {
        self.beside[index(coding)]
    }

    /// Notes what was found there.
    pub fn put_beside(&mut self, coding: Coding, found: Found) {
        self.beside[index(coding)] = found;
    }

    /// Notes that a coding is being made, for as long as what is returned is there; `None` if it is being made already.
    pub fn ask(&self, coding: Coding) -> Option<Asked> {
        let bit = 1 << index(coding);
        let is_first = self.asked.fetch_or(bit, Ordering::Relaxed) & bit == 0;
        is_first.then(|| Asked { asked: Arc::clone(&self.asked), bit })
    }

    /// Notes that a coding can not be kept.
    pub fn leave_unkept(&self, coding: Coding) {
        if coding != Coding::Identity {
            self.unkept.fetch_or(1 << index(coding), Ordering::Relaxed);
        }
    }

    /// Whether a coding can not be kept: it is made for those alone who accept nothing else.
    pub fn is_unkept(&self, coding: Coding) -> bool {
        coding != Coding::Identity && self.unkept.load(Ordering::Relaxed) & (1 << index(coding)) != 0
    }

    /// Notes that a coding would not be smaller. The file as it is can always be had.
    pub fn refuse(&self, coding: Coding) {
        if coding != Coding::Identity {
            self.refused.fetch_or(1 << index(coding), Ordering::Relaxed);
        }
    }

    /// Whether a coding would not be smaller.
    pub fn is_refused(&self, coding: Coding) -> bool {
        coding != Coding::Identity && self.refused.load(Ordering::Relaxed) & (1 << index(coding)) != 0
    }
}

impl<'a> From<&'a Variant> for Head<'a> {
    /// The head of a 200.
    fn from(variant: &'a Variant) -> Head<'a> {
        Head { status: StatusCode::OK, lines: [&variant.fields, b""], body_bytes: Some(variant.content.size()), close: false }
    }
}

impl Variant {
    /// Its strong entity tag.
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// Whether it is kept open and has another state now than the one that it was opened in: news of that may be on its way.
    pub fn has_changed_in_place(&self, of: &Ready) -> bool {
        match &self.content {
            Content::Open(file) if !file.is_own => root::stamp_of(&file.fd) != Ok(self.sidecar.unwrap_or(of.stamp)),
            _ => false,
        }
    }

    /// What it is compared by.
    pub fn validators(&self) -> Validators<'_> {
        Validators { etag: self.etag.as_bytes(), modified_s: self.modified_s }
    }

    fn bytes_in_memory(&self) -> u64 {
        let is_in_memory = matches!(&self.content, Content::Mem(_)) || matches!(&self.content, Content::Open(file) if file.is_own);
        (self.fields.len() + self.unchanged.len()) as u64 + if is_in_memory { self.content.size() } else { 0 }
    }
}

/// Whether a file has changed so shortly ago that its state may stand for other bytes too.
pub fn is_racy(stamp: &Stamp) -> bool {
    age(stamp) < RACY
}

/// Whether a file has changed so shortly ago that it may be about to change again.
pub fn is_young(stamp: &Stamp) -> bool {
    age(stamp) < YOUNG
}

/// Whether the last change of a file is so long ago that no more of it can have come without being noted.
pub fn is_settled(stamp: &Stamp) -> bool {
    age(stamp) >= SETTLED
}

/// The time since the last change.
fn age(stamp: &Stamp) -> Duration {
    let changed = Duration::new(u64::try_from(stamp.changed.0).unwrap_or(0), u32::try_from(stamp.changed.1).unwrap_or(0));
    now().saturating_sub(changed)
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A number that changes whenever the kernel notes a change of the bytes: a hash of all that it notes.
pub fn fingerprint(stamp: &Stamp) -> u64 {
    let Stamp { id, len, modified, changed } = *stamp;
    let noted = [id.0, id.1, len, modified.0 as u64, modified.1, changed.0 as u64, changed.1];
    noted.iter().fold(FNV_BASIS, |hash, n| fnv(hash, &n.to_le_bytes()))
}

/// What tells the encoders of this version from those of another, which may make other bytes of the same file.
const CODER: u64 = fnv(FNV_BASIS, env!("CARGO_PKG_VERSION").as_bytes());

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a.
const fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// The entity tag of a coded file that stands beside a file, by the tags of the two.
pub fn sidecar_etag(file: u64, sidecar: u64, coding: Coding) -> String {
    format!("\"{file:016x}-{}-{sidecar:016x}\"", coding.name())
}

#[cfg(test)]
pub mod tests {
    //! What the tests of the cache need, and that a tag tells every change.

    use super::*;
    use crate::config::rules::Symlinks;

    const STAMP: Stamp = Stamp { id: (1, 2), len: 3, modified: (784_111_777, 5), changed: (6, 7) };

    fn about(policy: Policy) -> About {
        About::new(&CleanPath::default().with("a.html"), &STAMP, 1, policy, &Rules::bare(Symlinks::Inside))
    }

    fn ready(content: Content) -> Ready {
        Ready::new(&about(Policy::Uploads), STAMP, content)
    }

    /// Date is that of the request, which may have come in the second before.
    #[test]
    fn no_file_is_later_than_its_answer() {
        let date = |modified_s: u64| {
            let stamp = Stamp { modified: (i64::try_from(modified_s).unwrap(), 0), ..STAMP };
            About::new(&CleanPath::default().with("a.html"), &stamp, 1, Policy::Site, &Rules::bare(Symlinks::Inside)).modified_s
        };
        let now = now().as_secs();
        assert_eq!(date(now - 1), now - 1);
        assert!(date(now + 60) < self::now().as_secs());
    }

    /// A file of so many bytes in memory.
    pub fn in_memory(bytes: usize) -> Ready {
        ready(Content::Mem(vec![0; bytes].into()))
    }

    /// A file that is kept open.
    pub fn open() -> Ready {
        ready(Content::open(tempfile::tempfile().unwrap().into(), &STAMP))
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
    fn files_are_young_for_a_second_and_settled_after_a_minute() {
        let at = |ago_s: u64| Stamp { changed: ((now().as_secs() - ago_s) as i64, 0), ..STAMP };
        assert_eq!([0, 1, 2].map(|ago_s| is_young(&at(ago_s))), [true, false, false]);
        assert_eq!([58, 60, 61].map(|ago_s| is_settled(&at(ago_s))), [false, true, true]);
    }

    #[test]
    fn a_coding_is_asked_for_once_until_that_has_ended() {
        let coded = Coded::new(about(Policy::Uploads));
        let asked = coded.ask(Coding::Br);
        assert!(asked.is_some() && coded.ask(Coding::Br).is_none() && coded.ask(Coding::Gzip).is_some());
        assert!(coded.clone().ask(Coding::Br).is_none(), "a copy knows");
        drop(asked);
        assert!(coded.ask(Coding::Br).is_some());
    }

    #[test]
    fn what_is_refused_is_that_coding_and_no_other() {
        let coded = Coded::new(about(Policy::Uploads));
        coded.refuse(Coding::Identity);
        assert!(Coding::ALL.into_iter().all(|coding| !coded.is_refused(coding)));
        coded.refuse(Coding::Br);
        assert_eq!(Coding::ALL.map(|coding| coded.is_refused(coding)), [false, false, true, false]);
    }

    #[test]
    fn what_is_beside_a_file_may_have_just_changed_too() {
        let about = about(Policy::Uploads);
        let just = Stamp { changed: (now().as_secs() as i64 + 1, 0), ..STAMP };
        for (found, is_racy) in [(Found::Nothing, false), (Found::File(STAMP), false), (Found::File(just), true)] {
            let (mut ready, mut coded) = (in_memory(1), Coded::new(about.clone()));
            coded.put_beside(Coding::Gzip, found);
            ready.put_codings(coded);
            assert_eq!(ready.is_racy, is_racy, "{found:?}");
        }
    }

    #[test]
    fn every_coding_and_effort_has_a_tag_of_its_own() {
        let about = about(Policy::Site);
        let codings = [Coding::Br, Coding::Zstd, Coding::Gzip];
        let tags: std::collections::HashSet<_> =
            codings.into_iter().flat_map(|c| [about.etag(c, Effort::Quick), about.etag(c, Effort::Best)]).collect();
        assert_eq!(tags.len(), 6);
    }
}
