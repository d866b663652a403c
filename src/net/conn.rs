//! One connection's socket: reading, waiting, its deadline, and how it ends.
//!
//! A socket is given to the event loop only when it first has to wait. A connection whose request is there already, as under
//! load, is read, answered and closed without that.

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use rustix::net::RecvFlags;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::task::coop::has_budget_remaining;
use tokio::time::Sleep;

use super::clients::Place;
use super::resting::{Rest, Seat};
use super::worker::Worker;
use super::{Accepted, Shared, h1, spare};
use crate::observe::End;

/// Bytes that a lingering connection may still send.
const LINGER_BYTES: usize = 4 << 20;

/// Bytes of files after which a client is known to take what it asks for. One that does not takes a window full, which is less unless
/// it has made that larger itself.
const PROOF_BYTES: u64 = 256 << 10;

/// Parts over which connections are spread that would otherwise do the same at the same moment.
pub const SPREAD: u32 = 64;

/// A non-blocking socket.
#[derive(Debug)]
pub struct Io {
    socket: Socket,
    /// Bytes of files that the client still has to take before the kernel may hold as many for it as it sees fit.
    unproven: u64,
}

#[derive(Debug)]
enum Socket {
    /// Not known to the event loop.
    Fresh(std::net::TcpStream),
    /// Watched by it.
    Watched(tokio::net::TcpStream),
    /// Between the two, or lost there.
    Lost,
}

impl Io {
    /// A socket that the event loop does not know yet.
    pub fn new(socket: std::net::TcpStream) -> Io {
        Io { socket: Socket::Fresh(socket), unproven: PROOF_BYTES }
    }

    /// Notes that the client takes so many bytes of a file. At first the kernel holds little for it (--unsent-limit): it might take
    /// nothing more. One that takes much is served best if the kernel always has enough.
    pub fn takes(&mut self, bytes: u64) {
        if self.unproven == 0 {
            return;
        }
        self.unproven = self.unproven.saturating_sub(bytes);
        if self.unproven == 0
            && let Ok(fd) = self.fd()
        {
            // if it is refused, the response leaves in more steps
            let _ = SockRef::from(&fd).set_tcp_notsent_lowat(0);
        }
    }

    fn watched(&mut self) -> io::Result<&tokio::net::TcpStream> {
        if let Socket::Fresh(_) = self.socket
            && let Socket::Fresh(socket) = std::mem::replace(&mut self.socket, Socket::Lost)
        {
            self.socket = Socket::Watched(tokio::net::TcpStream::from_std(socket)?);
        }
        match &self.socket {
            Socket::Watched(socket) => Ok(socket),
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// The socket, for system calls.
    ///
    /// # Errors
    ///
    /// It was lost when it was given to the event loop.
    pub fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.socket {
            Socket::Fresh(socket) => Ok(socket.as_fd()),
            Socket::Watched(socket) => Ok(socket.as_fd()),
            Socket::Lost => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Which of the parts this one is in.
    pub fn spread(&self) -> u32 {
        self.fd().map_or(0, |fd| fd.as_raw_fd() as u32 % SPREAD)
    }

    /// Waits until there may be something to read.
    pub fn poll_readable(&mut self, cx: &mut Context) -> Poll<io::Result<()>> {
        match &self.socket {
            Socket::Fresh(_) => Poll::Ready(Ok(())),
            _ => self.watched()?.poll_read_ready(cx),
        }
    }

    /// Reads what is there into the room that `buffer` has; 0 bytes at the end of what the client sends, and `None` if nothing is there.
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> Option<io::Result<usize>> {
        loop {
            let room = buffer.capacity() - buffer.len();
            let read = match self.fd() {
                Ok(fd) => rustix::net::recv(fd, rustix::buffer::spare_capacity(buffer), RecvFlags::empty()),
                Err(e) => return Some(Err(e)),
            };
            match read {
                Ok((n, _)) => {
                    // less than there was room for: the next one would have to wait, which saves asking
                    if n > 0 && n < room {
                        self.forget(Interest::READABLE);
                    }
                    return Some(Ok(n));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    if let Err(e) = self.watched() {
                        return Some(Err(e));
                    }
                    self.forget(Interest::READABLE);
                    return None;
                }
                Err(e) => return Some(Err(e.into())),
            }
        }
    }

    /// The same; waits until there is something.
    pub fn poll_read(&mut self, cx: &mut Context, buffer: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_readable(cx))?;
            if let Some(read) = self.read(buffer) {
                return Poll::Ready(read);
            }
        }
    }

    /// Waits until something can be written, after the kernel took no more.
    pub fn poll_writable(&mut self, cx: &mut Context) -> Poll<io::Result<()>> {
        self.watched()?;
        self.forget(Interest::WRITABLE);
        self.watched()?.poll_write_ready(cx)
    }

    /// Tells the event loop that what it knew of the socket's readiness is used up. What has come since is told anew: its events
    /// are taken in by this same thread, after this.
    fn forget(&self, interest: Interest) {
        if let Socket::Watched(socket) = &self.socket {
            // always `WouldBlock`: that is how readiness is cleared
            let _ = socket.try_io(interest, || Err::<(), _>(ErrorKind::WouldBlock.into()));
        }
    }

    /// Whether the client has sent something that was not read.
    pub fn has_more(&self) -> bool {
        self.fd().is_ok_and(|fd| rustix::net::recv(fd, &mut [0; 1], RecvFlags::PEEK).is_ok_and(|(n, _)| n > 0))
    }

    /// Ends what is sent.
    pub fn shutdown(&self) {
        if let Ok(fd) = self.fd() {
            // a socket that is gone needs no end
            let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Write);
        }
    }
}

