//! How bytes leave: memory in one call, gathered over all responses that are ready; files by sendfile, in slices.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};

use super::conn::Io;
use super::turns::{self, Turn};
use crate::files::blocking::Blocking;
use crate::files::ready::Content;
use crate::files::{self, Whole};
use crate::http::body::{Chunk, OpenFile};

/// What is held in memory of responses that wait to leave: what is gathered before they do, and the last one that was added to it.
pub const HELD_BYTES: u64 = 2 * GATHERED_BYTES;
/// Bodies up to this size are copied behind their head: that costs less than another piece to send.
const COPIED_BYTES: usize = 4 << 10;
/// Pieces of memory that one call sends.
const PIECES: usize = 16;
/// Bytes of a file that one call sends. What is left of a file beyond that waits for its turn.
const SLICE_BYTES: u64 = 256 << 10;
/// What is left of a file leaves in one call up to this size: that takes 0.15 ms, and each further call would cost some of it.
const LAST_SLICE_BYTES: u64 = 1 << 20;
/// Memory that may wait here before it has to leave.
const GATHERED_BYTES: u64 = 64 << 10;

/// What waits to be sent on a connection, in order.
#[derive(Default)]
pub struct Outgoing {
    /// Heads and small bodies. Pieces of the kind `Gathered` are consecutive parts of it, the first at `start`.
    gathered: Vec<u8>,
    start: usize,
    pieces: VecDeque<Piece>,
    /// Bytes of memory in all pieces.
    memory: u64,
    /// Bytes that have left since the counts began.
    sent: u64,
    /// Bytes that were put in since then.
    put: u64,
    /// Whether the file that was put in last was looked at just now and had the state that was promised.
    is_checked: bool,
    warming: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    turn: Turn,
    /// Whether it waits for its turn or for the disk, and not for the client.
    is_held_up: bool,
    /// Whether the end of the connection follows at once.
    is_last: bool,
}

enum Piece {
    Gathered(usize),
    Mem(Bytes),
    /// What is left of a file in memory, from this byte on.
    Whole(Whole, usize),
    File {
        file: Arc<OpenFile>,
        offset: u64,
        len: u64,
    },
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("pieces", &self.pieces.len()).field("memory", &self.memory).finish_non_exhaustive()
    }
}

impl Outgoing {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Room that is held for heads and small bodies.
    pub fn capacity(&self) -> usize {
        self.gathered.capacity()
    }

    /// Begins the counts of bytes anew.
    pub fn begin(&mut self) {
        (self.sent, self.put, self.is_last) = (0, 0, false);
    }

    /// Bytes that have left since the counts began.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes that were put in since the counts began.
    pub fn put(&self) -> u64 {
        self.put
    }

    /// Whether what it waits for is something here: its turn, or the disk. That is nothing the client has to answer for.
    pub fn is_held_up(&self) -> bool {
        self.is_held_up
    }

    /// Whether it should leave before more is put in.
    pub fn is_full(&self) -> bool {
        self.memory >= GATHERED_BYTES || matches!(self.pieces.back(), Some(Piece::File { .. }))
    }

    /// What is here is the last, and the end of the connection follows at once: the two leave in one packet.
    pub fn ends(&mut self) {
        self.is_last = true;
    }

    /// Puts in what `write` appends to a buffer.
    pub fn gather(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.gathered.len();
        write(&mut self.gathered);
        self.added(self.gathered.len() - before);
    }

    fn added(&mut self, bytes: usize) {
        if bytes == 0 {
            // a piece of nothing would never have left
            return;
        }
        self.memory += bytes as u64;
        self.put += bytes as u64;
        match self.pieces.back_mut() {
            Some(Piece::Gathered(len)) => *len += bytes,
            _ => self.pieces.push_back(Piece::Gathered(bytes)),
        }
    }

    /// Puts in the chunks of a body.
    pub fn chunks(&mut self, chunks: impl IntoIterator<Item = Chunk>) {
        for chunk in chunks.into_iter().filter(|c| !c.is_empty()) {
            match chunk {
                Chunk::Mem(bytes) if bytes.len() <= COPIED_BYTES => self.gather(|buffer| buffer.extend_from_slice(&bytes)),
                Chunk::Mem(bytes) => {
                    self.memory += bytes.len() as u64;
                    self.put += bytes.len() as u64;
                    self.pieces.push_back(Piece::Mem(bytes));
                }
                Chunk::File { file, offset, len } => {
                    self.put += len;
                    self.pieces.push_back(Piece::File { file, offset, len });
                }
            }
        }
    }

