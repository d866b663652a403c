//! One HTTP/1.1 connection as a value: bytes in, events out; responses in, bytes out (RFC 9112).
//!
//! `Conn` keeps two small states, of what is read and of what is owed to the client, because a response may start while the
//! request's body still arrives. It does no I/O and has no clock: a driver brings bytes and the time, and asks for the deadline.
//! Invariant: bytes of a body are never read as a request. A body that nobody read is drained up to a bound, or the connection
//! ends.

pub mod body;
pub mod encode;
pub mod head;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::date::DATE_BYTES;
use super::refuse::Refuse;
use super::{Bounds, Head, Method, Request, StatusCode, Version};
use body::{Decoder, Piece};
use encode::Connection;
use head::{Scan, Scanned};

/// The protocol state of one connection.
#[derive(Debug)]
pub struct Conn {
    bounds: Arc<Bounds>,
    reading: Reading,
    writing: Writing,
    /// Where the time that the deadline limits began.
    since: Instant,
    /// Whether the head awaited is the first one: its time counts from the accept.
    is_first: bool,
    /// Whether the client still waits for `100 Continue`.
    continue_owed: bool,
    /// Whether the next response has to be the last.
    closing: bool,
    /// Whether the client wants the response to its last request to be the last.
    asked_to_close: bool,
}

#[derive(Debug)]
enum Reading {
    /// Between two requests, or within a head.
    Head(Scan),
    /// Within a body that the handler may ask for.
    Body(Incoming),
    /// Within a body that nobody will read, with so many bytes still allowed.
    Drain(Incoming, u64),
    /// Nothing that follows means anything.
    Closed,
}

#[derive(Debug)]
enum Writing {
    /// No request is open.
    Idle,
    /// A request was given out; its response is awaited.
    Owed { head_only: bool, version: Version, keep_alive: bool },
    /// The last response was given.
    Closed,
}

/// A body on its way in, and how fast it comes: the time spent waiting for it, and what came in that time. Time that the server
/// takes for itself does not count.
#[derive(Debug)]
struct Incoming {
    decoder: Decoder,
    waiting: bool,
    waited: Duration,
    bytes: u64,
}

/// How passing over a body went.
enum Passed {
    More,
    End,
    Failed,
}

impl Incoming {
    fn new(decoder: Decoder) -> Incoming {
        Incoming { decoder, waiting: false, waited: Duration::ZERO, bytes: 0 }
    }

    fn next(&mut self, input: &[u8], bounds: &Bounds, since: &mut Instant, now: Instant) -> Result<(usize, Piece), Refuse> {
        if self.waiting {
            self.waited += now.saturating_duration_since(*since);
        }
        *since = now;
        let (taken, piece) = self.decoder.decode(input, bounds)?;
        self.waiting = piece == Piece::More;
        self.bytes += taken as u64;
        Ok((taken, piece))
    }

    /// Drops what is there of the body, as long as no more than `left` bytes are dropped.
    fn pass(&mut self, input: &[u8], left: &mut u64, bounds: &Bounds, since: &mut Instant, now: Instant) -> (usize, Passed) {
        let mut at = 0;
        loop {
            let Ok((taken, piece)) = self.next(&input[at..], bounds, since, now) else { return (at, Passed::Failed) };
            at += taken;
            match (left.checked_sub(taken as u64), piece) {
                (None, _) => return (at, Passed::Failed),
                (Some(_), Piece::End) => return (at, Passed::End),
                (Some(rest), Piece::More) => {
                    *left = rest;
                    return (at, Passed::More);
                }
                (Some(rest), Piece::Data(_)) => *left = rest,
            }
        }
    }
}

/// What the bytes so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing yet: more bytes are needed, or nothing more will be read.
    More,
    /// A request, in the `Request` that was passed in. It is to be answered before the next one is asked for.
    Request,
    /// What came is no request that can be answered otherwise than by this.
    Refuse(Refuse),
}

/// What the bytes so far amount to within a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Inflow {
    /// Nothing yet: more bytes are needed.
    More,
    /// Bytes of the body, as a place in the input.
    Data(Range<usize>),
    /// The body is over.
    End,
    /// It is no body: this is the answer.
    Refuse(Refuse),
}

