//! The access log: Combined Log Format that cannot be forged, wherever it goes, and that never holds up a worker.
//!
//! Classes of failure covered: control characters and terminal escapes in logs, quotation marks that end a field early, a full pipe.

use std::fs;
use std::io::Read;

use rustix::process::Signal;

use crate::client::{HOST, request};
use crate::harness::{Builder, HELLO, Server, Tree, until};

/// A line, taken apart; quoted fields are unescaped.
#[derive(Debug, PartialEq)]
struct Line {
    address: String,
    request: Vec<u8>,
    status: String,
    bytes: String,
    referer: Vec<u8>,
    agent: Vec<u8>,
}

/// `127.0.0.1 - - [10/Oct/2000:13:55:36 +0000] "GET / HTTP/1.1" 200 2326 "-" "agent"`
fn parse(line: &str) -> Option<Line> {
    if !line.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return None;
    }
    let (address, rest) = line.split_once(" - - [")?;
    address.parse::<std::net::IpAddr>().ok()?;
    let (time, rest) = rest.split_once("] ")?;
    let shape: String = time
        .chars()
        .map(|c| {
            if c.is_ascii_digit() {
                '9'
            } else if c.is_ascii_alphabetic() {
                'a'
            } else {
                c
            }
        })
        .collect();
    if !["99/aaa/9999:99:99:99 +9999", "99/aaa/9999:99:99:99 -9999"].contains(&shape.as_str()) {
        return None;
    }
    let (request, rest) = quoted(rest)?;
    let (status, rest) = rest.strip_prefix(' ')?.split_once(' ')?;
    let (bytes, rest) = rest.split_once(' ')?;
    let (referer, rest) = quoted(rest)?;
    let (agent, rest) = quoted(rest.strip_prefix(' ')?)?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty();
    if !rest.is_empty() || !number(status) || status.len() != 3 || !(number(bytes) || bytes == "-") {
        return None;
    }
    Some(Line { address: address.to_owned(), request, status: status.to_owned(), bytes: bytes.to_owned(), referer, agent })
}

/// A quoted field, and what follows it. Escapes are `\"`, `\\`, letters as in C, and `\xHH`.
fn quoted(text: &str) -> Option<(Vec<u8>, &str)> {
    let text = text.strip_prefix('"')?;
    let mut value = Vec::new();
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((value, &text[at + 1..])),
            b'\\' => match bytes.next()?.1 {
                b'x' => {
                    let (first, _) = bytes.next()?;
                    bytes.next()?;
                    value.push(u8::from_str_radix(text.get(first..first + 2)?, 16).ok()?);
                }
                b't' => value.push(b'\t'),
                b'n' => value.push(b'\n'),
                b'r' => value.push(b'\r'),
                mark @ (b'"' | b'\\') => value.push(mark),
                _ => return None,
            },
            _ => value.push(byte),
        }
    }
    None
}

fn lines_of(bytes: &[u8]) -> Vec<Line> {
    let text = String::from_utf8(bytes.to_vec()).expect("the log is plain text");
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole: {:?}", &text[text.len().saturating_sub(200)..]);
    text.lines().map(|line| parse(line).unwrap_or_else(|| panic!("not a line of the log: {line:?}"))).collect()
}

#[test]
fn the_reader_of_log_lines_is_strict() {
    let good = r#"127.0.0.1 - - [10/Oct/2000:13:55:36 +0000] "GET / HTTP/1.1" 200 2326 "-" "a \"b\" \xff""#;
    let line = parse(good).unwrap();
    assert_eq!((line.status.as_str(), line.agent.as_slice()), ("200", b"a \"b\" \xff".as_slice()));
    for wrong in
        [good.replace('[', ""), good.replace("\\xff", "\x1b"), good.replace("\\\"", "\""), good.replace("200", "2"), format!("{good} x")]
    {
        assert_eq!(parse(&wrong), None, "{wrong}");
    }
}

