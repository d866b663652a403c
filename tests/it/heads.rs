//! Request heads: what is well-formed, and what is refused with the connection closed behind it.
//!
//! Classes of failure covered: request smuggling by lax line ends and field names, doubled or invalid Host, confusion by unescaped bytes in
//! the target, one answer for every bad version.

use crate::client::{Client, Ending, request, shown};
use crate::harness::{HELLO, Server};

/// A whole request that must never be answered, because what stands before it closes the connection.
const TAIL: &str = "GET /other.txt HTTP/1.1\r\nHost: pond.test\r\n\r\n";

/// Sends the bytes with a further request behind them: there is one answer of this status, it says that it closes, and a clean end.
#[track_caller]
pub fn assert_refused(server: &Server, name: &str, raw: impl AsRef<[u8]>, statuses: &[u16]) {
    let raw = raw.as_ref();
    let mut client = server.connect();
    client.send([raw, TAIL.as_bytes()].concat());
    let (answers, ending) = client.answers();
    let got: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(got.len(), 1, "{name}: one answer expected, got {got:?} to {}", shown(raw));
    assert!(statuses.contains(&got[0]), "{name}: got {got:?}, wanted {statuses:?} for {}", shown(raw));
    assert!(answers[0].closes(), "{name}: no Connection: close in {:?}", answers[0].fields);
    assert_eq!(ending, Ending::Eof, "{name}: the connection was reset");
}

/// The bytes are one good request for /hello.txt; the connection stays usable.
#[track_caller]
fn assert_accepted(server: &Server, name: &str, raw: impl AsRef<[u8]>) {
    let raw = raw.as_ref();
    let mut client = server.connect();
    client.send(raw);
    let answer = client.answer();
    assert_eq!((answer.status, answer.text().as_str()), (200, HELLO), "{name}: {}", shown(raw));
    assert!(!answer.closes(), "{name}: the connection would close");
    let next = client.get("/other.txt");
    assert_eq!(next.status, 200, "{name}: the next request on the connection");
}

