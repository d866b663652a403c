//! The head of a request: where it ends, what it says, and how its body is framed.
//!
//! `Scan` finds the end and refuses what RFC 9112 gives no meaning to while the bytes arrive: a line feed without its carriage
//! return, and a head past its bounds. The request line is read here, the field lines by httparse, which checks every byte of
//! names and values (no control characters, no white space before a colon, no folded lines, no carriage return alone).

use std::ops::Range;

use crate::http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use crate::http::refuse::Refuse;
use crate::http::{Bounds, Framing, Method, Request, StatusCode, Version};

/// Empty lines that may stand before a request line (RFC 9112 section 2.2 asks for at least one).
const BLANK_LINES: u8 = 2;
/// Bytes of a method; the longest registered one has 17.
const METHOD_BYTES: usize = 32;
/// Fields that are parsed without an allocation: more than browsers send.
const FIELDS_ON_STACK: usize = 32;
/// Fields that are tried first where they have no more than these bytes, as programs send them: to prepare room for a field costs
/// nearly as much as to read it.
const FEW_FIELDS: usize = 8;
const FEW_BYTES: usize = 256;

/// The search for the end of a head, resumed where it stopped when more bytes come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// Start of the line that is not complete yet.
    line: usize,
    /// How far was searched.
    seen: usize,
    /// Empty lines before the request line so far.
    blank: u8,
}

/// What a scan found.
#[derive(Debug, PartialEq, Eq)]
pub enum Scanned {
    /// Not all of the head is there.
    More,
    /// The head, from its request line to the empty line, both included.
    Head(Range<usize>),
}

impl Scan {
    /// Looks on. `bytes` has to begin with what the last call was given; empty lines in front are part of it.
    pub fn find(&mut self, bytes: &[u8], bounds: &Bounds) -> Result<Scanned, Refuse> {
        while let Some(at) = memchr::memchr(b'\n', &bytes[self.seen..]) {
            let end = self.seen + at;
            // in the order of the bytes: what is too long is so before its line ends, however much came at once
            self.check(&bytes[..end], bounds)?;
            if end == self.line || bytes[end - 1] != b'\r' {
                return Err(Refuse::bad("A line of the request head ends without a carriage return."));
            }
            let empty = end - 1 == self.line;
            let start = self.start();
            (self.line, self.seen) = (end + 1, end + 1);
            if !empty {
                continue;
            }
            if start + 2 < self.line {
                check_size(self.line - start, bounds)?;
                return Ok(Scanned::Head(start..self.line));
            }
            self.blank += 1;
            if self.blank > BLANK_LINES {
                return Err(Refuse::bad("There are too many empty lines before the request."));
            }
        }
        self.seen = bytes.len();
        self.check(bytes, bounds)?;
        Ok(Scanned::More)
    }

    /// Whether what came is within the bounds, in a head that has not ended.
    fn check(&self, bytes: &[u8], bounds: &Bounds) -> Result<(), Refuse> {
        let head = &bytes[self.start()..];
        let is_in_request_line = self.line == self.start() && head.len() > bounds.target_bytes;
        if is_in_request_line && target_in_part(&head[..head.len().min(bounds.head_bytes)]) > bounds.target_bytes {
            return Err(too_long());
        }
        check_size(head.len(), bounds)
    }

    /// Where the request line starts.
    fn start(&self) -> usize {
        2 * usize::from(self.blank)
    }

    /// Whether a byte of the head itself has come, after any empty lines.
    pub fn has_begun(&self) -> bool {
        self.seen > self.start()
    }
}

/// Bytes of the target so far, in a request line of which the end has not come.
fn target_in_part(line: &[u8]) -> usize {
    let Some(space) = memchr::memchr(b' ', &line[..line.len().min(METHOD_BYTES + 1)]) else { return 0 };
    let rest = &line[space + 1..];
    memchr::memchr2(b' ', b'\r', rest).unwrap_or(rest.len())
}

fn check_size(bytes: usize, bounds: &Bounds) -> Result<(), Refuse> {
    if bytes > bounds.head_bytes {
        Err(Refuse::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "The request head is too large.").closing())
    } else {
        Ok(())
    }
}

fn too_long() -> Refuse {
    Refuse::new(StatusCode::URI_TOO_LONG, "The address is too long.").closing()
}

