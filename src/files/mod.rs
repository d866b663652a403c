//! Files below the root: from a request to its response.
//!
//! What is in memory, in the cache or in the kernel's, is answered at once. What may have to wait for the disk is left to the
//! blocking pool, so that no worker ever does.

pub mod archive;
pub mod blocking;
pub mod cache;
pub mod compress;
pub mod digest;
pub mod listing;
pub mod page;
pub mod ready;
pub mod root;
pub mod store;
pub mod upload;
pub mod watch;

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags};

use crate::config::plan::Plan;
use crate::config::rules::Rules;
use crate::http::accept;
use crate::http::coding::{Accepted, Coding};
use crate::http::conditional::{self, CONDITIONS, Verdict};
use crate::http::digest::{REPR_DIGEST, WANT_REPR_DIGEST};
use crate::http::fields::Fields;
use crate::http::partial::{self, Boundary};
use crate::http::path::{self, CleanPath};
use crate::http::range::{self, Span};
use crate::http::refuse::Refuse;
use crate::http::{Method, Names, Request, Response, StatusCode, header};
use crate::observe;
use blocking::Blocking;
use cache::{Cache, Entry, Kind};
use compress::Effort;
use listing::Listing;
use ready::{Asked, Coded, Content, Ready, Variant};
use root::{Contents, Found, How, NoAnswer};
use store::Store;

/// What kernels read of a file at once, so that a byte of each such part tells of all of it.
const READ_AHEAD_BYTES: usize = 128 << 10;
/// How often a request is answered anew because its file changed since its state was noted. One that changes faster is sent from the
/// open file, and cut off when it has changed.
const ANEW: usize = 3;
/// Fields of requests that may be answered otherwise than with the whole of a representation.
const NOT_WHOLE: Names = CONDITIONS.with(Names::of(&["range", WANT_REPR_DIGEST]));
/// Fields of requests that may choose another representation than the file as it is.
const CHOOSES: Names = CONDITIONS.with(Names::of(&["accept-encoding", "if-range"]));
/// The methods of files: HEAD is part of GET (RFC 9110 section 9.1).
pub const METHODS: &str = "GET, HEAD";

/// A response, now or later.
pub enum Served<'a> {
    /// A file, whole: what nearly all requests are answered with, without a value of its own for each.
    Whole(Whole),
    /// Now.
    Ready(Response),
    /// After something that waits.
    Later(Pin<Box<dyn Future<Output = Response> + Send + 'a>>),
}

impl Served<'_> {
    /// The response, once it is there.
    pub async fn response(self) -> Response {
        match self {
            Served::Whole(whole) => whole.into_response(),
            Served::Ready(response) => response,
            Served::Later(response) => response.await,
        }
    }
}

/// A representation of a file, as it is in its entry.
#[derive(Debug)]
pub struct Whole {
    entry: Arc<Entry>,
    coding: Coding,
}

impl Whole {
    /// The file of this entry in this coding.
    pub fn new(entry: Arc<Entry>, coding: Coding) -> Whole {
        Whole { entry, coding }
    }

    /// The representation, if there is one.
    pub fn variant(&self) -> Option<&Variant> {
        self.entry.ready()?.variant(self.coding)
    }

    /// Its bytes, if they are in memory.
    pub fn in_memory(&self) -> Option<&Bytes> {
        if let Content::Mem(bytes) = &self.variant()?.content { Some(bytes) } else { None }
    }

    /// The response that it is.
    pub fn into_response(self) -> Response {
        self.variant().map_or_else(|| Refuse::internal().into_response(&Request::default()), whole)
    }
}

/// What kind of files a root holds, as far as it changes how they are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// A site: folders have an index, and the rules of the operator hold.
    Site,
    /// What others have uploaded: single files, never a part of the site, and never trusted by it.
    Uploads,
}

/// A request as it is answered here.
#[derive(Clone, Copy)]
struct Asking<'a> {
    request: &'a Request,
    /// Milliseconds since the start.
    now_ms: u64,
    /// How often it may still be answered anew.
    anew: usize,
}

