//! GET and HEAD are served; everything else that is a method gets 405 and what is allowed, and what is no method gets 400.

use crate::client::{HOST, request};
use crate::harness::{HELLO, Server};
use crate::heads::assert_refused;

/// The soundness check of every answer holds `Allow: GET, HEAD` on each 405.
#[test]
fn other_methods_get_405() {
    let server = Server::start(&[]);
    let methods = [
        "POST",
        "PUT",
        "DELETE",
        "PATCH",
        "OPTIONS",
        "TRACE",
        "BREW",
        "PROPFIND",
        "MKCOL",
        "LOCK",
        "M-SEARCH",
        "SEARCH",
        "QUERY",
        "get",
        "Get",
        "head",
        "GETX",
        "GE",
        "G",
        "1234",
        "!#$%&'*+-.^_`|~",
    ];
    for method in methods {
        let mut client = server.connect();
        for target in ["/hello.txt", "/", "/sub/", "http://a.test/hello.txt"] {
            client.send(request(method, target, ""));
            let answer = client.answer();
            assert_eq!(answer.status, 405, "{method} {target}");
            assert!(!answer.text().contains(HELLO), "{method} {target}");
        }
        let after = client.get("/hello.txt");
        assert_eq!(after.text(), HELLO, "after {method}");
    }
}

#[test]
fn other_methods_get_405_where_nothing_is() {
    let server = Server::start(&[]);
    for method in ["DELETE", "PUT", "TRACE", "BREW"] {
        assert_eq!(server.ask(request(method, "/nowhere", "")).status, 405, "{method}");
    }
}

#[test]
fn forms_of_target_that_belong_to_a_method() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let rows = [
        ("OPTIONS for the server", "OPTIONS", "*"),
        ("OPTIONS of an absolute target without a path", "OPTIONS", "http://a.test"),
        ("CONNECT", "CONNECT", "a.test:443"),
        ("CONNECT to an IPv6 address", "CONNECT", "[::1]:443"),
    ];
    for (name, method, target) in rows {
        client.send(request(method, target, ""));
        let answer = client.answer();
        assert_eq!(answer.status, 405, "{name}");
        if answer.closes() {
            client = server.connect();
        }
    }
}

#[test]
fn what_is_no_method_gets_400() {
    let server = Server::start(&[]);
    let rows: &[&[u8]] = &[
        b"G(T",
        b"GET,",
        b"\"GET\"",
        b"G@T",
        b"G[T",
        b"G\\T",
        b"{GET}",
        b"GET:",
        b":",
        b"G=T",
        b"G/T",
        b"G?T",
        b"<GET>",
        b"G;T",
        b"G\0T",
        b"G\x7fT",
        b"G\x01T",
        b"G\xc3\x89T",
        b"\xff",
        b"GET\x0b",
        b"",
    ];
    for method in rows {
        let raw = [method, format!(" /hello.txt HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()].concat();
        assert_refused(&server, &format!("method {:?}", method.escape_ascii().to_string()), raw, &[400]);
    }
}

#[test]
fn trace_repeats_nothing() {
    let server = Server::start(&[]);
    let answer = server.ask(request("TRACE", "/hello.txt", "Cookie: session=very-private\r\n"));
    assert_eq!(answer.status, 405);
    assert!(!answer.text().contains("very-private"));
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::start(&[]);
    server.tree().write("big.bin", vec![b'x'; 200_000]);
    let etag = server.get("/hello.txt").need("etag").to_owned();
    let if_none_match = format!("If-None-Match: {etag}\r\n");
    let rows = [
        ("a file", "/hello.txt", "", 200),
        ("an empty file", "/empty.txt", "", 200),
        ("a file that leaves by sendfile", "/big.bin", "", 200),
        ("a folder", "/sub/", "", 200),
        ("a redirect", "/sub?x", "", 301),
        ("nothing there", "/nowhere", "", 404),
        ("nothing there, as JSON", "/nowhere", "Accept: application/json\r\n", 404),
        ("not modified", "/hello.txt", if_none_match.as_str(), 304),
        ("a hidden file", "/.hidden", "", 404),
    ];
    let mut client = server.connect();
    for (name, target, fields, status) in rows {
        let get = client.get_with(target, fields);
        let head = client.head_with(target, fields);
        assert_eq!((get.status, head.status), (status, status), "{name}");
        assert_eq!(head.fields_but_date(), get.fields_but_date(), "{name}");
        assert!(status == 304 || head.length() == get.body.len() as u64, "{name}");
    }
    assert_eq!(client.get("/hello.txt").text(), HELLO, "no body came after a HEAD");
}

#[test]
fn not_modified_has_no_body() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let etag = client.get("/hello.txt").need("etag").to_owned();
    client.send(
        request("GET", "/hello.txt", &format!("If-None-Match: {etag}\r\n")).repeat(3)
            + &request("GET", "/other.txt", "Connection: close\r\n"),
    );
    let (answers, _) = client.answers();
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [304, 304, 304, 200]);
}