/// Reads a complete head into `request`. On an error the request has what was read so far: its line and method, for the log and
/// for HEAD.
pub fn parse(head: &[u8], bounds: &Bounds, request: &mut Request) -> Result<(), Refuse> {
    request.head.extend_from_slice(head);
    let line_end = memchr::memchr(b'\n', head).map_or(head.len(), |lf| lf.saturating_sub(1));
    request.line = 0..line_end;
    let (target, question) = request_line(&head[..line_end], bounds, request)?;
    let fields = head.get(line_end + 2..).unwrap_or_default();
    field_lines(fields, line_end + 2, bounds, request)?;
    let known = Known::collect(request)?;
    request.framing = framing(request.version, &known)?;
    request.keep_alive = !known.close && (request.version == Version::Http11 || known.keep_alive);
    let host = host(request.version, &known, head)?;
    set_target(target, question, host, head, request)?;
    if request.version == Version::Http11
        && let Some(is_known) = known.expect
    {
        if !is_known {
            return Err(Refuse::new(StatusCode::EXPECTATION_FAILED, "The only expectation known here is 100-continue.").closing());
        }
        request.expects_continue = request.framing != Framing::None;
    }
    Ok(())
}

/// Reads `method SP target SP version` (RFC 9112 section 3); returns where the target is, and its question mark.
fn request_line(line: &[u8], bounds: &Bounds, request: &mut Request) -> Result<(Range<usize>, Option<usize>), Refuse> {
    const SHAPE: Refuse = Refuse::bad("The request line is not of the form: method, space, target, space, version.");
    let first = if line.starts_with(b"GET ") { 3 } else { memchr::memchr(b' ', line).ok_or(SHAPE)? };
    if first > METHOD_BYTES {
        return Err(Refuse::bad("The method is not one."));
    }
    request.method = Method::from_bytes(&line[..first]).map_err(|_| Refuse::bad("The method is not one."))?;
    let start = first + 1;
    let path_end = end_of(&IN_PATH, line, start);
    let question = (line.get(path_end) == Some(&b'?')).then_some(path_end);
    let valid = if question.is_some() { end_of(&IN_TARGET, line, path_end) } else { path_end };
    // what is too long, or of no known version, is so whatever it consists of
    let second = valid + if line.get(valid) == Some(&b' ') { 0 } else { memchr::memchr(b' ', &line[valid..]).ok_or(SHAPE)? };
    if second - start > bounds.target_bytes {
        return Err(too_long());
    }
    request.version = version(&line[second + 1..])?;
    if second == start || valid < second {
        return Err(Refuse::bad("The address has characters that may only stand there percent-encoded."));
    }
    Ok((start..second, question))
}

/// The bytes that a target may have, those of them before its question mark, and those of a host that is a name.
const IN_TARGET: [bool; 256] = visible_without(b"#");
const IN_PATH: [bool; 256] = visible_without(b"#?");
const IN_HOST: [bool; 256] = visible_without(b"\"#/:<>?@[\\]^`{|}");

/// All visible characters but these.
const fn visible_without(excluded: &[u8]) -> [bool; 256] {
    let mut set = [false; 256];
    let (mut byte, mut at) = (b'!', 0);
    while byte <= b'~' {
        set[byte as usize] = true;
        byte += 1;
    }
    while at < excluded.len() {
        set[excluded[at] as usize] = false;
        at += 1;
    }
    set
}

/// Where the bytes of a set that begin here end.
fn end_of(set: &[bool; 256], text: &[u8], from: usize) -> usize {
    text[from..].iter().position(|&b| !set[usize::from(b)]).map_or(text.len(), |length| from + length)
}

/// RFC 9112 section 2.3 and RFC 9110 section 2.5.
fn version(text: &[u8]) -> Result<Version, Refuse> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', b'0'..=b'9'] => {
            if *major == b'1' {
                Ok(Version::Http11)
            } else {
                Err(Refuse::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "This is a server for HTTP/1.1.").closing())
            }
        }
        _ => Err(Refuse::bad("The request line does not end with a version of HTTP.")),
    }
}