/// A timer that is set seldom: it may fire early, looks whether the deadline has moved on, and sleeps again. It belongs to one task.
#[derive(Debug, Default)]
pub struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whether the timer knows the task.
    is_set: bool,
}

impl Alarm {
    /// Whether the deadline has passed; otherwise the task is woken then.
    pub fn poll(&mut self, cx: &mut Context, deadline: Instant) -> bool {
        let deadline = deadline.into();
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
            self.is_set = false;
        }
        if self.is_set && !sleep.is_elapsed() {
            return false;
        }
        loop {
            // a task that has used up its turn is told to wait, and the timer does not know of it
            let is_polled = has_budget_remaining();
            if sleep.as_mut().poll(cx).is_pending() {
                self.is_set = is_polled;
                return false;
            }
            if tokio::time::Instant::now() >= deadline {
                self.is_set = false;
                return true;
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

/// A connection that a worker serves: its socket, its timer and its place with the worker.
#[derive(Debug)]
pub struct Link {
    pub(super) io: Io,
    pub(super) alarm: Alarm,
    pub(super) shared: Arc<Shared>,
    pub(super) worker: Arc<Worker>,
    pub(super) accepted: Instant,
    pub(super) peer: IpAddr,
    seat: Option<Seat>,
    ended: Option<End>,
    /// Counts it for its client.
    _place: Place,
}

impl Link {
    /// Takes a connection on. From here on the worker's count of connections is this value's to lower.
    pub fn new(accepted: Accepted, shared: Arc<Shared>, worker: Arc<Worker>) -> Link {
        let peer = if shared.log.is_on() || shared.clients.needs_peer() { accepted.peer() } else { std::net::Ipv4Addr::UNSPECIFIED.into() };
        Link {
            io: Io::new(accepted.socket),
            alarm: Alarm::default(),
            shared,
            worker,
            accepted: accepted.at,
            peer,
            seat: None,
            ended: None,
            _place: accepted.place,
        }
    }

    /// Says what this connection waits for, so that it can be woken when it is to end or to make room; returns whether it is to make
    /// room.
    pub fn rests(&mut self, cx: &Context, rest: Rest) -> bool {
        let resting = &self.shared.resting;
        match &self.seat {
            Some(seat) => resting.set(seat, rest),
            None => {
                self.seat = Some(resting.add(self.worker.index, cx.waker().clone(), rest));
                false
            }
        }
    }

    /// It waits no more.
    pub fn is_busy(&self) {
        if let Some(seat) = &self.seat {
            self.shared.resting.set(seat, Rest::Busy);
        }
    }

    /// Since when the server stops, if it does.
    pub fn draining_since(&self) -> Option<Instant> {
        if self.worker.draining.load(Ordering::Relaxed) { self.worker.draining_since.get().copied() } else { None }
    }

    /// Serves the connection to its end.
    pub async fn serve(mut self) {
        let (end, linger) = h1::serve(&mut self).await;
        self.ended = Some(end);
        if linger {
            self.linger().await;
        }
    }

    /// Ends what is sent and reads on for a while: a client that is still sending would otherwise be told of a reset, and could
    /// lose the response to it (RFC 9112 section 9.6).
    async fn linger(&mut self) {
        self.io.shutdown();
        linger(&mut self.io, Instant::now() + self.shared.limits.linger_timeout).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(seat) = &self.seat {
            self.shared.resting.remove(self.worker.index, seat);
        }
        let end = match self.ended {
            _ if std::thread::panicking() => End::Panicked,
            Some(end) => end,
            None if self.shared.queue.is_cut_off() => End::Stopped,
            None => End::Cut,
        };
        self.shared.counters.end(end);
        self.shared.queue.ended(self.worker.index);
    }
}

/// Drops what still comes until the client ends it too, or the deadline.
pub async fn linger(io: &mut Io, deadline: Instant) {
    let mut alarm = Alarm::default();
    let mut left = LINGER_BYTES;
    let mut buffer = spare::input();
    std::future::poll_fn(|cx| {
        loop {
            match io.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(n)) if n > 0 && n <= left => {
                    left -= n;
                    buffer.clear();
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return if alarm.poll(cx, deadline) { Poll::Ready(()) } else { Poll::Pending },
            }
        }
    })
    .await;
    spare::keep_input(buffer);
}
