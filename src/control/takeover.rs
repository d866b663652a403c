//! Takeover: a new process gets the listening sockets of the running one, over a Unix socket at a path that both are told.
//!
//! The new one says hello and is sent the sockets, that Unix socket among them. When it is ready to serve it says so; from then on
//! the running one accepts nothing, says so in turn, and drains. If the new one ends before that, nothing has changed. The sockets
//! are open all the time, so no client notices. A process that has been told to stop has nothing to hand over, and says so: the new
//! one binds its own.
//!
//! Only the user of the running process, or root, is listened to.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::{Access, Mode};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, recvmsg,
    sendmsg, sockopt,
};
use rustix::process::{geteuid, umask};

use crate::config::Error;
use crate::net::gate::Wall;
use crate::observe::say;

/// What the new process says first; another version says something else.
const HELLO: &[u8] = b"millpond takeover 1\n";
/// What comes along with the sockets.
const SOCKETS: &[u8] = b"sockets\n";
/// What comes instead when the running process has been told to stop. It is as long.
const STOPS: &[u8] = b"stopped\n";
/// What the new process says when it could serve.
const READY: &[u8] = b"ready\n";
/// What the running one says when it accepts nothing any more.
const YOURS: &[u8] = b"yours\n";
/// Sockets that the kernel passes in one message (SCM_MAX_FD).
const MAX_SOCKETS: usize = 253;
/// How long one side waits for a word of the other.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the running process waits for the new one to open all that it serves.
const OPENING: Duration = Duration::from_secs(60);

/// The socket at the control path, ours.
pub struct Control(UnixListener);

/// The process that ran before, while it waits for us.
pub struct Predecessor(UnixStream);

/// What came of asking at the control path.
pub struct Asked {
    /// The socket at the path.
    pub control: Control,
    /// The listeners of the running process and then its walls; none if there is no such process.
    pub listeners: Vec<TcpListener>,
    /// The running process, to be relieved.
    pub predecessor: Option<Predecessor>,
    /// Whether there is a process that has been told to stop, and finishes what it has begun.
    pub is_one_stopping: bool,
}

/// Asks the process that listens at the path for its sockets; if there is none, or it is about to end, listens there.
///
/// # Errors
///
/// Something else is at the path, it is not ours to use, or the running process did not give its sockets away.
pub fn ask(path: &Path) -> Result<Asked, Error> {
    let failed = |what: &str, e: io::Error| Error(format!("{what} {path:?} ({e}); choose another path with --control"));
    let is_one_stopping = match UnixStream::connect(path) {
        Ok(stream) => match receive(stream).map_err(|e| failed("the process that is running does not hand over its sockets at", e))? {
            Some(asked) => return Ok(asked),
            None => true,
        },
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => false,
        Err(e) => return Err(failed("can not connect to", e)),
    };
    let control = listen(path).map_err(|e| not_listening(path, &e))?;
    Ok(Asked { control, listeners: Vec::new(), predecessor: None, is_one_stopping })
}

/// Whether a process listens at the path.
pub fn is_running(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

/// Looks whether a socket can be made at the path, on which nobody listens.
///
/// # Errors
///
/// Something else is there, or no file can be made there.
pub fn check(path: &Path) -> Result<(), Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    SocketAddrUnix::new(path)
        .map_err(io::Error::from)
        .and_then(|_| is_there(path))
        .and_then(|_| rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from))
        .map_err(|e| not_listening(path, &e))
}

fn not_listening(path: &Path, e: &io::Error) -> Error {
    Error(format!("can not listen at {path:?} ({e}); choose another path with --control"))
}

/// Whether a socket is at the path; anything else there is an error.
fn is_there(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(left) if left.file_type().is_socket() => Ok(true),
        Ok(_) => Err(io::Error::new(ErrorKind::AlreadyExists, "something else is there")),
        Err(_) => Ok(false),
    }
}

/// Listens at the path, for the owner alone. What a process that has ended left there is removed.
fn listen(path: &Path) -> io::Result<Control> {
    if is_there(path)? {
        std::fs::remove_file(path)?;
    }
    // there is no other thread that could make a file meanwhile
    let before = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let listener = UnixListener::bind(path);
    umask(before);
    listener.map(Control)
}