/// The files of one root.
#[derive(Clone, Debug)]
pub struct Files {
    store: Arc<Store>,
    blocking: Arc<Blocking>,
    started: Instant,
    /// How folders without an index are told, if they are.
    listing: Option<Arc<Listing>>,
    /// Bytes of the largest page for an error.
    error_page_limit: u64,
}

impl Files {
    /// Opens the root. Below the paths `elsewhere`, given without a slash at their end, something else answers.
    ///
    /// # Errors
    ///
    /// It can not be opened.
    pub fn open(
        path: &Path,
        plan: &Plan,
        policy: Policy,
        elsewhere: Vec<Vec<u8>>,
        blocking: Arc<Blocking>,
        started: Instant,
    ) -> io::Result<Files> {
        // one bound for both: uploads get an eighth of it
        let eighths = match policy {
            Policy::Uploads => 1,
            Policy::Site if plan.uploads.is_some() => 7,
            Policy::Site => 8,
        };
        let rules = match policy {
            Policy::Uploads => Rules::bare(plan.rules.symlinks),
            Policy::Site => plan.rules.clone(),
        };
        let cache = Cache::new(plan.limits.cache_size / 8 * eighths, (plan.cached_descriptors * eighths as usize / 8).max(1));
        let store = Arc::new(Store::open(path, plan, cache, policy, rules, elsewhere, Arc::clone(&blocking))?);
        Ok(Files { store, blocking, started, listing: None, error_page_limit: plan.limits.error_page_limit })
    }

    /// The same files, with folders listed.
    #[must_use]
    pub fn listed(self, listing: Listing) -> Files {
        Files { listing: Some(Arc::new(listing)), ..self }
    }

    /// Loads the files before they are asked for, as far as there is room; waits for the disk.
    pub fn warm(&self) {
        self.store.warm(&CleanPath::default(), self.started.elapsed().as_millis() as u64);
    }

    /// Has the thread that follows changes do something, for tests.
    #[cfg(debug_assertions)]
    pub fn run_on_watcher(&self, work: impl FnOnce() + Send + 'static) {
        if let Some(watch) = &self.store.watch {
            watch.run(work);
        }
    }

