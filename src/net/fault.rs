//! Faults on request, in debug builds only: what tests need to show that a failure stays where it happens.
//!
//! A request asks for one with the field `Millpond-Fault`.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::Pid;

use super::conn::Link;
use crate::files::Served;
use crate::http::body::{Body, Broken, Inbound, Source};
use crate::http::fields::Fields;
use crate::http::{Request, Response, StatusCode, header};

/// Bytes of a body that are sent back.
const ECHO_BYTES: usize = 1 << 20;

/// A failure to bring about.
#[derive(Debug)]
pub enum Fault {
    /// The handler panics.
    Panic,
    /// The connection panics after the response has left.
    PanicLate,
    /// The worker does nothing else for this time.
    Stall(Duration),
    /// The worker's thread ends.
    Worker,
    /// No failure: the body is read, and sent back.
    Body,
    /// No failure: the answer is made of so many pieces while it is sent.
    Stream(u32),
    /// The same, but it breaks off before its end.
    Break(u32),
    /// No failure by itself: something is tried that the sandbox has to refuse. The answer tells what came of it.
    Try(Place, Act),
}

/// The thread on which something is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The worker.
    Worker,
    /// One of the blocking pool.
    Pool,
    /// The one that follows changes of files.
    Watcher,
}

/// Something that the sandbox has to refuse, unless it is for what the server needs.
#[derive(Clone, Debug)]
pub enum Act {
    /// Reading this file.
    Read(PathBuf),
    /// Making this file.
    Write(PathBuf),
    /// Connecting to this address.
    Connect(SocketAddr),
    /// Listening on it.
    Bind(SocketAddr),
    /// Sending a signal to this process; the one that changes nothing.
    Signal(i32),
}

/// The fault that a request asks for.
pub fn asked(request: &Request) -> Option<Fault> {
    let value = std::str::from_utf8(request.named("millpond-fault").next()?).ok()?;
    match value {
        "panic" => Some(Fault::Panic),
        "panic-late" => Some(Fault::PanicLate),
        "worker" => Some(Fault::Worker),
        "body" => Some(Fault::Body),
        _ if value.starts_with("try-") => asked_to_try(value),
        _ => {
            let (name, number) = value.split_once('=')?;
            let number: u32 = number.parse().ok()?;
            match name {
                "stall" => Some(Fault::Stall(Duration::from_millis(number.into()))),
                "stream" => Some(Fault::Stream(number)),
                "break" => Some(Fault::Break(number)),
                _ => None,
            }
        }
    }
}

/// `try-worker read /etc/passwd`
fn asked_to_try(value: &str) -> Option<Fault> {
    let mut words = value.splitn(3, ' ');
    let place = match words.next()? {
        "try-worker" => Place::Worker,
        "try-pool" => Place::Pool,
        "try-watcher" => Place::Watcher,
        _ => return None,
    };
    let (act, what) = (words.next()?, words.next()?);
    let act = match act {
        "read" => Act::Read(what.into()),
        "write" => Act::Write(what.into()),
        "connect" => Act::Connect(what.parse().ok()?),
        "bind" => Act::Bind(what.parse().ok()?),
        "signal" => Act::Signal(what.parse().ok()?),
        _ => return None,
    };
    Some(Fault::Try(place, act))
}

impl Act {
    /// Tries it; returns `done` or what the system said.
    fn tell(&self) -> String {
        let tried = match self {
            Act::Read(path) => std::fs::read(path).map(drop),
            Act::Write(path) => std::fs::write(path, "written by a test\n"),
            Act::Connect(address) => TcpStream::connect(address).map(drop),
            Act::Bind(address) => TcpListener::bind(address).map(drop),
            Act::Signal(process) => Pid::from_raw(*process)
                .ok_or_else(|| ErrorKind::InvalidInput.into())
                .and_then(|process| rustix::process::test_kill_process(process).map_err(Into::into)),
        };
        tried.map_or_else(|e| e.to_string(), |()| "done".into())
    }
}

impl Fault {
    /// Brings it about; some replace the answer.
    pub fn serve(&self, link: &Link, inbound: &Inbound) -> Option<Served<'static>> {
        match self {
            Fault::Panic => panic!("fault: in the handler"),
            Fault::Stall(time) => thread::sleep(*time),
            Fault::Worker => {
                link.worker.fail.store(true, Ordering::Relaxed);
                link.worker.wake.notify_one();
            }
            Fault::Body => {
                let inbound = inbound.clone();
                return Some(Served::Later(Box::pin(echo(inbound))));
            }
            Fault::Stream(pieces) => return Some(stream(*pieces, false)),
            Fault::Break(pieces) => return Some(stream(*pieces, true)),
            Fault::Try(Place::Worker, act) => return Some(Served::Ready(told(act.tell()))),
            Fault::Try(Place::Pool, act) => {
                let act = act.clone();
                let tried = link.shared.blocking.run(move || act.tell());
                return Some(Served::Later(Box::pin(async { told(tried.await) })));
            }
            Fault::Try(Place::Watcher, act) => {
                let (act, (tell, told_by)) = (act.clone(), tokio::sync::oneshot::channel());
                // who does not wait any more needs no answer
                link.shared.site.run_on_watcher(move || _ = tell.send(act.tell()));
                return Some(Served::Later(Box::pin(async { told(told_by.await.unwrap_or_else(|_| "there is no watcher".into())) })));
            }
            Fault::PanicLate => {}
        }
        None
    }
}

/// Pieces `0;`, `1;` and so on; before each it has to be asked twice.
#[derive(Debug)]
struct Pieces {
    next: u32,
    count: u32,
    breaks: bool,
    asked: bool,
}

impl Source for Pieces {
    fn poll_next(&mut self, cx: &mut Context) -> Poll<Option<Result<Bytes, Broken>>> {
        self.asked = !self.asked;
        if self.asked {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.next == self.count {
            return Poll::Ready(self.breaks.then_some(Err(Broken)));
        }
        self.next += 1;
        Poll::Ready(Some(Ok(format!("{};", self.next - 1).into())))
    }
}

fn stream(count: u32, breaks: bool) -> Served<'static> {
    let fields = fields();
    let body = Body::Stream(Box::new(Pieces { next: 0, count, breaks, asked: false }));
    Served::Ready(Response { fields, body, ..Response::new(StatusCode::OK) })
}

async fn echo(inbound: Inbound) -> Response {
    let mut body = Vec::new();
    loop {
        match inbound.next().await {
            Ok(Some(bytes)) => body.extend_from_slice(&bytes[..bytes.len().min(ECHO_BYTES - body.len())]),
            Ok(None) => break,
            Err(refuse) => return refuse.into_response(&Request::default()),
        }
    }
    told(body)
}

fn told(body: impl Into<Body>) -> Response {
    Response { fields: fields(), body: body.into(), ..Response::new(StatusCode::OK) }
}

fn fields() -> Fields {
    let fields = Fields::default().with(&header::CONTENT_TYPE, "text/plain");
    fields.with(&header::CACHE_CONTROL, "no-store").with(&header::X_CONTENT_TYPE_OPTIONS, "nosniff")
}
