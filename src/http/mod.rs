//! HTTP as values: requests, responses and the rules that join them.
//!
//! Everything here is pure. There are no sockets, no files and no clock: bytes and points in time come in as arguments, and what
//! comes out is data. That is what lets tests, fuzzing and every protocol driver share one set of rules.

pub mod accept;
pub mod body;
pub mod coding;
pub mod conditional;
pub mod date;
pub mod digest;
pub mod disposition;
pub mod fields;
pub mod forwarded;
pub mod h1;
pub mod mime;
pub mod origin;
pub mod partial;
pub mod path;
pub mod range;
pub mod refuse;
pub mod structured;

use std::ops::Range;
use std::time::Duration;

pub use ::http::{Method, StatusCode, header};

use body::Body;
use fields::Fields;
use path::CleanPath;

/// The bounds and times the protocol is held to. `config` fills it; each one is described, with its reason, where it has its flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of a request target.
    pub target_bytes: usize,
    /// Bytes of a request head, from its request line to the empty line, both included.
    pub head_bytes: usize,
    /// Field lines of a request head.
    pub head_fields: usize,
    /// Bytes of a chunk-size line with its extensions, without its line end.
    pub chunk_line_bytes: usize,
    /// Bytes of a trailer section, without the empty line that ends it.
    pub trailer_bytes: usize,
    /// Bytes of an unread request body that are read and dropped to keep its connection.
    pub drain_bytes: u64,
    /// From the accept, or from its first byte on a kept connection, to the end of a request head.
    pub head_timeout: Duration,
    /// A kept connection between two requests.
    pub idle_timeout: Duration,
    /// The least a request body has to bring, in bytes a second, averaged over `body_window`.
    pub body_rate_per_s: u64,
    /// The time over which `body_rate_per_s` is averaged.
    pub body_window: Duration,
}

impl Default for Bounds {
    /// The values that the flags have by default.
    fn default() -> Bounds {
        Bounds {
            target_bytes: 8 << 10,
            head_bytes: 32 << 10,
            head_fields: 100,
            chunk_line_bytes: 256,
            trailer_bytes: 4 << 10,
            drain_bytes: 64 << 10,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_rate_per_s: 1 << 10,
            body_window: Duration::from_secs(10),
        }
    }
}

/// The version of a request, as far as it changes the answer (RFC 9112 section 2.3: a higher minor version counts as 1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// How the end of a request body is known (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// So many bytes, at least one.
    Length(u64),
    /// Chunks, up to an empty one.
    Chunked,
}

/// One request. The head is kept as it was sent, in a single buffer; what the fields and the target are is held as places in it.
///
/// A `Request` is filled in place so that its buffers can be used again.
#[derive(Debug, Default)]
pub struct Request {
    /// The method, standard or not.
    pub method: Method,
    /// The version that governs the answer.
    pub version: Version,
    /// The path, decoded and normalised.
    pub path: CleanPath,
    /// How the body is framed.
    pub framing: Framing,
    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1).
    pub expects_continue: bool,
    /// Whether the client is ready to keep the connection.
    pub keep_alive: bool,
    head: Vec<u8>,
    line: Range<usize>,
    sent_path: Range<usize>,
    query: Option<Range<usize>>,
    authority: Range<usize>,
    fields: Vec<(Range<usize>, Range<usize>)>,
    /// The names of the fields.
    names: Names,
}

/// A set of field names, as far as one word tells: a name may seem to be in it that is not. It saves the search for most names that
/// are asked for, which are not there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names(u64);

impl Names {
    /// The set of these.
    pub const fn of(names: &[&str]) -> Names {
        let (mut all, mut at) = (0, 0);
        while at < names.len() {
            all |= Names::bit(names[at].as_bytes());
            at += 1;
        }
        Names(all)
    }

    /// These and others.
    pub const fn with(self, others: Names) -> Names {
        Names(self.0 | others.0)
    }

