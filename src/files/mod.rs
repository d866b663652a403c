//! Files below the root: from a request to its response.
//!
//! What is in memory, in the cache or in the kernel's, is answered at once. What may have to wait for the disk is left to the
//! blocking pool, so that no worker ever does.

pub mod blocking;
pub mod cache;
pub mod digest;
pub mod root;
pub mod upload;

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::io::{Errno, ReadWriteFlags};

use crate::config::plan::Plan;
use crate::http::body::Chunk;
use crate::http::conditional::{self, Verdict};
use crate::http::fields::Fields;
use crate::http::partial::{self, Boundary};
use crate::http::path::{self, CleanPath};
use crate::http::range::{self, Span};
use crate::http::refuse::Refuse;
use crate::http::{Method, Request, Response, StatusCode, header};
use crate::observe;
use blocking::Blocking;
use cache::{Cache, Content, Entry, Kind, Ready};
use root::{Found, How, NoAnswer, Root, Stamp};

/// Files up to this size are kept in memory; larger ones are sent by the kernel from the open file.
const MEMORY_BYTES: u64 = 24 << 10;
/// How often a file that changes while it is read is read again, before it is served from the open file instead.
const READS: usize = 3;
/// What a folder is served by.
const INDEX: &[u8] = b"index.html";
/// The methods of files: HEAD is part of GET (RFC 9110 section 9.1).
pub const METHODS: &str = "GET, HEAD";

/// A response, now or later.
pub enum Served<'a> {
    /// Now.
    Ready(Response),
    /// After something that waits.
    Later(Pin<Box<dyn Future<Output = Response> + Send + 'a>>),
}

/// What kind of files a root holds, as far as it changes how they are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// A site: folders have an index. Names with a content hash may be cached for good, if so.
    Site {
        /// Whether they may.
        immutable: bool,
    },
    /// What others have uploaded: single files, never a part of the site, and never trusted by it.
    Uploads,
}

/// The files of one root.
#[derive(Clone, Debug)]
pub struct Files {
    store: Arc<Store>,
    blocking: Arc<Blocking>,
    started: Instant,
}

/// What the blocking pool needs of it.
#[derive(Debug)]
struct Store {
    root: Root,
    cache: Cache,
    policy: Policy,
}

impl Files {
    /// Opens the root.
    ///
    /// # Errors
    ///
    /// It can not be opened.
    pub fn open(path: &Path, plan: &Plan, policy: Policy, blocking: Arc<Blocking>, started: Instant) -> io::Result<Files> {
        // one bound for both: uploads get an eighth of it
        let eighths = match policy {
            Policy::Uploads => 1,
            Policy::Site { .. } if plan.uploads.is_some() => 7,
            Policy::Site { .. } => 8,
        };
        let cache = Cache::new(plan.limits.cache_size / 8 * eighths, (plan.cached_descriptors * eighths as usize / 8).max(1));
        let store = Store { root: Root::open(path)?, cache, policy };
        Ok(Files { store: Arc::new(store), blocking, started })
    }

    /// Answers GET and HEAD.
    pub fn serve<'a>(&'a self, request: &'a Request, now: Instant) -> Served<'a> {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return Served::Ready(refused(Refuse::method(METHODS), request));
        }
        self.serve_path(&request.path, request, now)
    }

    /// Forgets what is remembered of a path.
    pub fn forget(&self, path: &[u8]) {
        self.store.cache.remove(path);
    }

    /// Tells what is at a path.
    ///
    /// # Errors
    ///
    /// As for `Root::look`.
    pub fn look(&self, path: &[u8], how: How) -> Result<Found, NoAnswer> {
        self.store.root.look(path, how)
    }

    /// Answers GET and HEAD for a path that is not the request's own.
    pub fn serve_path<'a>(&'a self, path: &CleanPath, request: &'a Request, now: Instant) -> Served<'a> {
        if is_hidden(path) {
            return Served::Ready(refused(Refuse::not_found(), request));
        }
        let now_ms = now.saturating_duration_since(self.started).as_millis() as u64;
        match self.store.find(path, now_ms, How::Cached) {
            Ok(entry) => Served::Ready(answer(&entry, request)),
            Err(NoAnswer::Cold) => {
                let (store, path) = (Arc::clone(&self.store), path.clone());
                Served::Later(Box::pin(async move {
                    match self.blocking.run(move || store.find(&path, now_ms, How::Any)).await {
                        Ok(entry) => answer(&entry, request),
                        Err(e) => refused(failure(e), request),
                    }
                }))
            }
            Err(e) => Served::Ready(refused(failure(e), request)),
        }
    }
}