/// Notes where each field's name and value are. `at` is where `lines` begins in the head.
fn field_lines(lines: &[u8], at: usize, bounds: &Bounds, request: &mut Request) -> Result<(), Refuse> {
    let most = bounds.head_fields;
    let is_done = lines.len() <= FEW_BYTES && note(lines, at, &mut [httparse::EMPTY_HEADER; FEW_FIELDS], most, request)?
        || note(lines, at, &mut [httparse::EMPTY_HEADER; FIELDS_ON_STACK], most, request)?
        || most > FIELDS_ON_STACK && note(lines, at, &mut vec![httparse::EMPTY_HEADER; most], most, request)?;
    if is_done {
        return Ok(());
    }
    Err(Refuse::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "The request has too many header fields.").closing())
}

/// The same, if they have room in `slots` and are not more than `most`; returns whether that is so.
fn note<'a>(lines: &'a [u8], at: usize, slots: &mut [httparse::Header<'a>], most: usize, request: &mut Request) -> Result<bool, Refuse> {
    let room = most.min(slots.len());
    let parsed = match httparse::parse_headers(lines, &mut slots[..room]) {
        Ok(httparse::Status::Complete((_, parsed))) => parsed,
        Err(httparse::Error::TooManyHeaders) => return Ok(false),
        _ => return Err(Refuse::bad("A header field of the request is malformed.")),
    };
    let base = lines.as_ptr() as usize;
    let place = |part: &[u8]| {
        let start = at + (part.as_ptr() as usize).wrapping_sub(base);
        start..start + part.len()
    };
    for field in parsed {
        request.add_field(place(field.name.as_bytes()), place(field.value));
    }
    Ok(true)
}

/// The fields that decide about the message itself, gathered in one pass.
#[derive(Default)]
struct Known {
    host: Option<Range<usize>>,
    content_length: Option<u64>,
    /// The elements of Transfer-Encoding: none, `chunked` alone at the end, or why not.
    transfer: Option<Result<(), Refuse>>,
    /// Whether it expects `100-continue` and nothing else.
    expect: Option<bool>,
    close: bool,
    keep_alive: bool,
}

impl Known {
    fn collect(request: &Request) -> Result<Known, Refuse> {
        let mut known = Known::default();
        let mut chunked_seen = false;
        for (name, value_at) in &request.fields {
            let (name, value) = (&request.head[name.clone()], &request.head[value_at.clone()]);
            let is = |known: &crate::http::header::HeaderName| name.eq_ignore_ascii_case(known.as_str().as_bytes());
            match name.len() {
                4 if is(&HOST) => once(&mut known.host, value_at.clone(), "The request has more than one Host field.")?,
                6 if is(&EXPECT) => known.expect = Some(known.expect.unwrap_or(true) && value.eq_ignore_ascii_case(b"100-continue")),
                10 if is(&CONNECTION) => {
                    for option in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
                        known.close |= option.eq_ignore_ascii_case(b"close");
                        known.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                14 if is(&CONTENT_LENGTH) => {
                    once(&mut known.content_length, decimal(value)?, "The request has more than one Content-Length field.")?
                }
                17 if is(&TRANSFER_ENCODING) => {
                    for coding in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
                        let next = coding_is_known(coding, chunked_seen);
                        chunked_seen |= next.is_ok();
                        known.transfer = Some(known.transfer.unwrap_or(Ok(())).and(next));
                    }
                }
                _ => {}
            }
        }
        Ok(known)
    }
}

/// Notes a value that may come once.
fn once<T>(slot: &mut Option<T>, value: T, twice: &'static str) -> Result<(), Refuse> {
    if slot.replace(value).is_some() { Err(Refuse::bad(twice)) } else { Ok(()) }
}

/// One element of Transfer-Encoding. The only coding decoded here is chunked, and it has to be the last and the only one.
fn coding_is_known(coding: &[u8], chunked_before: bool) -> Result<(), Refuse> {
    if chunked_before || coding.is_empty() {
        return Err(Refuse::bad("In Transfer-Encoding, chunked has to come once and last."));
    }
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    if coding.split(|b| b" \t;".contains(b)).next().is_some_and(|name| name.eq_ignore_ascii_case(b"chunked")) {
        return Err(Refuse::bad("The chunked coding has no parameters."));
    }
    Err(Refuse::new(StatusCode::NOT_IMPLEMENTED, "The only transfer coding known here is chunked.").closing())
}

