//! Uploads: what is posted becomes a file, whole or not at all.
//!
//! A file is written without a name (O_TMPFILE), or under a hidden, locked one where the file system has no such thing. Then it is
//! brought to the disk, linked under its name, never over another file, and the folder is brought to the disk: only then is the
//! request answered with 201. What fails before leaves nothing behind; what a killed process left goes at the next start.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use argon2::{Argon2, PasswordVerifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::blocking::Blocking;
use super::page::{escaped, query_values, size};
use super::root::{Found, How};
use super::{Files, Policy, Served, listing, page};
use crate::config::plan::{Plan, Uploads as Rules};
use crate::http::body::Inbound;
use crate::http::fields::Fields;
use crate::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use crate::http::path::{CleanPath, encoded, encoded_value};
use crate::http::refuse::Refuse;
use crate::http::{Framing, Method, Request, Response, StatusCode, accept, disposition, origin};
use crate::observe;

/// The first segment of the address of uploads.
pub const SEGMENT: &[u8] = b"uploads";
/// The methods of that address.
const METHODS: &str = "GET, HEAD, POST";
/// Parts of a form: more than anybody chooses by hand.
const PARTS: usize = 1000;
/// Bytes of a boundary (RFC 2046 section 5.1.1).
const BOUNDARY_BYTES: usize = 70;
/// Characters of the name of a text field that are told in the answer.
const FIELD_NAME_CHARS: usize = 64;
/// Bytes of the head of a part: a long name fits many times.
const PART_HEAD_BYTES: u64 = 16 << 10;
/// Bytes that are gathered before they are written; two such buffers are all that an upload holds, beside what is being read.
const BUFFER_BYTES: usize = 96 << 10;
/// Pages that tell of the folder and are made at the same time.
pub const TELLING: usize = 2;
/// Passwords that are verified at the same time: each takes a processor and, by its hash, tens of megabytes.
pub const VERIFYING: usize = 2;
/// What an upload holds: its two buffers, and the head of a part with what was read along with it.
pub const UPLOAD_BYTES: u64 = 2 * BUFFER_BYTES as u64 + PART_HEAD_BYTES + READ_ALONG;
/// Bytes of a form that its parser may have read along with the head of a part.
const READ_ALONG: u64 = 32 << 10;
/// Names that are tried before an upload is given up.
const NAMES: u32 = 10_000;
/// Hidden names that are tried: more than one only if another process starts at the very moment.
const HIDDEN_NAMES: u32 = 100;
/// What it is called that the folder for uploads is not there any more.
const FOLDER_REMOVED: Errno = Errno::STALE;
/// Permissions of what is stored.
const MODE: Mode = Mode::from_raw_mode(0o644);
/// What a temporary name begins and ends with, where the file system has no files without a name.
const TEMPORARY: (&str, &str) = (".upload-", ".part");
/// What the name of a journal ends with: it stands beside the files of one form while they get their names.
const JOURNAL: &str = ".commit";
/// The longest journal: a line of at most 100 bytes for each part.
const JOURNAL_BYTES: u64 = 100 * PARTS as u64;

const PAGE: &str = include_str!("uploads.html");

/// Where uploads go, and under which rules.
#[derive(Debug)]
pub struct Uploads {
    folder: Arc<Folder>,
    files: Files,
    blocking: Arc<Blocking>,
    rules: Rules,
    limit_bytes: u64,
    page_policy: String,
    /// Leave to verify a password.
    verifying: Arc<Semaphore>,
    /// Files that may be open for uploads.
    open: Arc<Semaphore>,
    /// How the page tells what is in the folder, if it does.
    telling: Option<Telling>,
    /// Chooses the account whose work stands in for that of a name that is not known: always the same one for a name, and nobody
    /// outside can tell which.
    stand_in: RandomState,
}

/// The folder of uploads, open.
#[derive(Debug)]
struct Folder {
    dir: OwnedFd,
    quota_bytes: u64,
    /// What the folder holds, as far as is known.
    held_bytes: AtomicU64,
    /// What is being written to it.
    reserved_bytes: AtomicU64,
    /// Held while files are counted, and while one goes over from being written to being held.
    counting: Mutex<()>,
}

/// How much is told of the folder: entries that are read, and files that are shown of them.
#[derive(Clone, Debug)]
struct Telling {
    read: usize,
    shown: usize,
    making: Arc<Semaphore>,
}

/// A file that is stored.
#[derive(Debug)]
struct Stored {
    name: String,
    bytes: u64,
    sha256: String,
}

