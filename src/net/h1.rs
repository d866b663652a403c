//! Drives HTTP/1.1 on a socket: bytes to `http::h1::Conn`, requests to the site, responses to `Outgoing`.
//!
//! What pipelined requests have ready at the same time is gathered and leaves in one call.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::yield_now;

use super::conn::{Alarm, Io, Link, SPREAD};
use super::resting::Rest;
use super::spare::{self, Hand, Tools};
use super::worker::Counted;
use super::write::Outgoing;
use super::{Moment, Shared};
use crate::files::{Served, Whole};
use crate::http::body::{Body, Chunk, Inbound, Source};
use crate::http::h1::encode::{self, CONTINUE, Framing};
use crate::http::h1::{Conn, Event, Inflow, Lapse};
use crate::http::refuse::Refuse;
use crate::http::{Head, Request, Response, StatusCode};
use crate::observe::{End, Record};

/// Requests that a connection may have answered before the others on the worker have their turn.
const TURN_REQUESTS: u32 = 64;
/// How long a request that has begun to come may take to arrive once the server stops, and how long a connection may still rest when
/// another process has taken over.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);
/// A response up to this size has left this machine, or fits into one round trip, when the kernel has taken it.
const SMALL_BYTES: u64 = 14 << 10;
/// The least room to read into.
const ROOM_BYTES: usize = 2 << 10;

/// Serves a connection until it ends; returns why it ended, and whether it has to linger.
pub async fn serve(link: &mut Link) -> (End, bool) {
    let conn = Conn::new(link.shared.bounds.clone(), link.accepted);
    // the reference count is shared by all workers: it is touched once a connection, and not once a request
    let shared = Arc::clone(&link.shared);
    let now = Moment::now();
    let mut driver = Driver {
        link,
        shared: &shared,
        conn,
        input: Input::default(),
        hand: Hand::default(),
        told: Vec::new(),
        is_large: false,
        began: now.at,
        now,
        counted: Counted::default(),
    };
    let (Ok(end) | Err(end)) = driver.run().await;
    let linger = driver.has_to_linger(end);
    std::mem::take(&mut driver.input).release();
    (end, linger)
}

struct Driver<'a> {
    link: &'a mut Link,
    shared: &'a Shared,
    conn: Conn,
    input: Input,
    /// Only an open request takes tools: an idle connection holds no buffer.
    hand: Hand,
    /// Requests whose response has not left yet, for the log.
    told: Vec<Answered>,
    /// Whether the last response may still be on its way when all of it has left.
    is_large: bool,
    /// When the connection was taken on.
    began: Instant,
    /// The time, read anew after everything that waits.
    now: Moment,
    /// When the worker last counted it among those that ask.
    counted: Counted,
}

impl Drop for Driver<'_> {
    /// However it ends, the log is told of what was answered.
    fn drop(&mut self) {
        self.tell();
    }
}

/// What a request is answered with.
enum Answer {
    /// A file as it is in its entry.
    Whole(Whole),
    /// A response that was made for it.
    Made(Response),
}

/// A request that was answered: what the log needs of it.
struct Answered {
    request: Box<Request>,
    status: u16,
    unix_s: u64,
    /// Where its body begins and ends in all that is sent on the connection.
    body: (u64, u64),
}

/// What came of waiting for input.
enum Waited {
    Bytes,
    Eof,
    Lapsed,
    Drained,
    MakesRoom,
}