    /// Answers a request as the site does: GET and HEAD with files, everything else with an error.
    pub fn serve<'a>(&'a self, request: &'a Request, now: Instant) -> Served<'a> {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return self.refuse(Refuse::method(METHODS), request, now);
        }
        match self.serve_path(&request.path, request, now) {
            Served::Whole(whole) => Served::Whole(whole),
            Served::Ready(response) if is_of_file(&response) => Served::Ready(response),
            Served::Ready(response) => self.dress(response, request, now),
            Served::Later(response) => Served::Later(Box::pin(async move {
                let response = response.await;
                if is_of_file(&response) { response } else { self.dress(response, request, now).response().await }
            })),
        }
    }

    /// Answers with an error, as the site does.
    pub fn refuse<'a>(&'a self, refuse: Refuse, request: &'a Request, now: Instant) -> Served<'a> {
        self.dress(refused(refuse, request), request, now)
    }

    /// Gives an answer that is no file the fields of the operator, and to an error the page that the site has for it.
    fn dress<'a>(&'a self, mut response: Response, request: &'a Request, now: Instant) -> Served<'a> {
        self.add_fields(&mut response, request);
        if self.error_page_limit == 0 || !is_page_of_error(&response) {
            return Served::Ready(response);
        }
        let now_ms = self.now_ms(now);
        match self.error_page(response.status, now_ms) {
            Ok(Some(page)) => Served::Ready(with_page(response, &page)),
            Err(NoAnswer::Cold) => Served::Later(Box::pin(async move {
                match self.error_page_later(response.status, now_ms).await {
                    Ok(Some(page)) => with_page(response, &page),
                    _ => response,
                }
            })),
            // whatever is wrong with the page, the error is told
            _ => Served::Ready(response),
        }
    }

    /// Adds the fields of the operator. What the answer says itself goes before.
    fn add_fields(&self, response: &mut Response, request: &Request) {
        for field in self.store.rules.fields(request.path.as_bytes()) {
            if response.fields.value(&field.name).is_none() {
                response.fields.push(&field.name, &field.value);
            }
        }
    }

    /// The page that the site has for an error. Does not wait for the disk.
    fn error_page(&self, status: StatusCode, now_ms: u64) -> Result<Option<Variant>, NoAnswer> {
        for path in error_pages(status) {
            if let Some(page) = self.as_page(&*self.store.find(&path, now_ms)?) {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }

    /// The same, on the blocking pool.
    async fn error_page_later(&self, status: StatusCode, now_ms: u64) -> Result<Option<Variant>, NoAnswer> {
        for path in error_pages(status) {
            if let Some(page) = self.as_page(&*self.store.find_later(&path, now_ms).await?) {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }

    /// The file of an entry, if it is one and not too large for an error.
    fn as_page(&self, entry: &Entry) -> Option<Variant> {
        let ready = entry.ready()?;
        let does = ready.plain.content.size() <= self.error_page_limit && !ready.plain.has_changed_in_place(ready);
        does.then(|| ready.plain.clone())
    }

    fn now_ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64
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

    /// What is in the root itself, as far as it is wanted.
    ///
    /// # Errors
    ///
    /// As for `Root::read_folder`.
    pub fn read_folder(&self, most: usize, wanted: impl Fn(&[u8]) -> bool) -> Result<Result<Contents, Found>, NoAnswer> {
        self.store.read_folder(b"", most, wanted)
    }

    /// Answers GET and HEAD for a path that is not the request's own.
    pub fn serve_path<'a>(&'a self, path: &CleanPath, request: &'a Request, now: Instant) -> Served<'a> {
        if self.store.rules.hides(path) {
            return Served::Ready(refused(Refuse::not_found(), request));
        }
        self.serve_known(path, Asking { request, now_ms: self.now_ms(now), anew: ANEW })
    }

    /// The same for a path that is not hidden.
    fn serve_known<'a>(&'a self, path: &CleanPath, asking: Asking<'a>) -> Served<'a> {
        match self.store.find(path, asking.now_ms) {
            Ok(entry) => self.respond(path, entry, asking),
            Err(NoAnswer::Cold) => self.serve_later(path, asking),
            Err(e) => Served::Ready(refused(failure(e), asking.request)),
        }
    }

    /// The same, on the blocking pool.
    fn serve_later<'a>(&'a self, path: &CleanPath, asking: Asking<'a>) -> Served<'a> {
        let path = path.clone();
        Served::Later(Box::pin(async move {
            match self.store.find_later(&path, asking.now_ms).await {
                Ok(entry) => self.respond(&path, entry, asking).response().await,
                Err(e) => refused(failure(e), asking.request),
            }
        }))
    }

    /// Answers anew, because the file has changed and news of that is still on its way.
    fn serve_anew<'a>(&'a self, path: &CleanPath, asking: Asking<'a>) -> Served<'a> {
        self.forget(path.as_bytes());
        self.serve_later(path, Asking { now_ms: self.now_ms(Instant::now()), anew: asking.anew - 1, ..asking })
    }

    /// Answers from an entry.
    fn respond<'a>(&'a self, path: &CleanPath, entry: Arc<Entry>, asking: Asking<'a>) -> Served<'a> {
        let request = asking.request;
        Served::Ready(match &entry.kind {
            // who says nothing gets it as it is
            Kind::File(_) if request.lacks(CHOOSES) => return self.tell(path, entry, Coding::Identity, asking),
            Kind::File(ready) => match &ready.coded {
                Some(_) => return self.negotiate(path, entry, asking),
                None if accepted(request).allows(Coding::Identity) => return self.tell(path, entry, Coding::Identity, asking),
                None => not_acceptable(ready.plain.vary, request),
            },
            Kind::Folder if *path == request.path => moved(&path.to_folder(), request),
            Kind::Moved(to) => moved(to, request),
            Kind::Bare => match &self.listing {
                Some(listing) => return self.list(listing, path, request),
                None => return self.fall_back(path, asking),
            },
            // a folder in the place of the page of an app is no page
            Kind::Folder | Kind::Nothing => return self.fall_back(path, asking),
            Kind::Denied => refused(Refuse::new(StatusCode::FORBIDDEN, "The server may not read what is at this address."), request),
        })
    }

    /// Answers with what is in a folder.
    fn list<'a>(&'a self, listing: &'a Listing, path: &CleanPath, request: &'a Request) -> Served<'a> {
        let path = path.clone();
        Served::Later(Box::pin(async move {
            let mut response = listing.serve(&self.store, &self.blocking, path, request).await;
            self.add_fields(&mut response, request);
            response
        }))
    }

    /// Answers where nothing is: with the page of an app, if there is one and a page is asked for.
    fn fall_back<'a>(&'a self, path: &CleanPath, asking: Asking<'a>) -> Served<'a> {
        match self.store.rules.fallback(path) {
            Some(page) if accept::asks_for_page(asking.request.named(header::ACCEPT.as_str())) => self.serve_known(page, asking),
            // others get the page here
            Some(_) => Served::Ready(with_vary(refused(Refuse::not_found(), asking.request), Some("accept"))),
            None => Served::Ready(refused(Refuse::not_found(), asking.request)),
        }
    }

    /// Picks the coding to answer with: the one that the client likes best of those that there are. One that is missing is made, for
    /// which nobody waits longer than some milliseconds, unless there is nothing else that the client accepts.
    fn negotiate<'a>(&'a self, path: &CleanPath, entry: Arc<Entry>, asking: Asking<'a>) -> Served<'a> {
        let request = asking.request;
        let Some((ready, coded)) = entry.ready().and_then(|ready| Some((ready, ready.coded.as_ref()?))) else {
            return Served::Ready(refused(Refuse::internal(), request));
        };
        let accepted = accepted(request);
        if let Some(coding) = named_by_tag(ready, accepted, request) {
            return self.tell(path, entry, coding, asking);
        }
        if let Some(response) = unmade_but_known(ready, coded, accepted, request) {
            return Served::Ready(response);
        }
        // parts that are put together have to be of the same bytes, so they are of the file as it is
        if request.method == Method::GET && request.field(&header::RANGE).is_some() && accepted.allows(Coding::Identity) {
            return self.tell(path, entry, Coding::Identity, asking);
        }
        let is_made_here = self.store.makes(ready.stamp.len);
        let may_be_made = |coding: Coding| is_made_here && coding != Coding::Identity && !coded.is_refused(coding);
        let is_to_be_had = |coding: Coding| ready.variant(coding).is_some() || may_be_made(coding) && !coded.is_unkept(coding);
        let mut codings = accepted.best(Coding::SMALLEST_FIRST).filter(|coding| is_to_be_had(*coding));
        let Some(best) = codings.next() else {
            return match accepted.best(Coding::SMALLEST_FIRST).find(|coding| may_be_made(*coding)) {
                Some(unkept) => self.make_and_tell(path, entry, unkept, None, asking),
                None => Served::Ready(not_acceptable(ready.plain.vary, request)),
            };
        };
        if let Some(variant) = ready.variant(best) {
            if variant.is_quick {
                self.improve(path, coded, best);
            }
            return self.tell(path, entry, best, asking);
        }
        match codings.find(|coding| ready.variant(*coding).is_some()) {
            Some(instead) if ready.stamp.len > compress::QUICK_BYTES => {
                self.improve(path, coded, best);
                self.tell(path, entry, instead, asking)
            }
            Some(instead) => match coded.ask(best) {
                Some(asked) => self.make_and_tell(path, entry, best, Some(asked), asking),
                None => self.tell(path, entry, instead, asking),
            },
            None => self.make_and_tell(path, entry, best, None, asking),
        }
    }

    /// Has a coding made as well as it gets, once, later.
    fn improve(&self, path: &CleanPath, coded: &Coded, coding: Coding) {
        if let Some(asked) = coded.ask(coding) {
            self.store.make_later(path.as_bytes(), coding, asked);
        }
    }

    /// Makes a quick coding on the blocking pool and answers with it, or with the file as it is if that is no larger.
    fn make_and_tell<'a>(
        &'a self,
        path: &CleanPath,
        entry: Arc<Entry>,
        coding: Coding,
        asked: Option<Asked>,
        asking: Asking<'a>,
    ) -> Served<'a> {
        let (store, path, request) = (Arc::clone(&self.store), path.clone(), asking.request);
        Served::Later(Box::pin(async move {
            let Some(ready) = entry.ready() else { return refused(Refuse::internal(), request) };
            let turn = self.store.turn(ready.stamp.len).await;
            let variant = match self.store.kept(path.as_bytes(), ready.tag, coding).await {
                // another has made it meanwhile
                Some(variant) => Some(variant),
                None => {
                    let (made, of) = (path.clone(), Arc::clone(&entry));
                    let making = self.blocking.run(move || {
                        let _held = (asked, turn);
                        store.make(made.as_bytes(), &of, coding, Effort::Quick)
                    });
                    making.await
                }
            };
            if let Some(coded) = &ready.coded
                && variant.is_some()
                && !coded.is_unkept(coding)
            {
                self.improve(&path, coded, coding);
            }
            let told = match variant {
                // nothing was made of it because it has changed
                None if asking.anew > 0 && ready.plain.has_changed_in_place(ready) => self.serve_anew(&path, asking),
                Some(variant) => self.tell(&path, Arc::new(entry.with(ready.with(coding, variant))), coding, asking),
                None if accepted(request).allows(Coding::Identity) => self.tell(&path, entry, Coding::Identity, asking),
                None => Served::Ready(not_acceptable(ready.plain.vary, request)),
            };
            told.response().await
        }))
    }

    /// Answers with the file in a coding that there is, and with its digest if that is asked for.
    fn tell<'a>(&'a self, path: &CleanPath, entry: Arc<Entry>, coding: Coding, asking: Asking<'a>) -> Served<'a> {
        let request = asking.request;
        let Some((ready, variant)) = entry.ready().and_then(|ready| Some((ready, ready.variant(coding)?))) else {
            return Served::Ready(refused(Refuse::internal(), request));
        };
        if variant.has_changed_in_place(ready) {
            // one that changes all the time is not taken for one that has just been looked at: see `Outgoing::whole`
            return if asking.anew > 0 { self.serve_anew(path, asking) } else { Served::Ready(answer(variant, request)) };
        }
        if request.lacks(NOT_WHOLE) {
            return Served::Whole(Whole::new(entry, coding));
        }
        let is_digest_missing = variant.digest.is_none() && wants_digest(request);
        if !is_digest_missing || conditional::evaluate(request, variant.validators(), unix_now_s()) != Verdict::Proceed {
            return Served::Ready(answer(variant, request));
        }
        self.tell_with_digest(path, entry, coding, asking)
    }

    /// The same, with a digest that is still to be made.
    fn tell_with_digest<'a>(&'a self, path: &CleanPath, entry: Arc<Entry>, coding: Coding, asking: Asking<'a>) -> Served<'a> {
        let (store, path) = (Arc::clone(&self.store), path.clone());
        Served::Later(Box::pin(async move {
            let Some((ready, variant)) = entry.ready().and_then(|ready| Some((ready, ready.variant(coding)?))) else {
                return refused(Refuse::internal(), asking.request);
            };
            let (tag, mut variant) = (ready.tag, variant.clone());
            let turn = self.store.turn(variant.content.size()).await;
            let kept = self.store.kept(path.as_bytes(), tag, coding).await;
            let known = kept.filter(|kept| kept.etag() == variant.etag()).and_then(|kept| kept.digest);
            if known.is_some() {
                // another has asked for it meanwhile
                variant.digest = known;
            } else {
                let (made, of) = (path.clone(), Arc::clone(&entry));
                let making = self.blocking.run(move || {
                    let _turn = turn;
                    let digest = digest::of(&variant.content).ok().flatten();
                    // of a file that changes meanwhile there is none
                    if of.ready().is_some_and(|ready| !variant.has_changed_in_place(ready)) {
                        variant.digest = digest;
                        store.keep(made.as_bytes(), tag, coding, &variant);
                    }
                    variant
                });
                variant = making.await;
            }
            if asking.anew > 0 && variant.has_changed_in_place(ready) {
                return self.serve_anew(&path, asking).response().await;
            }
            answer(&variant, asking.request)
        }))
    }
}

