//! The open root: everything below it is opened beneath it, by the kernel.
//!
//! Invariant: no call opens, or tells anything of, what is not below the root, whatever happens to folders and links at the same
//! time. `openat2` with `RESOLVE_BENEATH` holds that; where the kernel has no `openat2`, and for absolute links that point back
//! inside, `walk` opens one component after the other without following links and resolves each link itself.
//!
//! What links may do is for the operator to say: stay inside, which is the invariant, not be there at all, or lead out of the root.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Access, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::config::rules::Symlinks;

/// How often a lookup that a rename got in the way of is tried again.
const RACES: usize = 128;
/// Links that are followed on one path, as in the kernel.
const LINKS: usize = 40;

/// A folder that is served.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    path: PathBuf,
    links: Symlinks,
    has_openat2: AtomicBool,
    /// Whether it can be asked for what is in memory only.
    has_cached: AtomicBool,
}

/// Whether a lookup may wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Only what the kernel has in memory; otherwise `Cold`.
    Cached,
    /// Whatever it takes.
    Any,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Device and inode.
    pub id: (u64, u64),
    /// Length in bytes.
    pub len: u64,
    /// Last change of the content, in seconds since 1970 and nanoseconds.
    pub modified: (i64, u64),
    /// Last change of the content or of what is known about the file.
    pub changed: (i64, u64),
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A regular file.
    File(Stamp),
    /// A folder.
    Folder,
    /// Nothing that is served: no such path, a link that leads out, a device, a pipe.
    Nothing,
    /// Something that the server has no right to read.
    Denied,
}

/// Why a lookup has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// It would have to wait: for the disk, or for another who looks for the same.
    Cold,
    /// The system could not say.
    Failed(Errno),
}

/// One thing in a folder that can be served: a file, a folder, or a link to one below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub name: Box<[u8]>,
    /// Length of a file in bytes; `None` for a folder.
    pub len: Option<u64>,
    /// Last change of the content, in seconds since 1970.
    pub modified_s: i64,
    /// Whether it is a symbolic link.
    pub is_link: bool,
}

/// What is in a folder, in no order.
#[derive(Debug)]
pub struct Contents {
    /// What can be served.
    pub items: Vec<Item>,
    /// Entries that were looked at, whatever they are.
    pub looked_at: usize,
    /// When the folder itself last changed, in seconds since 1970.
    pub modified_s: i64,
    /// Whether the folder was read to its end.
    pub is_whole: bool,
}