impl Uploads {
    /// Opens the folder, which has to be there, and removes what a killed process left in it.
    ///
    /// # Errors
    ///
    /// It can not be opened.
    pub fn open(rules: &Rules, plan: &Plan, blocking: &Arc<Blocking>, started: std::time::Instant) -> io::Result<Uploads> {
        let path = rules.folder.canonicalize()?;
        let dir = rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let folder = Folder {
            dir,
            quota_bytes: plan.limits.upload_quota.unwrap_or(u64::MAX),
            held_bytes: AtomicU64::new(0),
            reserved_bytes: AtomicU64::new(0),
            counting: Mutex::new(()),
        };
        folder.clean();
        folder.recount();
        Ok(Uploads {
            folder: Arc::new(folder),
            files: Files::open(&path, plan, Policy::Uploads, Vec::new(), Arc::clone(blocking), started)?,
            blocking: Arc::clone(blocking),
            rules: rules.clone(),
            limit_bytes: plan.limits.upload_limit,
            page_policy: page::policy(PAGE, "connect-src 'self'; img-src 'self' data:"),
            verifying: Arc::new(Semaphore::new(VERIFYING)),
            open: Arc::new(Semaphore::new(plan.open_uploads)),
            telling: (plan.listing && !rules.write_only).then(|| Telling {
                read: plan.limits.listing_limit,
                shown: plan.limits.listing_page,
                making: Arc::new(Semaphore::new(TELLING)),
            }),
            stand_in: RandomState::new(),
        })
    }

    /// Answers a request for `path` below the address of uploads.
    pub fn serve<'a>(&'a self, request: &'a Request, path: CleanPath, inbound: Inbound, now: std::time::Instant) -> Served<'a> {
        let is_top = path.as_bytes().is_empty();
        match request.method {
            Method::POST if is_top => match self.admit(request) {
                Ok(()) => Served::Later(Box::pin(async move {
                    match self.store(request, inbound).await {
                        Ok((stored, ignored)) => self.created(request, &stored, &ignored),
                        Err(refuse) => refuse.into_response(request),
                    }
                })),
                Err(refuse) => Served::Ready(refuse.into_response(request)),
            },
            Method::GET | Method::HEAD if is_top && !request.path.is_folder() => {
                Served::Ready(super::moved(&request.path.to_folder(), request))
            }
            Method::GET | Method::HEAD if is_top => self.page(request),
            // there are no folders in it
            Method::GET | Method::HEAD if self.rules.write_only || path.segments().count() > 1 || path.is_folder() => {
                Served::Ready(Refuse::not_found().into_response(request))
            }
            Method::GET | Method::HEAD => self.files.serve_path(&path, request, now),
            _ => Served::Ready(Refuse::method(if is_top { METHODS } else { super::METHODS }).into_response(request)),
        }
    }

    /// Refuses what need not be read to be refused.
    fn admit(&self, request: &Request) -> Result<(), Refuse> {
        if self.rules.by_default {
            origin::direct(request)?;
        }
        if self.rules.local {
            origin::local_name(request, &self.rules.hosts)?;
        }
        origin::same_site(request)?;
        match request.framing {
            Framing::Length(bytes) if bytes > self.limit_bytes => Err(too_large()),
            _ => Ok(()),
        }
    }

    /// Stores what a request carries: all of it or nothing.
    async fn store(&self, request: &Request, inbound: Inbound) -> Result<(Vec<Stored>, Vec<String>), Refuse> {
        self.authorize(request).await?;
        let body = Limited { inbound, left: self.limit_bytes };
        let content_type = request.field(&CONTENT_TYPE).unwrap_or_default();
        let essence = content_type.split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
        let is_form = essence.eq_ignore_ascii_case(b"multipart/form-data");
        let bytes = if let Framing::Length(bytes) = request.framing { bytes } else { 0 };
        let folder = Arc::clone(&self.folder);
        // how much of a form is files is not known yet
        let quota_bytes = if is_form { 0 } else { bytes };
        self.blocking.run(move || folder.has_room_for(bytes, quota_bytes)).await?;
        let (drafts, ignored) = if is_form {
            let boundary = disposition::parameter(content_type, "boundary").filter(|b| (1..=BOUNDARY_BYTES).contains(&b.len()));
            self.store_form(body, boundary.ok_or(Refuse::bad("The form has no boundary."))?).await?
        } else {
            (vec![self.store_body(request, body).await?], Vec::new())
        };
        let folder = Arc::clone(&self.folder);
        let stored = self.blocking.run(move || folder.publish(drafts)).await?;
        for file in &stored {
            self.files.forget(file.name.as_bytes());
        }
        Ok((stored, ignored))
    }

    /// One file: the whole body.
    async fn store_body(&self, request: &Request, mut body: Limited) -> Result<Draft, Refuse> {
        let given = request.field(&CONTENT_DISPOSITION).and_then(disposition::file_name).or_else(|| query_values(request, b"name").next());
        let kind = String::from_utf8_lossy(request.field(&CONTENT_TYPE).unwrap_or_default()).into_owned();
        let mut draft = self.begin(given, &kind).await?;
        while let Some(piece) = body.next().await? {
            draft.write(&piece).await?;
        }
        draft.finish().await?;
        Ok(draft)
    }