impl Store {
    /// The entry of a path, checked within the last second.
    fn find(&self, path: &CleanPath, now_ms: u64, how: How) -> Result<Arc<Entry>, NoAnswer> {
        let old = match self.cache.get(path.as_bytes(), now_ms) {
            Some((entry, true)) => return Ok(entry),
            Some((entry, false)) => Some(entry),
            None => None,
        };
        let indexed;
        let has_index = self.policy != Policy::Uploads;
        let (at, name) = if path.is_folder() && has_index {
            indexed = [path.as_bytes(), INDEX].concat();
            (&indexed[..], INDEX)
        } else {
            (path.as_bytes(), path.name())
        };
        if let Some(old) = old
            && let Kind::File(ready) = &old.kind
            && !ready.is_racy
            && self.root.look(at, how)? == Found::File(ready.stamp)
        {
            old.touch(now_ms);
            return Ok(old);
        }
        let kind = match self.root.open_file(at, how)? {
            Ok((file, stamp)) => Kind::File(self.make_ready(file, stamp, name, how)?),
            Err(Found::Folder) if !path.is_folder() && has_index => Kind::Folder,
            Err(Found::Denied) => Kind::Denied,
            Err(_) => Kind::Nothing,
        };
        // of uploads only small files are remembered: a miss may be filled at any time, and an open file would keep its room on the
        // disk after it was removed
        let is_small = matches!(&kind, Kind::File(Ready { content: Content::Mem(_), .. }));
        let is_kept = self.policy != Policy::Uploads || is_small;
        let entry = Arc::new(Entry::new(kind, now_ms));
        if is_kept {
            self.cache.put(path.as_bytes(), &entry);
        }
        Ok(entry)
    }

    /// Reads a small file, or keeps a large one open.
    fn make_ready(&self, file: OwnedFd, stamp: Stamp, name: &[u8], how: How) -> Result<Ready, NoAnswer> {
        let mut stamp = stamp;
        for _ in 0..READS {
            if stamp.len > MEMORY_BYTES {
                break;
            }
            let bytes = read_whole(&file, stamp.len, how)?;
            // the bytes are those of this state only if the file had it before and after they were read
            let after = root::stamp_of(&file).map_err(NoAnswer::Failed)?;
            if after == stamp && bytes.len() as u64 == stamp.len {
                return Ok(Ready::new(name, stamp, Content::Mem(bytes.into()), self.policy));
            }
            stamp = after;
        }
        Ok(Ready::new(name, stamp, Content::Open(Arc::new(file)), self.policy))
    }
}

/// Reads up to `len` bytes from the start of a file.
fn read_whole(file: &OwnedFd, len: u64, how: How) -> Result<Vec<u8>, NoAnswer> {
    let mut bytes = vec![0; len as usize];
    let mut at = 0;
    while at < bytes.len() {
        match read_some(file, &mut bytes[at..], at as u64, how) {
            Ok(0) => break,
            Ok(n) => at += n,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if how == How::Cached => return Err(NoAnswer::Cold),
            Err(e) => return Err(NoAnswer::Failed(e)),
        }
    }
    bytes.truncate(at);
    Ok(bytes)
}

fn read_some(file: &OwnedFd, into: &mut [u8], offset: u64, how: How) -> Result<usize, Errno> {
    if how == How::Cached {
        return match rustix::io::preadv2(file, &mut [IoSliceMut::new(into)], offset, ReadWriteFlags::NOWAIT) {
            // a file system that can not tell may have to wait, unless it is all memory
            Err(Errno::OPNOTSUPP | Errno::NOSYS) if !is_all_memory(file) => Err(Errno::AGAIN),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => rustix::io::pread(file, into, offset),
            other => other,
        };
    }
    rustix::io::pread(file, into, offset)
}

/// Whether a file is on a file system that has no disk.
fn is_all_memory(file: &OwnedFd) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    rustix::fs::fstatfs(file).is_ok_and(|fs| [TMPFS, RAMFS].contains(&(fs.f_type as u64)))
}