impl Root {
    /// Opens the folder at an absolute path without links.
    ///
    /// # Errors
    ///
    /// It can not be opened.
    pub fn open(path: &Path, links: Symlinks) -> io::Result<Root> {
        let dir = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Root { dir, path: path.to_owned(), links, has_openat2: AtomicBool::new(true), has_cached: AtomicBool::new(true) })
    }

    /// Tells what is at a path below the root, without opening it for reading.
    ///
    /// # Errors
    ///
    /// `Cold` if the answer would have to come from the disk and may not, or what the system said.
    pub fn look(&self, path: &[u8], how: How) -> Result<Found, NoAnswer> {
        match self.open_beneath(path, OFlags::PATH, how) {
            Ok(fd) => found(fd.as_fd()).map_err(NoAnswer::Failed),
            Err(Errno::AGAIN) if how == How::Cached => Err(NoAnswer::Cold),
            Err(e) => absent(e),
        }
    }

    /// Opens the file at a path for reading; what is no regular file is told and not opened.
    ///
    /// # Errors
    ///
    /// As for `look`.
    pub fn open_file(&self, path: &[u8], how: How) -> Result<Result<(OwnedFd, Stamp), Found>, NoAnswer> {
        for _ in 0..RACES {
            let seen = match self.look(path, how)? {
                Found::File(stamp) => stamp,
                other => return Ok(Err(other)),
            };
            // between the two it may become a pipe: opening that does not wait, and it is seen below
            let fd = match self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, how) {
                Ok(fd) => fd,
                Err(Errno::AGAIN) if how == How::Cached => return Err(NoAnswer::Cold),
                Err(e) => return absent(e).map(Err),
            };
            if let Ok(Found::File(stamp)) = found(fd.as_fd())
                && stamp.id == seen.id
            {
                return Ok(Ok((fd, stamp)));
            }
        }
        Err(NoAnswer::Failed(Errno::BUSY))
    }

    /// Reads what is in a folder and could be served from it: files and folders that the server may read, whose name is `wanted`.
    /// At most so many entries are looked at, whatever they are. It waits for the disk. The path of the folder has its slash.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn read_folder(&self, path: &[u8], most: usize, wanted: impl Fn(&[u8]) -> bool) -> Result<Result<Contents, Found>, NoAnswer> {
        let mut dir = match self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY, How::Any) {
            Ok(fd) => Dir::new(fd).map_err(NoAnswer::Failed)?,
            Err(e) => return absent(e).map(Err),
        };
        let modified_s = stamp_of(dir.fd().map_err(NoAnswer::Failed)?).map_err(NoAnswer::Failed)?.modified.0;
        let mut contents = Contents { items: Vec::new(), looked_at: 0, modified_s, is_whole: true };
        while let Some(entry) = dir.read() {
            let entry = entry.map_err(NoAnswer::Failed)?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if contents.looked_at == most {
                contents.is_whole = false;
                break;
            }
            contents.looked_at += 1;
            if wanted(name) {
                contents.items.extend(self.item(path, dir.fd().map_err(NoAnswer::Failed)?, name));
            }
        }
        Ok(Ok(contents))
    }

    /// What an entry of an open folder is; `None` if it can not be served, or is not there any more.
    fn item(&self, path: &[u8], dir: BorrowedFd, name: &[u8]) -> Option<Item> {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_link = kind == FileType::Symlink;
        let (len, modified_s) = match kind {
            FileType::RegularFile if may(dir, name, Access::READ_OK) => (Some(u64::try_from(stat.st_size).unwrap_or(0)), stat.st_mtime),
            FileType::Directory if may(dir, name, Access::READ_OK | Access::EXEC_OK) => (None, stat.st_mtime),
            // where a link leads is opened as it would be to serve it
            FileType::Symlink => {
                let at = [path, name].concat();
                match self.open_file(&at, How::Any).ok()? {
                    Ok((_, stamp)) => (Some(stamp.len), stamp.modified.0),
                    Err(Found::Folder) => {
                        let folder = self.open_beneath(&at, OFlags::RDONLY | OFlags::DIRECTORY, How::Any).ok()?;
                        (None, stamp_of(&folder).ok()?.modified.0)
                    }
                    Err(_) => return None,
                }
            }
            _ => return None,
        };
        Some(Item { name: name.into(), len, modified_s, is_link })
    }

    fn open_beneath(&self, path: &[u8], flags: OFlags, how: How) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let mut resolve = match self.links {
            Symlinks::Inside => ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
            Symlinks::Deny => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            Symlinks::Follow => ResolveFlags::NO_MAGICLINKS,
        };
        if how == How::Cached {
            if !self.has_cached.load(Ordering::Relaxed) {
                return Err(Errno::AGAIN);
            }
            resolve |= ResolveFlags::CACHED;
        }
        if self.has_openat2.load(Ordering::Relaxed) {
            for _ in 0..RACES {
                match rustix::fs::openat2(&self.dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                    // out of the root, or an absolute link: the walk can tell which
                    Err(Errno::XDEV) => return if how == How::Cached { Err(Errno::AGAIN) } else { self.walk(path, flags) },
                    Err(Errno::AGAIN) if how == How::Any => {}
                    // before Linux 5.12
                    Err(Errno::INVAL) if how == How::Cached => {
                        self.has_cached.store(false, Ordering::Relaxed);
                        return Err(Errno::AGAIN);
                    }
                    Err(Errno::NOSYS) => {
                        self.has_openat2.store(false, Ordering::Relaxed);
                        break;
                    }
                    // also what a filter of system calls answers
                    Err(Errno::PERM) => break,
                    other => return other,
                }
            }
        }
        if how == How::Cached { Err(Errno::AGAIN) } else { self.walk(path, flags) }
    }

    /// Resolves a path one component at a time. Each folder is opened from the one before it, without following links, so that no
    /// rename can lead outside; a link is read and what it says is walked instead.
    fn walk(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let root = self.dir.as_fd();
        if self.links == Symlinks::Follow {
            return rustix::fs::openat(root, path, flags | OFlags::CLOEXEC, Mode::empty());
        }
        let mut todo: Vec<Vec<u8>> = components(path);
        let mut folders: Vec<OwnedFd> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                folders.pop().ok_or(Errno::XDEV)?;
                continue;
            }
            let at = folders.last().map_or(root, |f| f.as_fd());
            let fd = rustix::fs::openat(at, &name[..], OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
                FileType::Symlink if self.links == Symlinks::Deny => return Err(Errno::LOOP),
                FileType::Symlink => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = rustix::fs::readlinkat(&fd, "", Vec::new())?.into_bytes();
                    if target.starts_with(b"/") {
                        let inside = Path::new(OsStr::from_bytes(&target)).strip_prefix(&self.path).map_err(|_| Errno::XDEV)?;
                        todo.extend(components(inside.as_os_str().as_bytes()));
                        folders.clear();
                    } else {
                        todo.extend(components(&target));
                    }
                }
                FileType::Directory => folders.push(fd),
                _ if !todo.is_empty() => return Err(Errno::NOTDIR),
                _ if flags.contains(OFlags::PATH) => return Ok(fd),
                _ => return rustix::fs::openat(at, &name[..], flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()),
            }
        }
        let last = folders.last().map_or(root, |f| f.as_fd());
        rustix::fs::openat(last, ".", flags | OFlags::CLOEXEC, Mode::empty())
    }
}