/// What a passed deadline means.
#[derive(Debug, PartialEq, Eq)]
pub enum Lapse {
    /// It had not passed, or the client is fast enough: go on.
    GoOn,
    /// End the connection without a word: nothing was asked.
    Silent,
    /// Answer with this, and end the connection.
    Refuse(Refuse),
}

impl Conn {
    /// A connection that was accepted at this time.
    pub fn new(bounds: Arc<Bounds>, accepted: Instant) -> Conn {
        Conn {
            bounds,
            reading: Reading::Head(Scan::default()),
            writing: Writing::Idle,
            since: accepted,
            is_first: true,
            continue_owed: false,
            closing: false,
            asked_to_close: false,
        }
    }

    /// Looks for the next request in `input`: returns how many of its bytes are done with, and what they are. What is not done
    /// with has to be in front of the input of the next call. What nobody read of the last request's body is passed over.
    pub fn receive(&mut self, input: &[u8], now: Instant, request: &mut Request) -> (usize, Event) {
        let mut at = 0;
        if let Reading::Drain(body, left) = &mut self.reading {
            let (taken, end) = body.pass(input, left, &self.bounds, &mut self.since, now);
            at = taken;
            match end {
                Passed::More => return (at, Event::More),
                Passed::End => self.reading = Reading::Head(Scan::default()),
                // past the bound, or no body at all: the connection is of no more use
                Passed::Failed => {
                    (self.reading, self.writing) = (Reading::Closed, Writing::Closed);
                    return (at, Event::More);
                }
            }
        }
        let rest = &input[at..];
        let Reading::Head(scan) = &mut self.reading else { return (at, Event::More) };
        if rest.is_empty() || !matches!(self.writing, Writing::Idle) {
            return (at, Event::More);
        }
        let had_begun = scan.has_begun();
        let event = match scan.find(rest, &self.bounds) {
            Ok(Scanned::More) => {
                if !had_begun && !self.is_first && scan.has_begun() {
                    self.since = now;
                }
                Event::More
            }
            Ok(Scanned::Head(place)) => {
                at += place.end;
                self.open(&rest[place], now, request)
            }
            Err(refuse) => self.refused(refuse, false),
        };
        (at, event)
    }

    /// Looks for more of the open request's body in `input`: returns how many of its bytes are done with, and what they are. A call
    /// that finds nothing begins a wait.
    pub fn receive_body(&mut self, input: &[u8], now: Instant) -> (usize, Inflow) {
        let Reading::Body(body) = &mut self.reading else { return (0, Inflow::End) };
        match body.next(input, &self.bounds, &mut self.since, now) {
            Ok((taken, piece)) => {
                self.continue_owed &= taken == 0;
                let inflow = match piece {
                    Piece::More => Inflow::More,
                    Piece::Data(place) => Inflow::Data(place),
                    Piece::End => {
                        self.reading = Reading::Head(Scan::default());
                        Inflow::End
                    }
                };
                (taken, inflow)
            }
            Err(refuse) => {
                self.reading = Reading::Closed;
                (0, Inflow::Refuse(refuse))
            }
        }
    }

    /// Opens the request of a complete head.
    fn open(&mut self, head: &[u8], now: Instant, request: &mut Request) -> Event {
        self.is_first = false;
        if let Err(refuse) = head::parse(head, &self.bounds, request) {
            return self.refused(refuse, request.method == Method::HEAD);
        }
        self.writing =
            Writing::Owed { head_only: request.method == Method::HEAD, version: request.version, keep_alive: request.keep_alive };
        self.continue_owed = request.expects_continue;
        self.asked_to_close = !request.keep_alive;
        self.since = now;
        self.reading = match Decoder::new(request.framing) {
            Some(decoder) => Reading::Body(Incoming::new(decoder)),
            None => Reading::Head(Scan::default()),
        };
        Event::Request
    }

    fn refused(&mut self, refuse: Refuse, head_only: bool) -> Event {
        self.reading = Reading::Closed;
        self.writing = Writing::Owed { head_only, version: Version::Http11, keep_alive: false };
        self.asked_to_close = false;
        Event::Refuse(refuse)
    }

