//! Buffers that are used again: each worker keeps a few, so that serving a request allocates nothing and an idle connection holds
//! nothing.

use std::cell::RefCell;
use std::thread::LocalKey;

use super::write::Outgoing;
use crate::http::Request;

/// Bytes of an input buffer: a request with a large cookie fits, and a body comes in pieces of this size.
pub const INPUT_BYTES: usize = 16 << 10;
/// Spare things of a kind that a worker keeps.
const KEPT: usize = 64;
/// A buffer that grew beyond this is not kept.
const KEPT_BYTES: usize = 64 << 10;

/// What a worker keeps at most: input buffers, requests for the log, and tools with a request and an outgoing buffer each.
pub const ALL_BYTES: usize = KEPT * (INPUT_BYTES + 3 * KEPT_BYTES);

type Shelf<T> = RefCell<Vec<T>>;

thread_local! {
    static INPUTS: Shelf<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static REQUESTS: Shelf<Box<Request>> = const { RefCell::new(Vec::new()) };
    static TOOLS: Shelf<Box<Tools>> = const { RefCell::new(Vec::new()) };
}

/// What serving takes and resting does not: the request that is open, and what waits to leave.
#[derive(Debug, Default)]
pub struct Tools {
    /// Cleared when they are taken.
    pub request: Box<Request>,
    /// Empty when they are taken, with its counts at zero.
    pub out: Outgoing,
}

/// Takes tools when it needs some, and puts them away.
#[derive(Debug, Default)]
pub struct Hand(Option<Box<Tools>>);

impl Hand {
    /// The tools in it.
    #[inline]
    pub fn tools(&mut self) -> &mut Tools {
        self.0.get_or_insert_with(tools)
    }

    /// Gives them back, if nothing waits in them.
    pub fn put_away(&mut self) {
        if let Some(mut tools) = self.0.take()
            && tools.out.is_empty()
            && tools.out.capacity().max(tools.request.capacity()) <= KEPT_BYTES
        {
            tools.request.clear();
            tools.out.begin();
            put(&TOOLS, tools);
        }
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        // what a panic left behind is not given to anyone else
        if std::thread::panicking() {
            self.0 = None;
        }
        self.put_away();
    }
}

fn take<T>(shelf: &'static LocalKey<Shelf<T>>) -> Option<T> {
    shelf.with_borrow_mut(Vec::pop)
}

fn put<T>(shelf: &'static LocalKey<Shelf<T>>, thing: T) {
    shelf.with_borrow_mut(|all| {
        if all.len() < KEPT {
            all.push(thing);
        }
    });
}

/// Tools; asked for once a request, while what is in the hand is looked at many times.
#[inline(never)]
fn tools() -> Box<Tools> {
    take(&TOOLS).unwrap_or_default()
}

/// An empty buffer with room for `INPUT_BYTES`.
pub fn input() -> Vec<u8> {
    take(&INPUTS).unwrap_or_else(|| Vec::with_capacity(INPUT_BYTES))
}

/// Gives a buffer back.
pub fn keep_input(mut buffer: Vec<u8>) {
    if buffer.capacity() == INPUT_BYTES {
        buffer.clear();
        put(&INPUTS, buffer);
    }
}

/// A cleared request.
pub fn request() -> Box<Request> {
    take(&REQUESTS).unwrap_or_default()
}

/// Gives a request back.
pub fn keep_request(mut request: Box<Request>) {
    if request.capacity() <= KEPT_BYTES {
        request.clear();
        put(&REQUESTS, request);
    }
}