/// Whether the server may do this with an entry of a folder. A kernel that is too old to be asked says yes: then the entry is told,
/// and refused when it is asked for.
fn may(dir: BorrowedFd, name: &[u8], access: Access) -> bool {
    matches!(rustix::fs::accessat(dir, name, access, AtFlags::EACCESS), Ok(()) | Err(Errno::NOSYS | Errno::INVAL))
}

/// The components of a path, the first one last.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&b| b == b'/').filter(|c| !c.is_empty() && *c != b".").rev().map(<[u8]>::to_vec).collect()
}

/// What an open file is.
fn found(fd: BorrowedFd) -> Result<Found, Errno> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Found::File(stamp(&stat)),
        FileType::Directory => Found::Folder,
        _ => Found::Nothing,
    })
}

/// The state of an open file.
///
/// # Errors
///
/// What the system said.
pub fn stamp_of(fd: impl AsFd) -> Result<Stamp, Errno> {
    rustix::fs::fstat(fd).map(|stat| stamp(&stat))
}

/// Whether an open file has this length and time of its last change.
pub fn has_state(fd: impl AsFd, state: (u64, i64, u64)) -> bool {
    stamp_of(fd).is_ok_and(|now| (now.len, now.modified.0, now.modified.1) == state)
}

fn stamp(stat: &rustix::fs::Stat) -> Stamp {
    Stamp {
        id: (stat.st_dev, stat.st_ino),
        len: u64::try_from(stat.st_size).unwrap_or(0),
        modified: (stat.st_mtime, stat.st_mtime_nsec),
        changed: (stat.st_ctime, stat.st_ctime_nsec),
    }
}

