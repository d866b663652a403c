//! Faults brought about on purpose, by the fault points of debug builds: panics, workers that end, workers that are busy.
//!
//! Classes of failure covered: one request that takes the server down; a worker that holds up what the others could serve.

use std::time::Duration;

use crate::client::{Ending, request};
use crate::harness::{HELLO, Server, pause};

fn fault(what: &str) -> String {
    request("GET", "/hello.txt", &format!("Millpond-Fault: {what}\r\n"))
}

#[test]
fn a_panic_costs_its_own_connection_alone() {
    let server = Server::start(&["--threads", "1"]);
    let mut bystander = server.connect();
    assert_eq!(bystander.get("/hello.txt").text(), HELLO);
    for round in 1..=3 {
        let mut client = server.connect();
        client.send(fault("panic"));
        let answer = client.answer();
        assert_eq!(answer.status, 500, "round {round}");
        assert!(answer.closes(), "round {round}: {:?}", answer.fields);
        client.assert_end("after a panic");
        assert_eq!(bystander.get("/hello.txt").text(), HELLO, "round {round}: another connection of the same worker");
        server.assert_well("a panic");
    }
    let line = server.wait_for_line("panicked at src/");
    let place = line.split("panicked at ").nth(1).unwrap();
    assert!(place.split(':').nth(1).is_some_and(|number| number.parse::<u32>().is_ok()), "with its line: {line:?}");
    assert_eq!(server.stop().assert_clean().panics, 3);
}

#[test]
fn a_panic_does_not_take_back_what_was_answered_before() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let get = request("GET", "/hello.txt", "");
    client.send([get.as_str(), &get, &fault("panic"), &get].concat());
    let (answers, ending) = client.answers();
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 500]);
    assert_eq!(ending, Ending::Eof);
}

/// Too late for a 500: the connection is cut, and nothing that follows is answered on it.
#[test]
fn a_late_panic_cuts_the_connection() {
    let server = Server::start(&["--threads", "1"]);
    let mut bystander = server.connect();
    assert_eq!(bystander.get("/hello.txt").text(), HELLO);
    let mut client = server.connect();
    client.send(fault("panic-late"));
    let (bytes, _) = client.rest();
    assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 200 "), "no second head: {}", crate::client::shown(&bytes));
    assert_eq!(bytes.windows(9).filter(|window| window == b"HTTP/1.1 ").count().min(2) / 2, 0, "one head at most");
    server.wait_for_line("panicked at src/");
    assert_eq!(bystander.get("/hello.txt").text(), HELLO, "another connection of the same worker");
    server.assert_well("a late panic");
    assert_eq!(server.stop().assert_clean().panics, 1);
}

#[test]
fn a_worker_that_ends_is_replaced() {
    let server = Server::start(&["--threads", "1"]);
    for round in 1..=3 {
        let mut client = server.connect();
        client.send(fault("worker"));
        _ = client.rest();
        let replaced = |lines: &[String]| {
            let count = lines.iter().filter(|line| line.contains("worker") && line.contains("ended") && line.contains("replaced")).count();
            (count >= round).then_some(())
        };
        assert!(server.err.wait_until(Duration::from_secs(10), replaced).is_some(), "round {round}: {:#?}", server.err.all());
        server.assert_well("a worker that ended");
    }
    server.stop().assert_clean();
}

#[test]
fn all_workers_may_end_one_after_another() {
    let server = Server::start(&["--threads", "3"]);
    for round in 0..9 {
        let mut client = server.connect();
        client.send(fault("worker"));
        _ = client.rest();
        server.assert_well(&format!("ended worker {round}"));
    }
    let closing = server.stop().assert_clean();
    assert_eq!(closing.by_worker.len(), 3, "{closing:?}");
}

/// While nothing can be opened a worker cannot be replaced: it is tried again, with patience, until it can.
#[test]
fn a_worker_that_cannot_be_replaced_yet_is_replaced_later() {
    let server = Server::start(&["--threads", "1"]);
    let mut client = server.connect();
    assert_eq!(client.get("/hello.txt").text(), HELLO);
    let before = server.err.all().len();
    server.limit_descriptors(3);
    client.send(fault("worker"));
    _ = client.rest();
    server.wait_for_line("panicked at src/");

    let ticks = server.cpu_ticks();
    pause(500);
    let used = server.cpu_ticks() - ticks;
    assert!(used < 15, "{used} of 50 ticks of processor time used while nothing could be done");
    let lines = server.err.all();
    assert!(lines.len() - before < 20, "{} lines in half a second: {:#?}", lines.len() - before, &lines[..20]);

    server.limit_descriptors(u64::MAX);
    server.assert_well("a worker that was replaced late");
    server.stop().assert_clean();
}

/// How long a worker is held: long against what a test does meanwhile.
const STALL_MS: u64 = 1_500;

/// A busy worker holds up its own clients; the other workers take the new ones.
#[test]
fn one_busy_worker_does_not_stop_the_others() {
    let server = Server::start(&["--threads", "3"]);
    let mut holder = server.connect();
    holder.send(fault(&format!("stall={STALL_MS}")));
    pause(50);
    for number in 0..30 {
        assert_eq!(server.get("/hello.txt").text(), HELLO, "request {number}");
    }
    assert!(!holder.hears_now(), "the worker is not busy any more, so this has shown nothing");
    assert_eq!(holder.answer().text(), HELLO);
}
