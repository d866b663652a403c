//! A client that believes nothing: it sends the bytes it is given, reads answers strictly by RFC 9112, and tells a clean end from a reset.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::PATIENCE;

/// The Host that the helpers send.
pub const HOST: &str = "pond.test";

/// How the server ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Eof,
    Reset,
}

/// One answer, as it came over the wire.
#[derive(Debug, Clone)]
pub struct Response {
    pub version: String,
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a field that may stand only once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} stands twice: {:?}", self.fields);
        value
    }

    /// The value of a field that must be there.
    #[track_caller]
    pub fn need(&self, name: &str) -> &str {
        self.field(name).unwrap_or_else(|| panic!("{} without {name}: {:?}", self.status, self.fields))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn length(&self) -> u64 {
        self.need("content-length").parse().unwrap()
    }

    /// Whether the answer says that the connection ends with it.
    pub fn closes(&self) -> bool {
        self.fields.iter().any(|(name, value)| name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close"))
    }

    /// The fields in a comparable order, without the one that changes by itself.
    pub fn fields_but_date(&self) -> Vec<(String, String)> {
        let but_date = self.fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("date"));
        let mut fields: Vec<_> = but_date.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
        fields.sort();
        fields
    }

    /// What holds for every final answer that this server ever sends.
    fn assert_sound(&self) {
        let at = || format!("{} {:?}", self.status, self.fields);
        assert_eq!(self.version, "HTTP/1.1", "{}", at());
        assert_eq!(self.field("x-content-type-options"), Some("nosniff"), "{}", at());
        assert_eq!(self.field("server"), None, "{}", at());
        assert!(self.field("content-length").is_none() || self.field("transfer-encoding").is_none(), "two framings: {}", at());
        if self.status >= 400 {
            assert_eq!(self.field("cache-control"), Some("no-store"), "{}", at());
        }
        if self.status == 405 {
            assert_eq!(self.field("allow"), Some("GET, HEAD"), "{}", at());
        }
        if [400, 408, 414, 431, 501, 505].contains(&self.status) && self.field("connection").is_some() {
            assert!(self.closes(), "{}", at());
        }
    }
}

/// An answer that never became whole.
#[derive(Debug)]
pub struct Cut {
    pub ending: Ending,
    /// Bytes that did not make a whole head.
    pub stray: Vec<u8>,
    /// The head that came, with the part of its body that came.
    pub partial: Option<Response>,
}