#[test]
fn each_request_has_its_line_on_standard_output() {
    // One worker: between two of them the order of lines is open.
    let server = Server::start(&["--access-log", "-", "--threads", "1"]);
    let mut client = server.connect();
    let etag = client.get_with("/hello.txt?a=b", "Referer: http://a.test/from\r\nUser-Agent: Test/1.0 (it)\r\n").need("etag").to_owned();
    client.head("/hello.txt");
    client.get("/nowhere");
    client.get_with("/hello.txt", &format!("If-None-Match: {etag}\r\n"));
    client.get_with("/hello.txt", "Range: bytes=0-3\r\n");
    client.get("/sub");
    client.send(format!("GET /hello.txt HTTP/1.0\r\nHost: {HOST}\r\nConnection: keep-alive\r\n\r\n"));
    client.answer();
    client.send(request("DELETE", "/hello.txt", ""));
    client.answer();
    let not_found = server.get("/nowhere").body.len().to_string();
    drop(client);
    let stopped = server.stop();
    stopped.assert_clean();
    let lines = lines_of(&stopped.out);
    let all = HELLO.len().to_string();
    let rows = [
        ("GET /hello.txt?a=b HTTP/1.1", "200", Some(all.as_str())),
        ("HEAD /hello.txt HTTP/1.1", "200", Some("0")),
        ("GET /nowhere HTTP/1.1", "404", Some(not_found.as_str())),
        ("GET /hello.txt HTTP/1.1", "304", Some("0")),
        ("GET /hello.txt HTTP/1.1", "206", Some("4")),
        ("GET /sub HTTP/1.1", "301", None),
        ("GET /hello.txt HTTP/1.0", "200", Some(all.as_str())),
        ("DELETE /hello.txt HTTP/1.1", "405", None),
        ("GET /nowhere HTTP/1.1", "404", Some(not_found.as_str())),
    ];
    assert_eq!(lines.len(), rows.len(), "{lines:#?}");
    for (line, (request, status, bytes)) in lines.iter().zip(rows) {
        assert_eq!(
            (String::from_utf8_lossy(&line.request).as_ref(), line.status.as_str(), line.address.as_str()),
            (request, status, "127.0.0.1")
        );
        if let Some(bytes) = bytes {
            assert!(line.bytes == bytes || bytes == "0" && line.bytes == "-", "{request}: {} bytes, wanted {bytes}", line.bytes);
        }
    }
    assert_eq!((lines[0].referer.as_slice(), lines[0].agent.as_slice()), (b"http://a.test/from".as_slice(), b"Test/1.0 (it)".as_slice()));
    assert_eq!((lines[1].referer.as_slice(), lines[1].agent.as_slice()), (b"-".as_slice(), b"-".as_slice()), "what was not sent");
}

#[test]
fn no_value_breaks_out_of_its_field() {
    let server = Server::start(&["--access-log", "-"]);
    let mut client = server.connect();
    let agents: &[&[u8]] = &[
        b"plain",
        b"with \"quotes\"",
        b"x\" 200 0 \"-\" \"forged",
        b"back\\slash",
        b"ends in a backslash\\",
        b"\\\"",
        b"\\x41 \\n \\\\",
        b"bytes \x80\xff\xc3\xb6 over",
        b"a\ttab",
        b"\xc2\x9b31m is an escape sequence too",
        b"\"",
        b"[10/Oct/2000:13:55:36 +0000]",
    ];
    for agent in agents {
        let raw =
            [b"GET /hello.txt?\"quoted\" HTTP/1.1\r\nHost: a\r\nReferer: ", *agent, b"\r\nUser-Agent: ", *agent, b"\r\n\r\n"].concat();
        client.send(raw);
        assert_eq!(client.answer().status, 200);
    }
    drop(client);
    let stopped = server.stop();
    stopped.assert_clean();
    let lines = lines_of(&stopped.out);
    assert_eq!(lines.len(), agents.len());
    for (line, agent) in lines.iter().zip(agents) {
        assert_eq!((line.agent.as_slice(), line.referer.as_slice()), (*agent, *agent), "{}", agent.escape_ascii());
        assert_eq!(line.request, b"GET /hello.txt?\"quoted\" HTTP/1.1", "{}", agent.escape_ascii());
    }
}

#[test]
fn escapes_in_targets_stay_escaped() {
    let server = Server::start(&["--access-log", "-"]);
    let targets = ["/%0a127.0.0.1%20-%20-", "/%0d%0aforged", "/%1b[2J", "/a%22b", "/x?%0a", "/%00"];
    for target in targets {
        server.get(target);
    }
    let stopped = server.stop();
    let lines = lines_of(&stopped.out);
    assert_eq!(lines.len(), targets.len(), "{lines:#?}");
    for target in targets {
        let wanted = format!("GET {target} HTTP/1.1").into_bytes();
        assert!(lines.iter().any(|line| line.request == wanted), "{target}: {lines:#?}");
    }
}

