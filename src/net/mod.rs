//! Sockets: from an accepted connection to the bytes that leave.

pub mod accept;
pub mod clients;
pub mod conn;
#[cfg(debug_assertions)]
mod fault;
pub mod gate;
mod h1;
pub mod queue;
pub mod resting;
mod spare;
mod turns;
pub mod worker;
mod write;

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::config::limits::Limits;
use crate::files::blocking::Blocking;
use crate::http::Bounds;
use crate::observe::Counters;
use crate::observe::log::Log;
use crate::site::Site;
use accept::Door;
use clients::{Clients, Place};
use queue::Queue;
use resting::Resting;

/// What one connection holds at most, beside the buffers of its socket in the kernel: what it has read, the requests that were read
/// from that, the responses that are gathered, and itself.
pub fn connection_bytes(limits: &Limits) -> u64 {
    const ITSELF_BYTES: u64 = 4 << 10;
    let input = (limits.head_limit + spare::INPUT_BYTES) as u64;
    2 * input + write::HELD_BYTES + ITSELF_BYTES
}

/// What a connection that was told 503 holds while it is read to its end.
pub const LINGERING_BYTES: u64 = spare::INPUT_BYTES as u64 + 1024;

/// What a worker keeps of buffers that are used again.
pub const SPARE_BYTES: u64 = spare::ALL_BYTES as u64;

/// What the guardian and all workers share.
#[derive(Debug)]
pub struct Shared {
    /// What is served.
    pub site: Site,
    /// Where connections come in.
    pub door: Door,
    /// Connections that wait for a worker.
    pub queue: Queue,
    /// Connections that wait for their client.
    pub resting: Resting,
    /// The bounds and deadlines.
    pub limits: Limits,
    /// Those of them that the protocol needs.
    pub bounds: Arc<Bounds>,
    /// Connections that were told 503 and may still be there at the same time.
    pub lingering: usize,
    /// The limits for each client.
    pub clients: Arc<Clients>,
    /// The access log.
    pub log: Log,
    /// What was counted.
    pub counters: Counters,
    /// The blocking pool.
    pub blocking: Arc<Blocking>,
    /// Whether the listeners outlive this process: then what waits with the kernel is left to the next one.
    pub is_succeeded: AtomicBool,
    /// Whether the next one serves already: then there is no hurry to end.
    pub is_relieved: AtomicBool,
}

impl Shared {
    /// Whether the gate holds new connections back, or all places are taken and others wait for one.
    pub fn is_overloaded(&self) -> bool {
        self.door.is_held() || self.queue.is_crowded()
    }
}

/// An accepted connection: the queue's only item.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, non-blocking.
    pub socket: TcpStream,
    /// When it came: when it was accepted, or since when the kernel may have held it, if it was left there.
    pub at: Instant,
    /// Counts it for its client.
    pub place: Place,
}

impl Accepted {
    /// The client's address; unspecified if it is gone already.
    fn peer(&self) -> IpAddr {
        self.socket.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip().to_canonical())
    }
}

/// The time, read once for all that is done in one go.
#[derive(Clone, Copy, Debug)]
struct Moment {
    at: Instant,
    unix_s: u64,
}

thread_local! {
    /// A second of the wall clock, and when it ends by the other clock.
    static SECOND: Cell<Option<(Instant, u64)>> = const { Cell::new(None) };
}

impl Moment {
    /// Reads one clock; the wall clock only when its second has passed.
    fn now() -> Moment {
        let at = Instant::now();
        if let Some((ends, unix_s)) = SECOND.get()
            && at < ends
        {
            return Moment { at, unix_s };
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let left = Duration::from_secs(1) - Duration::from_nanos(wall.subsec_nanos().into());
        SECOND.set(Some((at + left, wall.as_secs())));
        Moment { at, unix_s: wall.as_secs() }
    }
}