    /// A form: each of its parts with a file name is a file.
    async fn store_form(&self, body: Limited, boundary: String) -> Result<(Vec<Draft>, Vec<String>), Refuse> {
        let (inbound, limit_bytes) = (body.inbound.clone(), body.left);
        let fed = Arc::new(Feed { bytes: AtomicU64::new(0), most: AtomicU64::new(0) });
        let stream = futures_util::stream::unfold((body, Arc::clone(&fed)), |(mut body, fed)| async move {
            let piece = match body.next().await {
                Ok(piece) => Ok(piece?),
                Err(refuse) => Err(refuse),
            };
            let piece = piece.and_then(|bytes| fed.count(bytes));
            Some((piece.map_err(Broken), (body, fed)))
        });
        let mut form = multer::Multipart::new(Box::pin(stream), boundary);
        let (mut drafts, mut ignored, mut parts) = (Vec::new(), Vec::new(), 0);
        loop {
            fed.expect_head();
            let Some(mut part) = form.next_field().await.map_err(malformed)? else { break };
            fed.expect_data();
            parts += 1;
            if parts > PARTS {
                return Err(Refuse::new(StatusCode::PAYLOAD_TOO_LARGE, "The form has too many parts.").closing());
            }
            // name, colon, blank, value, line end
            let head: u64 = part.headers().iter().map(|(name, value)| (name.as_str().len() + value.len() + 4) as u64).sum();
            if head > PART_HEAD_BYTES {
                return Err(head_too_large());
            }
            let disposition = part.headers().get(CONTENT_DISPOSITION).map(|v| v.as_bytes().to_vec()).unwrap_or_default();
            let kind = part.content_type().map(ToString::to_string).unwrap_or_default();
            let Some(given) = disposition::file_name(&disposition) else {
                while part.chunk().await.map_err(malformed)?.is_some() {}
                let name = disposition::parameter(&disposition, "name").unwrap_or_default();
                ignored.push(name.chars().take(FIELD_NAME_CHARS).collect());
                continue;
            };
            let was_named = !given.is_empty();
            let mut draft = None;
            while let Some(piece) = part.chunk().await.map_err(malformed)? {
                if piece.is_empty() {
                    continue;
                }
                let draft = match &mut draft {
                    Some(draft) => draft,
                    none => none.insert(self.begin(Some(given.clone()), &kind).await?),
                };
                draft.write(&piece).await?;
            }
            // a form sends a part without name and content where no file was chosen
            if draft.is_none() && was_named {
                draft = Some(self.begin(Some(given), &kind).await?);
            }
            if let Some(mut draft) = draft {
                draft.finish().await?;
                drafts.push(draft);
            }
        }
        // what follows the form is not looked at, but it has to come: the request may still be cut off
        let mut rest = Limited { inbound, left: limit_bytes.saturating_sub(fed.bytes.load(Ordering::Relaxed)) };
        while rest.next().await?.is_some() {}
        if drafts.is_empty() {
            return Err(Refuse::new(StatusCode::BAD_REQUEST, "The form has no file in it."));
        }
        Ok((drafts, ignored))
    }

    /// Opens a file to write to, with the name that it is to have.
    async fn begin(&self, given: Option<String>, kind: &str) -> Result<Draft, Refuse> {
        let name = given.and_then(|name| disposition::plain_segment(&name)).unwrap_or_else(|| made_up_name(kind));
        let Ok(leave) = Arc::clone(&self.open).try_acquire_owned() else {
            return Err(Refuse::busy("Too many uploads are under way.").closing());
        };
        let folder = Arc::clone(&self.folder);
        let open = self.blocking.run(move || Open::new(&folder)).await.map_err(write_failed)?;
        Ok(Draft {
            _leave: leave,
            name,
            blocking: Arc::clone(&self.blocking),
            open: Some(open),
            running: None,
            buffer: Vec::new(),
            reserved: Reserved { folder: Arc::clone(&self.folder), bytes: 0 },
            sha256: String::new(),
        })
    }

    /// Asks for a name and a password, if there are accounts. How long it takes does not tell whether the name is known.
    async fn authorize(&self, request: &Request) -> Result<(), Refuse> {
        let accounts = &self.rules.accounts;
        if accounts.is_empty() {
            return Ok(());
        }
        let field = Some((WWW_AUTHENTICATE, "Basic realm=\"uploads\", charset=\"UTF-8\"".into()));
        let refuse = Refuse { field, ..Refuse::new(StatusCode::UNAUTHORIZED, "Uploads need a name and a password here.") };
        let Some((user, password)) = request.field(&AUTHORIZATION).and_then(credentials) else { return Err(refuse) };
        let stand_in = self.stand_in.hash_one(&user) as usize % accounts.len();
        let known = accounts.iter().find(|account| account.user == user);
        let (account, is_known) = (known.unwrap_or(&accounts[stand_in]).clone(), known.is_some());
        // the semaphore is never closed; the leave goes along, so that a client that is gone frees it no earlier than the work ends
        let leave = Arc::clone(&self.verifying).acquire_owned().await;
        let verifying = self.blocking.run(move || {
            let _leave = leave;
            verify(&account.hash, &password)
        });
        let is_right = verifying.await;
        if is_right && is_known { Ok(()) } else { Err(refuse) }
    }