impl Driver<'_> {
    /// Serves requests until the connection ends; an error is an end within a response.
    async fn run(&mut self) -> Result<End, End> {
        let mut turn = 0;
        loop {
            let (taken, event) = self.conn.receive(self.input.unread(), self.now.at, &mut self.hand.tools().request);
            self.input.consume(taken);
            match event {
                Event::Request => {
                    self.answer().await?;
                    turn += 1;
                    if turn == TURN_REQUESTS {
                        turn = 0;
                        self.send().await?;
                        yield_now().await;
                        self.now = Moment::now();
                    }
                }
                Event::Refuse(refuse) => {
                    self.refuse(refuse).await?;
                    return Ok(End::Malformed);
                }
                Event::More => {
                    if !self.hand.tools().out.is_empty() {
                        self.send().await?;
                    }
                    if self.conn.is_closed() {
                        return Ok(End::Done);
                    }
                    let waited = self.wait().await;
                    self.now = Moment::now();
                    match waited {
                        Ok(Waited::Bytes) => {}
                        Ok(Waited::Eof) => return Ok(if self.conn.is_idle() { End::Done } else { End::Cut }),
                        Ok(Waited::Drained) => return Ok(End::Drained),
                        Ok(Waited::MakesRoom) => {
                            if let Lapse::Refuse(refuse) = self.conn.make_room() {
                                self.refuse(refuse).await?;
                            }
                            return Ok(End::MadeRoom);
                        }
                        Ok(Waited::Lapsed) => match self.conn.lapse(self.now.at) {
                            Lapse::GoOn => {}
                            Lapse::Silent => return Ok(End::Idle),
                            Lapse::Refuse(refuse) => {
                                self.refuse(refuse).await?;
                                return Ok(End::Slow);
                            }
                        },
                        Err(_) => return Ok(End::Cut),
                    }
                }
            }
        }
    }

    /// Answers what is no request that can be served, and sends that.
    async fn refuse(&mut self, refuse: Refuse) -> Result<(), End> {
        let response = self.shared.site.refuse(refuse, &self.hand.tools().request, self.now.at).response().await;
        self.respond(response);
        self.send().await
    }

    /// Whether something may still come of the client, which would reset the connection before the client has read its response
    /// (RFC 9112 section 9.6). A client that asked for the end itself and has got a small response sends nothing more.
    fn has_to_linger(&self, end: End) -> bool {
        matches!(end, End::Done | End::Malformed | End::Slow | End::MadeRoom)
            && self.conn.is_closed()
            && (!self.conn.was_asked_to_close()
                || self.conn.has_unread()
                || !self.input.unread().is_empty()
                || self.is_large
                || self.link.io.has_more())
    }

    /// Waits for input, until the deadline.
    async fn wait(&mut self) -> io::Result<Waited> {
        let deadline = self.conn.deadline();
        // a client that has just come is about to ask
        let may_drain = self.conn.is_idle() && !self.conn.is_new();
        let rest = match self.conn.waits_since() {
            Some((since, true)) => Rest::Kept(since),
            Some((since, false)) => Rest::Head(since),
            None => Rest::Busy,
        };
        let sooner = if let Rest::Kept(since) = rest { Some(since + self.shared.limits.busy_idle_timeout) } else { None };
        let sooner = sooner.filter(|sooner| *sooner < deadline);
        self.hand.put_away();
        let Driver { link, shared, input, .. } = &mut *self;
        let waited = poll_fn(|cx| match input.poll_fill(&mut link.io, cx) {
            Poll::Ready(Ok(0)) => Poll::Ready(Ok(Waited::Eof)),
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(Waited::Bytes)),
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => {
                if link.rests(cx, rest) {
                    return Poll::Ready(Ok(Waited::MakesRoom));
                }
                let until = link.draining_since().map(|since| since + DRAIN_PATIENCE);
                // a client may be about to use a connection that rests: with nobody waiting for the end it has a moment to do so
                let is_over = may_drain && !shared.is_relieved.load(Ordering::Relaxed);
                if until.is_some() && is_over || until.is_some_and(|until| until < deadline && link.alarm.poll(cx, until)) {
                    Poll::Ready(Ok(Waited::Drained))
                } else if sooner.is_some_and(|sooner| shared.is_overloaded() && link.alarm.poll(cx, sooner)) {
                    Poll::Ready(Ok(Waited::MakesRoom))
                } else if link.alarm.poll(cx, deadline) {
                    Poll::Ready(Ok(Waited::Lapsed))
                } else {
                    Poll::Pending
                }
            }
        })
        .await;
        self.link.is_busy();
        waited
    }

    /// Has the open request answered.
    async fn answer(&mut self) -> Result<(), End> {
        let Driver { link, shared, conn, input, hand, now, .. } = &mut *self;
        let Tools { request, out } = hand.tools();
        let inbound = Inbound::new(request.framing);
        #[cfg(debug_assertions)]
        let fault = super::fault::asked(request);
        let serve = || {
            #[cfg(debug_assertions)]
            if let Some(fault) = &fault
                && let Some(served) = fault.serve(link, &inbound)
            {
                return served;
            }
            match shared.clients.admit(link.peer, request) {
                Ok(()) => shared.site.serve(request, &inbound, now.at),
                Err(refuse) => shared.site.refuse(refuse, request, now.at),
            }
        };
        let answer = match guarded(serve) {
            Some(Served::Whole(whole)) => Answer::Whole(whole),
            Some(Served::Ready(response)) => Answer::Made(response),
            Some(Served::Later(mut handler)) => {
                // what is ready does not wait for what is not
                if !out.is_empty() {
                    send(out, link).await?;
                }
                let mut body = BodyIn { link, conn, input, out, inbound: &inbound };
                let answered = poll_fn(|cx| {
                    loop {
                        match guarded(|| handler.as_mut().poll(cx)) {
                            Some(Poll::Ready(response)) => return Poll::Ready(Some(response)),
                            Some(Poll::Pending) => {}
                            None => return Poll::Ready(None),
                        }
                        if body.poll_bring(cx).is_pending() {
                            return Poll::Pending;
                        }
                    }
                })
                .await;
                *now = Moment::now();
                Answer::Made(answered.unwrap_or_else(|| panicked(request)))
            }
            None => Answer::Made(panicked(request)),
        };
        let made_on_the_way = match answer {
            Answer::Made(response) => self.respond(response),
            Answer::Whole(whole) => {
                self.respond_whole(whole);
                None
            }
        };
        #[cfg(debug_assertions)]
        if matches!(fault, Some(super::fault::Fault::PanicLate)) {
            self.send().await?;
            panic!("fault: after the head");
        }
        match made_on_the_way {
            Some((source, framing)) => self.stream(source, framing).await,
            None if self.hand.tools().out.is_full() => self.send().await,
            None => Ok(()),
        }
    }

    /// Sends a body while it is made.
    async fn stream(&mut self, mut source: Box<dyn Source>, framing: Framing) -> Result<(), End> {
        let out = &mut self.hand.tools().out;
        loop {
            // what is there does not wait for what is not
            let mut next = poll_fn(|cx| Poll::Ready(source.poll_next(cx))).await;
            if next.is_pending() {
                send(out, self.link).await?;
                next = Poll::Ready(poll_fn(|cx| source.poll_next(cx)).await);
            }
            let Poll::Ready(Some(piece)) = next else { break };
            // what it is made of has changed, or can not be read any more
            let Ok(piece) = piece else { return Err(End::Changed) };
            match framing {
                Framing::Chunked => out.gather(|buffer| encode::chunk(&piece, buffer)),
                _ => out.chunks([Chunk::Mem(piece)]),
            }
            if out.is_full() {
                send(out, self.link).await?;
            }
        }
        if framing == Framing::Chunked {
            out.gather(|buffer| buffer.extend_from_slice(encode::LAST_CHUNK));
        }
        self.now = Moment::now();
        self.send().await
    }

    /// Puts a response into the output. If its body is made while it is sent, that is left to do.
    fn respond(&mut self, response: Response) -> Option<(Box<dyn Source>, Framing)> {
        let (framing, begins) = self.begin((&response).into());
        let mut made_on_the_way = None;
        match response.body {
            _ if framing == Framing::None => {}
            Body::Chunks(chunks) => self.hand.tools().out.chunks(chunks),
            Body::Stream(source) => made_on_the_way = Some((source, framing)),
        }
        self.answered(response.status, begins, made_on_the_way.is_some());
        made_on_the_way
    }

    /// Puts a file into the output.
    fn respond_whole(&mut self, whole: Whole) {
        let Some(variant) = whole.variant() else {
            self.respond(whole.into_response());
            return;
        };
        let (framing, begins) = self.begin(variant.into());
        if framing != Framing::None {
            self.hand.tools().out.whole(whole);
        }
        self.answered(StatusCode::OK, begins, false);
    }

    /// Puts the head of a response into the output; returns how its body has to follow, and where it begins.
    fn begin(&mut self, head: Head) -> (Framing, u64) {
        // what the client had sent before the server stops, or others need its place, is answered: the last of it ends the connection
        if (self.link.draining_since().is_some() || self.has_to_make_room()) && self.input.unread().is_empty() && !self.link.io.has_more() {
            self.conn.close_next();
        }
        self.is_large = head.body_bytes.is_none_or(|bytes| bytes > SMALL_BYTES);
        let (conn, out, now) = (&mut self.conn, &mut self.hand.tools().out, self.now);
        let mut framing = Framing::None;
        self.link.worker.with_date(now.unix_s, |date| out.gather(|buffer| framing = conn.respond(head, date, now.at, buffer)));
        (framing, out.put())
    }

    /// Counts the request that was answered, and keeps it for the log.
    fn answered(&mut self, status: StatusCode, begins: u64, is_made_on_the_way: bool) {
        self.shared.counters.request(self.link.worker.index);
        super::worker::count_answer(&mut self.counted);
        let Tools { request, out } = self.hand.tools();
        if self.link.shared.log.is_on() {
            let request = std::mem::replace(request, spare::request());
            let ends = if is_made_on_the_way { u64::MAX } else { out.put() };
            self.told.push(Answered { request, status: status.as_u16(), unix_s: self.now.unix_s, body: (begins, ends) });
        } else {
            request.clear();
        }
    }

    /// Whether its place is wanted: others wait for one, or the gate holds new connections back and this one has had its time since
    /// then. Not all that are here when that begins have it at the same moment: they will come back.
    fn has_to_make_room(&self) -> bool {
        let Some(since) = self.shared.door.held_since() else { return self.shared.queue.is_crowded() };
        let time = self.shared.limits.busy_idle_timeout;
        self.shared.queue.is_crowded() || self.now.at >= since.max(self.began) + time + time * self.link.io.spread() / SPREAD
    }

    /// Sends all that is ready, and tells the log. The connection rests from then on.
    async fn send(&mut self) -> Result<(), End> {
        let out = &mut self.hand.tools().out;
        if self.conn.is_closed() {
            out.ends();
        }
        let sent = send(out, self.link).await;
        self.tell();
        if sent? {
            self.now = Moment::now();
        }
        self.conn.rest(self.now.at);
        Ok(())
    }

    /// Tells the log of the requests whose response has left, or never will.
    fn tell(&mut self) {
        if self.told.is_empty() {
            return;
        }
        let sent = self.hand.tools().out.sent();
        for answered in self.told.drain(..) {
            let (from, to) = answered.body;
            let record = Record {
                peer: self.shared.clients.client(self.link.peer, &answered.request),
                unix_s: answered.unix_s,
                request: &answered.request,
                status: answered.status,
                body_bytes: sent.clamp(from, to) - from,
            };
            self.link.shared.log.record(self.link.worker.index, &record);
            spare::keep_request(answered.request);
        }
    }
}

