//! Bodies: what goes out as a row of chunks, and what comes in, pulled piece by piece.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use smallvec::SmallVec;

use super::Framing;
use super::refuse::Refuse;

/// A piece of a response body.
#[derive(Clone, Debug)]
pub enum Chunk {
    /// Bytes in memory.
    Mem(Bytes),
    /// A part of an open file: the kernel sends it without a copy.
    File {
        /// The open file.
        file: Arc<OpenFile>,
        /// Where the part begins.
        offset: u64,
        /// Its length in bytes. A file that turns out to be shorter, or that changes on the way, ends the connection; nothing is
        /// padded, and nothing is mixed.
        len: u64,
    },
}

/// A file that is open for reading, and the state that it has to be in for its bytes to be the ones that were promised.
#[derive(Debug)]
pub struct OpenFile {
    /// The file.
    pub fd: OwnedFd,
    /// Its length and the time of its last change, in seconds since 1970 and nanoseconds.
    pub state: (u64, i64, u64),
    /// Whether all of it was in memory when that was last looked at, so that sending it does not wait for the disk.
    pub is_warm: AtomicBool,
    /// Whether it is memory that only this process has as a file: nobody else changes it.
    pub is_own: bool,
}

impl OpenFile {
    /// A file of which it is not known whether it is in memory.
    pub fn new(fd: OwnedFd, state: (u64, i64, u64)) -> OpenFile {
        OpenFile { fd, state, is_warm: AtomicBool::new(false), is_own: false }
    }
}

impl Chunk {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Chunk::Mem(bytes) => bytes.len() as u64,
            Chunk::File { len, .. } => *len,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A response body.
#[derive(Debug)]
pub enum Body {
    /// Chunks that are there: the length is known.
    Chunks(SmallVec<[Chunk; 1]>),
    /// One that is made while it is sent: the length is not known.
    Stream(Box<dyn Source>),
}

/// What makes a body while it is sent.
pub trait Source: std::fmt::Debug + Send {
    /// The next piece, `None` at the end. With an error the response breaks off: what has left can not be taken back.
    fn poll_next(&mut self, cx: &mut Context) -> Poll<Option<Result<Bytes, Broken>>>;
}

/// A body could not be made to its end; the log has been told why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl Body {
    /// No bytes.
    pub fn empty() -> Body {
        Body::Chunks(SmallVec::new())
    }

    /// Length in bytes, if it is known.
    pub fn len(&self) -> Option<u64> {
        match self {
            Body::Chunks(chunks) => Some(chunks.iter().map(Chunk::len).sum()),
            Body::Stream(_) => None,
        }
    }

    /// Whether it is known that there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

impl From<Chunk> for Body {
    fn from(chunk: Chunk) -> Body {
        Body::Chunks(SmallVec::from_buf([chunk]))
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Body {
        Body::from(Chunk::Mem(bytes.into()))
    }
}

/// The request body as a handler sees it: it asks for the next piece and waits. Nothing is read from the client before it asks.
///
/// Handler and driver run in one task: the driver polls the handler, and after it has put a piece here it polls it again.
#[derive(Clone, Debug)]
pub struct Inbound(Option<Arc<Mutex<Slot>>>);

#[derive(Debug, Default)]
struct Slot {
    wanted: bool,
    piece: Option<Result<Option<Bytes>, Refuse>>,
}

impl Inbound {
    /// The body of a request; without a body nothing is allocated.
    pub fn new(framing: Framing) -> Inbound {
        Inbound((framing != Framing::None).then(Arc::default))
    }

    /// The next piece; `None` at the end of the body.
    ///
    /// # Errors
    ///
    /// What is wrong with the body; it is the answer to give.
    pub async fn next(&self) -> Result<Option<Bytes>, Refuse> {
        poll_fn(|_| {
            let Some(mut slot) = self.slot() else { return Poll::Ready(Ok(None)) };
            match slot.piece.take() {
                Some(piece) => Poll::Ready(piece),
                None => {
                    slot.wanted = true;
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// For the driver: whether the handler waits for a piece.
    pub fn is_wanted(&self) -> bool {
        self.slot().is_some_and(|slot| slot.wanted)
    }

    /// For the driver: the piece that the handler waits for.
    pub fn put(&self, piece: Result<Option<Bytes>, Refuse>) {
        if let Some(mut slot) = self.slot() {
            *slot = Slot { wanted: false, piece: Some(piece) };
        }
    }

    fn slot(&self) -> Option<MutexGuard<'_, Slot>> {
        self.0.as_ref().map(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
