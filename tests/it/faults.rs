//! Faults brought about on purpose, by the fault points of debug builds: panics, workers that end, workers that are busy.
//!
//! Classes of failure covered: one request that takes the server down; a refusal that arrives as a reset; a refusal that waits for the very
//! worker whose business it is about.

use std::thread;
use std::time::Duration;

use crate::client::{Client, Ending, Response, request};
use crate::harness::{Builder, HELLO, Server, pause, until};

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

/// How long the one worker is held: long against what a test does meanwhile.
const STALL_MS: u64 = 1_500;

/// A server whose only worker has just begun to be busy, and the client that it is busy for.
fn stalled(queue: usize) -> (Server, Client) {
    let server = Builder::new(&["--threads", "1", "--queue"]).arg(queue.to_string()).start();
    let mut holder = server.connect();
    assert_eq!(holder.get("/hello.txt").text(), HELLO);
    holder.send(fault(&format!("stall={STALL_MS}")));
    // Nothing tells when the worker has read that; it is idle, so it takes no time.
    pause(100);
    (server, holder)
}

/// A client that has sent its request already, like all that are in a hurry.
fn hurried(server: &Server) -> Client {
    let mut client = server.connect();
    client.send(request("GET", "/other.txt", &format!("X-Long: {}\r\n", "a".repeat(4_000))));
    client
}

#[track_caller]
fn assert_shed(answer: &Response, name: &str) {
    assert_eq!(answer.status, 503, "{name}");
    assert_eq!(answer.need("retry-after"), "1", "{name}");
    assert_eq!(answer.need("connection").to_lowercase(), "close", "{name}");
    assert_eq!(answer.need("cache-control"), "no-store", "{name}");
    assert_eq!(answer.length(), answer.body.len() as u64, "{name}");
}

#[test]
fn a_queue_that_holds_everybody_sheds_nobody() {
    thread::scope(|scope| {
        for (queue, waiting) in [(1, 0), (1, 1), (5, 4), (5, 5), (20, 19), (20, 20)] {
            scope.spawn(move || hold_everybody(queue, waiting));
        }
    });
}

fn hold_everybody(queue: usize, waiting: usize) {
    let name = format!("{waiting} clients in a queue of {queue}");
    let (server, mut holder) = stalled(queue);
    let mut clients: Vec<Client> = (0..waiting).map(|_| hurried(&server)).collect();
    // Far longer than the oldest may have waited before others are shed.
    pause(200);
    for client in &mut clients {
        assert!(!client.hears_now(), "{name}: one was answered while the worker was busy");
    }
    assert!(!holder.hears_now(), "{name}: the worker is not busy any more, so this has shown nothing");
    assert_eq!(holder.answer().text(), HELLO, "{name}");
    for client in &mut clients {
        assert_eq!(client.answer().status, 200, "{name}");
    }
    drop((clients, holder));
    let closing = server.stop().assert_clean();
    assert_eq!((closing.connections, closing.shed), (waiting as u64 + 1, 0), "{name}");
}

#[test]
fn beyond_a_full_queue_the_surplus_is_told_so_at_once() {
    thread::scope(|scope| {
        for (queue, surplus) in [(1, 1), (5, 1), (5, 7)] {
            scope.spawn(move || turn_surplus_away(queue, surplus));
        }
    });
}

fn turn_surplus_away(queue: usize, surplus: usize) {
    let name = format!("{surplus} clients beyond a queue of {queue}");
    let (server, mut holder) = stalled(queue);
    let mut clients: Vec<Client> = (0..queue).map(|_| hurried(&server)).collect();
    pause(60);
    for number in 0..surplus {
        // Some have sent their request, some have not yet.
        let mut client = if number % 3 == 1 { server.connect() } else { hurried(&server) };
        assert_shed(&client.answer(), &name);
        client.assert_end(&name);
    }
    assert!(!holder.hears_now(), "{name}: the refusal came while the worker was busy, or this has shown nothing");
    assert_eq!(holder.answer().text(), HELLO, "{name}");
    for client in &mut clients {
        assert_eq!(client.answer().status, 200, "{name}: who waited in the queue is served");
    }
    drop((clients, holder));
    let closing = server.stop().assert_clean();
    assert_eq!((closing.connections, closing.shed), (queue as u64 + 1, surplus as u64), "{name}");
}

/// A refusal must not be overtaken by a reset when bytes lie unread on the socket, many of them or late.
#[test]
fn a_shed_client_reads_its_refusal_whatever_it_sends() {
    let (server, mut holder) = stalled(1);
    let _waiting = hurried(&server);
    pause(60);
    for (name, bytes) in [
        ("a long pipeline", request("GET", "/", "").repeat(2_000)),
        ("a body", request("POST", "/", "Content-Length: 100000\r\n") + &"x".repeat(100_000)),
    ] {
        let mut client = server.connect();
        client.send(bytes);
        assert_shed(&client.answer(), name);
        client.assert_end(name);
    }
    let mut late = server.connect();
    assert_shed(&late.answer(), "before it was sent");
    _ = late.send_what_it_takes(request("GET", "/", ""));
    late.assert_end("sent after the refusal");
    assert!(!holder.hears_now(), "the worker is not busy any more, so this has shown nothing");
}

/// While the oldest in a full queue is young, the surplus waits in the kernel's backlog, and is served.
#[test]
fn a_short_stall_sheds_nobody() {
    let server = Builder::new(&["--threads", "1", "--queue", "2"]).start();
    let mut holder = server.connect();
    assert_eq!(holder.get("/hello.txt").text(), HELLO);
    // Too short for anyone to become old.
    holder.send(fault("stall=5"));
    let mut clients: Vec<Client> = (0..6).map(|_| hurried(&server)).collect();
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(holder.answer().text(), HELLO);
    drop((clients, holder));
    assert_eq!(server.stop().assert_clean().shed, 0);
}

/// After the crowd has gone, everything is as before.
#[test]
fn the_queue_recovers_from_a_crowd() {
    let (server, mut holder) = stalled(3);
    let mut clients: Vec<Client> = (0..60).map(|_| hurried(&server)).collect();
    let mut statuses: Vec<u16> = clients.iter_mut().map(|client| client.answer().status).collect();
    assert_eq!(holder.answer().text(), HELLO);
    statuses.sort_unstable();
    let shed = statuses.iter().filter(|status| **status == 503).count();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count() + shed, 60, "{statuses:?}");
    assert!((1..=57).contains(&shed), "three fit into the queue: {shed} of 60 were shed");
    drop(clients);
    for _ in 0..20 {
        server.assert_well("the crowd");
    }
    let at_rest = Server::start(&["--threads", "1"]).sockets();
    drop(holder);
    until("all sockets are closed", || server.sockets() <= at_rest);
    assert_eq!(server.stop().assert_clean().shed, shed as u64);
}

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