    /// Writes the head of the response to the request that is open; returns how its body has to follow, if it has to.
    pub fn respond<'a>(&mut self, head: impl Into<Head<'a>>, date: &[u8; DATE_BYTES], now: Instant, out: &mut Vec<u8>) -> encode::Framing {
        let head = head.into();
        let Writing::Owed { head_only, version, keep_alive } = self.writing else {
            debug_assert!(false, "a response that nobody asked for");
            return encode::Framing::None;
        };
        let framing = match (head.body_bytes, version) {
            _ if !encode::has_body(head.status) => encode::Framing::None,
            (Some(bytes), _) => encode::Framing::Length(bytes),
            (None, Version::Http11) => encode::Framing::Chunked,
            (None, Version::Http10) => encode::Framing::Close,
        };
        let kept = keep_alive && !head.close && !self.closing && framing != encode::Framing::Close && self.can_drain();
        let connection = match (kept, version) {
            (false, _) => Connection::Close,
            (true, Version::Http10) => Connection::KeepAlive,
            (true, Version::Http11) => Connection::Implied,
        };
        encode::head(&head, framing, connection, date, out);
        self.since = now;
        self.continue_owed = false;
        self.writing = if kept { Writing::Idle } else { Writing::Closed };
        self.reading = match std::mem::replace(&mut self.reading, Reading::Closed) {
            Reading::Body(body) if kept => Reading::Drain(Incoming::new(body.decoder), self.bounds.drain_bytes),
            // where nothing is kept, what it was stays known for `has_unread`
            reading => reading,
        };
        if head_only { encode::Framing::None } else { framing }
    }

    /// Whether what is left of the body is short enough to be drained, as far as that is known. A client that waits for
    /// `100 Continue` may or may not send its body after another answer: there the connection has to end.
    fn can_drain(&self) -> bool {
        match &self.reading {
            Reading::Body(body) => !self.continue_owed && body.decoder.known_left().is_none_or(|left| left <= self.bounds.drain_bytes),
            Reading::Head(_) | Reading::Drain(..) => true,
            Reading::Closed => false,
        }
    }

    /// The response has left: from now on the connection rests.
    pub fn rest(&mut self, now: Instant) {
        self.since = now;
    }

    /// Makes the next response the last one of the connection.
    pub fn close_next(&mut self) {
        self.closing = true;
    }

    /// Whether it was the client that asked for the end of the connection.
    pub fn was_asked_to_close(&self) -> bool {
        self.asked_to_close
    }

    /// Whether the last response was given.
    pub fn is_closed(&self) -> bool {
        matches!(self.writing, Writing::Closed)
    }

    /// Whether the client may have sent, or be sending, what was not read: then the connection has to linger, or the client's
    /// kernel would drop the response (RFC 9112 section 9.6).
    pub fn has_unread(&self) -> bool {
        !matches!(self.reading, Reading::Head(_))
    }

    /// Whether no request has come yet.
    pub fn is_new(&self) -> bool {
        self.is_first
    }

    /// Whether the connection is between requests, with nothing begun.
    pub fn is_idle(&self) -> bool {
        matches!(self.writing, Writing::Idle) && matches!(&self.reading, Reading::Head(scan) if !scan.has_begun())
    }

    /// Whether `100 Continue` is due now that the handler asks for the body; it is due once.
    pub fn take_continue(&mut self) -> bool {
        std::mem::take(&mut self.continue_owed)
    }

    /// Since when the connection waits for a head, and whether it is one after another: it rests then.
    pub fn waits_since(&self) -> Option<(Instant, bool)> {
        match (&self.writing, &self.reading) {
            (Writing::Idle, Reading::Head(scan)) => Some((self.since, !self.is_first && !scan.has_begun())),
            _ => None,
        }
    }

    /// Says how a connection that waits for a head ends so that others can be served.
    pub fn make_room(&mut self) -> Lapse {
        const BUSY: Refuse = Refuse::busy("The server is busy. Try again in a moment.").closing();
        match &self.reading {
            Reading::Head(scan) if scan.has_begun() => {
                self.refused(BUSY, false);
                Lapse::Refuse(BUSY)
            }
            _ => Lapse::Silent,
        }
    }

    /// Until when the next bytes have to come.
    pub fn deadline(&self) -> Instant {
        self.since
            + match &self.reading {
                Reading::Head(scan) if scan.has_begun() || self.is_first => self.bounds.head_timeout,
                Reading::Head(_) | Reading::Closed => self.bounds.idle_timeout,
                Reading::Body(body) | Reading::Drain(body, _) => self.bounds.body_window.saturating_sub(body.waited),
            }
    }

    /// Says what it means that no bytes have come until now.
    pub fn lapse(&mut self, now: Instant) -> Lapse {
        const SLOW: Refuse = Refuse::new(StatusCode::REQUEST_TIMEOUT, "The request came too slowly.").closing();
        if now < self.deadline() {
            return Lapse::GoOn;
        }
        let bounds = &self.bounds;
        match &mut self.reading {
            Reading::Head(scan) if scan.has_begun() => {
                self.refused(SLOW, false);
                Lapse::Refuse(SLOW)
            }
            Reading::Head(_) | Reading::Closed => Lapse::Silent,
            Reading::Body(body) | Reading::Drain(body, _) => {
                let least = bounds.body_rate_per_s as f64 * bounds.body_window.as_secs_f64();
                if body.bytes as f64 >= least {
                    (body.waited, body.bytes) = (Duration::ZERO, 0);
                    self.since = now;
                    return Lapse::GoOn;
                }
                if matches!(self.reading, Reading::Drain(..)) {
                    return Lapse::Silent;
                }
                self.reading = Reading::Closed;
                Lapse::Refuse(SLOW)
            }
        }
    }
}