/// Every framing decision (RFC 9112 section 6.3).
fn framing(version: Version, known: &Known) -> Result<Framing, Refuse> {
    match (&known.transfer, known.content_length) {
        (Some(_), _) if version == Version::Http10 => Err(Refuse::bad("HTTP/1.0 has no Transfer-Encoding.")),
        (Some(_), Some(_)) => Err(Refuse::bad("The request has both Content-Length and Transfer-Encoding.")),
        (Some(Err(refuse)), None) => Err(refuse.clone()),
        (Some(Ok(())), None) => Ok(Framing::Chunked),
        (None, None | Some(0)) => Ok(Framing::None),
        (None, Some(length)) => Ok(Framing::Length(length)),
    }
}

/// A number of digits only, within 64 bits.
fn decimal(value: &[u8]) -> Result<u64, Refuse> {
    const BAD: Refuse = Refuse::bad("Content-Length is not a number, or too large a one.");
    if value.is_empty() {
        return Err(BAD);
    }
    value
        .iter()
        .try_fold(0u64, |n, b| if b.is_ascii_digit() { n.checked_mul(10)?.checked_add(u64::from(b - b'0')) } else { None })
        .ok_or(BAD)
}

/// Where the host is: exactly one in 1.1, at most one in 1.0 (RFC 9112 section 3.2).
fn host(version: Version, known: &Known, head: &[u8]) -> Result<Range<usize>, Refuse> {
    match &known.host {
        Some(at) if is_authority(&head[at.clone()]) => Ok(at.clone()),
        Some(_) => Err(Refuse::bad("The Host field does not name a host.")),
        None if version == Version::Http10 => Ok(0..0),
        None => Err(Refuse::bad("The request has no Host field.")),
    }
}

/// `uri-host [ ":" port ]` with a host that is not empty (RFC 9110 section 7.2, RFC 3986 section 3.2).
fn is_authority(text: &[u8]) -> bool {
    let (host_is_good, rest) = match text.strip_prefix(b"[") {
        Some(inner) => {
            let Some(end) = memchr::memchr(b']', inner) else { return false };
            let address = std::str::from_utf8(&inner[..end]).ok().and_then(|a| a.parse::<std::net::Ipv6Addr>().ok());
            (address.is_some(), &inner[end + 1..])
        }
        None => {
            let end = end_of(&IN_HOST, text, 0);
            (end > 0, &text[end..])
        }
    };
    host_is_good && (rest.is_empty() || (rest[0] == b':' && rest.len() <= 6 && rest[1..].iter().all(u8::is_ascii_digit)))
}

/// The four forms of a target (RFC 9112 section 3.2).
fn set_target(target: Range<usize>, question: Option<usize>, host: Range<usize>, head: &[u8], request: &mut Request) -> Result<(), Refuse> {
    let text = &head[target.clone()];
    request.authority = host;
    if request.method == Method::CONNECT {
        // behind the last colon of an address in brackets there is a bracket
        let port = text.iter().rposition(|&b| b == b':').map_or(&b""[..], |colon| &text[colon + 1..]);
        let has_port = !port.is_empty() && port.iter().all(u8::is_ascii_digit);
        return if is_authority(text) && has_port { Ok(()) } else { Err(Refuse::bad("CONNECT needs a host and a port as its target.")) };
    }
    if text == b"*" && request.method == Method::OPTIONS {
        return Ok(());
    }
    let mut path = target;
    if text[0] != b'/' {
        let after = scheme_length(text).ok_or(Refuse::bad("The target is neither a path nor an http address."))?;
        let authority = &text[after..];
        let length = authority.iter().position(|b| b"/?".contains(b)).unwrap_or(authority.len());
        if !is_authority(&authority[..length]) {
            return Err(Refuse::bad("The target does not name a host."));
        }
        path.start += after;
        request.authority = path.start..path.start + length;
        path.start += length;
    }
    request.query = question.map(|at| at + 1..path.end);
    request.sent_path = path.start..question.unwrap_or(path.end);
    let raw = &head[request.sent_path.clone()];
    request.path.set(if raw.is_empty() { b"/" } else { raw })
}

/// Bytes of `http://` or `https://` in front of an absolute target.
fn scheme_length(text: &[u8]) -> Option<usize> {
    let schemes: [&[u8]; 2] = [b"http://", b"https://"];
    schemes.into_iter().find(|s| text.get(..s.len()).is_some_and(|t| t.eq_ignore_ascii_case(s))).map(<[u8]>::len)
}
