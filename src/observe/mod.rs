//! What the server tells about its work: one `Record` per request, counters, and messages for the operator.

pub mod log;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

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
    /// A request or its body came too slowly.
    Slow,
    /// What came was no request.
    Malformed,
    /// The client took nothing of a response for too long.
    Stalled,
    /// The client went away within a request or a response.
    Cut,
    /// A file became shorter while it was sent.
    Truncated,
    /// A part of this server panicked.
    Panicked,
}

/// What was counted since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests that were answered.
    pub requests: AtomicU64,
    /// Connections that were answered with 503 because the queue was full.
    pub shed: AtomicU64,
    /// Panics that were caught.
    pub panics: AtomicU64,
    ends: [AtomicU64; 9],
}

impl Counters {
    /// Counts the end of a connection.
    pub fn end(&self, end: End) {
        self.ends[end as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many connections ended like this.
    pub fn ended(&self, end: End) -> u64 {
        self.ends[end as usize].load(Ordering::Relaxed)
    }
}

/// Tells the operator something, in one line on standard error. For rare events; it may wait for the terminal.
pub fn say(message: &str) {
    use std::io::Write;
    // there is nobody left to tell that this failed
    let _ = std::io::stderr().write_all(format!("millpond: {}\n", log::printable(message)).as_bytes());
}