    /// 201 for programs, 303 to the page for people.
    fn created(&self, request: &Request, stored: &[Stored], ignored: &[String]) -> Response {
        let fields = Fields::default().with(&CACHE_CONTROL, "no-store").with(&X_CONTENT_TYPE_OPTIONS, "nosniff");
        if accept::asks_for_page(request.named("accept")) {
            let mut location = String::from("/uploads/?");
            if self.rules.write_only {
                // writing to memory does not fail
                let _ = write!(location, "stored={}", stored.len());
            } else {
                for (i, file) in stored.iter().enumerate() {
                    location.push_str(if i == 0 { "stored=" } else { "&stored=" });
                    location.push_str(&encoded_value(&file.name));
                }
            }
            return Response { fields: fields.with(&LOCATION, location), ..Response::new(StatusCode::SEE_OTHER) };
        }
        let files: Vec<_> = stored
            .iter()
            .map(|file| match self.rules.write_only {
                // the name it got would tell what is there already
                true => serde_json::json!({ "bytes": file.bytes, "sha256": file.sha256 }),
                false => serde_json::json!({ "path": address(&file.name), "name": file.name, "bytes": file.bytes, "sha256": file.sha256 }),
            })
            .collect();
        let text = format!("{}\n", serde_json::json!({ "files": files, "ignored": ignored }));
        let first = stored.first().filter(|_| !self.rules.write_only).map_or_else(|| "/uploads/".to_owned(), |file| address(&file.name));
        let fields = fields.with(&LOCATION, first).with(&CONTENT_TYPE, "application/json");
        Response { fields, body: text.into(), ..Response::new(StatusCode::CREATED) }
    }

    /// The page with the form, and with what was just stored.
    fn page<'a>(&'a self, request: &'a Request) -> Served<'a> {
        let names: Vec<String> = query_values(request, b"stored").take(PARTS).collect();
        if names.is_empty() && self.telling.is_none() {
            return Served::Ready(self.render("", ""));
        }
        if self.rules.write_only {
            let results = match names[0].parse::<u32>() {
                Ok(1) => "<li>One file was stored.</li>".to_owned(),
                Ok(n) => format!("<li>{n} files were stored.</li>"),
                Err(_) => String::new(),
            };
            return Served::Ready(self.render(&results, ""));
        }
        Served::Later(Box::pin(async move {
            let (files, telling) = (self.files.clone(), self.telling.clone());
            // the semaphore is never closed; the leave goes along, so that a client that is gone frees it no earlier than the work ends
            let leave = match &telling {
                Some(telling) => Arc::clone(&telling.making).acquire_owned().await.ok(),
                None => None,
            };
            let results = self.blocking.run(move || {
                let _leave = leave;
                let mut results = String::new();
                for name in names.iter().filter(|name| disposition::plain_segment(name).as_ref() == Some(name)) {
                    // what is not there any more, or never was, is not told
                    if let Ok(Found::File(stamp)) = files.look(name.as_bytes(), How::Any) {
                        // writing to memory does not fail
                        let _ = write!(
                            results,
                            "<li><a href=\"{}\">{}</a> <span>{}</span></li>",
                            escaped(&address(name)),
                            escaped(name),
                            size(stamp.len)
                        );
                    }
                }
                (results, telling.map_or_else(String::new, |telling| telling.tell(&files)))
            });
            let (results, here) = results.await;
            self.render(&results, &here)
        }))
    }

    fn render(&self, results: &str, here: &str) -> Response {
        let text = page::fill(PAGE, |key| match key {
            "write_only" => self.rules.write_only.to_string(),
            "results" => results.to_owned(),
            "here" => here.to_owned(),
            _ => String::new(),
        });
        let fields = Fields::default()
            .with(&CONTENT_TYPE, "text/html; charset=utf-8")
            .with(&CACHE_CONTROL, "no-store")
            .with(&X_CONTENT_TYPE_OPTIONS, "nosniff")
            .with(&CONTENT_SECURITY_POLICY, &self.page_policy);
        Response { fields, body: text.into(), ..Response::new(StatusCode::OK) }
    }
}

fn address(name: &str) -> String {
    format!("/uploads/{}", encoded(name.as_bytes()))
}

/// `upload-20261122-170000-1a2b3c4d.png`
fn made_up_name(kind: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let date = crate::http::date::format(now);
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|m| *m == &date[8..11]).map_or(0, |m| m + 1);
    let time = date[17..25].replace(':', "");
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let extension = match essence {
        "text/plain" => "txt",
        "image/jpeg" => "jpg",
        "text/html" => "html",
        "" | "application/octet-stream" | "application/x-www-form-urlencoded" => "bin",
        other => mime_guess::get_mime_extensions_str(other).and_then(|all| all.first()).copied().unwrap_or("bin"),
    };
    format!("upload-{}{month:02}{}-{time}-{}.{extension}", &date[12..16], &date[5..7], random_hex())
}