/// Sends all that is in `out`; returns whether that had to wait. A client that takes nothing for the write timeout ends it.
async fn send(out: &mut Outgoing, link: &mut Link) -> Result<bool, End> {
    let Link { io, shared, .. } = link;
    let limits = &shared.limits;
    let mut progress: Option<(u64, Instant)> = None;
    let mut window: Option<(u64, Instant)> = None;
    let mut alarm = Alarm::default();
    let mut has_waited = false;
    let mut held_up_since: Option<Instant> = None;
    let sent = poll_fn(|cx| match out.poll_send(io, &shared.blocking, cx) {
        Poll::Ready(sent) => Poll::Ready(Some(sent)),
        Poll::Pending if out.is_held_up() => {
            // the time of the client stands still
            held_up_since.get_or_insert_with(Instant::now);
            has_waited = true;
            Poll::Pending
        }
        Poll::Pending => {
            has_waited = true;
            let held_up = held_up_since.take().map_or(Duration::ZERO, |since| since.elapsed());
            for (_, since) in [&mut progress, &mut window].into_iter().flatten() {
                *since += held_up;
            }
            let since = match progress {
                Some((sent, since)) if sent == out.sent() => since,
                _ => Instant::now(),
            };
            progress = Some((out.sent(), since));
            loop {
                let now = Instant::now();
                let (before, begun) = *window.get_or_insert((out.sent(), now));
                let ends = begun + limits.write_window;
                let least = limits.write_rate as f64 * limits.write_window.as_secs_f64();
                if now >= since + limits.write_timeout || now >= ends && ((out.sent() - before) as f64) < least {
                    return Poll::Ready(None);
                }
                if now >= ends {
                    window = None;
                } else if !alarm.poll(cx, ends.min(since + limits.write_timeout)) {
                    return Poll::Pending;
                }
            }
        }
    })
    .await;
    match sent {
        Some(Ok(())) => Ok(has_waited),
        Some(Err(e)) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) => Err(End::Changed),
        Some(Err(_)) => Err(End::Cut),
        None => Err(End::Stalled),
    }
}

