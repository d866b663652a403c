//! What the server tells about its work: one `Record` per request, counters, and messages for the operator.

pub mod log;

use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::http::Request;

/// One request's facts, made when its response has ended or died.
#[derive(Debug)]
pub struct Record<'a> {
    /// The client.
    pub peer: IpAddr,
    /// When it was answered, in seconds since 1970.
    pub unix_s: u64,
    /// The request.
    pub request: &'a Request,
    /// The status of the response.
    pub status: u16,
    /// Bytes of the body that left.
    pub body_bytes: u64,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closed it, or one side had announced its end.
    Done,
    /// It rested, or was silent, for too long.
    Idle,
    /// The server stops.
    Drained,
    /// The head of a request came too slowly.
    Slow,
    /// What came was no request.
    Malformed,
    /// The client took nothing, or too little, of a response for too long.
    Stalled,
    /// The client went away within a request or a response.
    Cut,
    /// A file changed while it was sent.
    Changed,
    /// A part of this server panicked.
    Panicked,
    /// All places were taken, and it made room for others.
    MadeRoom,
    /// It was in the middle of something when the grace of the stop was over.
    Stopped,
}

impl End {
    /// All, in their order.
    const ALL: [End; 11] = [
        End::Done,
        End::Idle,
        End::Drained,
        End::Slow,
        End::Malformed,
        End::Stalled,
        End::Cut,
        End::Changed,
        End::Panicked,
        End::MadeRoom,
        End::Stopped,
    ];

    /// What operators are told.
    fn name(self) -> &'static str {
        match self {
            End::Done => "done",
            End::Idle => "idle",
            End::Drained => "drained",
            End::Slow => "slow",
            End::Malformed => "malformed",
            End::Stalled => "stalled",
            End::Cut => "cut",
            End::Changed => "changed",
            End::Panicked => "panicked",
            End::MadeRoom => "made room",
            End::Stopped => "stopped",
        }
    }
}

/// What was counted since the start.
#[derive(Debug)]
pub struct Counters {
    requests: Box<[Apart]>,
    /// Connections that were answered with 503 before they were served: they had waited for too long, or the server was behind.
    pub shed: AtomicU64,
    /// Connections that were turned away, since their client had as many as it may have.
    pub turned_away: AtomicU64,
    /// Panics that were caught.
    pub panics: AtomicU64,
    ends: [AtomicU64; End::ALL.len()],
}

/// A counter with a cache line of its own, so that workers do not wait for each other.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Apart(AtomicU64);

impl Counters {
    /// Counters for so many workers.
    pub fn new(workers: usize) -> Counters {
        let requests = (0..workers).map(|_| Apart::default()).collect();
        Counters { requests, shed: AtomicU64::new(0), turned_away: AtomicU64::new(0), panics: AtomicU64::new(0), ends: Default::default() }
    }

    /// Counts a request that this worker answered. Nobody but the worker itself may call this.
    pub fn request(&self, worker: usize) {
        let count = &self.requests[worker].0;
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Requests that were answered.
    pub fn requests(&self) -> u64 {
        self.requests.iter().map(|count| count.0.load(Ordering::Relaxed)).sum()
    }

    /// Counts the end of a connection.
    pub fn end(&self, end: End) {
        self.ends[end as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How connections ended, and how many like this, as far as there are any.
    pub fn ends(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = End::ALL.into_iter().map(|end| (end.name(), self.ends[end as usize].load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0)
    }
}

/// Messages that may wait to be written.
const MESSAGES: usize = 256;
/// How long the last messages may take to be written at the end.
const LAST_MESSAGES: Duration = Duration::from_secs(1);

/// None if there is no thread for it.
static MESSENGER: OnceLock<Option<SyncSender<Message>>> = OnceLock::new();

enum Message {
    Line(String),
    /// Tell when all before it is written.
    Flush(SyncSender<()>),
}

/// Tells the operator something, in one line on standard error. Never waits: a thread writes it, and when that is held up by a full
/// pipe and too many wait, the message is lost. Where no thread can be had for that, it is written here.
pub fn say(message: &str) {
    let line = format!("millpond: {}\n", log::printable(message));
    match messenger() {
        // full: the server goes on without it
        Some(messenger) => drop(messenger.try_send(Message::Line(line))),
        None => write_line(&line),
    }
}

/// Waits until what was said is written, as long as that does not take too long.
pub fn finish_saying() {
    let (tell, told) = sync_channel(1);
    if messenger().is_some_and(|messenger| messenger.try_send(Message::Flush(tell)).is_ok()) {
        // whether it was written or took too long
        let _ = told.recv_timeout(LAST_MESSAGES);
    }
}

fn messenger() -> Option<&'static SyncSender<Message>> {
    let messenger = MESSENGER.get_or_init(|| {
        let (sender, messages) = sync_channel(MESSAGES);
        let started = thread::Builder::new().name("messages".into()).spawn(move || {
            for message in messages {
                match message {
                    Message::Line(line) => write_line(&line),
                    Message::Flush(tell) => drop(tell.try_send(())),
                }
            }
        });
        started.is_ok().then_some(sender)
    });
    messenger.as_ref()
}

fn write_line(line: &str) {
    // there is nobody left to tell that this failed
    let _ = io::stderr().write_all(line.as_bytes());
}