/// What an error of a lookup says about the path.
fn absent(e: Errno) -> Result<Found, NoAnswer> {
    match e {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::XDEV | Errno::NXIO | Errno::NODEV | Errno::INVAL => {
            Ok(Found::Nothing)
        }
        Errno::ACCESS | Errno::PERM => Ok(Found::Denied),
        e => Err(NoAnswer::Failed(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A folder with something of everything, and a secret beside it.
    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/file"), "inside").unwrap();
        std::fs::write(root.join("top"), "top").unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::fs::create_dir(dir.path().join("root_evil")).unwrap();
        std::fs::write(dir.path().join("root_evil/x"), "secret").unwrap();
        let path = root.canonicalize().unwrap();
        symlink("b/file", root.join("a/relative")).unwrap();
        symlink("../../top", root.join("a/b/up")).unwrap();
        symlink(path.join("a/b"), root.join("absolute")).unwrap();
        symlink(path.join("a/relative"), root.join("twice")).unwrap();
        symlink(&path, root.join("self")).unwrap();
        symlink("..", root.join("out-relative")).unwrap();
        symlink("a/../../secret", root.join("out-sneaky")).unwrap();
        symlink(dir.path().join("secret"), root.join("out-absolute")).unwrap();
        symlink(dir.path().join("root_evil"), root.join("out-prefix")).unwrap();
        symlink("/proc/self/root", root.join("out-magic")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        symlink("/dev/zero", root.join("device")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        dir
    }

    #[test]
    fn what_is_inside_is_found_and_nothing_else_by_the_kernel_and_by_the_walk() {
        let dir = tree();
        let root = Root::open(&dir.path().join("root").canonicalize().unwrap(), Symlinks::Inside).unwrap();
        let cases = [
            ("top", "top"),
            ("a/b/file", "inside"),
            ("a/relative", "inside"),
            ("a/b/up", "top"),
            ("absolute/file", "inside"),
            ("twice", "inside"),
            ("self/top", "top"),
            ("self/self/absolute/up", "top"),
            ("", "folder"),
            ("a", "folder"),
            ("a/b/", "folder"),
            ("absolute", "folder"),
            ("self", "folder"),
            ("missing", "nothing"),
            ("top/x", "nothing"),
            ("out-relative", "nothing"),
            ("out-relative/secret", "nothing"),
            ("out-sneaky", "nothing"),
            ("out-absolute", "nothing"),
            ("out-prefix/x", "nothing"),
            ("out-magic/etc/passwd", "nothing"),
            ("loop", "nothing"),
            ("dangling", "nothing"),
            ("device", "nothing"),
            ("pipe", "nothing"),
        ];
        for openat2 in [true, false] {
            root.has_openat2.store(openat2, Ordering::Relaxed);
            for (path, expected) in cases {
                let name = format!("{path:?} with openat2 {openat2}");
                let got = match root.open_file(path.as_bytes(), How::Any).unwrap_or_else(|e| panic!("{name}: {e:?}")) {
                    Ok((fd, stamp)) => {
                        let text = io::read_to_string(std::fs::File::from(fd)).unwrap();
                        assert_eq!(text.len() as u64, stamp.len, "{name}");
                        text
                    }
                    Err(Found::Folder) => "folder".into(),
                    Err(Found::Nothing) => "nothing".into(),
                    Err(other) => panic!("{name}: {other:?}"),
                };
                assert_eq!(got, expected, "{name}");
            }
        }
    }

    #[test]
    fn a_folder_is_read_without_what_can_not_be_served() {
        let dir = tree();
        let root = Root::open(&dir.path().join("root").canonicalize().unwrap(), Symlinks::Inside).unwrap();
        for openat2 in [true, false] {
            root.has_openat2.store(openat2, Ordering::Relaxed);
            let read = |path: &str| {
                let contents = root.read_folder(path.as_bytes(), 100, |name| name != b"twice").unwrap().unwrap();
                assert!(contents.is_whole);
                let mut told: Vec<_> = contents
                    .items
                    .iter()
                    .map(|i| {
                        format!(
                            "{}{}{}",
                            String::from_utf8_lossy(&i.name),
                            if i.is_link { "@" } else { "" },
                            i.len.map_or("/".into(), |n| format!("={n}"))
                        )
                    })
                    .collect();
                told.sort();
                told.join(" ")
            };
            assert_eq!(read(""), "a/ absolute@/ self@/ top=3", "openat2 {openat2}");
            assert_eq!(read("a/"), "b/ relative@=6", "openat2 {openat2}");
            assert_eq!(read("self/absolute/"), "file=6 up@=3", "openat2 {openat2}");
            for (path, found) in [("missing/", Found::Nothing), ("top/", Found::Nothing), ("out-relative/", Found::Nothing)] {
                assert_eq!(root.read_folder(path.as_bytes(), 100, |_| true).unwrap().err(), Some(found), "{path}");
            }
        }
    }

    #[test]
    fn so_many_entries_are_looked_at_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(&dir.path().canonicalize().unwrap(), Symlinks::Inside).unwrap();
        for i in 0..5 {
            std::fs::write(dir.path().join(i.to_string()), "").unwrap();
        }
        for (most, items, is_whole) in [(4, 4, false), (5, 5, true), (6, 5, true)] {
            let contents = root.read_folder(b"", most, |_| true).unwrap().unwrap();
            assert_eq!((contents.items.len(), contents.is_whole), (items, is_whole), "{most}");
        }
        let unwanted = root.read_folder(b"", 4, |_| false).unwrap().unwrap();
        assert_eq!((unwanted.items.len(), unwanted.is_whole), (0, false), "what is not wanted counts too");
    }

    #[test]
    fn a_cached_lookup_answers_or_says_that_it_is_cold() {
        let dir = tree();
        let root = Root::open(&dir.path().join("root").canonicalize().unwrap(), Symlinks::Inside).unwrap();
        assert!(matches!(root.look(b"top", How::Any), Ok(Found::File(_))));
        assert!(matches!(root.look(b"top", How::Cached), Ok(Found::File(_)) | Err(NoAnswer::Cold)));
        assert_eq!(root.look(b"absolute/file", How::Cached), Err(NoAnswer::Cold));
        root.has_openat2.store(false, Ordering::Relaxed);
        assert_eq!(root.look(b"top", How::Cached), Err(NoAnswer::Cold));
    }
}