fn random_hex() -> String {
    let mut bytes = [0; 4];
    // a name that is taken is numbered
    let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Name and password of Basic (RFC 7617).
fn credentials(value: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = value.split_at(memchr::memchr(b' ', value)?);
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let decoded = BASE64.decode(encoded.trim_ascii()).ok()?;
    let (user, password) = decoded.split_at(memchr::memchr(b':', &decoded)?);
    Some((String::from_utf8(user.to_vec()).ok()?, password[1..].to_vec()))
}

/// The memory that verifying a password takes, by its hash: for argon2 as many KiB as it says (`m=19456`).
pub fn verify_bytes(hash: &str) -> u64 {
    const BCRYPT_BYTES: u64 = 8 << 10;
    let kibibytes = hash.split(['$', ',']).find_map(|part| part.strip_prefix("m=")?.parse::<u64>().ok());
    kibibytes.map_or(BCRYPT_BYTES, |n| n << 10)
}

fn verify(hash: &str, password: &[u8]) -> bool {
    if hash.starts_with("$argon2") {
        return argon2::PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok());
    }
    bcrypt::verify(password, hash).unwrap_or(false)
}

fn too_large() -> Refuse {
    Refuse::new(StatusCode::PAYLOAD_TOO_LARGE, "This is more than an upload may be here.").closing()
}

fn head_too_large() -> Refuse {
    Refuse::new(StatusCode::PAYLOAD_TOO_LARGE, "A part of the form has too large a head.").closing()
}

fn no_room() -> Refuse {
    Refuse::new(StatusCode::INSUFFICIENT_STORAGE, "There is no room left for this upload.").closing()
}

/// What a client is told when its file can not be written.
fn write_failed(e: Errno) -> Refuse {
    match e {
        Errno::NOSPC | Errno::DQUOT => no_room(),
        Errno::FBIG => too_large(),
        Errno::EXIST => Refuse::new(StatusCode::CONFLICT, "There are too many files of this name already.").closing(),
        Errno::MFILE | Errno::NFILE => Refuse::busy("The server is short of resources right now.").closing(),
        e => {
            let why =
                if e == FOLDER_REMOVED { "its folder has been removed; make it again and restart Millpond".into() } else { e.to_string() };
            observe::say(&format!("an upload can not be stored: {why}"));
            Refuse::internal().closing()
        }
    }
}

/// A body with a bound.
struct Limited {
    inbound: Inbound,
    left: u64,
}

impl Limited {
    async fn next(&mut self) -> Result<Option<Bytes>, Refuse> {
        let piece = self.inbound.next().await?;
        if let Some(bytes) = &piece {
            self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(too_large)?;
        }
        Ok(piece)
    }
}

/// How much of a form was given to its parser, so that a head without end is not gathered without end.
struct Feed {
    bytes: AtomicU64,
    most: AtomicU64,
}

impl Feed {
    /// A head comes: it has to end within its bound, and what was read along with it.
    fn expect_head(&self) {
        self.most.store(self.bytes.load(Ordering::Relaxed) + PART_HEAD_BYTES + READ_ALONG, Ordering::Relaxed);
    }

    fn expect_data(&self) {
        self.most.store(u64::MAX, Ordering::Relaxed);
    }

    fn count(&self, bytes: Bytes) -> Result<Bytes, Refuse> {
        let fed = self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64;
        if fed > self.most.load(Ordering::Relaxed) { Err(head_too_large()) } else { Ok(bytes) }
    }
}

/// A refusal on its way through the parser of forms.
#[derive(Debug)]
struct Broken(Refuse);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl StdError for Broken {}

fn malformed(e: multer::Error) -> Refuse {
    if let multer::Error::StreamReadFailed(e) = e
        && let Ok(broken) = e.downcast::<Broken>()
    {
        return broken.0;
    }
    Refuse::bad("The form is malformed, or it ended too early.")
}

impl Telling {
    /// The files that can be had, the latest first; waits for the disk.
    fn tell(&self, files: &Files) -> String {
        // no address can have a backslash in it
        let wanted = |name: &[u8]| !name.starts_with(b".") && !name.contains(&b'\\');
        let Ok(Ok(contents)) = files.read_folder(self.read, wanted) else { return String::new() };
        let mut there: Vec<_> = contents.items.into_iter().filter_map(|item| Some((item.modified_s, item.name, item.len?))).collect();
        there.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let mut html = String::new();
        for (modified_s, name, bytes) in there.iter().take(self.shown) {
            let time = listing::timestamp(*modified_s);
            // writing to memory does not fail
            let _ = write!(
                html,
                "<li><a href=\"./{}\"><bdi>{}</bdi></a> <span>{}, <time datetime=\"{time}\">{} {} UTC</time></span></li>",
                escaped(&encoded(name)),
                escaped(&page::shown(name)),
                size(*bytes),
                &time[..10],
                &time[11..16],
            );
        }
        let more = there.len().saturating_sub(self.shown);
        if more > 0 {
            let _ = write!(html, "<li>{} not shown.</li>", listing::count(more, "file is", "files are"));
        }
        if !contents.is_whole {
            html += "<li>There is more in this folder than is read of one.</li>";
        }
        html
    }
}

