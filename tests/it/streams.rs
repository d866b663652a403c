//! Bodies whose length is not known when they begin, by way of the fault points that make one: chunks to HTTP/1.1, an end of the connection to
//! HTTP/1.0, and never a whole answer when the body broke off.

use crate::client::{Client, HOST, request};
use crate::harness::{HELLO, Server};

fn field(fault: &str) -> String {
    format!("Millpond-Fault: {fault}\r\n")
}

fn pieces(count: usize) -> String {
    (0..count).map(|number| format!("{number};")).collect()
}

#[test]
fn chunks_to_http_1_1() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for count in [0, 1, 2, 100, 30_000] {
        let answer = client.get_with("/hello.txt", &field(&format!("stream={count}")));
        assert_eq!((answer.status, answer.need("transfer-encoding")), (200, "chunked"), "{count} pieces");
        assert!(answer.text() == pieces(count), "{count} pieces: {} bytes", answer.body.len());
        assert!(!answer.closes(), "{count} pieces");
    }
    let answer = client.get_with("/hello.txt", &(field("stream=3") + "Connection: close\r\n"));
    assert_eq!((answer.text(), answer.closes()), (pieces(3), true));
    client.assert_end("asked to close");
}

/// The end of the body is the end of the connection, whatever the client asked for.
#[test]
fn no_chunks_to_http_1_0() {
    let server = Server::start(&[]);
    for connection in ["", "Connection: keep-alive\r\n", "Connection: close\r\n", "TE: chunked\r\n"] {
        for count in [0, 3, 30_000] {
            let name = format!("{connection:?}, {count} pieces");
            let mut client = server.connect();
            client.send(format!("GET /hello.txt HTTP/1.0\r\nHost: {HOST}\r\n{connection}{}\r\n", field(&format!("stream={count}"))));
            let answer = client.answer();
            assert_eq!((answer.status, answer.field("transfer-encoding"), answer.field("content-length")), (200, None, None), "{name}");
            assert!(answer.text() == pieces(count), "{name}: {} bytes", answer.body.len());
            assert!(answer.field("connection").is_none_or(|value| value.eq_ignore_ascii_case("close")), "{name}: {:?}", answer.fields);
            client.assert_end(&name);
        }
    }
}

#[test]
fn streams_in_a_pipeline() {
    let server = Server::start(&["--threads", "1"]);
    let mut client = server.connect();
    let get = request("GET", "/hello.txt", "");
    let stream = |count: usize| request("GET", "/hello.txt", &field(&format!("stream={count}")));
    let head = request("HEAD", "/hello.txt", &field("stream=5"));
    client.send([get.as_str(), &stream(1_000), &get, &head, &stream(0), &get, &stream(7), &get].concat());
    assert_eq!(client.answer().text(), HELLO);
    assert_eq!(client.answer().text(), pieces(1_000));
    assert_eq!(client.answer().text(), HELLO);
    let head = client.answer_to_head();
    assert_eq!((head.status, head.field("content-length")), (200, None), "its length is not known");
    assert_eq!(client.answer().text(), "");
    assert_eq!(client.answer().text(), HELLO);
    assert_eq!(client.answer().text(), pieces(7));
    assert_eq!(client.answer().text(), HELLO);
}

/// What broke off must not look whole: there is no last chunk, and nothing follows.
#[test]
fn a_stream_that_breaks_is_not_taken_for_whole() {
    let server = Server::start(&[]);
    for count in [0, 1, 1_000, 30_000] {
        let mut client = server.connect();
        client.send(request("GET", "/hello.txt", &field(&format!("break={count}"))) + &request("GET", "/hello.txt", ""));
        let cut = client.try_answer(false).expect_err("a whole answer");
        assert!(cut.partial.is_none_or(|partial| pieces(count).starts_with(&partial.text())), "{count} pieces");
        assert!(client.rest().0.is_empty(), "{count} pieces: something follows");
    }
    server.assert_well("streams that broke");
}

#[test]
fn an_endless_stream_leaves_others_their_turn() {
    let server = Server::start(&["--threads", "1"]);
    let mut streaming: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for client in &mut streaming {
        client.send(request("GET", "/hello.txt", &field("stream=4000000000")));
        assert_eq!(client.any_answer_head().status, 200);
    }
    for round in 0..30 {
        assert_eq!(streaming[round % 3].take(10_000).len(), 10_000);
        server.assert_well("three endless streams on its one worker");
    }
}
