//! Deadlines: heads, idle connections, slow bodies, clients that do not read, and clients that do not go.
//!
//! Class of failure covered: slowloris in all its forms. The flags make the times short; nothing here depends on how fast anything is.

use std::io::Read;
use std::time::Duration;

use crate::client::{Ending, request};
use crate::harness::{HELLO, Server, pause, until};

/// Answers so far, then the end of the connection.
#[track_caller]
fn assert_statuses(client: &mut crate::client::Client, statuses: &[u16], name: &str) {
    let (answers, ending) = client.answers();
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), statuses, "{name}");
    assert_eq!(ending, Ending::Eof, "{name}");
    assert!(answers.last().is_none_or(|answer| answer.closes()), "{name}: the answer does not say that the connection closes");
}

#[test]
fn an_unfinished_head_gets_408() {
    let server = Server::start(&["--head-timeout", "300ms", "--idle-timeout", "60s"]);
    let parts = ["G", "GET /hello.txt HTTP/1.1", "GET /hello.txt HTTP/1.1\r\nHost: a\r\n", "GET /hello.txt HTTP/1.1\r\nHost: a\r\n\r"];
    let mut clients: Vec<_> = parts.iter().map(|part| (part, server.connect())).collect();
    for (part, client) in &mut clients {
        client.send(part);
    }
    for (part, client) in &mut clients {
        assert_statuses(client, &[408], &format!("{part:?}"));
    }
    server.assert_well("unfinished heads");
}

#[test]
fn a_silent_connection_is_closed_without_a_word() {
    let server = Server::start(&["--head-timeout", "300ms", "--idle-timeout", "60s"]);
    let mut client = server.connect();
    client.assert_end("silence");
}

/// The deadline runs from the first byte: more bytes do not move it.
#[test]
fn a_head_that_trickles_gets_408() {
    let server = Server::start(&["--head-timeout", "400ms", "--idle-timeout", "60s"]);
    let mut client = server.connect();
    for _ in 0..200 {
        if client.hears_within(Duration::from_millis(50)) {
            break;
        }
        client.send("a");
    }
    // With a method of one letter and a byte each 50 ms the head would last for a hundred times the deadline.
    assert!(client.hears_now(), "every byte put the deadline off");
    assert_statuses(&mut client, &[408], "trickle");
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let server = Server::start(&["--head-timeout", "60s", "--idle-timeout", "300ms"]);
    let mut client = server.connect();
    assert_eq!(client.get("/hello.txt").text(), HELLO);
    client.assert_end("idle");
}

#[test]
fn the_next_head_on_a_connection_has_its_own_deadline() {
    let server = Server::start(&["--head-timeout", "300ms", "--idle-timeout", "60s"]);
    let mut client = server.connect();
    assert_eq!(client.get("/hello.txt").text(), HELLO);
    // Idle for longer than a head may take.
    pause(450);
    assert_eq!(client.get("/hello.txt").text(), HELLO, "the time of a head begins with its first byte");
    client.send("GET /hello.txt HTTP/1.1\r\nHost");
    assert_statuses(&mut client, &[408], "an unfinished second head");
}