/// Whether a file has a hidden name of ours with this ending.
fn is_temporary(name: &[u8], ending: &str) -> bool {
    name.starts_with(TEMPORARY.0.as_bytes()) && name.ends_with(ending.as_bytes())
}

/// Room in the folder that an upload has taken up; given back unless the upload is kept.
struct Reserved {
    folder: Arc<Folder>,
    bytes: u64,
}

impl Reserved {
    /// Takes up more if there is room; says whether there was.
    fn more(&mut self, bytes: u64) -> bool {
        let free = self.folder.quota_bytes.saturating_sub(self.folder.held_bytes.load(Ordering::Relaxed));
        let add = |reserved: u64| reserved.checked_add(bytes).filter(|sum| *sum <= free);
        let is_taken = self.folder.reserved_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok();
        if is_taken {
            self.bytes += bytes;
        }
        is_taken
    }

    /// The upload is kept: the file itself takes up the room now.
    fn keep(self) {
        self.folder.held_bytes.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.folder.reserved_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A file that is being written.
struct Open {
    folder: Arc<Folder>,
    file: OwnedFd,
    /// Its name for as long as it is not published, if it needs one.
    temporary: Option<String>,
    hash: Sha256,
}

impl Open {
    fn new(folder: &Arc<Folder>) -> Result<Open, Errno> {
        let made = |file, temporary| Open { folder: Arc::clone(folder), file, temporary, hash: Sha256::new() };
        if rustix::fs::fstat(&folder.dir)?.st_nlink == 0 {
            return Err(FOLDER_REMOVED);
        }
        match rustix::fs::openat(&folder.dir, ".", OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, MODE) {
            Ok(file) => return Ok(made(file, None)),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
            Err(e) => return Err(e),
        }
        let (name, file) = folder.make_hidden(TEMPORARY.1)?;
        Ok(made(file, Some(name)))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.hash.update(bytes);
        write_all(&self.file, bytes)
    }

    /// Gives the file a name that is not taken; returns it.
    fn link(&mut self, wanted: &str) -> Result<String, Errno> {
        let dir = &self.folder.dir;
        for number in 0..NAMES {
            let name = disposition::numbered(wanted, number);
            let linked = match &self.temporary {
                None => rustix::fs::linkat(CWD, format!("/proc/self/fd/{}", self.file.as_raw_fd()), dir, &name, AtFlags::SYMLINK_FOLLOW),
                Some(temporary) => match rustix::fs::linkat(dir, temporary, dir, &name, AtFlags::empty()) {
                    // no hard links here
                    Err(Errno::PERM | Errno::OPNOTSUPP) => rustix::fs::renameat_with(dir, temporary, dir, &name, RenameFlags::NOREPLACE),
                    other => other,
                },
            };
            match linked {
                Ok(()) => return Ok(name),
                Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
        }
        Err(Errno::EXIST)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // published by a rename, it is gone already
            let _ = rustix::fs::unlinkat(&self.folder.dir, temporary, AtFlags::empty());
        }
    }
}

type Written = Pin<Box<dyn Future<Output = (Open, Result<(), Errno>, Vec<u8>)> + Send>>;

/// A file on its way: bytes are gathered here while those before them are written on the blocking pool.
struct Draft {
    /// One of the files that may be open for uploads.
    _leave: OwnedSemaphorePermit,
    name: String,
    blocking: Arc<Blocking>,
    /// Here while nothing is being written.
    open: Option<Open>,
    running: Option<Written>,
    buffer: Vec<u8>,
    reserved: Reserved,
    sha256: String,
}

impl Draft {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Refuse> {
        if !self.reserved.more(bytes.len() as u64) {
            let folder = Arc::clone(&self.reserved.folder);
            self.blocking.run(move || folder.recount()).await;
            if !self.reserved.more(bytes.len() as u64) {
                return Err(no_room());
            }
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.buffer.capacity() == 0 {
                self.buffer.reserve_exact(BUFFER_BYTES);
            }
            let fitting = rest.len().min(BUFFER_BYTES - self.buffer.len());
            self.buffer.extend_from_slice(&rest[..fitting]);
            rest = &rest[fitting..];
            if self.buffer.len() == BUFFER_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Has the buffer written, after the one before it.
    async fn flush(&mut self) -> Result<(), Refuse> {
        let other = self.settle().await?;
        let Some(mut open) = self.open.take() else { return Err(Refuse::internal().closing()) };
        let full = std::mem::replace(&mut self.buffer, other);
        self.running = Some(Box::pin(self.blocking.run(move || {
            let result = open.write(&full);
            let mut empty = full;
            empty.clear();
            (open, result, empty)
        })));
        Ok(())
    }

    /// Waits until nothing is being written; returns the buffer that was.
    async fn settle(&mut self) -> Result<Vec<u8>, Refuse> {
        let Some(running) = self.running.take() else { return Ok(Vec::new()) };
        let (open, result, buffer) = running.await;
        self.open = Some(open);
        result.map_err(write_failed)?;
        Ok(buffer)
    }

    /// Writes what is left.
    async fn finish(&mut self) -> Result<(), Refuse> {
        self.flush().await?;
        self.settle().await?;
        self.buffer = Vec::new();
        if let Some(open) = &mut self.open {
            self.sha256 = open.hash.finalize_reset().iter().map(|b| format!("{b:02x}")).collect();
        }
        Ok(())
    }
}

impl Folder {
    /// Whether so many bytes more fit onto the disk, and so many into the quota.
    fn has_room_for(&self, bytes: u64, quota_bytes: u64) -> Result<(), Refuse> {
        let free = rustix::fs::fstatvfs(&self.dir).map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        self.recount();
        let fits = self.used().saturating_add(quota_bytes) <= self.quota_bytes;
        if free >= bytes && fits { Ok(()) } else { Err(no_room()) }
    }

    /// Counts what the folder holds, if that matters: others may have put files there, or removed some.
    fn recount(&self) {
        if self.quota_bytes != u64::MAX {
            let _counting = self.count();
            self.held_bytes.store(self.held(), Ordering::Relaxed);
        }
    }

    fn used(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed).saturating_add(self.reserved_bytes.load(Ordering::Relaxed))
    }

    /// Bytes of the files in the folder; those that are being written are counted elsewhere.
    fn held(&self) -> u64 {
        self.entries()
            .iter()
            .filter(|name| !is_temporary(name, TEMPORARY.1))
            .filter_map(|name| rustix::fs::statat(&self.dir, &name[..], AtFlags::SYMLINK_NOFOLLOW).ok())
            .filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
            .map(|stat| u64::try_from(stat.st_size).unwrap_or(0))
            .sum()
    }

    /// The names in the folder.
    fn entries(&self) -> Vec<Vec<u8>> {
        let Ok(entries) = Dir::read_from(&self.dir) else { return Vec::new() };
        let names = entries.filter_map(Result::ok).map(|entry| entry.file_name().to_bytes().to_vec());
        names.filter(|name| !matches!(&name[..], b"." | b"..")).collect()
    }

    /// Makes a file with a hidden name and locks it. The lock is held for as long as the file is open: it tells another process,
    /// which cleans the folder at its start, that somebody is at it.
    fn make_hidden(&self, ending: &str) -> Result<(String, OwnedFd), Errno> {
        for _ in 0..HIDDEN_NAMES {
            let name = format!("{}{}{}{ending}", TEMPORARY.0, random_hex(), random_hex());
            let file = rustix::fs::openat(&self.dir, &name, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC, MODE)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // the other process may have been quicker: it removes this one, and the next is out of its sight
                Err(Errno::WOULDBLOCK) => {}
                Ok(()) if rustix::fs::fstat(&file)?.st_nlink == 0 => {}
                other => return other.map(|()| (name, file)),
            }
        }
        Err(Errno::BUSY)
    }

    /// Removes what a killed process left: temporary files, and files that a journal names. What somebody holds a lock on is in use.
    fn clean(&self) {
        for name in self.entries() {
            let is_journal = is_temporary(&name, JOURNAL);
            if !is_journal && !is_temporary(&name, TEMPORARY.1) {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let Ok(file) = rustix::fs::openat(&self.dir, &name[..], flags, Mode::empty()) else { continue };
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            if is_journal
                && let Ok(stamp) = super::root::stamp_of(&file)
                && let Ok(text) = super::read_whole(&file, stamp.len.min(JOURNAL_BYTES), How::Any)
            {
                self.undo(&text);
            }
            // if it can not be removed it only takes up room
            let _ = rustix::fs::unlinkat(&self.dir, &name[..], AtFlags::empty());
        }
    }

    /// Brings all files to the disk, gives them their names, and brings those to the disk too: all or none.
    fn publish(&self, drafts: Vec<Draft>) -> Result<Vec<Stored>, Refuse> {
        let mut stored: Vec<Stored> = Vec::new();
        // goes after what it names
        let mut journal = None;
        let result = self.publish_all(drafts, &mut journal, &mut stored);
        if let Err(e) = result {
            for file in &stored {
                let _counting = self.count();
                // nothing more can be done about one that stays
                let _ = rustix::fs::unlinkat(&self.dir, file.name.as_str(), AtFlags::empty());
                // never refused: the closure always has a value
                let _ = self.held_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| Some(held.saturating_sub(file.bytes)));
            }
            return Err(write_failed(e));
        }
        Ok(stored)
    }

    fn publish_all<'a>(&'a self, drafts: Vec<Draft>, journal: &mut Option<Journal<'a>>, stored: &mut Vec<Stored>) -> Result<(), Errno> {
        for open in drafts.iter().filter_map(|draft| draft.open.as_ref()) {
            rustix::fs::fsync(&open.file)?;
        }
        // one file is there or not; of several a kill could leave some
        if drafts.len() > 1 {
            *journal = Some(self.begin_journal(&drafts)?);
        }
        for draft in drafts {
            let Some(mut open) = draft.open else { return Err(Errno::IO) };
            let _counting = self.count();
            let name = open.link(&draft.name)?;
            stored.push(Stored { name, bytes: draft.reserved.bytes, sha256: draft.sha256 });
            draft.reserved.keep();
        }
        rustix::fs::fsync(&self.dir)?;
        if let Some(journal) = journal {
            journal.remove()?;
            rustix::fs::fsync(&self.dir)?;
        }
        Ok(())
    }

    /// Holds the count of the folder still: a file is either seen in it or counted as one that is being written, never both or neither.
    fn count(&self) -> MutexGuard<'_, ()> {
        self.counting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down which files are about to get their names, so that another start can take those away again that a kill has left.
    fn begin_journal(&self, drafts: &[Draft]) -> Result<Journal<'_>, Errno> {
        let mut lines = String::new();
        for open in drafts.iter().filter_map(|draft| draft.open.as_ref()) {
            lines.push_str(&identity(&rustix::fs::fstat(&open.file)?));
        }
        let (name, file) = self.make_hidden(JOURNAL)?;
        let journal = Journal { folder: self, name, file };
        write_all(&journal.file, lines.as_bytes())?;
        rustix::fs::fsync(&journal.file)?;
        rustix::fs::fsync(&self.dir)?;
        Ok(journal)
    }