#[cfg(test)]
pub mod tests {
    //! What the tests of this and other modules share, and the properties of whole connections.

    use super::*;
    use crate::http::{Names, Response};
    use proptest::prelude::*;

    /// The bounds as they are by default, but for a drain bound that tests can reach.
    pub fn bounds() -> Bounds {
        Bounds { drain_bytes: 64, ..Bounds::default() }
    }

    /// A request with these field lines.
    pub fn request(method: &str, target: &str, fields: &str) -> Request {
        let fields = if fields.is_empty() { String::new() } else { format!("{fields}\r\n") };
        parse(&format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")).unwrap()
    }

    fn parse(head: &str) -> Result<Request, Refuse> {
        let mut request = Request::default();
        head::parse(head.as_bytes(), &bounds(), &mut request).map(|()| request)
    }

    const DATE: &[u8; DATE_BYTES] = b"Sun, 06 Nov 1994 08:49:37 GMT";

    /// Runs a connection over `input`, in pieces that end at the cuts, answering each request with 200; what happened, in words.
    fn run(input: &[u8], cuts: &[usize], read_bodies: bool) -> Vec<String> {
        let now = Instant::now();
        let mut conn = Conn::new(Arc::new(bounds()), now);
        let (mut log, mut out) = (Vec::new(), Vec::new());
        let mut request = Request::default();
        let mut ends: Vec<usize> = cuts.iter().map(|c| c % (input.len() + 1)).chain([input.len()]).collect();
        ends.sort_unstable();
        let (mut at, mut body, mut in_body) = (0, Vec::new(), false);
        for end in ends {
            while !conn.is_closed() {
                let piece = &input[at..end];
                if in_body {
                    let (taken, inflow) = conn.receive_body(piece, now);
                    at += taken;
                    match inflow {
                        Inflow::More => break,
                        Inflow::Data(place) => body.extend_from_slice(&piece[place]),
                        Inflow::End | Inflow::Refuse(_) => {
                            in_body = false;
                            log.push(format!("body {:?} {inflow:?}", String::from_utf8_lossy(&std::mem::take(&mut body))));
                            conn.respond(&Response::new(StatusCode::OK), DATE, now, &mut out);
                        }
                    }
                    continue;
                }
                request.clear();
                let (taken, event) = conn.receive(piece, now, &mut request);
                at += taken;
                match event {
                    Event::More => break,
                    Event::Request => {
                        log.push(format!("{} {:?}", String::from_utf8_lossy(request.line()), request.path));
                        in_body = read_bodies && request.framing != crate::http::Framing::None;
                        if !in_body {
                            conn.respond(&Response::new(StatusCode::OK), DATE, now, &mut out);
                        }
                    }
                    Event::Refuse(refuse) => {
                        log.push(format!("refused {} {}", refuse.status, refuse.detail));
                        conn.respond(&refuse.into_response(&request), DATE, now, &mut out);
                    }
                }
            }
        }
        log.push(format!("closed {} idle {}", conn.is_closed(), conn.is_idle()));
        log
    }

    #[test]
    fn targets() {
        /// Path, authority and query.
        type Told<'a> = Option<(&'a str, &'a str, Option<&'a str>)>;
        let cases: [(&str, Told); 24] = [
            ("GET /a?b=c", Some(("a", "h", Some("b=c")))),
            ("GET /a?", Some(("a", "h", Some("")))),
            ("GET /?/../..", Some(("", "h", Some("/../..")))),
            ("GET http://x.example/a?b", Some(("a", "x.example", Some("b")))),
            ("GET HTTP://x.example:81", Some(("", "x.example:81", None))),
            ("GET https://x.example?q", Some(("", "x.example", Some("q")))),
            ("GET http://[::1]:8080/a", Some(("a", "[::1]:8080", None))),
            ("OPTIONS *", Some(("", "h", None))),
            ("OPTIONS /a", Some(("a", "h", None))),
            ("CONNECT x.example:443", Some(("", "h", None))),
            ("BREW /pot", Some(("pot", "h", None))),
            ("GET *", None),
            ("GET a", None),
            ("GET ftp://x/a", None),
            ("GET http:///a", None),
            ("GET http://user@x/a", None),
            ("GET http://[::g]/a", None),
            ("CONNECT x.example", None),
            ("CONNECT /a", None),
            ("CONNECT x.example:", None),
            ("GET /a#b", None),
            ("GET /\u{e9}", None),
            ("GET ", None),
            ("G=T /", None),
        ];
        for (line, expected) in cases {
            let got = parse(&format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n")).ok();
            let got = got.as_ref().map(|r| (r.path.as_bytes(), r.authority(), r.query()));
            assert_eq!(got, expected.map(|(p, a, q)| (p.as_bytes(), a.as_bytes(), q.map(str::as_bytes))), "{line}");
        }
    }

    #[test]
    fn request_lines() {
        let cases = [
            ("GET / HTTP/1.0", 200),
            ("GET / HTTP/1.2", 200),
            ("GET / HTTP/1.9", 200),
            ("GET / HTTP/2.0", 505),
            ("GET / HTTP/0.9", 505),
            ("GET / HTTP/1", 400),
            ("GET / HTTP/1.10", 400),
            ("GET / HTTP/11", 400),
            ("GET / http/1.1", 400),
            ("GET / HTTP/1.x", 400),
            ("GET /", 400),
            ("GET", 400),
            ("GET  / HTTP/1.1", 400),
            ("GET /  HTTP/1.1", 400),
            ("GET /a b HTTP/1.1", 400),
            (" GET / HTTP/1.1", 400),
            ("GET\t/ HTTP/1.1", 400),
            ("GET / HTTP/1.1 ", 400),
            ("G@T / HTTP/1.1", 400),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF / HTTP/1.1", 200),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1", 400),
        ];
        for (line, status) in cases {
            let got = parse(&format!("{line}\r\nHost: h\r\n\r\n")).map_or_else(|r| r.status.as_u16(), |_| 200);
            assert_eq!(got, status, "{line}");
        }
    }

