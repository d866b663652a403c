//! Archives: a folder as one file, made while it is sent.
//!
//! What goes in is collected first, so that what would be too much is refused before anything is sent. Then the blocking pool makes
//! one piece after the other, each while the one before is sent: a slow client holds no thread, and no more than two pieces.
//!
//! Invariant: each member is opened beneath the root and has as many bytes as was said of it. A file that became shorter breaks the
//! archive off; of one that grew, what was there when it was opened goes in. No link to a folder is followed, so there are no loops.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, ZipWriter};

use super::blocking::Blocking;
use super::listing::Rules;
use super::page::shown;
use super::root::{Found, How, NoAnswer};
use super::{Store, failure};
use crate::config::limits::Limits;
use crate::http::body::{Body, Broken, Source};
use crate::http::fields::Fields;
use crate::http::path::CleanPath;
use crate::http::refuse::Refuse;
use crate::http::{Response, StatusCode, date, disposition, header};
use crate::observe;

/// Bytes of a piece, roughly: large enough that going to the pool for it costs little beside it.
const PIECE_BYTES: usize = 128 << 10;
/// Bytes that are read of a file in one go.
const READ_BYTES: usize = 64 << 10;
/// About what a member takes: a record with its name, and of a zip archive the path in its directory.
const MEMBER_BYTES: usize = 512;
/// Bytes of a block of a tar archive: everything in it is filled up to whole ones.
const BLOCK_BYTES: usize = 512;
/// Files from here on get the larger sizes of zip, with room for what does not get smaller.
const LARGE_BYTES: u64 = 0xF000_0000;

/// The form of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// tar, not compressed.
    Tar,
    /// tar, compressed by gzip.
    TarGz,
    /// zip.
    Zip,
}

impl Format {
    /// The form with this name, which is also what a file of it ends in.
    pub fn named(name: &str) -> Option<Format> {
        [Format::Tar, Format::TarGz, Format::Zip].into_iter().find(|format| format.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Format::Tar => "tar",
            Format::TarGz => "tar.gz",
            Format::Zip => "zip",
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Format::Tar => "application/x-tar",
            Format::TarGz => "application/gzip",
            Format::Zip => "application/zip",
        }
    }
}

/// Under which bounds archives are made.
#[derive(Debug)]
pub struct Archives {
    bounds: Bounds,
    jobs: Arc<Semaphore>,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Entries of all folders together.
    entries: usize,
    /// Folders in folders.
    depth: usize,
}

impl Archives {
    /// Archives within these limits.
    pub fn new(limits: &Limits) -> Archives {
        let bounds = Bounds { entries: limits.archive_limit, depth: limits.archive_depth };
        Archives { bounds, jobs: Arc::new(Semaphore::new(limits.archive_jobs)) }
    }