    /// Takes away what a journal names: the upload was never answered.
    fn undo(&self, journal: &[u8]) {
        for name in self.entries() {
            if let Ok(stat) = rustix::fs::statat(&self.dir, &name[..], AtFlags::SYMLINK_NOFOLLOW)
                && memchr::memmem::find(journal, identity(&stat).as_bytes()).is_some()
            {
                // one that can not be removed stays, whole
                let _ = rustix::fs::unlinkat(&self.dir, &name[..], AtFlags::empty());
            }
        }
    }
}

/// The journal of a form whose files get their names; it is removed when this goes, and locked until then.
struct Journal<'a> {
    folder: &'a Folder,
    name: String,
    file: OwnedFd,
}

impl Journal<'_> {
    /// Takes it away for good, or empties it: from then on what it named stays.
    fn remove(&self) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.folder.dir, &self.name, AtFlags::empty())
            .or_else(|_| rustix::fs::ftruncate(&self.file, 0).and_then(|()| rustix::fs::fsync(&self.file)))
    }
}

impl Drop for Journal<'_> {
    fn drop(&mut self) {
        // one that stays is found at the next start: the files it names are taken away then
        let _ = rustix::fs::unlinkat(&self.folder.dir, &self.name, AtFlags::empty());
    }
}

/// A line that only this file, in this state, has.
fn identity(stat: &rustix::fs::Stat) -> String {
    format!("[{} {} {} {}]\n", stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec)
}