    #[test]
    fn framing() {
        use crate::http::Framing::{Chunked, Length, None as Nothing};
        let cases: [(&str, Result<crate::http::Framing, u16>); 27] = [
            ("", Ok(Nothing)),
            ("Content-Length: 0", Ok(Nothing)),
            ("Content-Length: 5", Ok(Length(5))),
            ("content-LENGTH:  007 ", Ok(Length(7))),
            ("Content-Length: 18446744073709551615", Ok(Length(u64::MAX))),
            ("Content-Length: 18446744073709551616", Err(400)),
            ("Content-Length: +5", Err(400)),
            ("Content-Length: -0", Err(400)),
            ("Content-Length: 0x5", Err(400)),
            ("Content-Length: 5 5", Err(400)),
            ("Content-Length: 5, 5", Err(400)),
            ("Content-Length:", Err(400)),
            ("Content-Length: 5\r\nContent-Length: 5", Err(400)),
            ("Content-Length: 5\r\nContent-Length: 6", Err(400)),
            ("Transfer-Encoding: chunked", Ok(Chunked)),
            ("transfer-encoding: Chunked", Ok(Chunked)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5", Err(400)),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked", Err(400)),
            ("Transfer-Encoding: chunked, chunked", Err(400)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Err(400)),
            ("Transfer-Encoding: chunked, gzip", Err(400)),
            ("Transfer-Encoding: gzip, chunked", Err(501)),
            ("Transfer-Encoding: xchunked", Err(501)),
            ("Transfer-Encoding: identity", Err(501)),
            ("Transfer-Encoding: chunked;a=b", Err(400)),
            ("Transfer-Encoding:", Err(400)),
            ("Transfer-Encoding: chunked,", Err(400)),
        ];
        for (fields, expected) in cases {
            let fields = if fields.is_empty() { String::new() } else { format!("{fields}\r\n") };
            let got = parse(&format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n")).map(|r| r.framing).map_err(|r| r.status.as_u16());
            assert_eq!(got, expected, "{fields}");
        }
        assert_eq!(parse("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap_err().status, 400);
    }

    #[test]
    fn fields() {
        let cases = [
            ("Host: h", 200),
            ("Host: h:80", 200),
            ("Host: [::1]:80", 200),
            ("", 400),
            ("Host: h\r\nHost: h", 400),
            ("Host:", 400),
            ("Host: a b", 400),
            ("Host: a/b", 400),
            ("Host: a@b", 400),
            ("Host: h:", 200),
            ("Host: h:123456", 400),
            ("Host: h:x", 400),
            ("Host: [::1", 400),
            ("Host: h\r\nX : 1", 400),
            ("Host: h\r\n: 1", 400),
            ("Host: h\r\n X: 1", 400),
            ("Host: h\r\nX: a\r\n folded", 400),
            ("Host: h\r\nX: a\0b", 400),
            ("Host: h\r\nX: a\rb", 400),
            ("Host: h\r\nX: a\x7Fb", 400),
            ("Host: h\r\nX: \u{e9}\tb", 200),
            ("Host: h\r\nX:", 200),
            ("Host: h\r\nX", 400),
            ("Host: h\r\nX(: 1", 400),
            ("Host: h\r\nExpect: 100-Continue", 200),
            ("Host: h\r\nExpect: magic", 417),
            ("Host: h\r\nExpect: magic\r\nExpect: 100-continue", 417),
        ];
        for (fields, status) in cases {
            let fields = if fields.is_empty() { String::new() } else { format!("{fields}\r\n") };
            let got = parse(&format!("GET / HTTP/1.1\r\n{fields}\r\n")).map_or_else(|r| r.status.as_u16(), |_| 200);
            assert_eq!(got, status, "{fields:?}");
        }
        let many = |n| "a:b\r\n".repeat(n);
        for (n, status) in [(98, 200), (99, 200), (100, 431)] {
            let got = parse(&format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", many(n))).map_or_else(|r| r.status.as_u16(), |_| 200);
            assert_eq!(got, status, "{n} fields and Host");
        }
    }

    #[test]
    fn connections_are_kept_or_not() {
        for (version, field, kept) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: x, CLOSE\r\n", false),
            ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            let request = parse(&format!("GET / HTTP/{version}\r\nHost: h\r\n{field}\r\n")).unwrap();
            assert_eq!(request.keep_alive, kept, "{version} {field}");
        }
    }

    #[test]
    fn sizes_of_heads() {
        let bounds = bounds();
        let head = |n: usize| format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(n - 32));
        let target = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(n - 1));
        for (input, expected) in [
            (head(bounds.head_bytes - 1), "GET"),
            (head(bounds.head_bytes), "GET"),
            (head(bounds.head_bytes + 1), "refused 431"),
            (target(bounds.target_bytes - 1), "GET"),
            (target(bounds.target_bytes), "GET"),
            (target(bounds.target_bytes + 1), "refused 414"),
        ] {
            for cuts in [&[][..], &[input.len() - 3]] {
                let log = run(input.as_bytes(), cuts, false);
                assert!(log[0].starts_with(expected), "{} bytes: {:.40}", input.len(), log[0]);
            }
        }
        // an endless target and an endless line are refused before they end
        assert!(run(&target(100 << 10).as_bytes()[..9 << 10], &[], false)[0].starts_with("refused 414"));
        assert!(run(&head(100 << 10).as_bytes()[..33 << 10], &[], false)[0].starts_with("refused 431"));
        // blank lines
        for (n, expected) in [(1, "GET"), (2, "GET"), (3, "refused 400")] {
            let input = "\r\n".repeat(n) + "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
            assert!(run(input.as_bytes(), &[], false)[0].starts_with(expected), "{n} blank lines");
        }
    }

    #[test]
    fn a_body_of_unknown_length_is_chunked_or_ends_the_connection() {
        #[derive(Debug)]
        struct Never;
        impl crate::http::body::Source for Never {
            fn poll_next(
                &mut self,
                _: &mut std::task::Context,
            ) -> std::task::Poll<Option<Result<bytes::Bytes, crate::http::body::Broken>>> {
                std::task::Poll::Ready(None)
            }
        }
        use encode::Framing::{Chunked, Close, None as Nothing};
        for (head, status, expected, closed) in [
            ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", 200, Chunked, false),
            ("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", 200, Nothing, false),
            ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", 304, Nothing, false),
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, Close, true),
        ] {
            let now = Instant::now();
            let mut conn = Conn::new(Arc::new(bounds()), now);
            conn.receive(head.as_bytes(), now, &mut Request::default());
            let mut response = Response::new(StatusCode::from_u16(status).unwrap());
            response.body = crate::http::body::Body::Stream(Box::new(Never));
            let mut out = Vec::new();
            assert_eq!(conn.respond(&response, DATE, now, &mut out), expected, "{head}");
            assert_eq!(conn.is_closed(), closed, "{head}");
            assert!(!String::from_utf8(out).unwrap().contains("content-length"), "{head}");
        }
    }