#[test]
fn malformed_heads_get_400_and_the_connection_closes() {
    let server = Server::start(&[]);
    let rows: &[(&str, &[u8])] = &[
        // Line ends.
        ("bare LF after the request line", b"GET /hello.txt HTTP/1.1\nHost: a\r\n\r\n"),
        ("bare LF after a field", b"GET /hello.txt HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
        ("bare LF as the last line end", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\n\n"),
        ("bare LF everywhere", b"GET /hello.txt HTTP/1.1\nHost: a\n\n"),
        ("bare LF as a blank line in front", b"\nGET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("bare CR after the request line", b"GET /hello.txt HTTP/1.1\rHost: a\r\n\r\n"),
        ("bare CR in a value", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n"),
        ("bare CR at the end of a value", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nX: b\r\r\n\r\n"),
        ("bare CR in a name", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nX\rY: b\r\n\r\n"),
        ("bare CR before the first field", b"GET /hello.txt HTTP/1.1\r\n\rHost: a\r\n\r\n"),
        ("bare CR in front of the request", b"\rGET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("bare CR in the target", b"GET /hello.txt\r HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("three blank lines in front", b"\r\n\r\n\r\nGET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n"),
        // Field lines.
        ("NUL in a value", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n"),
        ("NUL in a name", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nX\0Y: b\r\n\r\n"),
        ("folded with a space", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"),
        ("folded with a tab", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n"),
        ("folded before the first field", b"GET /hello.txt HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n"),
        ("a line of spaces before the end", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\n  \r\n\r\n"),
        ("space before the colon", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n"),
        ("tab before the colon", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n"),
        ("space before the colon of Content-Length", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello"),
        ("space before the colon of Host", b"GET /hello.txt HTTP/1.1\r\nHost : a\r\n\r\n"),
        ("empty name", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
        ("no colon", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
        ("space in a name", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n"),
        ("bracket in a name", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nX(Y): b\r\n\r\n"),
        ("non-ASCII in a name", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nX\xe9: b\r\n\r\n"),
        ("a second request line among the fields", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nGET /x HTTP/1.1\r\n\r\n"),
        // Request line.
        ("space in the target", b"GET /hello.txt x HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("two spaces before the target", b"GET  /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("two spaces after the target", b"GET /hello.txt  HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("tab between method and target", b"GET\t/hello.txt HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("tab between target and version", b"GET /hello.txt\tHTTP/1.1\r\nHost: a\r\n\r\n"),
        ("space in front", b" GET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("space behind the version", b"GET /hello.txt HTTP/1.1 \r\nHost: a\r\n\r\n"),
        ("no target", b"GET HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("an empty target", b"GET  HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("method alone", b"GET\r\nHost: a\r\n\r\n"),
        ("raw UTF-8 in the target", b"GET /hell\xc3\xb6.txt HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("raw byte 0xff in the target", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("raw byte 0x80 in the query", b"GET /hello.txt?\x80 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("NUL in the target", b"GET /hello.txt\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("control character in the target", b"GET /hello\x01.txt HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("escape character in the query", b"GET /hello.txt?\x1b[2J HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("DEL in the target", b"GET /hello\x7f.txt HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("fragment in the target", b"GET /hello.txt#part HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("target without a slash", b"GET hello.txt HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("target that is a query only", b"GET ?a=b HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("asterisk with GET", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("authority with GET", b"GET a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n"),
        ("CONNECT with a path", b"CONNECT /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n"),
        // Not HTTP at all.
        ("the start of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        ("zero bytes", b"\0\0\0\0\r\n\r\n"),
        ("nothing but colons", b":::::\r\n\r\n"),
    ];
    for (name, raw) in rows {
        assert_refused(&server, name, raw, &[400]);
    }
    server.assert_well("malformed heads");
}

#[test]
fn versions() {
    let server = Server::start(&[]);
    for version in ["HTTP/1.1", "HTTP/1.2", "HTTP/1.9"] {
        assert_accepted(&server, version, format!("GET /hello.txt {version}\r\nHost: pond.test\r\n\r\n"));
    }
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/3.1", "HTTP/0.0", "HTTP/9.9"] {
        assert_refused(&server, version, format!("GET /hello.txt {version}\r\nHost: pond.test\r\n\r\n"), &[505]);
    }
    assert_refused(&server, "the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[505]);
    let malformed = [
        "HTTP/1",
        "HTTP/11",
        "http/1.1",
        "Http/1.1",
        "HTTP/1.10",
        "HTTP/01.1",
        "HTTP/1.",
        "HTTP/.1",
        "HTTP/1,1",
        "HTTP/1.1a",
        "HTTP/a.1",
        "HTTP /1.1",
        "HTTP/1 .1",
        "HTTPS/1.1",
        "HTTP1.1",
        "HTTP/-1.1",
        "HTTP/1.1.1",
        "ICY/1.0",
        "/1.1",
        "1.1",
        "HTTP/",
    ];
    for version in malformed {
        assert_refused(&server, version, format!("GET /hello.txt {version}\r\nHost: pond.test\r\n\r\n"), &[400]);
    }
    assert_refused(&server, "no version", "GET /hello.txt\r\n\r\n", &[400]);
    server.assert_well("odd versions");
}

#[test]
fn hosts() {
    let server = Server::start(&[]);
    let good = [
        "localhost",
        "localhost:8080",
        "127.0.0.1",
        "127.0.0.1:80",
        "[::1]",
        "[::1]:8080",
        "EXAMPLE.Test",
        "a.b-c_d.test",
        "a.test.",
        "1.2.3",
    ];
    for host in good {
        assert_accepted(&server, host, format!("GET /hello.txt HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    assert_accepted(&server, "white space around", "GET /hello.txt HTTP/1.1\r\nHost: \t a.test \t\r\n\r\n");
    assert_accepted(&server, "no white space", "GET /hello.txt HTTP/1.1\r\nHost:a.test\r\n\r\n");
    assert_accepted(&server, "name in capitals", "GET /hello.txt HTTP/1.1\r\nHOST: a.test\r\n\r\n");
    let bad: &[&[u8]] = &[
        b"",
        b" ",
        b"a b",
        b"a/b",
        b"/",
        b"user@a.test",
        b"@",
        b"a.test:port",
        b"a.test:80:80",
        b"a.test:-1",
        b"[::1",
        b"::1]",
        b"[::1]x",
        b"[zz]",
        b"a?b",
        b"a#b",
        b"a<b>",
        b"a\"b",
        b"a\\b",
        b"a\tb",
        b"h\xe9",
        b"http://a.test",
        b"a.test:8o",
        b":80",
    ];
    for host in bad {
        let raw = [b"GET /hello.txt HTTP/1.1\r\nHost: ", *host, b"\r\n\r\n"].concat();
        assert_refused(&server, &format!("Host {}", host.escape_ascii()), raw, &[400]);
    }
    let rows = [
        ("missing", "GET /hello.txt HTTP/1.1\r\n\r\n"),
        ("missing in 1.2", "GET /hello.txt HTTP/1.2\r\n\r\n"),
        ("missing beside an absolute target", "GET http://a.test/hello.txt HTTP/1.1\r\n\r\n"),
        ("missing beside OPTIONS *", "OPTIONS * HTTP/1.1\r\n\r\n"),
        ("twice", "GET /hello.txt HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n"),
        ("twice the same", "GET /hello.txt HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n"),
        ("twice, apart, in other letters", "GET /hello.txt HTTP/1.1\r\nHost: a.test\r\nX: y\r\nhOST: a.test\r\n\r\n"),
        ("twice in 1.0", "GET /hello.txt HTTP/1.0\r\nHost: a.test\r\nHost: b.test\r\n\r\n"),
        ("invalid beside an absolute target", "GET http://a.test/hello.txt HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ];
    for (name, raw) in rows {
        assert_refused(&server, name, raw, &[400]);
    }
    let answer = server.ask("GET /hello.txt HTTP/1.0\r\n\r\n");
    assert_eq!((answer.status, answer.text().as_str()), (200, HELLO), "HTTP/1.0 needs no Host");
}

#[test]
fn well_formed_oddities_are_served() {
    let server = Server::start(&[]);
    let rows: &[(&str, &[u8])] = &[
        ("one blank line in front", b"\r\nGET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("two blank lines in front", b"\r\n\r\nGET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("empty value", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n"),
        ("bytes over 0x7f in a value", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nX: \x80\xff\xc3\xb6\r\n\r\n"),
        ("tab in a value", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nX: a\tb\r\n\r\n"),
        ("every token character in a name", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~09azAZ: b\r\n\r\n"),
        ("colons in a value", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nX: :b:c:\r\n\r\n"),
        ("a field twice", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nX: b\r\nX: c\r\n\r\n"),
        ("an upgrade that we do not do", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c, websocket\r\n\r\n"),
        ("identity headers and a proxy", b"GET /hello.txt HTTP/1.1\r\nHost: a\r\nProxy: http://b\r\nX_Forwarded-For: c\r\n\r\n"),
        ("query with odd characters", b"GET /hello.txt?a=/../..&b=\"<>\\^`{|}%00 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("empty query", b"GET /hello.txt? HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("absolute target", b"GET http://a.test/hello.txt HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        ("absolute target with another Host", b"GET http://a.test:81/hello.txt HTTP/1.1\r\nHost: b.test\r\n\r\n"),
        ("absolute target, scheme and host in capitals", b"GET HTTP://A.TEST/hello.txt HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        ("absolute target with an IPv6 address", b"GET http://[::1]:80/hello.txt HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    for (name, raw) in rows {
        assert_accepted(&server, name, raw);
    }
}

#[test]
fn absolute_targets() {
    let server = Server::start(&[]);
    for target in ["http://a.test", "http://a.test?query"] {
        let answer = server.get(target);
        assert!(answer.status == 200 && answer.text().contains("home"), "{target}: {} {}", answer.status, answer.text());
    }
    let answer = server.get("http://a.test/sub?x=1");
    assert_eq!((answer.status, answer.need("location")), (301, "/sub/?x=1"), "the redirect stays on this server");
    for target in [
        "http://",
        "http:///hello.txt",
        "http://user@a.test/hello.txt",
        "http://a.test:port/hello.txt",
        "http://[::1/hello.txt",
        "http:/hello.txt",
        "http:hello.txt",
    ] {
        assert_refused(&server, target, request("GET", target, ""), &[400]);
    }
}

#[test]
fn blank_lines_between_requests_are_counted_anew() {
    let server = Server::start(&[]);
    let get = request("GET", "/hello.txt", "");
    let mut client = server.connect();
    for _ in 0..5 {
        client.send(format!("\r\n\r\n{get}"));
        assert_eq!(client.answer().status, 200);
    }
    client.send(format!("\r\n\r\n\r\n{get}"));
    assert_eq!(client.answer().status, 400, "three blank lines after good requests");
    client.assert_end("three blank lines after good requests");
}

#[test]
fn an_error_after_good_requests_costs_only_what_follows() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let get = request("GET", "/hello.txt", "");
    client.send(format!("{get}{get}GET /hello.txt HTTP/1.1\r\nHost : a\r\n\r\n{get}"));
    let (answers, ending) = client.answers();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!((statuses, ending), (vec![200, 200, 400], Ending::Eof));
}

/// A reset would take the answer away from the client before it could read it.
#[test]
fn a_refusal_is_received_though_much_more_was_sent() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send(b"GET /hello.txt HTTP/1.1\r\nHost : a\r\n\r\n");
    client.send(vec![b'x'; 512 * 1024]);
    assert_eq!(client.answer().status, 400);
    client.assert_end("after half a megabyte");
}

/// One changed byte, anywhere: every answer is whole, the connection ends, and the server lives.
#[test]
fn mutated_requests_never_upset_the_server() {
    let server = Server::start(&["--queue", "1000"]);
    let good = b"POST /hello.txt HTTP/1.1\r\nHost: pond.test\r\nContent-Length: 5\r\nX-Long: abcdef\r\n\r\nhello".to_vec();
    let odd = [b'\0', b'\r', b'\n', b' ', b'\t', b':', b'/', b'%', b'0', b'9', b'\x7f', b'\xff'];
    let mut clients: Vec<(usize, u8, Client)> = Vec::new();
    for at in 0..good.len() {
        for byte in odd {
            let mut mutated = good.clone();
            mutated[at] = byte;
            let mut client = server.connect();
            client.send(&mutated);
            client.close_writing();
            clients.push((at, byte, client));
            if clients.len() == 50 {
                clients.drain(..).for_each(|(at, byte, client)| assert_orderly_end(at, byte, client));
            }
        }
    }
    clients.drain(..).for_each(|(at, byte, client)| assert_orderly_end(at, byte, client));
    server.assert_well("mutated requests");
}

fn assert_orderly_end(at: usize, byte: u8, mut client: Client) {
    let (answers, ending) = client.answers();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    let name = format!("byte {at} made {byte:#04x}: {statuses:?}");
    assert_eq!(ending, Ending::Eof, "{name}");
    assert!(statuses.len() <= 2 && statuses.iter().all(|status| [400, 404, 405, 501, 505].contains(status)), "{name}");
}