    /// The answer that is the folder at a path.
    pub(super) async fn serve(
        &self,
        store: &Arc<Store>,
        blocking: &Arc<Blocking>,
        rules: &Arc<Rules>,
        path: CleanPath,
        format: Format,
    ) -> Result<Response, Refuse> {
        let leave = Arc::clone(&self.jobs).try_acquire_owned();
        let leave = leave.map_err(|_| Refuse::busy("As many archives as may be made at once are being made."))?;
        let top = if path.as_bytes().is_empty() { b"files".to_vec() } else { path.name().to_vec() };
        let name = format!("{}.{}", shown(&top), format.name());
        let (store, rules, bounds) = (Arc::clone(store), Arc::clone(rules), self.bounds);
        let making = blocking.run(move || {
            let folder = path.as_bytes().to_vec();
            let (members, modified_s) = collect(&store, &rules, &folder, bounds)?;
            let mut packer = Packer::new(format);
            if members.is_empty() {
                // what is in it would make it known
                packer.folder(&top, modified_s).map_err(|_| Refuse::internal())?;
            }
            // the leave comes along, so that a client that is gone frees it no earlier than this work ends
            let making = Making { store, folder, top, members, next: 0, open: None, packer, is_finished: false };
            Ok((making, leave))
        });
        let (making, leave) = making.await?;
        let making = Arc::new(Mutex::new(making));
        let source = Archive { making, blocking: Arc::clone(blocking), piece: None, leave: Some(leave) };
        let fields = Fields::default()
            .with(&header::CONTENT_TYPE, format.content_type())
            .with(&header::CONTENT_DISPOSITION, disposition::attachment(&name))
            .with(&header::CACHE_CONTROL, "no-store")
            .with(&header::ACCEPT_RANGES, "none")
            .with(&header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        Ok(Response { fields, body: Body::Stream(Box::new(source)), ..Response::new(StatusCode::OK) })
    }
}

/// About what an archive takes at most.
pub fn archive_bytes(limits: &Limits) -> u64 {
    (limits.archive_limit * MEMBER_BYTES + 2 * (PIECE_BYTES + READ_BYTES)) as u64
}

/// A file or a folder that goes in. Names are kept once: the path is made from the folders above when it is needed.
#[derive(Debug)]
struct Member {
    /// The folder that it is in, by its place; `None` for the folder that is asked for.
    parent: Option<usize>,
    name: Box<[u8]>,
    is_folder: bool,
    modified_s: i64,
}

/// All that goes in, each folder before what is in it, and when the folder that is asked for last changed.
fn collect(store: &Store, rules: &Rules, top: &[u8], bounds: Bounds) -> Result<(Vec<Member>, i64), Refuse> {
    const TOO_MUCH: Refuse = Refuse::new(StatusCode::FORBIDDEN, "There is more in this folder than an archive may hold.");
    const TOO_DEEP: Refuse = Refuse::new(StatusCode::FORBIDDEN, "There are more folders in folders here than an archive may hold.");
    let mut members: Vec<Member> = Vec::new();
    let mut left = bounds.entries;
    let mut folders = VecDeque::from([None]);
    let mut modified_s = 0;
    while let Some(parent) = folders.pop_front() {
        let (mut path, depth) = path_of(&members, top, parent);
        path.extend(parent.map(|_| b'/'));
        let mut contents = match store.read_folder(&path, left, |name| rules.tells(&path, name)) {
            Ok(Ok(contents)) => contents,
            // what is asked for has to be there; what is in it may go meanwhile
            Ok(Err(_)) if parent.is_some() => continue,
            Ok(Err(Found::Denied)) => return Err(Refuse::new(StatusCode::FORBIDDEN, "The server may not read what is at this address.")),
            Ok(Err(_)) => return Err(Refuse::not_found()),
            Err(e) => return Err(failure(e)),
        };
        if !contents.is_whole {
            return Err(TOO_MUCH);
        }
        if parent.is_none() {
            modified_s = contents.modified_s;
        }
        left -= contents.looked_at;
        contents.items.retain(|item| item.len.is_some() || !item.is_link);
        if depth == bounds.depth && contents.items.iter().any(|item| item.len.is_none()) {
            return Err(TOO_DEEP);
        }
        contents.items.sort_by(|a, b| a.name.cmp(&b.name));
        for item in contents.items {
            let is_folder = item.len.is_none();
            folders.extend(is_folder.then_some(Some(members.len())));
            members.push(Member { parent, name: item.name, is_folder, modified_s: item.modified_s });
        }
    }
    Ok((members, modified_s))
}

/// The path of a member, below what stands for the folder that is asked for, and in how many folders it is.
fn path_of(members: &[Member], top: &[u8], member: Option<usize>) -> (Vec<u8>, usize) {
    let mut names = Vec::new();
    let mut at = member;
    while let Some(i) = at {
        names.push(&members[i].name[..]);
        at = members[i].parent;
    }
    let depth = names.len();
    names.reverse();
    ([top, &names.join(&b'/')].concat(), depth)
}

/// An archive in the making.
struct Making {
    store: Arc<Store>,
    /// The folder that is asked for: its path below the root, with its slash.
    folder: Vec<u8>,
    /// What it is called in the archive.
    top: Vec<u8>,
    members: Vec<Member>,
    next: usize,
    open: Option<Open>,
    packer: Packer,
    is_finished: bool,
}

/// The file that is going in.
struct Open {
    file: OwnedFd,
    at: u64,
    len: u64,
}

impl Making {
    /// The next piece; `None` at the end. It waits for the disk.
    fn piece(&mut self) -> io::Result<Option<Bytes>> {
        let mut buffer = Vec::new();
        while self.packer.ready() < PIECE_BYTES {
            if self.open.is_some() {
                self.copy(&mut buffer)?;
            } else if self.next < self.members.len() {
                self.begin()?;
            } else if !self.is_finished {
                self.packer.finish()?;
                self.is_finished = true;
            } else {
                break;
            }
        }
        let piece = self.packer.take();
        Ok((!piece.is_empty()).then(|| piece.into()))
    }

    /// Begins the next member. What is not there any more, or is something else now, is left out.
    fn begin(&mut self) -> io::Result<()> {
        let at = self.next;
        self.next += 1;
        let member = &self.members[at];
        let (name, _) = path_of(&self.members, &[&self.top[..], b"/"].concat(), Some(at));
        if member.is_folder {
            return self.packer.folder(&name, member.modified_s);
        }
        let (path, _) = path_of(&self.members, &self.folder, Some(at));
        match self.store.root.open_file(&path, How::Any) {
            Ok(Ok((file, stamp))) => {
                self.packer.begin(&name, stamp.len, stamp.modified.0)?;
                self.open = Some(Open { file, at: 0, len: stamp.len });
                Ok(())
            }
            Ok(Err(_)) => Ok(()),
            Err(NoAnswer::Failed(e)) => Err(e.into()),
            Err(NoAnswer::Cold) => Err(Errno::AGAIN.into()),
        }
    }