/// Whether a part of a file is in memory, as far as its first and its last byte tell, so that sending it does not wait for the disk.
pub fn is_in_memory(file: &OwnedFd, offset: u64, len: u64) -> bool {
    [offset, (offset + len).saturating_sub(1)].into_iter().all(|at| read_some(file, &mut [0], at, How::Cached) != Err(Errno::AGAIN))
}

/// Brings a part of a file into memory; waits for the disk.
pub fn bring_into_memory(file: &OwnedFd, offset: u64, len: u64) {
    let mut buffer = vec![0; 64 << 10];
    let mut at = offset;
    while at < offset + len {
        match rustix::io::pread(file, &mut buffer, at) {
            Ok(n) if n > 0 => at += n as u64,
            Err(Errno::INTR) => {}
            // whoever sends it will meet the same
            _ => return,
        }
    }
}

/// Whether a path has a segment that begins with a dot; `.well-known` (RFC 8615) at the root has a purpose.
fn is_hidden(path: &CleanPath) -> bool {
    path.segments().enumerate().any(|(i, segment)| segment[0] == b'.' && !(i == 0 && segment == b".well-known"))
}

fn refused(refuse: Refuse, request: &Request) -> Response {
    refuse.into_response(request)
}

/// What a client is told when the system has no answer; the operator is told why.
fn failure(e: NoAnswer) -> Refuse {
    match e {
        NoAnswer::Failed(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Refuse::busy("The server is short of resources right now."),
        NoAnswer::Failed(e) => {
            observe::say(&format!("a file can not be served: {e}"));
            Refuse::internal()
        }
        NoAnswer::Cold => Refuse::internal(),
    }
}

/// Answers a request from an entry: preconditions first, then the range (RFC 9110 section 13.2.2).
fn answer(entry: &Entry, request: &Request) -> Response {
    let ready = match &entry.kind {
        Kind::File(ready) => ready,
        Kind::Folder => return to_folder(request),
        Kind::Nothing => return refused(Refuse::not_found(), request),
        Kind::Denied => return refused(Refuse::new(StatusCode::FORBIDDEN, "The server may not read what is at this address."), request),
    };
    match conditional::evaluate(request, ready.validators()) {
        Verdict::Proceed => {}
        Verdict::NotModified => {
            let fields = Fields::shared(ready.unchanged.clone());
            return Response { fields, ..Response::new(StatusCode::NOT_MODIFIED) };
        }
        Verdict::Failed => {
            return refused(Refuse::new(StatusCode::PRECONDITION_FAILED, "The file is not the one that the request speaks of."), request);
        }
    }
    let len = ready.stamp.len;
    let whole = Response {
        fields: Fields::shared(ready.fields.clone()),
        body: chunk(&ready.content, 0, len).into(),
        ..Response::new(StatusCode::OK)
    };
    // HEAD ignores Range (RFC 9110 section 14.2)
    if request.method == Method::GET
        && let Some(value) = request.only(&header::RANGE)
        && conditional::range_holds(request, ready.validators(), unix_now_s())
    {
        let part = |span: Span| chunk(&ready.content, span.first, span.len());
        return partial::narrow(whole, range::parse(value, len), len, part, boundary).unwrap_or_else(|refuse| refused(refuse, request));
    }
    whole
}

fn chunk(content: &Content, offset: u64, len: u64) -> Chunk {
    match content {
        Content::Mem(bytes) => Chunk::Mem(bytes.slice(offset as usize..(offset + len) as usize)),
        Content::Open(file) => Chunk::File { file: Arc::clone(file), offset, len },
    }
}

fn unix_now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A boundary that nobody can foresee.
fn boundary() -> Boundary {
    let random = RandomState::new();
    Boundary(u128::from(random.hash_one(0)) << 64 | u128::from(random.hash_one(1)))
}

/// 301 to the folder's own address, with the query kept.
fn to_folder(request: &Request) -> Response {
    let mut location = request.path.to_location();
    location.push('/');
    if let Some(query) = request.query() {
        location.push('?');
        path::encode(query, b"/?%", &mut location);
    }
    let fields = Fields::default()
        .with(&header::LOCATION, location)
        .with(&header::CACHE_CONTROL, "no-cache")
        .with(&header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    Response { fields, ..Response::new(StatusCode::MOVED_PERMANENTLY) }
}