    #[test]
    fn an_unread_body_is_drained_or_ends_the_connection() {
        let bytes = bounds().drain_bytes as usize;
        let post = |n: usize| {
            format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {n}\r\n\r\n{}GET /next HTTP/1.1\r\nHost: h\r\n\r\n", "G".repeat(n))
        };
        for (n, kept) in [(bytes - 1, true), (bytes, true), (bytes + 1, false)] {
            let log = run(post(n).as_bytes(), &[], false);
            assert_eq!(log.iter().any(|l| l.starts_with("GET /next")), kept, "{n}: {log:?}");
        }
        // the bound counts what chunks cost on the wire: the chunk's 6 bytes around its data, and 5 for the last
        let chunked = |n: usize| {
            format!(
                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{n:x}\r\n{}\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n",
                "G".repeat(n)
            )
        };
        for (n, kept) in [(bytes - 12, true), (bytes, false)] {
            let log = run(chunked(n).as_bytes(), &[], false);
            assert_eq!(log.iter().any(|l| l.starts_with("GET /next")), kept, "{n}: {log:?}");
        }
    }

    #[test]
    fn deadlines() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut request = Request::default();
        let mut fresh = Conn::new(Arc::new(bounds()), start);
        // silent: from the accept, without a word
        assert_eq!(fresh.deadline(), start + 10 * second);
        assert_eq!(fresh.lapse(start + 9 * second), Lapse::GoOn);
        assert_eq!(fresh.lapse(start + 10 * second), Lapse::Silent);
        // a first head counts from the accept
        fresh.receive(b"GET", start + 5 * second, &mut request);
        assert_eq!(fresh.deadline(), start + 10 * second);
        assert!(matches!(fresh.lapse(start + 10 * second), Lapse::Refuse(r) if r.status == 408));
        // a later one from its first byte; before that the connection may rest for longer
        let mut kept = Conn::new(Arc::new(bounds()), start);
        let (taken, event) = kept.receive(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", start, &mut request);
        assert_eq!((taken, event), (27, Event::Request));
        kept.respond(&Response::new(StatusCode::OK), DATE, start, &mut Vec::new());
        kept.rest(start + second);
        assert_eq!(kept.deadline(), start + 61 * second);
        assert_eq!(kept.lapse(start + 61 * second), Lapse::Silent);
        request.clear();
        kept.receive(b"G", start + 30 * second, &mut request);
        assert_eq!(kept.deadline(), start + 40 * second);
        kept.receive(b"GE", start + 39 * second, &mut request);
        assert_eq!(kept.deadline(), start + 40 * second);
    }