/// What the client accepts.
fn accepted(request: &Request) -> Accepted {
    Accepted::read(request.named(header::ACCEPT_ENCODING.as_str()))
}

/// The coding whose entity tag the request names, if the client accepts it: the answer is about that one.
fn named_by_tag(ready: &Ready, accepted: Accepted, request: &Request) -> Option<Coding> {
    if request.lacks(const { Names::of(&["if-none-match", "if-match", "if-range"]) }) {
        return None;
    }
    let conditions = [header::IF_NONE_MATCH, header::IF_MATCH, header::IF_RANGE].into_iter().filter(|name| request.field(name).is_some());
    let mut named = conditions.flat_map(|name| {
        ready.variants().filter(move |(coding, variant)| accepted.allows(*coding) && names(request, &name, variant.etag()))
    });
    named.next().map(|(coding, _)| coding)
}

/// 304, if the client has a coding of the file in this state that is not there, or not any more: for that it needs not be made.
fn unmade_but_known(ready: &Ready, coded: &Coded, accepted: Accepted, request: &Request) -> Option<Response> {
    request.field(&header::IF_NONE_MATCH)?;
    let is_made_here = |coding: &Coding| ready.variant(*coding).is_none_or(|there| there.sidecar.is_none());
    let codings = [Coding::Br, Coding::Zstd, Coding::Gzip].into_iter().filter(|coding| accepted.allows(*coding)).filter(is_made_here);
    let mut tags = codings.flat_map(|coding| [Effort::Best, Effort::Quick].map(|effort| coded.about.etag(coding, effort)));
    let tag = tags.find(|tag| names(request, &header::IF_NONE_MATCH, tag))?;
    let variant = coded.about.variant(Coding::Identity, tag, Content::Mem(Default::default()));
    let is_known = conditional::evaluate(request, variant.validators(), unix_now_s()) == Verdict::NotModified
        && !ready.plain.has_changed_in_place(ready);
    is_known.then(|| unchanged(&variant))
}

