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
    let (server, mut holder) = stalled(100, "300ms");
    let cases = [
        ("nothing", String::new()),
        ("half a head", "GET /hello.txt HT".into()),
        ("a long pipeline", request("GET", "/", "").repeat(2_000)),
        ("a body", request("POST", "/", "Content-Length: 100000\r\n") + &"x".repeat(100_000)),
    ];
    // All of them before any has waited: later ones would be held back.
    let mut late = server.connect();
    let mut clients = cases.map(|(name, bytes)| {
        let mut client = server.connect();
        client.send(bytes);
        (name, client)
    });
    for (name, client) in &mut clients {
        assert_shed(&client.answer(), name);
        client.assert_end(name);
    }
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

/// With time to spare nobody is refused, and nobody is held back for long.
#[test]
fn a_burst_is_answered_whole() {
    const CLIENTS: usize = 2_000;
    let server = Server::start(&["--threads", "2"]);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(request("GET", "/hello.txt", "Connection: close\r\n"));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.answer().text(), HELLO, "client {number}");
    }
    drop(clients);
    let closing = server.stop().assert_clean();
    assert_eq!((closing.connections, closing.shed), (CLIENTS as u64, 0));
}

/// A server that was held up for a moment has time again: the gate opens step by step, and whoever comes in meanwhile is served.
#[test]
fn after_a_moment_of_being_behind_nobody_is_refused() {
    const CLIENTS: u64 = 200;
    let server = Server::start(&["--threads", "1", "--queue-wait", "1s"]);
    let mut holder = server.connect();
    assert_eq!(holder.get("/hello.txt").text(), HELLO);
    holder.send(fault("stall=700"));
    pause(50);
    let mut waiting = hurried(&server);
    assert_eq!(holder.answer().text(), HELLO);
    assert_eq!(waiting.answer().status, 200);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = server.connect();
                client.send(request("GET", "/hello.txt", "Connection: close\r\n"));
                assert_eq!(client.answer().status, 200);
            });
        }
    });
    drop((holder, waiting));
    let closing = server.stop().assert_clean();
    assert_eq!((closing.connections, closing.shed), (CLIENTS + 2, 0));
}

/// A client that can not get in is told so by nobody, but its system asks again, and it is served once there is time.
#[test]
fn who_is_held_back_gets_in_later() {
    let (server, mut holder) = stalled(100, "100ms");
    let _waiting = hurried(&server);
    // Half of the time that a connection may wait is over: the gate is used.
    pause(70);
    let mut clients: Vec<Client> = Vec::new();
    thread::scope(|scope| {
        let connecting: Vec<_> = (0..8).map(|_| scope.spawn(|| hurried(&server))).collect();
        clients.extend(connecting.into_iter().map(|client| client.join().unwrap()));
    });
    for client in &mut clients {
        let status = client.answer().status;
        assert!([200, 503].contains(&status), "{status}");
    }
    assert_eq!(holder.answer().text(), HELLO);
    server.assert_well("clients that were held back");
}

/// Who was told 503 before its request was whole is read to its end, and holds up nothing after that.
#[test]
fn who_was_told_and_has_gone_is_forgotten() {
    let (server, mut holder) = stalled(100, "100ms");
    let mut waiting = server.connect();
    waiting.send("GET /hello.txt HTTP/1.1\r\n");
    assert_shed(&waiting.answer(), "half of a head");
    drop(waiting);
    assert_eq!(holder.answer().text(), HELLO);
    let begun = Instant::now();
    server.stop().assert_clean();
    assert!(begun.elapsed() < Duration::from_secs(4), "the end waited for it");
}

/// All places are taken by clients that rest: the one that has rested the longest makes room, and nobody else.
#[test]
fn the_longest_idle_makes_room() {
    let server = Server::start(&["--threads", "1", "--connections", "3"]);
    let mut kept: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    // The order in which they begin to rest is not that in which they came.
    for number in [1, 2, 0] {
        assert_eq!(kept[number].get("/hello.txt").text(), HELLO);
        pause(20);
    }
    let mut new = server.connect();
    assert_eq!(new.get("/hello.txt").text(), HELLO, "it did not wait for a client to leave");
    kept[1].assert_end("the longest idle");
    for number in [2, 0] {
        assert!(!kept[number].hears_now(), "client {number} was ended too");
    }
}

/// With nobody that rests, who has been sending a head for long makes room, and is told so.
#[test]
fn the_slowest_head_makes_room() {
    let server = Server::start(&["--threads", "1", "--connections", "2"]);
    let mut slow: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    for client in &mut slow {
        client.send("GET /hello.txt HTTP/1.1\r\n");
        pause(50);
    }
    let mut new = server.connect();
    assert_eq!(new.get("/hello.txt").text(), HELLO);
    let told = slow[0].answer();
    assert_eq!((told.status, told.field("retry-after"), told.closes()), (503, Some("1"), true));
    slow[0].assert_end("the slowest");
    assert!(!slow[1].hears_now(), "the other one was ended too");
}