/// Whatever is sent, the log stays a log: every line of it can be read.
#[test]
fn malformed_requests_leave_readable_lines() {
    let server = Server::start(&["--access-log", "-"]);
    let raws: &[&[u8]] = &[
        b"\x1b[2J\x1b[H / HTTP/1.1\r\n\r\n",
        b"GET /\x1b[2J HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xff\xfe\" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\" 200 1 \"-\" \"forged HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: a\0b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    ];
    for raw in raws {
        assert!(server.ask(raw).status >= 400);
    }
    server.assert_well("malformed requests");
    let stopped = server.stop();
    let lines = lines_of(&stopped.out);
    assert!(lines.iter().any(|line| line.request == b"GET /hello.txt HTTP/1.1" && line.status == "200"), "{lines:#?}");
    assert!(lines.len() <= raws.len() + 1, "{lines:#?}");
    assert!(lines.iter().all(|line| line.agent == b"-"), "nothing was forged: {lines:#?}");
}

#[test]
fn the_log_may_go_to_a_file() {
    let tree = Tree::site();
    let path = tree.outside("access.log");
    let server = Builder::new(&["--access-log"]).arg(&path).tree(tree).start();
    for number in 0..20 {
        assert_eq!(server.get(&format!("/hello.txt?{number}")).status, 200);
    }
    // It is written without waiting for the end.
    until("all lines are in the file", || fs::read(&path).unwrap().iter().filter(|byte| **byte == b'\n').count() == 20);
    let keep = fs::read(&path).unwrap();
    assert_eq!(lines_of(&keep).len(), 20);
    let root = server.tree().root();
    // A second server writes behind what is there.
    let second = Builder::new(&["--access-log"]).arg(&path).root(root).start();
    second.assert_well("starting with a log that exists");
    let stopped = second.stop();
    assert!(stopped.out.is_empty(), "nothing on standard output");
    stopped.assert_clean();
    let both = fs::read(&path).unwrap();
    assert!(both.starts_with(&keep), "what was there is kept");
    assert_eq!(lines_of(&both).len(), 21);
    server.stop().assert_clean();
}

#[test]
fn the_log_may_be_off() {
    let server = Server::start(&["--access-log", "off"]);
    server.assert_well("no log");
    let stopped = server.stop();
    assert_eq!(stopped.assert_clean().dropped, 0);
    assert!(stopped.out.is_empty());
}

#[test]
fn the_log_goes_to_standard_output_by_itself() {
    let tree = Tree::site();
    let root = tree.root();
    let server = Builder::new(&["--port", "0"]).bare().arg(root).tree(tree).start();
    server.assert_well("no flag for the log");
    assert_eq!(lines_of(&server.stop().out).len(), 1);
}

/// Requests whose lines are long: a few thousand fill every pipe and every buffer before it.
const LONG_LINES: usize = 3_000;

fn send_long_lines(server: &Server) {
    let long = "a".repeat(3_000);
    let one = request("GET", "/hello.txt", &format!("User-Agent: {long}\r\n"));
    let mut client = server.connect();
    for _ in 0..LONG_LINES / 50 {
        client.send(one.repeat(50));
        for _ in 0..50 {
            assert_eq!(client.answer().text(), HELLO);
        }
    }
}

#[test]
fn a_pipe_that_nobody_reads_holds_up_nobody() {
    let server = Builder::new(&["--access-log", "-", "--threads", "1"]).pipe().start();
    send_long_lines(&server);
    server.assert_well("thousands of lines that nobody read");
    let closing = server.stop().assert_clean();
    assert!(closing.dropped > 0, "nine megabytes went nowhere, and none of it was counted");
    assert_eq!(closing.requests, LONG_LINES as u64 + 1);
}

/// What is dropped is dropped as whole lines, and what is not is there: every request is either in the log or in the count.
#[test]
fn a_pipe_that_is_read_again_goes_on_with_whole_lines() {
    let mut server = Builder::new(&["--access-log", "-", "--threads", "1"]).pipe().start();
    send_long_lines(&server);
    let mut pipe = server.take_pipe();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        pipe.read_to_end(&mut all).unwrap();
        all
    });
    // Until there is room again, lines may be lost; then they are not.
    for number in 0..50 {
        server.get(&format!("/hello.txt?late-{number}"));
        crate::harness::pause(4);
    }
    let closing = server.stop().assert_clean();
    let all = reader.join().unwrap();
    let lines = lines_of(&all);
    assert!(closing.dropped > 0, "the pipe was never full");
    assert_eq!(lines.len() as u64 + closing.dropped, LONG_LINES as u64 + 50, "written and dropped lines together");
    assert!(lines.iter().any(|line| line.request == b"GET /hello.txt?late-49 HTTP/1.1"), "the last request is in the log");
}