    /// The bit for a name, whatever its case.
    const fn bit(name: &[u8]) -> u64 {
        let first = if name.is_empty() { 0 } else { name[0] as usize & 0x1F };
        1 << ((name.len() ^ first << 1) & 63)
    }
}

impl Request {
    /// Notes a field by the places of its name and its value in the head.
    fn add_field(&mut self, name: Range<usize>, value: Range<usize>) {
        self.names.0 |= Names::bit(&self.head[name.clone()]);
        self.fields.push((name, value));
    }

    /// The request line as it was sent, without its line end. Empty if there was none.
    pub fn line(&self) -> &[u8] {
        &self.head[self.line.clone()]
    }

    /// The path as it was sent: what the address of a page that is made from it looks like to the client.
    pub fn sent_path(&self) -> &[u8] {
        &self.head[self.sent_path.clone()]
    }

    /// The query as it was sent, without its question mark.
    pub fn query(&self) -> Option<&[u8]> {
        self.query.clone().map(|r| &self.head[r])
    }

    /// Host and port that the request is for: the target's authority, or else the Host field (RFC 9112 section 3.2.2).
    pub fn authority(&self) -> &[u8] {
        &self.head[self.authority.clone()]
    }

    /// Whether it has for sure no field of any of these names.
    pub fn lacks(&self, names: Names) -> bool {
        self.names.0 & names.0 == 0
    }

    /// The value of the first field of this name.
    pub fn field(&self, name: &header::HeaderName) -> Option<&[u8]> {
        self.named(name.as_str()).next()
    }

    /// The value of the field of this name, if it was sent exactly once: for fields that are no lists, of which two say nothing.
    pub fn only(&self, name: &header::HeaderName) -> Option<&[u8]> {
        let mut values = self.named(name.as_str());
        values.next().filter(|_| values.next().is_none())
    }

    /// The values of all fields of this name, in their order.
    pub fn named<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let fields = if self.names.0 & Names::bit(name.as_bytes()) == 0 { &[] } else { &self.fields[..] };
        fields
            .iter()
            .filter(move |(n, _)| n.len() == name.len() && self.head[n.clone()].eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, v)| &self.head[v.clone()])
    }

    /// The names of all fields, as they were sent.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().map(|(name, _)| &self.head[name.clone()])
    }

    /// Bytes that its buffer for a head has room for.
    pub fn capacity(&self) -> usize {
        self.head.capacity()
    }

    /// Empties the request for its next use; its buffers keep their room.
    pub fn clear(&mut self) {
        self.method = Method::GET;
        self.version = Version::Http11;
        self.path.clear();
        self.framing = Framing::None;
        self.expects_continue = false;
        self.keep_alive = false;
        self.head.clear();
        self.line = 0..0;
        self.sent_path = 0..0;
        self.query = None;
        self.authority = 0..0;
        self.fields.clear();
        self.names = Names::default();
    }
}

/// One response: what a handler gives, before any protocol has shaped it.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The fields, without those that frame the message (Date, Content-Length, Transfer-Encoding, Connection).
    pub fields: Fields,
    /// The body a GET would get; a driver leaves it out where the method or the status has none.
    pub body: Body,
    /// Whether the connection has to end after it.
    pub close: bool,
}

/// What the head of a response is written from.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The status.
    pub status: StatusCode,
    /// The field lines.
    pub lines: [&'a [u8]; 2],
    /// Bytes of the body that a GET would get, if that is known.
    pub body_bytes: Option<u64>,
    /// Whether the connection has to end after the response.
    pub close: bool,
}

impl<'a> From<&'a Response> for Head<'a> {
    fn from(response: &'a Response) -> Head<'a> {
        let Response { status, fields, body, close } = response;
        Head { status: *status, lines: fields.lines(), body_bytes: body.len(), close: *close }
    }
}

impl Response {
    /// A response without fields or body.
    pub fn new(status: StatusCode) -> Response {
        Response { status, fields: Fields::default(), body: Body::empty(), close: false }
    }
}