    /// Puts some more of the open file in.
    fn copy(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.at == open.len {
            self.packer.end(open.len)?;
            self.open = None;
            return Ok(());
        }
        buffer.resize(READ_BYTES.min(usize::try_from(open.len - open.at).unwrap_or(READ_BYTES)), 0);
        match rustix::io::pread(&open.file, &mut buffer[..], open.at) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file became shorter")),
            Ok(n) => {
                open.at += n as u64;
                self.packer.write(&buffer[..n])
            }
            Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// What brings members into the form of an archive, in memory.
enum Packer {
    Tar(Vec<u8>),
    TarGz(Box<GzEncoder<Vec<u8>>>),
    /// The writer, until the archive is finished, and where it writes to.
    Zip(Option<Box<ZipWriter<StreamWriter<Sink>>>>, Sink),
}

impl Packer {
    fn new(format: Format) -> Packer {
        match format {
            Format::Tar => Packer::Tar(Vec::new()),
            // the fastest level: an archive should not take much longer than its files would
            Format::TarGz => Packer::TarGz(Box::new(GzEncoder::new(Vec::new(), Compression::fast()))),
            Format::Zip => {
                let sink = Sink::default();
                Packer::Zip(Some(Box::new(ZipWriter::new_stream(sink.clone()))), sink)
            }
        }
    }

    /// Bytes that are ready to be taken.
    fn ready(&self) -> usize {
        match self {
            Packer::Tar(out) => out.len(),
            Packer::TarGz(gzip) => gzip.get_ref().len(),
            Packer::Zip(_, sink) => sink.lock().len(),
        }
    }

    fn take(&mut self) -> Vec<u8> {
        match self {
            Packer::Tar(out) => std::mem::take(out),
            Packer::TarGz(gzip) => std::mem::take(gzip.get_mut()),
            Packer::Zip(_, sink) => std::mem::take(&mut *sink.lock()),
        }
    }

    fn folder(&mut self, name: &[u8], modified_s: i64) -> io::Result<()> {
        let name = [name, b"/"].concat();
        if let Packer::Zip(zip, _) = self {
            return match (zip, String::from_utf8(name)) {
                (Some(zip), Ok(name)) => Ok(zip.add_directory(name, zip_options(0, modified_s).unix_permissions(0o755))?),
                // only names that are text can be those of a folder of its own: what is in it makes it known
                _ => Ok(()),
            };
        }
        self.write(&tar_header(&name, b'5', 0, modified_s))
    }

    fn begin(&mut self, name: &[u8], len: u64, modified_s: i64) -> io::Result<()> {
        if let Packer::Zip(zip, _) = self {
            let Some(zip) = zip else { return Ok(()) };
            return Ok(zip.start_file_with_options(zip_options(len, modified_s).unix_permissions(0o644).name(name))?);
        }
        self.write(&tar_header(name, b'0', len, modified_s))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Packer::Tar(out) => out.write_all(bytes),
            Packer::TarGz(gzip) => gzip.write_all(bytes),
            Packer::Zip(Some(zip), _) => zip.write_all(bytes),
            Packer::Zip(None, _) => Ok(()),
        }
    }

    /// Ends a file that has had so many bytes.
    fn end(&mut self, len: u64) -> io::Result<()> {
        if matches!(self, Packer::Zip(..)) {
            return Ok(());
        }
        self.write(&[0; BLOCK_BYTES][..padding(len)])
    }

    /// Ends the archive.
    fn finish(&mut self) -> io::Result<()> {
        const END: &[u8] = &[0; 2 * BLOCK_BYTES];
        match self {
            Packer::Tar(out) => out.write_all(END),
            Packer::TarGz(gzip) => gzip.write_all(END).and_then(|()| gzip.try_finish()),
            Packer::Zip(zip, _) => match zip.take() {
                Some(zip) => Ok(zip.finish().map(|_| ())?),
                None => Ok(()),
            },
        }
    }
}

/// Where the writer of a zip archive writes to: it can not be asked for what it has.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn zip_options(len: u64, modified_s: i64) -> SimpleFileOptions {
    let [year, month, day, hour, minute, second] = date::parts(modified_s);
    // zip knows no time before 1980 and none after 2107
    let modified = zip::DateTime::from_date_and_time(year, month as u8, day as u8, hour as u8, minute as u8, second as u8);
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(1))
        .last_modified_time(modified.unwrap_or_default())
        .large_file(len >= LARGE_BYTES)
}