#[test]
fn a_pipe_whose_reader_has_gone_ends_nothing() {
    let mut server = Builder::new(&["--access-log", "-"]).pipe().start();
    drop(server.take_pipe());
    for number in 0..100 {
        assert_eq!(server.get("/hello.txt").text(), HELLO, "request {number}");
    }
    let closing = server.stop().assert_clean();
    assert_eq!(closing.requests, 100);
    assert_eq!(closing.dropped, 100, "all of them are counted");
}

#[test]
fn a_full_disk_ends_nothing() {
    let server = Server::start(&["--access-log", "/dev/full"]);
    for number in 0..50 {
        assert_eq!(server.get("/hello.txt").text(), HELLO, "request {number}");
    }
    let closing = server.stop().assert_clean();
    assert_eq!(closing.dropped, 50);
}

/// A rotation: the file is renamed, and a hangup has a new one opened; between them the two hold every line once.
#[test]
fn a_hangup_opens_the_file_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (log, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let server = Builder::new(&["--access-log", log.to_str().unwrap()]).start();
    let total = |path: &std::path::Path| fs::read_to_string(path).unwrap_or_default().lines().filter(|line| parse(line).is_some()).count();
    let mut client = server.connect();
    for _ in 0..100 {
        assert_eq!(client.get("/hello.txt").text(), HELLO);
    }
    until("the first lines are written", || total(&log) == 100);
    fs::rename(&log, &old).unwrap();
    for _ in 0..100 {
        assert_eq!(client.get("/hello.txt").text(), HELLO);
    }
    // what is gathered already may go to either
    server.signal(Signal::HUP);
    server.wait_for_line("was opened anew");
    for _ in 0..100 {
        assert_eq!(client.get("/hello.txt").text(), HELLO);
    }
    until("all lines are written", || total(&log) + total(&old) == 300);
    assert!(total(&old) >= 100 && total(&log) >= 100, "{} and {}", total(&old), total(&log));
    server.stop().assert_clean();
}

#[test]
fn a_hangup_opens_the_file_anew_while_the_server_stops() {
    let tree = Tree::site();
    fs::File::create(tree.path("big.bin")).unwrap().set_len(64 << 20).unwrap();
    let (log, old) = (tree.outside("access.log"), tree.outside("access.log.1"));
    let server = Builder::new(&["--shutdown-grace", "10m", "--access-log"]).arg(&log).root(tree.root()).start();
    let mut client = server.connect();
    client.send_get("/big.bin");
    assert_eq!(client.any_answer_head().status, 200);
    server.signal(Signal::TERM);
    until("the port is free", || std::net::TcpStream::connect(server.address()).is_err());
    fs::rename(&log, &old).unwrap();
    server.signal(Signal::HUP);
    server.wait_for_line("was opened anew");
    assert_eq!(client.rest().0.len(), 64 << 20);
    server.finish().assert_clean();
    assert_eq!(fs::read_to_string(&old).unwrap(), "");
    assert_eq!(lines_of(&fs::read(&log).unwrap()).len(), 1);
}

#[test]
fn a_hangup_without_a_file_is_told_and_ends_nothing() {
    for log in ["off", "-"] {
        let server = Server::start(&["--access-log", log]);
        server.signal(Signal::HUP);
        server.wait_for_line("there is no file for it");
        server.assert_well(log);
        server.stop().assert_clean();
    }
    // a pipe that nobody reads took its place: it is not waited for
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let server = Builder::new(&["--access-log", path.to_str().unwrap()]).start();
    fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR, 0).unwrap();
    server.signal(Signal::HUP);
    server.wait_for_line("lines go on to where they went");
    server.stop().assert_clean();
    // the folder is gone: what is open stays open
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("logs");
    fs::create_dir(&inner).unwrap();
    let server = Builder::new(&["--access-log", inner.join("access.log").to_str().unwrap()]).start();
    let moved = folder.path().join("moved");
    fs::rename(&inner, &moved).unwrap();
    server.signal(Signal::HUP);
    server.wait_for_line("lines go on to where they went");
    server.assert_well("a hangup that failed");
    until("the line is written", || fs::read_to_string(moved.join("access.log")).is_ok_and(|text| text.lines().count() == 1));
    server.stop().assert_clean();
}