/// Brings a handler the body that it asks for.
struct BodyIn<'a> {
    link: &'a mut Link,
    conn: &'a mut Conn,
    input: &'a mut Input,
    out: &'a mut Outgoing,
    inbound: &'a Inbound,
}

impl BodyIn<'_> {
    /// Ready once the handler has something new to look at.
    fn poll_bring(&mut self, cx: &mut Context) -> Poll<()> {
        const GONE: Refuse = Refuse::bad("The request ended within its body.");
        if !self.inbound.is_wanted() {
            return Poll::Pending;
        }
        if self.conn.take_continue() {
            self.out.gather(|buffer| buffer.extend_from_slice(CONTINUE));
        }
        loop {
            // a client that does not take the few bytes of `100 Continue` is met again by the deadline of the body
            if !self.out.is_empty()
                && let Poll::Ready(Err(_)) = self.out.poll_send(&mut self.link.io, &self.link.shared.blocking, cx)
            {
                return self.give(Err(GONE));
            }
            let now = Instant::now();
            let (taken, inflow) = self.conn.receive_body(self.input.unread(), now);
            let piece = match inflow {
                Inflow::Data(place) => Ok(Some(Bytes::copy_from_slice(&self.input.unread()[place]))),
                Inflow::End => Ok(None),
                Inflow::Refuse(refuse) => Err(refuse),
                Inflow::More => {
                    self.input.consume(taken);
                    match self.input.poll_fill(&mut self.link.io, cx) {
                        Poll::Ready(Ok(n)) if n > 0 => continue,
                        Poll::Ready(_) => return self.give(Err(GONE)),
                        Poll::Pending => {}
                    }
                    if !self.link.alarm.poll(cx, self.conn.deadline()) {
                        return Poll::Pending;
                    }
                    match self.conn.lapse(Instant::now()) {
                        Lapse::GoOn => continue,
                        Lapse::Refuse(refuse) => Err(refuse),
                        Lapse::Silent => Err(GONE),
                    }
                }
            };
            self.input.consume(taken);
            return self.give(piece);
        }
    }

    fn give(&mut self, piece: Result<Option<Bytes>, Refuse>) -> Poll<()> {
        self.inbound.put(piece);
        Poll::Ready(())
    }
}

