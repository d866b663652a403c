//! Whole connections: how the bytes are cut into pieces changes nothing of what happens.
#![no_main]

use std::sync::Arc;
use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use millpond::http::h1::{Conn, Event, Inflow};
use millpond::http::{Bounds, Framing, Request, Response, StatusCode};
use millpond_fuzz::Control;

/// Where a rendered date would stand; its content means nothing here.
const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";

/// How much of a body the handler reads before it answers.
#[derive(Clone, Copy)]
enum Reads {
    Nothing,
    /// So many bytes, taken one by one, so that they are the same however they arrive.
    Some(usize),
    All,
}

/// All that can be seen of a run.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    log: Vec<String>,
    answers: Vec<u8>,
    /// How many bytes were done with; on a connection that is closed this may depend on how they came.
    taken: Option<usize>,
    is_idle: bool,
    has_unread: bool,
}

// control: bits 2 and 3 are how much the handler reads
fuzz_target!(|data: &[u8]| {
    let Some((control, input)) = Control::split(data) else { return };
    let reads = match (control.flag(2), control.flag(3)) {
        (false, false) => Reads::Nothing,
        (true, false) => Reads::All,
        (false, true) => Reads::Some(1),
        (true, true) => Reads::Some(5),
    };
    let bounds = Arc::new(control.bounds());
    let whole = run(input, &[input.len()], reads, &bounds);
    let pieces = run(input, &control.ends(input.len()), reads, &bounds);
    assert_eq!(pieces, whole);
});

fn run(input: &[u8], ends: &[usize], reads: Reads, bounds: &Arc<Bounds>) -> Run {
    let now = Instant::now();
    let mut conn = Conn::new(bounds.clone(), now);
    let (mut log, mut answers) = (Vec::new(), Vec::new());
    let mut request = Request::default();
    // what the handler has read, and how much more it wants, while it reads
    let (mut body, mut wanted) = (Vec::new(), None);
    let mut at = 0;
    for &end in ends {
        while !conn.is_closed() {
            let piece = &input[at..end];
            if let Some(left) = wanted {
                let piece = if matches!(reads, Reads::Some(_)) { &piece[..piece.len().min(1)] } else { piece };
                let (taken, inflow) = conn.receive_body(piece, now);
                assert!(taken <= piece.len());
                at += taken;
                let left = usize::saturating_sub(left, taken);
                wanted = Some(left);
                let outcome = match inflow {
                    Inflow::More if taken == 0 => {
                        assert!(piece.is_empty(), "More, with bytes left over");
                        break;
                    }
                    Inflow::More => None,
                    Inflow::Data(place) => {
                        assert!(!place.is_empty() && place.end <= taken);
                        body.extend_from_slice(&piece[place]);
                        None
                    }
                    Inflow::End => Some("End".to_owned()),
                    Inflow::Refuse(refuse) => Some(format!("{refuse:?}")),
                };
                if outcome.is_some() || left == 0 {
                    log.push(format!("body {:?} {outcome:?}", std::mem::take(&mut body).escape_ascii().to_string()));
                    wanted = None;
                    conn.respond(&Response::new(StatusCode::OK), DATE, now, &mut answers);
                }
                continue;
            }
            request.clear();
            let (taken, event) = conn.receive(piece, now, &mut request);
            assert!(taken <= piece.len());
            at += taken;
            match event {
                Event::More => break,
                Event::Request => {
                    log.push(format!("{} {:?} {:?}", request.line().escape_ascii(), request.path, request.framing));
                    wanted = match reads {
                        _ if request.framing == Framing::None => None,
                        Reads::Nothing => None,
                        Reads::Some(bytes) => Some(bytes),
                        Reads::All => Some(usize::MAX),
                    };
                    if wanted.is_some() {
                        let continues = conn.take_continue();
                        assert_eq!(continues, request.expects_continue);
                        assert!(!conn.take_continue(), "100 Continue is due once");
                    } else {
                        conn.respond(&Response::new(StatusCode::OK), DATE, now, &mut answers);
                    }
                }
                Event::Refuse(refuse) => {
                    assert!(refuse.close, "what was no request ends the connection: {refuse:?}");
                    log.push(format!("{refuse:?}"));
                    conn.respond(&Response::new(refuse.status), DATE, now, &mut answers);
                    assert!(conn.is_closed());
                }
            }
        }
    }
    if conn.is_closed() {
        // it stays closed: nothing that follows is a request
        let rest = &input[at..];
        assert_eq!(conn.receive(rest, now, &mut Request::default()).1, Event::More);
    }
    let taken = (!conn.is_closed()).then_some(at);
    Run { log, answers, taken, is_idle: conn.is_idle(), has_unread: conn.has_unread() }
}