/// What is missing to whole blocks.
fn padding(len: u64) -> usize {
    (BLOCK_BYTES - (len % BLOCK_BYTES as u64) as usize) % BLOCK_BYTES
}

/// The header of a member, in the form of GNU tar: names are bytes there, and have no bound.
fn tar_header(name: &[u8], kind: u8, len: u64, modified_s: i64) -> Vec<u8> {
    const NAME_BYTES: usize = 100;
    const OCTAL_MOST: u64 = 0o777_7777_7777;
    let mut blocks = Vec::with_capacity(BLOCK_BYTES);
    if name.len() > NAME_BYTES {
        blocks = tar_header(b"././@LongLink", b'L', name.len() as u64 + 1, 0);
        blocks.extend_from_slice(name);
        // the NUL that ends the name, and what is missing to whole blocks
        blocks.resize(blocks.len() + 1 + padding(name.len() as u64 + 1), 0);
    }
    let mut block = [0; BLOCK_BYTES];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name[..name.len().min(NAME_BYTES)]);
    put(100, if kind == b'5' { b"0000755" } else { b"0000644" });
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{:011o}", len.min(OCTAL_MOST)).as_bytes());
    if len > OCTAL_MOST {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &len.to_be_bytes());
    }
    put(136, format!("{:011o}", u64::try_from(modified_s).unwrap_or(0).min(OCTAL_MOST)).as_bytes());
    // the sum is made with blanks in its own place
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar  ");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    blocks.extend_from_slice(&block);
    blocks
}

/// A piece that is being made.
type Piece = Pin<Box<dyn Future<Output = Result<Option<Bytes>, Broken>> + Send>>;

/// An archive as the body of a response. Nothing is made before it is asked for; then the next piece is begun when one is taken.
struct Archive {
    making: Arc<Mutex<Making>>,
    blocking: Arc<Blocking>,
    piece: Option<Piece>,
    /// One of the archives that may be made at the same time: given back before the client can know that it has all.
    leave: Option<OwnedSemaphorePermit>,
}

impl Archive {
    fn begin(&self) -> Piece {
        let making = Arc::clone(&self.making);
        Box::pin(self.blocking.run(move || {
            let piece = making.lock().unwrap_or_else(PoisonError::into_inner).piece();
            piece.map_err(|e| {
                observe::say(&format!("an archive was broken off: {e}"));
                Broken
            })
        }))
    }
}

impl Source for Archive {
    fn poll_next(&mut self, cx: &mut Context) -> Poll<Option<Result<Bytes, Broken>>> {
        let mut piece = self.piece.take().unwrap_or_else(|| self.begin());
        let made = piece.as_mut().poll(cx);
        match &made {
            Poll::Pending => self.piece = Some(piece),
            Poll::Ready(Ok(Some(_))) => self.piece = Some(self.begin()),
            Poll::Ready(_) => self.leave = None,
        }
        made.map(Result::transpose)
    }
}

impl Drop for Archive {
    /// What is left of it is put away where it may take its time.
    fn drop(&mut self) {
        let making = Arc::clone(&self.making);
        drop(self.blocking.run(move || drop(making)));
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Archive").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for format in [Format::Tar, Format::TarGz, Format::Zip] {
            assert_eq!(Format::named(format.name()), Some(format));
        }
        assert_eq!((Format::named("rar"), Format::named("TAR"), Format::named("")), (None, None, None));
    }

    #[test]
    fn headers_of_tar() {
        let header = tar_header(b"a/b", b'0', 10, 784_111_777);
        assert_eq!(header.len(), BLOCK_BYTES);
        assert!(header.starts_with(b"a/b\0") && &header[124..136] == b"00000000012\0" && &header[257..265] == b"ustar  \0");
        let sum: u32 = header.iter().enumerate().map(|(i, &b)| if (148..156).contains(&i) { 32 } else { u32::from(b) }).sum();
        assert_eq!(&header[148..154], format!("{sum:06o}").as_bytes());
        // names up to 100 bytes stand in the header; the others, with the NUL behind them, in whole blocks in front of it
        for (len, blocks) in [(99, 1), (100, 1), (101, 3), (511, 3), (512, 4)] {
            assert_eq!(tar_header(&vec![b'x'; len], b'0', 0, 0).len(), blocks * BLOCK_BYTES, "{len}");
        }
        // sizes up to eleven octal digits, and beyond
        let size = |len| tar_header(b"x", b'0', len, 0)[124..136].to_vec();
        assert_eq!(size(0o777_7777_7777), b"77777777777\0");
        assert_eq!(size(0o1000_0000_0000), [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
        assert_eq!(&tar_header(b"x", b'0', 0, -5)[136..148], b"00000000000\0");
        assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
    }
}
