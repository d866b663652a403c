//! How requests lie in the stream: behind one another, cut anywhere, and with an end of the stream behind them.

use crate::client::{Client, Ending, find, request, shown};
use crate::harness::{HELLO, Server, assert_same_bytes, noise, pause};

#[test]
fn fifty_pipelined_requests_are_answered_in_order() {
    let server = Server::start(&[]);
    for number in 0..50 {
        server.tree().write(format!("n/{number}.txt"), format!("this is number {number}\n").repeat(number + 1));
    }
    let mut client = server.connect();
    client.send((0..50).map(|number| request("GET", &format!("/n/{number}.txt"), "")).collect::<String>());
    for number in 0..50 {
        let answer = client.answer();
        assert_eq!(answer.text(), format!("this is number {number}\n").repeat(number + 1), "answer {number}");
    }
    assert_eq!(client.get("/hello.txt").text(), HELLO, "and the connection lives on");
}

/// Method, target, fields with body, status, body of the answer (`None`: not looked at).
type Row<'a> = (&'a str, &'a str, &'a str, u16, Option<&'a [u8]>);

#[test]
fn pipelined_requests_of_every_kind_keep_their_order() {
    let server = Server::start(&[]);
    let big = noise(1, 300_000);
    server.tree().write("big.bin", &big);
    let rows: [Row; 9] = [
        ("GET", "/hello.txt", "\r\n", 200, Some(HELLO.as_bytes())),
        ("HEAD", "/hello.txt", "\r\n", 200, None),
        ("GET", "/nowhere", "\r\n", 404, None),
        ("HEAD", "/nowhere", "\r\n", 404, None),
        ("GET", "/big.bin", "\r\n", 200, Some(&big)),
        ("POST", "/hello.txt", "Content-Length: 5\r\n\r\nGET /", 405, None),
        ("GET", "/sub", "\r\n", 301, None),
        ("PUT", "/x", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 405, None),
        ("GET", "/empty.txt", "\r\n", 200, Some(b"")),
    ];
    let mut client = server.connect();
    let one: String = rows.iter().map(|(method, target, rest, ..)| format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{rest}")).collect();
    client.send(one.repeat(5));
    for round in 0..5 {
        for (method, target, _, status, body) in rows {
            let name = format!("round {round}, {method} {target}");
            let answer = if method == "HEAD" { client.answer_to_head() } else { client.answer() };
            assert_eq!(answer.status, status, "{name}");
            if let Some(body) = body {
                assert_same_bytes(&answer.body, body, &name);
            }
        }
    }
    assert_eq!(client.get("/hello.txt").text(), HELLO, "and the connection lives on");
}

#[test]
fn a_client_that_pipelines_and_reads_late_gets_everything() {
    let server = Server::start(&["--threads", "1"]);
    let big = noise(2, 100_000);
    server.tree().write("big.bin", &big);
    let mut client = server.connect();
    client.send(request("GET", "/big.bin", "").repeat(100));
    // While ten megabytes wait to be read, the same worker serves others.
    server.assert_well("a client that does not read");
    for number in 0..100 {
        assert_same_bytes(&client.answer().body, &big, &format!("answer {number}"));
    }
}

#[test]
fn a_half_closed_client_gets_its_answers() {
    let server = Server::start(&[]);
    let big = noise(3, 4 * 1024 * 1024);
    server.tree().write("big.bin", &big);
    let get = request("GET", "/hello.txt", "");
    let rows = [
        ("one", get.clone(), 1),
        ("pipelined", get.repeat(20), 20),
        ("with Connection: close", request("GET", "/hello.txt", "Connection: close\r\n"), 1),
    ];
    for (name, raw, count) in rows {
        let mut client = server.connect();
        client.send(raw);
        client.close_writing();
        let (answers, ending) = client.answers();
        assert_eq!((answers.len(), ending), (count, Ending::Eof), "{name}");
        assert!(answers.iter().all(|answer| answer.text() == HELLO), "{name}");
    }
    let mut client = server.connect();
    client.send_get("/big.bin");
    client.close_writing();
    assert_same_bytes(&client.answer().body, &big, "a big file to a half-closed client");
    client.assert_end("a big file to a half-closed client");
}

/// Nobody is there to be served: the connection ends at once, and nothing is mistaken for a request.
#[test]
fn a_stream_that_ends_early() {
    let server = Server::start(&["--head-timeout", "60s", "--idle-timeout", "60s"]);
    let rows = [
        ("nothing at all", ""),
        ("blank lines", "\r\n\r\n"),
        ("half a request line", "GET /hel"),
        ("a head without its last line", "GET /hello.txt HTTP/1.1\r\nHost: a\r\n"),
        ("a head without its last byte", "GET /hello.txt HTTP/1.1\r\nHost: a\r\n\r"),
    ];
    for (name, raw) in rows {
        let mut client = server.connect();
        client.send(raw);
        client.close_writing();
        let (answers, ending) = client.answers();
        assert_eq!(ending, Ending::Eof, "{name}");
        assert!(answers.len() <= 1 && answers.iter().all(|answer| [400, 408].contains(&answer.status)), "{name}: {answers:?}");
    }
    let bodies = [
        ("length", "Content-Length: 10\r\n\r\nabc"),
        ("chunk", "Transfer-Encoding: chunked\r\n\r\n5\r\nab"),
        ("last chunk", "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"),
    ];
    for (name, rest) in bodies {
        let mut client = server.connect();
        client.send(format!("POST /hello.txt HTTP/1.1\r\nHost: a\r\n{rest}"));
        client.close_writing();
        let (answers, ending) = client.answers();
        assert_eq!(ending, Ending::Eof, "body without its end ({name})");
        assert!(answers.len() <= 1 && answers.iter().all(|answer| [400, 405].contains(&answer.status)), "body without its end ({name})");
    }
    server.assert_well("streams that ended early");
}

#[test]
fn clients_that_vanish_cost_nothing() {
    let server = Server::start(&["--threads", "1"]);
    server.tree().write("big.bin", noise(4, 8 * 1024 * 1024));
    for raw in ["", "GET /hel", &request("GET", "/big.bin", ""), &request("GET", "/hello.txt", "").repeat(30)] {
        for reset in [false, true] {
            let mut client = server.connect();
            client.send(raw);
            if reset {
                // With no time to linger, closing sends a reset.
                rustix::net::sockopt::set_socket_linger(client.stream(), Some(std::time::Duration::ZERO)).unwrap();
            }
            drop(client);
        }
    }
    server.assert_well("clients that vanished");
    crate::harness::until("all their sockets are closed", || server.sockets() <= sockets_at_rest());
}

/// The sockets of a server of one worker without clients: measured on one of its own.
fn sockets_at_rest() -> usize {
    static COUNT: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *COUNT.get_or_init(|| Server::start(&["--threads", "1"]).sockets())
}

/// The same bytes give the same answers, wherever the stream is cut in two.
#[test]
fn every_split_gives_the_same_answers() {
    // All connections of a row wait in the queue together.
    let server = Server::start(&["--queue", "1000"]);
    for (name, raw) in split_cases() {
        let whole = converse(&server, |client| client.send(&raw));
        assert!(!whole.is_empty(), "{name}: no answer to the undivided bytes");
        let mut clients: Vec<(usize, Client)> = (1..raw.len()).map(|at| (at, server.connect())).collect();
        for (at, client) in &mut clients {
            client.send(&raw[..*at]);
        }
        pause(30);
        for (at, client) in &mut clients {
            // A refusal may have come already.
            _ = client.send_what_it_takes(&raw[*at..]);
        }
        for (at, mut client) in clients {
            assert_same_answers(&without_date(client.rest().0), &whole, &format!("{name}, cut at {at}"));
        }
    }
}

#[test]
fn one_byte_at_a_time_gives_the_same_answers() {
    let server = Server::start(&[]);
    for (name, raw) in split_cases() {
        let whole = converse(&server, |client| client.send(&raw));
        let bytewise = converse(&server, |client| {
            for byte in &raw {
                if client.send_what_it_takes([*byte]).is_err() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_micros(300));
            }
        });
        assert_same_answers(&bytewise, &whole, name);
    }
}