    /// Puts in all of a file that was looked at just now.
    pub fn whole(&mut self, whole: Whole) {
        match whole.variant().map(|variant| &variant.content) {
            Some(Content::Mem(bytes)) if bytes.len() <= COPIED_BYTES => self.gather(|buffer| buffer.extend_from_slice(bytes)),
            Some(Content::Mem(bytes)) => {
                self.memory += bytes.len() as u64;
                self.put += bytes.len() as u64;
                self.pieces.push_back(Piece::Whole(whole, 0));
            }
            Some(open) => {
                self.chunks([open.part(0, open.size())]);
                self.is_checked = true;
            }
            None => {}
        }
    }

    /// Sends what it can. Ready once everything has left.
    pub fn poll_send(&mut self, io: &mut Io, blocking: &Arc<Blocking>, cx: &mut Context) -> Poll<io::Result<()>> {
        let mut is_checked = std::mem::take(&mut self.is_checked);
        loop {
            let sent = match self.pieces.front_mut() {
                None => {
                    self.gathered.clear();
                    self.start = 0;
                    return Poll::Ready(Ok(()));
                }
                Some(Piece::File { file, offset, len }) => {
                    let slice = if *len <= LAST_SLICE_BYTES { *len } else { SLICE_BYTES };
                    let is_large = *len > SLICE_BYTES;
                    self.is_held_up = true;
                    if is_large {
                        ready!(self.turn.poll(cx));
                    }
                    ready!(warm(&mut self.warming, file, *offset, slice, blocking, cx));
                    self.is_held_up = false;
                    if !is_checked && !files::root::has_state(&file.fd, file.state) {
                        // what would leave now is not what was promised
                        return Poll::Ready(Err(ErrorKind::InvalidData.into()));
                    }
                    is_checked = true;
                    match rustix::fs::sendfile(io.fd()?, &file.fd, Some(&mut offset.clone()), slice as usize) {
                        Ok(0) => return Poll::Ready(Err(ErrorKind::UnexpectedEof.into())),
                        Ok(n) => {
                            *offset += n as u64;
                            *len -= n as u64;
                            self.sent += n as u64;
                            io.takes(n as u64);
                            if is_large {
                                turns::count(n as u64);
                            }
                            if *len == 0 {
                                self.pieces.pop_front();
                            }
                            continue;
                        }
                        Err(e) => Err(e),
                    }
                }
                Some(_) => self.send_memory(io.fd()?),
            };
            match sent {
                Ok(n) => self.left(n),
                Err(Errno::AGAIN) => {
                    self.let_go();
                    ready!(io.poll_writable(cx))?;
                }
                Err(Errno::INTR) => {}
                Err(e) => return Poll::Ready(Err(e.into())),
            }
        }
    }

    /// Holds bytes only while it waits for the client, and not all that is known of their files.
    fn let_go(&mut self) {
        for piece in &mut self.pieces {
            if let Piece::Whole(whole, at) = piece {
                *piece = Piece::Mem(whole.in_memory().map_or_else(Bytes::new, |bytes| bytes.slice(*at..)));
            }
        }
    }

    /// Sends the memory in front, up to the first file.
    fn send_memory(&self, fd: BorrowedFd) -> Result<usize, Errno> {
        let mut flags = SendFlags::NOSIGNAL;
        let next = self.pieces.get(1);
        // what comes from a file goes into the same packets
        flags.set(SendFlags::MORE, self.is_last || matches!(next, Some(Piece::File { .. })));
        if let (Some(Piece::Gathered(len)), None | Some(Piece::File { .. })) = (self.pieces.front(), next) {
            return rustix::net::send(fd, &self.gathered[self.start..self.start + len], flags);
        }
        let mut slices = [IoSlice::new(&[]); PIECES];
        let (mut count, mut at) = (0, self.start);
        for piece in &self.pieces {
            match piece {
                _ if count == PIECES => break,
                Piece::Gathered(len) => {
                    slices[count] = IoSlice::new(&self.gathered[at..at + len]);
                    at += len;
                }
                Piece::Mem(bytes) => slices[count] = IoSlice::new(bytes),
                Piece::Whole(whole, at) => slices[count] = IoSlice::new(whole.in_memory().map_or(&[], |bytes| &bytes[*at..])),
                Piece::File { .. } => {
                    flags |= SendFlags::MORE;
                    break;
                }
            }
            count += 1;
        }
        rustix::net::sendmsg(fd, &slices[..count], &mut SendAncillaryBuffer::default(), flags)
    }