/// What the running process hands over; nothing if it stops.
fn receive(mut stream: UnixStream) -> io::Result<Option<Asked>> {
    check_peer(&stream)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(HELLO)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut along = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0; SOCKETS.len()];
    let got = recvmsg(&stream, &mut [IoSliceMut::new(&mut word)], &mut along, RecvFlags::CMSG_CLOEXEC)?;
    if &word[..got.bytes] == STOPS {
        return Ok(None);
    }
    if &word[..got.bytes] != SOCKETS {
        return Err(io::Error::new(ErrorKind::InvalidData, "it does not know this kind of takeover"));
    }
    let rights = along.drain().filter_map(|message| if let RecvAncillaryMessage::ScmRights(all) = message { Some(all) } else { None });
    let mut sockets = rights.flatten();
    let control = sockets.next().ok_or(ErrorKind::InvalidData)?;
    let listeners: Vec<TcpListener> = sockets.map(TcpListener::from).collect();
    Ok(Some(Asked { control: Control(control.into()), listeners, predecessor: Some(Predecessor(stream)), is_one_stopping: false }))
}

/// Whether the other side is our user or root.
fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let peer = sockopt::socket_peercred(stream)?.uid;
    if peer.is_root() || peer == geteuid() {
        return Ok(());
    }
    Err(io::Error::new(ErrorKind::PermissionDenied, format!("the other side is user number {}", peer.as_raw())))
}

impl Predecessor {
    /// Tells the running process that we can serve; it accepts nothing any more when this returns.
    ///
    /// # Errors
    ///
    /// It has ended, or does not wait any longer.
    pub fn relieve(mut self) -> Result<(), Error> {
        self.0
            .write_all(READY)
            .and_then(|()| expect(&mut self.0, YOURS))
            .map_err(|e| Error(format!("the running process has ended, or did not wait for this one ({e}); start it again")))
    }
}

/// Reads a word and nothing else.
fn expect(stream: &mut UnixStream, word: &[u8]) -> io::Result<()> {
    let mut got = vec![0; word.len()];
    stream.read_exact(&mut got)?;
    if got == word { Ok(()) } else { Err(io::Error::new(ErrorKind::InvalidData, "it said something else")) }
}

/// The listeners that are on offer to a new process, until they are withdrawn.
#[derive(Clone)]
pub struct Offer(Arc<Mutex<Vec<OwnedFd>>>);

impl Offer {
    /// Offers these, with the walls beside them.
    ///
    /// # Errors
    ///
    /// No descriptors for that are left.
    pub fn new(listeners: &[(TcpListener, Option<Wall>)]) -> io::Result<Offer> {
        let walls = listeners.iter().filter_map(|(_, wall)| Some(wall.as_ref()?.socket()));
        let all = listeners.iter().map(|(listener, _)| listener).chain(walls);
        let all: io::Result<Vec<OwnedFd>> = all.map(|socket| socket.as_fd().try_clone_to_owned()).collect();
        Ok(Offer(Arc::new(Mutex::new(all?))))
    }

    /// Offers nothing any more, and closes them.
    pub fn withdraw(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Hands them over; says so where nothing is on offer any more, and returns false.
    fn send(&self, control: &UnixListener, mut to: &UnixStream) -> io::Result<bool> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.is_empty() {
            return to.write_all(STOPS).map(|()| false);
        }
        let sockets: Vec<BorrowedFd> = std::iter::once(control.as_fd()).chain(all.iter().map(AsFd::as_fd)).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        if !along.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "too many listeners"));
        }
        sendmsg(to, &[IoSlice::new(SOCKETS)], &mut along, SendFlags::NOSIGNAL)?;
        Ok(true)
    }
}

impl Control {
    /// Waits, on a thread of its own, for a new process and hands the listeners over to it. `relieved` is called when that one
    /// serves.
    ///
    /// # Errors
    ///
    /// No thread could be started.
    pub fn start(self, offer: Offer, relieved: impl Fn() + Send + 'static) -> io::Result<()> {
        thread::Builder::new().name("control".into()).spawn(move || {
            for stream in self.0.incoming() {
                match stream.and_then(|stream| self.hand_over(stream, &offer, &relieved)) {
                    Ok(true) => return,
                    // somebody only looked whether we are here
                    Ok(false) => {}
                    Err(e) => {
                        say(&format!("a takeover did not come about ({e}): this process goes on"));
                        // an accept that fails at once, as without descriptors, is not tried at once
                        thread::sleep(Duration::from_millis(50));
                    }
                }
            }
        })?;
        Ok(())
    }

    /// Says whether the sockets are the other's now.
    fn hand_over(&self, mut stream: UnixStream, offer: &Offer, relieved: &impl Fn()) -> io::Result<bool> {
        check_peer(&stream)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        match expect(&mut stream, HELLO) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        if !offer.send(&self.0, &stream)? {
            return Ok(false);
        }
        stream.set_read_timeout(Some(OPENING))?;
        expect(&mut stream, READY)?;
        stream.write_all(YOURS)?;
        relieved();
        Ok(true)
    }
}