fn split_cases() -> Vec<(&'static str, Vec<u8>)> {
    let cases: Vec<(&str, String)> = vec![
        ("GET", request("GET", "/hello.txt", "Connection: close\r\n")),
        ("HEAD", request("HEAD", "/hello.txt", "Connection: close\r\n")),
        (
            "blank lines and two requests",
            format!("\r\n\r\n{}\r\n{}", request("GET", "/hello.txt", ""), request("GET", "/other.txt", "Connection: close\r\n")),
        ),
        (
            "a body with its length",
            request("POST", "/x", "Content-Length: 7\r\n") + "GET / H" + &request("GET", "/other.txt", "Connection: close\r\n"),
        ),
        (
            "a body in chunks",
            request("POST", "/x", "Transfer-Encoding: chunked\r\n")
                + "5;a=b\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX-Trailer: y\r\n\r\n"
                + &request("GET", "/other.txt", "Connection: close\r\n"),
        ),
        ("a space before the colon", "GET /hello.txt HTTP/1.1\r\nHost : a\r\n\r\n".to_owned()),
        ("a bare LF", "GET /hello.txt HTTP/1.1\r\nHost: a\n\r\n".to_owned()),
        ("another version", "GET /hello.txt HTTP/2.0\r\nHost: a\r\n\r\n".to_owned()),
        #[cfg(debug_assertions)]
        (
            "a body that is read",
            request("POST", "/x", "Millpond-Fault: body\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n")
                + "5;a=b\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX-Trailer: y\r\n\r\n",
        ),
        #[cfg(debug_assertions)]
        (
            "a body that is read and wrong",
            request("POST", "/x", "Millpond-Fault: body\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n") + "5\r\nhelloX\n0\r\n\r\n",
        ),
    ];
    cases.into_iter().map(|(name, raw)| (name, raw.into_bytes())).collect()
}

/// Everything the server says to what `speak` sends, without the dates.
fn converse(server: &Server, speak: impl FnOnce(&mut Client)) -> Vec<u8> {
    let mut client = server.connect();
    speak(&mut client);
    without_date(client.rest().0)
}

fn without_date(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut from = 0;
    while let Some(at) = find(&bytes[from..].to_ascii_lowercase(), b"\r\ndate: ") {
        let start = from + at + 8;
        let length = find(&bytes[start..], b"\r\n").unwrap_or(bytes.len() - start);
        bytes.drain(start..start + length);
        from = start;
    }
    bytes
}

#[track_caller]
fn assert_same_answers(got: &[u8], wanted: &[u8], name: &str) {
    assert!(got == wanted, "{name}: got {}, wanted {}", shown(got), shown(wanted));
}