/// While new connections are held back, one that is older than a connection may rest is told to come in by the gate like all others.
#[test]
fn old_connections_are_told_to_close_while_others_are_held_back() {
    for (time, ends) in [("20ms", true), ("60s", false)] {
        let server = Server::start(&["--threads", "1", "--queue-wait", "1s", "--busy-idle-timeout", time]);
        let mut old = server.connect();
        assert!(!old.get("/hello.txt").closes());
        assert!(!old.hears_within(Duration::from_millis(200)), "{time}: it was ended though nobody was held back");
        let mut holder = server.connect();
        holder.send(fault("stall=800"));
        pause(100);
        // One waits for so long that the gate is used; the old one asks meanwhile.
        let mut waiting = hurried(&server);
        old.send(request("GET", "/hello.txt", ""));
        let answer = old.answer();
        assert_eq!((answer.text(), answer.closes()), (HELLO.into(), ends), "{time}");
        assert_eq!(holder.answer().text(), HELLO);
        assert_eq!(waiting.answer().status, 200);
        if ends {
            old.assert_end("a connection that was told so");
        } else {
            assert!(!old.hears_within(Duration::from_millis(200)), "{time}: it was ended too early");
        }
    }
}

/// A kept connection may rest for less while new ones are held back, so that it does not keep a place for nothing.
#[test]
fn connections_rest_for_less_while_others_are_held_back() {
    for (time, ends) in [("20ms", true), ("60s", false)] {
        let server = Server::start(&["--threads", "1", "--queue-wait", "1s", "--busy-idle-timeout", time]);
        let mut holder = server.connect();
        assert_eq!(holder.get("/hello.txt").text(), HELLO);
        assert!(!holder.hears_within(Duration::from_millis(200)), "{time}: it was ended though nobody was held back");
        holder.send(fault("stall=800"));
        pause(100);
        // It waits for so long that the gate is used, and is served when the worker is back.
        let mut waiting = hurried(&server);
        // What is answered now was asked before that: it may rest after it, but not for long.
        let answer = holder.answer();
        assert_eq!((answer.text(), answer.closes()), (HELLO.into(), false));
        assert_eq!(waiting.answer().status, 200);
        let begun = Instant::now();
        if ends {
            holder.assert_end("a connection that rests");
            assert!(begun.elapsed() < Duration::from_secs(10));
        } else {
            assert!(!holder.hears_within(Duration::from_millis(200)), "{time}: it was ended too early");
        }
    }
}

/// Where the kernel takes neither the program of a wall nor a filter, that is told, and nobody waits inside for longer there either.
#[test]
fn a_system_without_walls_and_filters_has_a_gate_too() {
    if !crate::sandbox::has_strace() {
        return;
    }
    let args = ["--threads", "1", "--queue-wait", "100ms"];
    let trace = |log: &std::path::Path, inject: &str| {
        let log = log.to_str().unwrap().to_owned();
        Builder::new(&args).through(&["strace", "-D", "-f", "-qq", "-o", &log, "-e", "trace=setsockopt,listen", "-e", inject]).start()
    };
    // The calls before the one that sets such an option are the same each time.
    let log = tempfile::NamedTempFile::new().unwrap();
    let place = |inject: &str, option: &str| {
        trace(log.path(), inject).assert_well("a start below strace");
        let calls = std::fs::read_to_string(log.path()).unwrap();
        let mut options = calls.lines().filter(|call| call.contains("setsockopt("));
        options.position(|call| call.contains(option)).expect("it is tried") + 1
    };
    let wall = place("signal=none", "SO_ATTACH_REUSEPORT_CBPF");
    let filter = place(&format!("inject=setsockopt:error=ENOPROTOOPT:when={wall}"), "SO_ATTACH_FILTER");

    let both = format!("inject=setsockopt:error=ENOPROTOOPT:when={wall}..{filter}+{}", filter - wall);
    let server = trace(log.path(), &both);
    server.wait_for_line("connections can not be held back at these listeners");
    let mut holder = server.connect();
    assert_eq!(holder.get("/hello.txt").text(), HELLO);
    holder.send(fault("stall=1000"));
    pause(100);
    let mut waiting: Vec<Client> = (0..5).map(|_| hurried(&server)).collect();
    for client in &mut waiting {
        assert_shed(&client.answer(), "without walls and filters");
    }
    assert_eq!(holder.answer().text(), HELLO);
    // What the kernel may hold is nothing while the gate is shut, and is what it was once it is open again.
    until("the gate is open again", || {
        let calls = std::fs::read_to_string(log.path()).unwrap();
        let backlogs: Vec<&str> =
            calls.lines().filter_map(|call| call.split_once("listen(")?.1.split_once(", ")?.1.split(')').next()).collect();
        backlogs.contains(&"0") && backlogs.last() == Some(&"4096")
    });
    server.assert_well("a gate that was shut");
    server.stop().assert_clean();
}
