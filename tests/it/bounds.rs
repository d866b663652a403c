//! The bounds of a request head, each one below, at and above its number; and what happens when a head never ends.

use crate::client::{Ending, HOST};
use crate::harness::Server;
use crate::heads::assert_refused;

const TARGET_MAX: usize = 8 * 1024;
const HEAD_MAX: usize = 32 * 1024;
const FIELDS_MAX: usize = 100;

/// A request whose target has so many bytes.
fn with_target(length: usize) -> String {
    let path = "/hello.txt?";
    format!("GET {path}{} HTTP/1.1\r\nHost: {HOST}\r\n\r\n", "a".repeat(length - path.len()))
}

/// A request whose head, from the first byte of the request line through the last CRLF, has so many bytes.
fn with_head(length: usize) -> String {
    let mut head = format!("GET /hello.txt HTTP/1.1\r\nHost: {HOST}\r\n");
    let mut left = length - head.len() - 2;
    while left > 0 {
        let line = if left > 1_020 { 1_000 } else { left };
        head.push_str(&format!("X: {}\r\n", "a".repeat(line - 5)));
        left -= line;
    }
    head.push_str("\r\n");
    assert_eq!(head.len(), length);
    head
}

/// A request with so many field lines, Host among them.
fn with_fields(count: usize) -> String {
    format!("GET /hello.txt HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n", "X: a\r\n".repeat(count - 1))
}

#[track_caller]
fn assert_served(server: &Server, name: &str, raw: &str) {
    let answer = server.ask(raw);
    assert_eq!(answer.status, 200, "{name}");
    assert!(!answer.closes(), "{name}");
}

type Shape = fn(usize) -> String;

#[test]
fn heads_at_their_bounds() {
    let server = Server::start(&[]);
    let rows: [(&str, Shape, usize, u16); 3] =
        [("target", with_target, TARGET_MAX, 414), ("head", with_head, HEAD_MAX, 431), ("fields", with_fields, FIELDS_MAX, 431)];
    for (name, shape, bound, status) in rows {
        assert_served(&server, &format!("{name}: one below the bound"), &shape(bound - 1));
        assert_served(&server, &format!("{name}: at the bound"), &shape(bound));
        assert_refused(&server, &format!("{name}: one above the bound"), shape(bound + 1), &[status]);
        assert_refused(&server, &format!("{name}: twice the bound"), shape(bound * 2), &[status]);
    }
    server.assert_well("heads beyond their bounds");
}

#[test]
fn the_flags_set_the_bounds() {
    let server = Server::start(&["--target-limit", "64", "--head-limit", "1KiB", "--field-limit", "5"]);
    let rows: [(&str, Shape, usize, u16); 3] =
        [("target", with_target, 64, 414), ("head", with_head, 1024, 431), ("fields", with_fields, 5, 431)];
    for (name, shape, bound, status) in rows {
        assert_served(&server, &format!("{name}: at the bound"), &shape(bound));
        assert_refused(&server, &format!("{name}: one above the bound"), shape(bound + 1), &[status]);
    }
}

#[test]
fn blank_lines_in_front_do_not_count_into_the_head() {
    let server = Server::start(&[]);
    assert_served(&server, "two blank lines and a head at its bound", &format!("\r\n\r\n{}", with_head(HEAD_MAX)));
}

/// The refusal comes when the bound is passed, not when the sender is so kind as to finish.
#[test]
fn heads_that_never_end_are_refused_at_the_bound() {
    let server = Server::start(&["--head-timeout", "60s"]);
    let rows = [
        ("a target without end", format!("GET /{}", "a".repeat(HEAD_MAX + 1_000)), 414),
        ("a value without end", format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: {}", "a".repeat(HEAD_MAX)), 431),
        ("a name without end", format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{}", "a".repeat(HEAD_MAX)), 431),
        ("fields without end", format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{}", "X: a\r\n".repeat(HEAD_MAX / 6)), 431),
    ];
    for (name, raw, status) in rows {
        let mut client = server.connect();
        client.send(&raw);
        let (answers, ending) = client.answers();
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!((statuses, ending), (vec![status], Ending::Eof), "{name}");
    }
}

#[test]
fn a_flood_in_place_of_a_head_is_answered_not_reset() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: "));
    client.send(vec![b'a'; 512 * 1024]);
    assert_eq!(client.answer().status, 431);
    client.assert_end("a flood");
}