fn write_all(file: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(file, rest) {
            Ok(n) => rest = &rest[n..],
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Makes the folder of uploads if it is not there.
///
/// # Errors
///
/// It can not be made.
pub fn make_folder(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(path: &Path) -> Folder {
        Folder {
            dir: rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap(),
            quota_bytes: u64::MAX,
            held_bytes: AtomicU64::new(0),
            reserved_bytes: AtomicU64::new(0),
            counting: Mutex::new(()),
        }
    }

    #[test]
    fn names_that_are_made_up() {
        for (kind, extension) in [
            ("image/png", ".png"),
            ("text/plain; charset=utf-8", ".txt"),
            ("application/json", ".json"),
            ("", ".bin"),
            ("x/unheard", ".bin"),
        ] {
            let name = made_up_name(kind);
            assert!(name.starts_with("upload-2") && name.ends_with(extension), "{name}");
        }
    }

    /// Another process may clean the folder at any moment: what was made is locked before it can be taken for left over, or made again.
    #[test]
    fn what_is_made_while_another_start_cleans_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = || folder(dir.path());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    folder().clean();
                }
            });
            for _ in 0..500 {
                let (name, file) = folder().make_hidden(TEMPORARY.1).unwrap();
                for _ in 0..3 {
                    folder().clean();
                    assert_eq!(rustix::fs::fstat(&file).unwrap().st_nlink, 1, "{name} is gone");
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn what_a_journal_names_is_taken_away_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let folder = || folder(dir.path());
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("kept", "kept");
        write("half", "of a form");
        let half = rustix::fs::stat(dir.path().join("half")).unwrap();
        write(".upload-1.commit", &format!("{}[7 7 7 7]\n", identity(&half)));
        write(".upload-2.part", "left");
        write(".upload-3.part", "in use");
        write(".hidden", "not ours");
        let used = std::fs::File::open(dir.path().join(".upload-3.part")).unwrap();
        rustix::fs::flock(&used, FlockOperation::LockExclusive).unwrap();
        folder().clean();
        let mut left = folder().entries();
        left.sort();
        assert_eq!(left, [&b".hidden"[..], b".upload-3.part", b"kept"]);
    }
}
