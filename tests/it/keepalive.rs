//! Which connections live on after an answer, and how the answer says so.

use crate::client::{HOST, Response, request};
use crate::harness::{HELLO, Server};

#[test]
fn what_connection_means() {
    let server = Server::start(&[]);
    // Version, fields, whether the connection stays.
    let rows = [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: Close\r\n", false),
        ("1.1", "connection:CLOSE\r\n", false),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: close, keep-alive\r\n", false),
        ("1.1", "Connection: foo , close\t,bar\r\n", false),
        ("1.1", "Connection: , close,\r\n", false),
        ("1.1", "Connection: foo\r\nConnection: close\r\n", false),
        ("1.1", "Connection: close\r\nConnection: keep-alive\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.1", "Connection: not-close\r\n", true),
        ("1.1", "Connection: upgrade\r\nUpgrade: websocket\r\n", true),
        ("1.1", "Connection:\r\n", true),
        ("1.1", "Keep-Alive: timeout=1\r\n", true),
        ("1.1", "X: Connection: close\r\n", true),
        ("1.2", "", true),
        ("1.9", "Connection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: close\r\n", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: foo, keep-alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Connection: keep-alives\r\n", false),
        ("1.0", "Keep-Alive: timeout=5\r\n", false),
    ];
    for (version, fields, stays) in rows {
        let name = format!("HTTP/{version} {fields:?}");
        let mut client = server.connect();
        client.send(format!("GET /hello.txt HTTP/{version}\r\nHost: {HOST}\r\n{fields}\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.text().as_str()), (200, HELLO), "{name}");
        assert_eq!(answer.field("transfer-encoding"), None, "{name}: nothing here needs chunks, and 1.0 knows none");
        if stays {
            assert!(!answer.closes(), "{name}: says close");
            if version == "1.0" {
                assert!(answer.need("connection").eq_ignore_ascii_case("keep-alive"), "{name}");
            }
            assert_eq!(client.get("/other.txt").status, 200, "{name}: the next request");
        } else {
            assert!(version == "1.0" || answer.closes(), "{name}: does not say close: {:?}", answer.fields);
            client.assert_end(&name);
        }
    }
}

/// Errors that concern one resource leave the connection alone.
#[test]
fn ordinary_refusals_keep_the_connection() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let answers: [(&str, &str, &str, u16); 7] = [
        ("GET", "/nowhere", "", 404),
        ("DELETE", "/hello.txt", "", 405),
        ("POST", "/hello.txt", "Content-Length: 0\r\n", 405),
        ("GET", "/sub", "", 301),
        ("GET", "/hello.txt", "Range: bytes=100-\r\n", 416),
        ("GET", "/hello.txt", "If-None-Match: *\r\n", 304),
        ("GET", "/.hidden", "", 404),
    ];
    for (method, target, fields, status) in answers {
        client.send(request(method, target, fields));
        let answer = client.answer();
        assert_eq!(answer.status, status, "{method} {target}");
        assert!(!answer.closes(), "{method} {target} closes the connection");
    }
    assert_eq!(client.get("/hello.txt").text(), HELLO);
}

#[test]
fn many_requests_on_one_connection() {
    let server = Server::start(&["--threads", "1"]);
    let mut client = server.connect();
    for round in 0..500 {
        let answer = client.get("/hello.txt");
        assert_eq!((answer.status, answer.text().as_str()), (200, HELLO), "round {round}");
    }
    drop(client);
    let closing = server.stop().assert_clean();
    assert_eq!((closing.connections, closing.requests), (1, 500));
}

#[test]
fn nothing_is_answered_after_close() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send([request("GET", "/hello.txt", "Connection: close\r\n"), request("GET", "/other.txt", "").repeat(20)].concat());
    let (answers, _) = client.answers();
    assert_eq!(answers.iter().map(Response::text).collect::<Vec<_>>(), [HELLO]);
}