    #[test]
    fn a_body_has_to_keep_its_pace_but_only_waiting_counts() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut request = Request::default();
        let open = |request: &mut Request| {
            let mut conn = Conn::new(Arc::new(bounds()), start);
            conn.receive(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n", start, request);
            conn
        };
        for (bytes, slow) in [(10 * 1024 - 1, true), (10 * 1024, false)] {
            request.clear();
            let mut conn = open(&mut request);
            assert_eq!(conn.receive_body(b"", start).1, Inflow::More);
            assert_eq!(conn.receive_body(&vec![0; bytes], start + 3 * second).1, Inflow::Data(0..bytes));
            // the handler took 20 seconds with that
            assert_eq!(conn.receive_body(b"", start + 23 * second).1, Inflow::More);
            assert_eq!(conn.deadline(), start + 30 * second);
            let lapse = conn.lapse(start + 30 * second);
            assert_eq!(matches!(lapse, Lapse::Refuse(ref r) if r.status == 408), slow, "{bytes} bytes: {lapse:?}");
        }
    }

    #[test]
    fn continue_is_due_once_and_only_to_who_waits_for_it() {
        let now = Instant::now();
        let head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
        let mut request = Request::default();
        let mut conn = Conn::new(Arc::new(bounds()), now);
        conn.receive(head, now, &mut request);
        assert!(conn.take_continue() && !conn.take_continue());
        // answered without the body: what follows could be either, so the connection ends
        request.clear();
        let mut conn = Conn::new(Arc::new(bounds()), now);
        conn.receive(head, now, &mut request);
        conn.respond(&Response::new(StatusCode::OK), DATE, now, &mut Vec::new());
        assert!(conn.is_closed() && conn.has_unread());
        // the body came without waiting
        request.clear();
        let mut conn = Conn::new(Arc::new(bounds()), now);
        conn.receive(head, now, &mut request);
        conn.receive_body(b"ab", now);
        assert!(!conn.take_continue());
    }

