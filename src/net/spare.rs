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

/// What a worker keeps at most: input buffers, requests and outgoing buffers.
pub const ALL_BYTES: usize = KEPT * (INPUT_BYTES + 2 * KEPT_BYTES);

type Shelf<T> = LocalKey<RefCell<Vec<T>>>;

thread_local! {
    static INPUTS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static REQUESTS: RefCell<Vec<Request>> = const { RefCell::new(Vec::new()) };
    static OUTGOING: RefCell<Vec<Outgoing>> = const { RefCell::new(Vec::new()) };
}

fn take<T>(shelf: &'static Shelf<T>) -> Option<T> {
    shelf.with_borrow_mut(Vec::pop)
}

fn put<T>(shelf: &'static Shelf<T>, thing: T) {
    shelf.with_borrow_mut(|all| {
        if all.len() < KEPT {
            all.push(thing);
        }
    });
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
pub fn request() -> Request {
    take(&REQUESTS).unwrap_or_default()
}

/// Gives a request back.
pub fn keep_request(mut request: Request) {
    if (1..=KEPT_BYTES).contains(&request.capacity()) {
        request.clear();
        put(&REQUESTS, request);
    }
}

/// An empty output, with its counts at zero.
pub fn outgoing() -> Outgoing {
    take(&OUTGOING).unwrap_or_default()
}

/// Gives an output back, if nothing waits in it.
pub fn keep_outgoing(mut outgoing: Outgoing) {
    if outgoing.is_empty() && (1..=KEPT_BYTES).contains(&outgoing.capacity()) {
        outgoing.begin();
        put(&OUTGOING, outgoing);
    }
}