/// Whether a field lists an entity tag.
fn names(request: &Request, field: &header::HeaderName, tag: &str) -> bool {
    request.named(field.as_str()).any(|value| memchr::memmem::find(value, tag.as_bytes()).is_some())
}

/// 406 (RFC 9110 section 15.5.7), which follows from Accept-Encoding also where nothing else does.
fn not_acceptable(vary: Option<&str>, request: &Request) -> Response {
    let vary = if vary == Some("accept") { "accept, accept-encoding" } else { vary.unwrap_or("accept-encoding") };
    let refuse = Refuse::new(StatusCode::NOT_ACCEPTABLE, "There is no form of this file that the request accepts.");
    with_vary(refused(refuse, request), Some(vary))
}

fn with_vary(mut response: Response, vary: Option<&str>) -> Response {
    if let Some(vary) = vary {
        response.fields.push(&header::VARY, vary);
    }
    response
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

/// Whether a part of a file is in memory, as far as some bytes of it tell, so that sending it does not wait for the disk.
pub fn is_in_memory(file: &OwnedFd, offset: u64, len: u64) -> bool {
    let mut places = (offset..offset + len).step_by(READ_AHEAD_BYTES).chain([(offset + len).saturating_sub(1)]);
    places.all(|at| read_some(file, &mut [0], at, How::Cached) != Err(Errno::AGAIN))
}

/// Brings a part of a file into memory; waits for the disk.
pub fn bring_into_memory(file: &OwnedFd, offset: u64, len: u64) {
    const PIECE_BYTES: usize = 64 << 10;
    // read and dropped: from reads that follow each other the kernel learns what to read ahead, which saves more than the copy costs
    let mut buffer = vec![0; PIECE_BYTES.min(len as usize)];
    let (mut at, end) = (offset, offset + len);
    while at < end {
        let most = buffer.len().min((end - at) as usize);
        match read_some(file, &mut buffer[..most], at, How::Any) {
            Ok(read @ 1..) => at += read as u64,
            // whoever sends it will meet the same
            _ => break,
        }
    }
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

/// Answers a request with a representation: preconditions first, then the range (RFC 9110 section 13.2.2).
fn answer(variant: &Variant, request: &Request) -> Response {
    match conditional::evaluate(request, variant.validators(), unix_now_s()) {
        Verdict::Proceed => {}
        Verdict::NotModified => return unchanged(variant),
        Verdict::Failed => {
            let refuse = Refuse::new(StatusCode::PRECONDITION_FAILED, "The file is not the one that the request speaks of.");
            return with_vary(refused(refuse, request), variant.vary);
        }
    }
    let len = variant.content.size();
    let mut whole = whole(variant);
    if let Some(digest) = &variant.digest
        && wants_digest(request)
    {
        whole.fields.push(&REPR_DIGEST, crate::http::digest::value(digest));
    }
    // HEAD ignores Range (RFC 9110 section 14.2)
    if request.method == Method::GET
        && let Some(value) = request.only(&header::RANGE)
        && conditional::range_holds(request, variant.validators(), unix_now_s())
    {
        let part = |span: Span| variant.content.part(span.first, span.len());
        return partial::narrow(whole, range::parse(value, len), len, part, boundary)
            .unwrap_or_else(|refuse| with_vary(refused(refuse, request), variant.vary));
    }
    whole
}

/// 200, with all of a representation.
fn whole(variant: &Variant) -> Response {
    let mut response = Response { fields: Fields::shared(variant.fields.clone()), ..Response::new(StatusCode::OK) };
    response.body = variant.content.part(0, variant.content.size()).into();
    response
}

/// 304 (RFC 9110 section 15.4.5).
fn unchanged(variant: &Variant) -> Response {
    Response { fields: Fields::shared(variant.unchanged.clone()), ..Response::new(StatusCode::NOT_MODIFIED) }
}

/// Whether the client asks for a digest of what it gets.
fn wants_digest(request: &Request) -> bool {
    !request.lacks(const { Names::of(&[WANT_REPR_DIGEST]) }) && crate::http::digest::is_wanted(request.named(WANT_REPR_DIGEST))
}

fn unix_now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A boundary that nobody can foresee.
fn boundary() -> Boundary {
    let random = RandomState::new();
    Boundary(u128::from(random.hash_one(0)) << 64 | u128::from(random.hash_one(1)))
}

/// Whether an answer is made of a file or of what a folder holds: then its fields are complete.
fn is_of_file(response: &Response) -> bool {
    matches!(response.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Whether an answer is an error for people: those who prefer JSON get no page.
fn is_page_of_error(response: &Response) -> bool {
    let is_error = response.status.is_client_error() || response.status.is_server_error();
    is_error && response.fields.value(&header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with(b"text/html"))
}

/// Where the page for an error may be: that of its status, and one for all errors of the server.
fn error_pages(status: StatusCode) -> impl Iterator<Item = CleanPath> {
    let of_server = status.is_server_error().then_some("50x.html");
    [Some(format!("{}.html", status.as_str())), of_server.map(Into::into)]
        .into_iter()
        .flatten()
        .map(|name| CleanPath::default().with(&name))
}

/// An error with the site's own page. Status and fields stay, so that it is neither stored nor taken for the page itself.
fn with_page(mut response: Response, page: &Variant) -> Response {
    let fields = Fields::shared(page.fields.clone());
    if let Some(kind) = fields.value(&header::CONTENT_TYPE) {
        response.fields.replace(&header::CONTENT_TYPE, kind);
    }
    response.body = page.content.part(0, page.content.size()).into();
    response
}

/// 301 to another address of the same thing, with the query kept.
fn moved(to: &CleanPath, request: &Request) -> Response {
    let mut location = to.to_location();
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