    /// Notes that so many bytes of memory have left.
    fn left(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.memory -= bytes as u64;
        let mut rest = bytes;
        while rest > 0 {
            let (done, gone) = match self.pieces.front_mut() {
                Some(Piece::Gathered(len)) => {
                    let gone = rest.min(*len);
                    *len -= gone;
                    self.start += gone;
                    (*len == 0, gone)
                }
                Some(Piece::Mem(bytes)) => {
                    let gone = rest.min(bytes.len());
                    bytes.advance(gone);
                    (bytes.is_empty(), gone)
                }
                Some(Piece::Whole(whole, at)) => {
                    let left = whole.in_memory().map_or(0, |bytes| bytes.len() - *at);
                    let gone = rest.min(left);
                    *at += gone;
                    (gone == left, gone)
                }
                Some(Piece::File { .. }) | None => return,
            };
            rest -= gone;
            if done {
                self.pieces.pop_front();
            }
        }
    }
}

/// Sees to it that sending a slice does not wait for the disk: where a part of it is not in memory, the blocking pool reads it first.
fn warm(
    warming: &mut Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    file: &Arc<OpenFile>,
    offset: u64,
    len: u64,
    blocking: &Arc<Blocking>,
    cx: &mut Context,
) -> Poll<()> {
    let is_whole = len == file.state.0;
    if warming.is_none() && !(is_whole && file.is_warm.load(Ordering::Relaxed)) && !files::is_in_memory(&file.fd, offset, len) {
        let (file, blocking) = (Arc::clone(file), Arc::clone(blocking));
        *warming = Some(Box::pin(async move { blocking.run(move || files::bring_into_memory(&file.fd, offset, len)).await }));
    }
    if let Some(work) = warming {
        ready!(work.as_mut().poll(cx));
        *warming = None;
    }
    Poll::Ready(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::cache::{Checked, Entry, Kind};
    use crate::files::ready::tests::in_memory;
    use crate::files::watch::Epochs;
    use crate::http::coding::Coding;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (Io, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        (Io::new(server), client)
    }

    fn opened(file: std::fs::File) -> OpenFile {
        let stamp = files::root::stamp_of(&file).unwrap();
        OpenFile::new(file.into(), (stamp.len, stamp.modified.0, stamp.modified.1))
    }

    #[test]
    fn pieces_leave_in_order_and_are_counted() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (mut io, mut client) = pair();
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..900_000u32).map(|i| (i % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        let file = Arc::new(opened(file));
        let mut out = Outgoing::default();
        let mut expected = Vec::new();
        for i in 0..40u8 {
            out.gather(|b| b.extend_from_slice(&[i; 10]));
            expected.extend_from_slice(&[i; 10]);
            let small = vec![i; usize::from(i) * 200];
            out.chunks([Chunk::Mem(small.clone().into())]);
            expected.extend_from_slice(&small);
        }
        out.chunks([Chunk::File { file: Arc::clone(&file), offset: 7, len: 800_000 }]);
        expected.extend_from_slice(&bytes[7..800_007]);
        assert!(out.is_full());
        out.gather(|b| b.extend_from_slice(b"end"));
        expected.extend_from_slice(b"end");
        assert_eq!(out.put(), expected.len() as u64);
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            client.read_to_end(&mut got).unwrap();
            got
        });
        let blocking = Arc::new(Blocking::new(1).unwrap());
        runtime.block_on(std::future::poll_fn(|cx| out.poll_send(&mut io, &blocking, cx))).unwrap();
        assert_eq!((out.sent(), out.memory, out.is_empty()), (expected.len() as u64, 0, true));
        drop(io);
        assert!(reader.join().unwrap() == expected);
    }

    #[test]
    fn who_waits_for_the_client_holds_bytes_and_not_the_entry() {
        const BYTES: usize = 8 << 20;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (mut io, mut client) = pair();
        let checked = Checked { at_ms: 0, seat: Epochs::seat(b""), epoch: 0 };
        let entry = Arc::new(Entry::new(Kind::File(in_memory(BYTES)), checked));
        let mut out = Outgoing::default();
        out.whole(Whole::new(Arc::clone(&entry), Coding::Identity));
        assert_eq!(Arc::strong_count(&entry), 2);
        let blocking = Arc::new(Blocking::new(1).unwrap());
        runtime.block_on(async {
            std::future::poll_fn(|cx| {
                assert!(out.poll_send(&mut io, &blocking, cx).is_pending(), "the client takes nothing");
                Poll::Ready(())
            })
            .await;
            assert_eq!(Arc::strong_count(&entry), 1);
            let reader = std::thread::spawn(move || {
                let mut got = Vec::new();
                client.read_to_end(&mut got).unwrap();
                got
            });
            std::future::poll_fn(|cx| out.poll_send(&mut io, &blocking, cx)).await.unwrap();
            drop(io);
            let whole = Whole::new(Arc::clone(&entry), Coding::Identity);
            assert!(reader.join().unwrap()[..] == whole.in_memory().unwrap()[..]);
        });
    }

    #[test]
    fn nothing_leaves_at_once() {
        let mut out = Outgoing::default();
        out.gather(|_| {});
        assert!(out.is_empty(), "a piece of nothing would be sent again and again");
    }

    /// The client answers for the time that it takes, and not for that of the disk.
    #[test]
    fn what_is_waited_for_is_told_apart() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let blocking = Arc::new(Blocking::new(1).unwrap());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; SLICE_BYTES as usize]).unwrap();
        let file = Arc::new(opened(file));
        runtime.block_on(async {
            let (mut io, mut client) = pair();
            let mut out = Outgoing::default();
            out.chunks((0..64).map(|_| Chunk::File { file: Arc::clone(&file), offset: 0, len: SLICE_BYTES }));
            let (done, disk) = tokio::sync::oneshot::channel();
            let mut done = Some(done);
            out.warming = Some(Box::pin(async { disk.await.unwrap() }));
            for waits_for_the_disk in [true, false] {
                let polled = std::future::poll_fn(|cx| Poll::Ready(out.poll_send(&mut io, &blocking, cx))).await;
                assert!(polled.is_pending() && out.is_held_up() == waits_for_the_disk, "{waits_for_the_disk}");
                let _ = done.take().map(|done| done.send(()));
            }
            let reader = std::thread::spawn(move || io::copy(&mut client, &mut io::sink()).unwrap());
            std::future::poll_fn(|cx| out.poll_send(&mut io, &blocking, cx)).await.unwrap();
            drop(io);
            assert_eq!(reader.join().unwrap(), 64 * SLICE_BYTES);
        });
    }

    #[test]
    fn a_large_file_waits_for_its_turn() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (mut file, blocking) = (tempfile::tempfile().unwrap(), Arc::new(Blocking::new(1).unwrap()));
        file.write_all(&[1; 1 + SLICE_BYTES as usize]).unwrap();
        let file = Arc::new(opened(file));
        runtime.block_on(async {
            for (len, waits) in [(SLICE_BYTES - 1, false), (SLICE_BYTES, false), (SLICE_BYTES + 1, true)] {
                let (mut io, mut client) = pair();
                let mut out = Outgoing::default();
                out.chunks([Chunk::File { file: Arc::clone(&file), offset: 0, len }]);
                // others have sent as much as goes into a round
                turns::count(SLICE_BYTES);
                std::future::poll_fn(|cx| Poll::Ready(_ = out.poll_send(&mut io, &blocking, cx))).await;
                assert_eq!(out.sent() == 0, waits, "{len}");
                let reader = std::thread::spawn(move || io::copy(&mut client, &mut io::sink()).unwrap());
                std::future::poll_fn(|cx| out.poll_send(&mut io, &blocking, cx)).await.unwrap();
                drop(io);
                assert_eq!(reader.join().unwrap(), len);
            }
        });
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error_and_not_padded() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (mut io, _client) = pair();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 100]).unwrap();
        let mut out = Outgoing::default();
        out.chunks([Chunk::File { file: Arc::new(opened(file)), offset: 0, len: 200 }]);
        let blocking = Arc::new(Blocking::new(1).unwrap());
        let e = runtime.block_on(std::future::poll_fn(|cx| out.poll_send(&mut io, &blocking, cx))).unwrap_err();
        assert_eq!((e.kind(), out.sent()), (ErrorKind::UnexpectedEof, 100));
    }
}