    fn wire() -> impl Strategy<Value = Vec<u8>> {
        let parts: Vec<&[u8]> = vec![
            b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            b"HEAD /a/../b?c HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n",
            b"POST /u HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
            b"POST /u HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;e=f\r\nhello\r\n0\r\nT: x\r\n\r\n",
            b"POST /u HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
            b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            b"\r\n",
            b"\n",
            b"GET",
            b": ",
            b"\r\nContent-Length: 9",
            b"\0",
        ];
        prop::collection::vec(prop::sample::select(parts), 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn no_field_that_is_there_is_said_to_be_lacking(names in prop::collection::vec("[!#$%&'*+.^_`|~0-9a-zA-Z-]{1,80}", 1..6)) {
            let request = request("GET", "/", &names.iter().map(|name| format!("{name}: x")).collect::<Vec<_>>().join("\r\n"));
            for name in &names {
                for name in [name.clone(), name.to_lowercase(), name.to_uppercase()] {
                    prop_assert!(!request.lacks(Names::of(&["none", &name])), "{name}");
                    prop_assert!(request.named(&name).next().is_some(), "{name}");
                }
            }
            prop_assert!(Request::default().lacks(Names::of(&["host"])));
        }

        #[test]
        fn every_split_of_the_same_bytes_gives_the_same_events(input in wire(), cuts in prop::collection::vec(any::<usize>(), 0..12), read in any::<bool>()) {
            let whole = run(&input, &[], read);
            prop_assert_eq!(&run(&input, &cuts, read), &whole);
            let every: Vec<usize> = (0..input.len()).collect();
            prop_assert_eq!(&run(&input, &every, read), &whole);
        }
    }
}
