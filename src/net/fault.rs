//! Faults on request, in debug builds only: what tests need to show that a failure stays where it happens.
//!
//! A request asks for one with the field `Millpond-Fault`.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::worker::Worker;
use crate::files::Served;
use crate::http::body::Inbound;
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
}

/// The fault that a request asks for.
pub fn asked(request: &Request) -> Option<Fault> {
    let value = std::str::from_utf8(request.named("millpond-fault").next()?).ok()?;
    match value {
        "panic" => Some(Fault::Panic),
        "panic-late" => Some(Fault::PanicLate),
        "worker" => Some(Fault::Worker),
        "body" => Some(Fault::Body),
        _ => value.strip_prefix("stall=")?.parse().ok().map(Duration::from_millis).map(Fault::Stall),
    }
}

impl Fault {
    /// Brings it about; some replace the answer.
    pub fn serve(&self, worker: &Worker, inbound: &Inbound) -> Option<Served<'static>> {
        match self {
            Fault::Panic => panic!("fault: in the handler"),
            Fault::Stall(time) => thread::sleep(*time),
            Fault::Worker => worker.fail.store(true, Ordering::Relaxed),
            Fault::Body => {
                let inbound = inbound.clone();
                return Some(Served::Later(Box::pin(echo(inbound))));
            }
            Fault::PanicLate => {}
        }
        None
    }
}

async fn echo(inbound: Inbound) -> Response {
    let mut body = Vec::new();
    loop {
        match inbound.next().await {
            Ok(Some(bytes)) => body.extend_from_slice(&bytes[..bytes.len().min(ECHO_BYTES - body.len())]),
            Ok(None) => break,
            Err(refuse) => return refuse.into_response(None),
        }
    }
    let fields = Fields::default().with(&header::CONTENT_TYPE, "text/plain").with(&header::CACHE_CONTROL, "no-store");
    Response { fields, body: body.into(), ..Response::new(StatusCode::OK) }
}