pub struct Client {
    stream: TcpStream,
    got: Vec<u8>,
    ended: Option<Ending>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
        Client::over(stream)
    }

    pub fn over(stream: TcpStream) -> Client {
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream, got: Vec::new(), ended: None }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Sends as much as the server takes: it may have answered and closed before it saw all.
    pub fn send_what_it_takes(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    pub fn close_writing(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    pub fn send_get(&mut self, target: &str) {
        self.send(request("GET", target, ""));
    }

    pub fn get(&mut self, target: &str) -> Response {
        self.send_get(target);
        self.answer()
    }

    pub fn get_with(&mut self, target: &str, fields: &str) -> Response {
        self.send(request("GET", target, fields));
        self.answer()
    }

    pub fn head(&mut self, target: &str) -> Response {
        self.head_with(target, "")
    }

    pub fn head_with(&mut self, target: &str, fields: &str) -> Response {
        self.send(request("HEAD", target, fields));
        self.answer_to_head()
    }

    /// Takes in whatever comes next; `false` at the end of the stream. Fails when nothing comes for too long.
    fn fill(&mut self, deadline: Instant) -> bool {
        if self.ended.is_some() {
            return false;
        }
        let mut room = [0; 64 * 1024];
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left)).unwrap();
        match self.stream.read(&mut room) {
            Ok(0) => self.ended = Some(Ending::Eof),
            Ok(count) => self.got.extend_from_slice(&room[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset || error.kind() == ErrorKind::BrokenPipe => {
                self.ended = Some(Ending::Reset);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock || error.kind() == ErrorKind::TimedOut => {
                panic!("nothing more came in time; so far: {}", shown(&self.got));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("cannot read: {error}"),
        }
        self.ended.is_none()
    }

    /// The next answer, to any request but HEAD.
    #[track_caller]
    pub fn answer(&mut self) -> Response {
        self.try_answer(false).unwrap_or_else(|cut| panic!("no whole answer: {cut:?}"))
    }

    #[track_caller]
    pub fn answer_to_head(&mut self) -> Response {
        self.try_answer(true).unwrap_or_else(|cut| panic!("no whole answer: {cut:?}"))
    }

    pub fn try_answer(&mut self, to_head: bool) -> Result<Response, Cut> {
        loop {
            let response = self.any_answer(to_head)?;
            if response.status >= 200 {
                response.assert_sound();
                return Ok(response);
            }
            assert_eq!(response.status, 100, "the only interim answer is 100");
        }
    }

    /// The next answer, an interim one too.
    pub fn any_answer(&mut self, to_head: bool) -> Result<Response, Cut> {
        let deadline = Instant::now() + PATIENCE;
        let head_length = loop {
            if let Some(at) = find(&self.got, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill(deadline) {
                return Err(Cut { ending: self.ended.unwrap(), stray: std::mem::take(&mut self.got), partial: None });
            }
        };
        let head: Vec<u8> = self.got.drain(..head_length).collect();
        let mut response = parse_head(&head).unwrap_or_else(|| panic!("not an answer: {}", shown(&head)));
        let bodiless = to_head || response.status < 200 || response.status == 204 || response.status == 304;
        let chunked = response.field("transfer-encoding").map(|coding| assert_eq!(coding, "chunked")).is_some();
        let complete = if bodiless {
            true
        } else if chunked {
            self.read_chunks(&mut response.body, deadline)
        } else if let Some(length) = response.field("content-length") {
            let length: usize = length.parse().unwrap_or_else(|_| panic!("Content-Length: {length:?}"));
            self.read_body(&mut response.body, length, deadline)
        } else {
            while self.fill(deadline) {}
            response.body = std::mem::take(&mut self.got);
            self.ended == Some(Ending::Eof)
        };
        if complete { Ok(response) } else { Err(Cut { ending: self.ended.unwrap(), stray: Vec::new(), partial: Some(response) }) }
    }

    fn read_body(&mut self, body: &mut Vec<u8>, length: usize, mut deadline: Instant) -> bool {
        loop {
            let taken = self.got.len().min(length - body.len());
            body.extend_from_slice(&self.got[..taken]);
            self.got.drain(..taken);
            if body.len() == length {
                return true;
            }
            if !self.fill(deadline) {
                return false;
            }
            deadline = Instant::now() + PATIENCE;
        }
    }

    fn read_chunks(&mut self, body: &mut Vec<u8>, deadline: Instant) -> bool {
        loop {
            let Some(line) = self.read_line(deadline) else { return false };
            let size = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("chunk size {line:?}"));
            let start = body.len();
            if !self.read_body(body, start + size, deadline) {
                return false;
            }
            let Some(line) = self.read_line(deadline) else { return false };
            assert_eq!(line, "", "after a chunk");
            if size == 0 {
                return true;
            }
        }
    }

    fn read_line(&mut self, deadline: Instant) -> Option<String> {
        loop {
            if let Some(at) = find(&self.got, b"\r\n") {
                let line: Vec<u8> = self.got.drain(..at + 2).collect();
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.fill(deadline) {
                return None;
            }
        }
    }

    /// Reads exactly so many raw bytes.
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        while self.got.len() < length {
            assert!(self.fill(deadline), "the connection ended ({:?}) after {}", self.ended, shown(&self.got));
        }
        self.got.drain(..length).collect()
    }

    /// So many bytes of a body, however long they take as long as they keep coming.
    pub fn take_many(&mut self, length: usize) -> Vec<u8> {
        let mut body = Vec::with_capacity(length);
        assert!(
            self.read_body(&mut body, length, Instant::now() + PATIENCE),
            "the connection ended after {} of {length} bytes",
            body.len()
        );
        body
    }

    /// The head of the next answer; its body is left in the stream.
    pub fn any_answer_head(&mut self) -> Response {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.take(1));
        }
        parse_head(&head).unwrap_or_else(|| panic!("not an answer: {}", shown(&head)))
    }

    /// Everything up to the end of the connection, and how it ended.
    pub fn rest(&mut self) -> (Vec<u8>, Ending) {
        while self.fill(Instant::now() + PATIENCE) {}
        (std::mem::take(&mut self.got), self.ended.unwrap())
    }

    /// The connection is closed cleanly and nothing more was said.
    #[track_caller]
    pub fn assert_end(&mut self, name: &str) {
        let (rest, ending) = self.rest();
        assert!(rest.is_empty(), "{name}: more came than expected: {}", shown(&rest));
        assert_eq!(ending, Ending::Eof, "{name}: the connection was reset");
    }

    /// All answers up to the end of the connection (none of them to HEAD), and how it ended.
    pub fn answers(&mut self) -> (Vec<Response>, Ending) {
        let mut answers = Vec::new();
        loop {
            match self.try_answer(false) {
                Ok(answer) => answers.push(answer),
                Err(cut) => {
                    assert!(cut.stray.is_empty() && cut.partial.is_none(), "an answer was cut short: {cut:?}");
                    return (answers, cut.ending);
                }
            }
        }
    }

    /// Whether anything, bytes or an end, comes within this time.
    pub fn hears_within(&mut self, time: Duration) -> bool {
        if !self.got.is_empty() || self.ended.is_some() {
            return true;
        }
        self.stream.set_read_timeout(Some(time)).unwrap();
        match self.stream.peek(&mut [0]) {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::WouldBlock && error.kind() != ErrorKind::TimedOut,
        }
    }

    /// Whether anything is there already.
    pub fn hears_now(&mut self) -> bool {
        self.hears_within(Duration::from_millis(1))
    }
}

/// A request with Host and these further fields (each ended by CRLF).
pub fn request(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")
}

/// A response head, read strictly.
fn parse_head(head: &[u8]) -> Option<Response> {
    let head = std::str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?;
    if head.bytes().any(|byte| byte == 0 || byte == 0x7f) {
        return None;
    }
    let mut lines = head.split("\r\n");
    let (version, rest) = lines.next()?.split_once(' ')?;
    let (status, _reason) = rest.split_once(' ')?;
    if status.len() != 3 || !status.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let token = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        if !token || value.bytes().any(|byte| byte == b'\r' || byte == b'\n') {
            return None;
        }
        fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
    Some(Response { version: version.to_owned(), status: status.parse().ok()?, fields, body: Vec::new() })
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Bytes for a message, not too many of them.
pub fn shown(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 600;
    let head = bytes[..bytes.len().min(SHOWN_MAX)].escape_ascii().to_string();
    if bytes.len() > SHOWN_MAX { format!("{head}… ({} bytes)", bytes.len()) } else { format!("{head:?}") }
}