/// The other connections of the same worker do not notice.
#[test]
fn slow_clients_hold_up_nobody() {
    let server = Server::start(&["--threads", "1", "--queue", "1000"]);
    let mut slow: Vec<_> = (0..300).map(|_| server.connect()).collect();
    for client in &mut slow {
        client.send("GET /hello.txt HTT");
    }
    server.assert_well("300 clients in the middle of their heads");
    for client in &mut slow {
        client.send("P/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer().text(), HELLO);
    }
}

/// A client that takes nothing is ended, and what it was owed is not kept for it.
#[test]
fn a_write_without_progress_is_ended() {
    let server = Server::start(&["--threads", "1", "--write-timeout", "300ms", "--linger-timeout", "300ms"]);
    let length = 64 * 1024 * 1024;
    std::fs::File::create(server.tree().path("big.bin")).unwrap().set_len(length).unwrap();
    let at_rest = server.sockets();
    let mut client = server.connect();
    client.send_get("/big.bin");
    until("the connection is served", || server.sockets() > at_rest);
    until("the connection is ended", || server.sockets() == at_rest);
    let cut = client.try_answer(false).expect_err("64 MiB do not fit between the two");
    let got = cut.partial.map_or(0, |partial| partial.body.len() as u64);
    assert!(got < length, "{got} bytes came of a file that nobody read in time");
    server.assert_well("a client that did not read");
}

/// The deadline is for a write that makes no progress, not for the whole answer.
#[test]
fn a_slow_reader_that_makes_progress_is_served_to_the_end() {
    let server = Server::start(&["--write-timeout", "1s"]);
    let length = 40 * 1024 * 1024;
    std::fs::File::create(server.tree().path("big.bin")).unwrap().set_len(length as u64).unwrap();
    let mut client = server.connect();
    client.send_get("/big.bin");
    assert_eq!(client.any_answer_head().length(), length as u64);
    let mut got = 0;
    while got < length {
        let step = (length - got).min(2 * 1024 * 1024);
        got += client.take(step).len();
        pause(80);
    }
    assert_eq!(client.get("/hello.txt").text(), HELLO, "after {got} bytes");
}

/// After the last answer the server waits for the client to close, but not for ever.
#[test]
fn a_client_that_does_not_go_is_let_go() {
    let server = Server::start(&["--threads", "1", "--linger-timeout", "300ms"]);
    let at_rest = server.sockets();
    for (name, raw) in
        [("refused", "GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned()), ("closed as asked", request("GET", "/", "Connection: close\r\n"))]
    {
        let mut client = server.connect();
        client.send(raw);
        client.answer();
        client.assert_end(name);
        until(&format!("{name}: the socket is closed though the client holds its own"), || server.sockets() == at_rest);
    }
}

#[cfg(debug_assertions)]
mod body {
    use super::*;

    fn start() -> Server {
        // A thousand bytes a second, counted over 400 ms.
        Server::start(&["--body-rate", "1000", "--body-window", "400ms", "--head-timeout", "60s", "--idle-timeout", "60s"])
    }

    const HEAD: &str = "POST /echo HTTP/1.1\r\nHost: a\r\nMillpond-Fault: body\r\n";

    #[test]
    fn a_body_that_stops_gets_408() {
        let server = start();
        for (name, rest) in [
            ("before its first byte", "Content-Length: 5000\r\n\r\n"),
            ("in the middle", "Content-Length: 5000\r\n\r\nhello"),
            ("in the middle of a chunk", "Transfer-Encoding: chunked\r\n\r\n5\r\nhe"),
            ("before the last chunk", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ] {
            let mut client = server.connect();
            client.send(format!("{HEAD}{rest}"));
            assert_statuses(&mut client, &[408], name);
        }
        server.assert_well("bodies that stopped");
    }

    #[test]
    fn a_body_slower_than_the_rate_gets_408() {
        let server = start();
        let mut client = server.connect();
        client.send(format!("{HEAD}Content-Length: 5000\r\n\r\n"));
        for _ in 0..200 {
            if client.hears_within(Duration::from_millis(50)) {
                break;
            }
            client.send("a");
        }
        assert!(client.hears_now(), "twenty bytes a second went on for ever");
        assert_statuses(&mut client, &[408], "trickle");
    }

    #[test]
    fn a_body_faster_than_the_rate_may_take_its_time() {
        let server = start();
        let mut client = server.connect();
        let part = [b'x'; 400];
        client.send(format!("{HEAD}Content-Length: {}\r\n\r\n", part.len() * 25));
        for _ in 0..25 {
            client.send(part);
            pause(50);
        }
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.len()), (200, part.len() * 25), "three windows long, at eight times the rate");
    }
}

/// A body that nobody reads must not hold a connection for ever either.
#[test]
fn an_unread_body_that_stops_ends_the_connection() {
    let server = Server::start(&[
        "--body-rate",
        "1000",
        "--body-window",
        "300ms",
        "--linger-timeout",
        "300ms",
        "--head-timeout",
        "60s",
        "--idle-timeout",
        "60s",
    ]);
    let mut client = server.connect();
    client.send(request("POST", "/hello.txt", "Content-Length: 5000\r\n") + "hello");
    let (answers, _) = client.answers();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert!(statuses == [405] || statuses == [408], "{statuses:?}");
}

/// A client that takes something all the time, but too little.
#[test]
fn a_response_that_is_taken_too_slowly_is_given_up() {
    const SIZE: usize = 256 << 20;
    let tree = crate::harness::Tree::site();
    std::fs::File::create(tree.path("big.bin")).unwrap().set_len(SIZE as u64).unwrap();
    let flags = ["--write-timeout", "10m", "--write-rate", "1GiB", "--write-window", "300ms"];
    let server = crate::harness::Builder::new(&flags).tree(tree).start();
    let mut client = server.connect();
    client.send_get("/big.bin");
    let (mut taken, mut buffer) = (0, vec![0; 256 << 10]);
    while let Ok(bytes @ 1..) = client.stream().read(&mut buffer) {
        taken += bytes;
        pause(10);
    }
    assert!(taken < SIZE, "all of it was sent");
}

/// What waits in a socket for a client that takes nothing is bounded, however large the file is.
#[test]
fn little_waits_in_the_socket_of_a_client_that_takes_nothing() {
    const KIB: u64 = 1 << 10;
    for (limit, most) in [("4KiB", 64 * KIB), ("16KiB", 64 * KIB), ("0", u64::MAX)] {
        let tree = crate::harness::Tree::site();
        std::fs::File::create(tree.path("big.bin")).unwrap().set_len(10 << 20).unwrap();
        let server = crate::harness::Builder::new(&["--unsent-limit", limit]).tree(tree).start();
        let mut client = server.connect();
        client.send_get("/big.bin");
        let local = client.stream().local_addr().unwrap();
        let mut last = 0;
        until("nothing more is put in", || {
            pause(100);
            let before = std::mem::replace(&mut last, unsent(server.address(), local));
            last > 0 && last == before
        });
        assert!(last <= most, "{last} bytes wait with a limit of {limit}");
        assert!(limit != "0" || last > 64 * KIB, "{last} bytes: the limit has shown nothing");
        // whoever does take it gets all of it
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.len()), (200, 10 << 20));
    }
}

/// Bytes that the kernel holds to be sent from here to there (proc_net_tcp).
fn unsent(from: std::net::SocketAddr, to: std::net::SocketAddr) -> u64 {
    let (from, to) = (format!(":{:04X}", from.port()), format!(":{:04X}", to.port()));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut found = table.lines().filter_map(|line| {
        let mut parts = line.split_whitespace().skip(1);
        let is_it = parts.next()?.ends_with(&from) && parts.next()?.ends_with(&to);
        let queues = parts.nth(1)?;
        is_it.then(|| u64::from_str_radix(queues.split(':').next()?, 16).ok())?
    });
    found.next().unwrap_or(0)
}