/// Runs a part of a handler; `None` if it panicked. The panic hook has told where.
fn guarded<T>(run: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(run)).ok()
}

fn panicked(request: &Request) -> Response {
    Refuse::internal().closing().into_response(request)
}

/// What was read and is not done with.
#[derive(Default)]
struct Input {
    buffer: Vec<u8>,
    at: usize,
}

impl Input {
    fn unread(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
        }
    }

    /// Reads more. While there is nothing to read, no more is held than what is unread.
    fn poll_fill(&mut self, io: &mut Io, cx: &mut Context) -> Poll<io::Result<usize>> {
        loop {
            match io.poll_readable(cx) {
                Poll::Ready(Ok(())) => self.make_room(),
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => {
                    self.shrink();
                    return Poll::Pending;
                }
            }
            if let Some(read) = io.read(&mut self.buffer) {
                return Poll::Ready(read);
            }
        }
    }

    fn make_room(&mut self) {
        if self.at > 0 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        let room = self.buffer.capacity() - self.buffer.len();
        if room >= ROOM_BYTES {
            return;
        }
        if self.buffer.len() + ROOM_BYTES <= spare::INPUT_BYTES {
            let small = std::mem::replace(&mut self.buffer, spare::input());
            self.buffer.extend_from_slice(&small);
        } else {
            self.buffer.reserve(spare::INPUT_BYTES);
        }
    }

    fn shrink(&mut self) {
        if self.buffer.capacity() > self.unread().len() + ROOM_BYTES {
            let unread = self.unread().to_vec();
            spare::keep_input(std::mem::replace(&mut self.buffer, unread));
            self.at = 0;
        }
    }

    fn release(self) {
        spare::keep_input(self.buffer);
    }
}
