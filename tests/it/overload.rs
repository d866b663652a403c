//! Overload: how long connections wait, what becomes of those that have waited for too long, and that nobody is refused while there is
//! time to spare.
//!
//! Classes of failure covered: a queue without an end; a refusal that arrives as a reset; a refusal that waits for the very worker whose
//! business it is about; clients that are refused for a burst.

use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, Response, request};
use crate::harness::{Builder, HELLO, Server, pause, until};

/// How long the one worker is held: long against what a test does meanwhile.
const STALL_MS: u64 = 1_500;

fn fault(what: &str) -> String {
    request("GET", "/hello.txt", &format!("Millpond-Fault: {what}\r\n"))
}

/// A server whose only worker has just begun to be busy, and the client that it is busy for.
fn stalled(queue: usize, queue_wait: &str) -> (Server, Client) {
    let server = Builder::new(&["--threads", "1", "--queue-wait", queue_wait, "--queue"]).arg(queue.to_string()).start();
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

/// What is in the queue waits there; what is beyond it waits with the kernel. Both are served when the worker has time.
#[test]
fn nobody_is_shed_before_the_time_whether_the_queue_is_full_or_not() {
    thread::scope(|scope| {
        for (queue, waiting) in [(1, 0), (1, 1), (1, 2), (5, 4), (5, 5), (5, 6), (20, 19), (20, 20), (20, 21)] {
            scope.spawn(move || hold_everybody(queue, waiting));
        }
    });
}

fn hold_everybody(queue: usize, waiting: usize) {
    let name = format!("{waiting} clients and a queue of {queue}");
    let (server, mut holder) = stalled(queue, "10s");
    let mut clients: Vec<Client> = (0..waiting).map(|_| hurried(&server)).collect();
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

/// Who has waited for the time that a connection may wait is told so, also beyond the queue, and without the busy worker.
#[test]
fn who_has_waited_for_too_long_is_told_so_then() {
    const WAIT: Duration = Duration::from_millis(300);
    thread::scope(|scope| {
        for (queue, waiting) in [(1, 1), (1, 2), (5, 5), (5, 12)] {
            scope.spawn(move || {
                let name = format!("{waiting} clients and a queue of {queue}");
                let (server, mut holder) = stalled(queue, "300ms");
                let begun = Instant::now();
                // Some have sent their request, some have not yet.
                let connect = |number| if number % 3 == 1 { server.connect() } else { hurried(&server) };
                let mut clients: Vec<Client> = (0..waiting).map(connect).collect();
                for client in &mut clients {
                    assert_shed(&client.answer(), &name);
                    assert!(begun.elapsed() >= WAIT, "{name}: after {:?}", begun.elapsed());
                    client.assert_end(&name);
                }
                assert!(!holder.hears_now(), "{name}: the refusal came while the worker was busy, or this has shown nothing");
                assert_eq!(holder.answer().text(), HELLO, "{name}");
                drop((clients, holder));
                let closing = server.stop().assert_clean();
                assert_eq!((closing.connections, closing.shed), (1, waiting as u64), "{name}");
            });
        }
    });
}

/// A refusal must not be overtaken by a reset when bytes lie unread on the socket, many of them or late.
#[test]
fn a_shed_client_reads_its_refusal_whatever_it_sends() {
    let (server, mut holder) = stalled(1, "50ms");
    for (name, bytes) in [
        ("nothing", String::new()),
        ("half a head", "GET /hello.txt HT".into()),
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

/// After the crowd has gone, everything is as before.
#[test]
fn the_queue_recovers_from_a_crowd() {
    let (server, mut holder) = stalled(3, "100ms");
    let mut clients: Vec<Client> = (0..60).map(|_| hurried(&server)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_shed(&client.answer(), &format!("client {number}"));
    }
    assert_eq!(holder.answer().text(), HELLO);
    drop(clients);
    for _ in 0..20 {
        server.assert_well("the crowd");
    }
    let at_rest = Server::start(&["--threads", "1"]).sockets();
    drop(holder);
    until("all sockets are closed", || server.sockets() <= at_rest);
    assert_eq!(server.stop().assert_clean().shed, 60);
}
