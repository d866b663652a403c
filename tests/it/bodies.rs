//! Request bodies: their framing, what is done with one that nobody reads, and `Expect`.
//!
//! Classes of failure covered: request smuggling by two framings, by odd lengths and codings, by overflow; an unread body parsed as the next
//! request; trailers merged into the fields.

use crate::client::{Ending, HOST, request};
use crate::harness::{HELLO, Server, pause};
use crate::heads::assert_refused;

/// What a smuggler hides in a body: it must never be answered.
const SMUGGLED: &str = "GET /hello.txt HTTP/1.1\r\nHost: pond.test\r\n\r\n";

#[test]
fn content_length_forms() {
    let server = Server::start(&[]);
    let bad: &[(&str, &[u8])] = &[
        ("plus", b"Content-Length: +5"),
        ("minus", b"Content-Length: -1"),
        ("minus zero", b"Content-Length: -0"),
        ("hexadecimal", b"Content-Length: 0x5"),
        ("hexadecimal digit", b"Content-Length: a"),
        ("space inside", b"Content-Length: 5 5"),
        ("tab inside", b"Content-Length: 5\t5"),
        ("list of two equal", b"Content-Length: 5,5"),
        ("list of two equal with a space", b"Content-Length: 5, 5"),
        ("list of two different", b"Content-Length: 5, 6"),
        ("list with an empty element", b"Content-Length: 5,"),
        ("two equal lines", b"Content-Length: 5\r\nContent-Length: 5"),
        ("two different lines", b"Content-Length: 5\r\nContent-Length: 6"),
        ("two lines far apart", b"Content-Length: 5\r\nX: y\r\ncontent-length: 5"),
        ("two lines, one empty", b"Content-Length: 5\r\nContent-Length:"),
        ("one more than 64 bits hold", b"Content-Length: 18446744073709551616"),
        ("five more than 64 bits hold", b"Content-Length: 18446744073709551621"),
        ("forty digits", b"Content-Length: 1000000000000000000000000000000000000005"),
        ("empty", b"Content-Length:"),
        ("white space", b"Content-Length:   "),
        ("fraction", b"Content-Length: 5.0"),
        ("exponent", b"Content-Length: 5e0"),
        ("semicolon", b"Content-Length: 5;"),
        ("quoted", b"Content-Length: \"5\""),
        ("word", b"Content-Length: five"),
        ("Arabic digit", b"Content-Length: \xd9\xa5"),
        ("vertical tab", b"Content-Length: \x0b5"),
        ("no-break space", b"Content-Length: \xa05"),
        ("underscore", b"Content-Length: 1_0"),
    ];
    for method in ["GET", "POST"] {
        for (name, line) in bad {
            let head = format!("{method} /hello.txt HTTP/1.1\r\nHost: {HOST}\r\n");
            assert_refused(&server, &format!("{method}, {name}"), [head.as_bytes(), line, b"\r\n\r\nhello"].concat(), &[400]);
        }
    }
    for (name, line) in
        [("plain", "Content-Length: 5"), ("leading zeros", "Content-Length: 0005"), ("white space around", "content-length: \t5 \t")]
    {
        let mut client = server.connect();
        client.send(format!("POST /hello.txt HTTP/1.1\r\nHost: {HOST}\r\n{line}\r\n\r\nhello{}", request("GET", "/other.txt", "")));
        assert_eq!(client.answer().status, 405, "{name}");
        assert_eq!(client.answer().status, 200, "{name}: the request behind the body");
    }
    server.assert_well("odd lengths");
}

#[test]
fn transfer_encoding_forms() {
    let server = Server::start(&[]);
    let body = "0\r\n\r\n";
    // `chunked` with a parameter is neither a coding that we know nor one that is unknown, an empty list names none: 400 and 501 both say so.
    let rows: &[(&str, &str, &[u16])] = &[
        ("with Content-Length", "Content-Length: 5\r\nTransfer-Encoding: chunked", &[400]),
        ("with Content-Length behind", "Transfer-Encoding: chunked\r\nContent-Length: 5", &[400]),
        ("with Content-Length of zero", "Transfer-Encoding: chunked\r\nContent-Length: 0", &[400]),
        ("unknown, with Content-Length", "Transfer-Encoding: xchunked\r\nContent-Length: 5", &[400]),
        ("chunked twice", "Transfer-Encoding: chunked, chunked", &[400]),
        ("chunked twice in two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", &[400]),
        ("chunked not last", "Transfer-Encoding: chunked, gzip", &[400]),
        ("chunked not last, in two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip", &[400]),
        ("chunked, then identity", "Transfer-Encoding: chunked, identity", &[400]),
        ("gzip, chunked", "Transfer-Encoding: gzip, chunked", &[501]),
        ("gzip, chunked in two lines", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", &[501]),
        ("unknown coding", "Transfer-Encoding: xchunked", &[400, 501]),
        ("unknown coding before chunked", "Transfer-Encoding: xchunked, chunked", &[501]),
        ("only gzip", "Transfer-Encoding: gzip", &[400, 501]),
        ("identity", "Transfer-Encoding: identity", &[400, 501]),
        ("a parameter", "Transfer-Encoding: chunked;a=b", &[400, 501]),
        ("quoted", "Transfer-Encoding: \"chunked\"", &[400, 501]),
        ("empty", "Transfer-Encoding:", &[400, 501]),
        ("vertical tab in front", "Transfer-Encoding: \x0bchunked", &[400, 501]),
        ("form feed behind", "Transfer-Encoding: chunked\x0c", &[400, 501]),
        ("two words", "Transfer-Encoding: chunked foo", &[400, 501]),
        ("folded", "Transfer-Encoding:\r\n chunked", &[400]),
        ("space before the colon", "Transfer-Encoding : chunked", &[400]),
    ];
    for method in ["GET", "POST"] {
        for (name, lines, statuses) in rows {
            let head = format!("{method} /hello.txt HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n\r\n{body}");
            assert_refused(&server, &format!("{method}, {name}"), head, statuses);
        }
    }
    for fields in ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nConnection: keep-alive", "Transfer-Encoding: gzip"] {
        let head = format!("POST /hello.txt HTTP/1.0\r\nHost: {HOST}\r\n{fields}\r\n\r\n{body}");
        assert_refused(&server, &format!("HTTP/1.0 with {fields}"), head, &[400]);
    }
    for line in ["Transfer-Encoding: chunked", "Transfer-Encoding: Chunked", "TRANSFER-ENCODING:\tCHUNKED \t"] {
        let mut client = server.connect();
        client.send(format!(
            "POST /hello.txt HTTP/1.1\r\nHost: {HOST}\r\n{line}\r\n\r\n5\r\nhello\r\n0\r\n\r\n{}",
            request("GET", "/other.txt", "")
        ));
        assert_eq!(client.answer().status, 405, "{line:?}");
        assert_eq!(client.answer().status, 200, "{line:?}: the request behind the body");
    }
    server.assert_well("odd codings");
}

/// The body holds a whole request. Whatever the first answer is, the next one is for the request behind the body, or there is none.
#[test]
fn an_unread_body_is_never_the_next_request() {
    let server = Server::start(&[]);
    let etag = server.get("/sub/").need("etag").to_owned();
    let length = format!("Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len());
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let trailer = "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n";
    let many = SMUGGLED.repeat(5_000);
    let too_long = format!("Content-Length: {}\r\n\r\n{many}", many.len());
    let too_long_chunked = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{many}\r\n0\r\n\r\n", many.len());
    // Start line and fields, body, status, whether the connection has to stay usable.
    let rows: [(&str, &str, &str, u16, bool); 18] = [
        ("GET a file", "GET /sub/ HTTP/1.1\r\n", &length, 200, true),
        ("GET a file, chunked", "GET /sub/ HTTP/1.1\r\n", &chunked, 200, true),
        ("GET a file, trailer", "GET /sub/ HTTP/1.1\r\n", trailer, 200, true),
        ("GET nothing", "GET /nowhere HTTP/1.1\r\n", &length, 404, true),
        ("GET a folder", "GET /sub HTTP/1.1\r\n", &length, 301, true),
        ("GET what is known", &format!("GET /sub/ HTTP/1.1\r\nIf-None-Match: {etag}\r\n"), &length, 304, true),
        ("GET an impossible range", "GET /sub/ HTTP/1.1\r\nRange: bytes=9999-\r\n", &length, 416, true),
        ("GET with a bad escape", "GET /%zz HTTP/1.1\r\n", &length, 400, false),
        ("POST", "POST /sub/ HTTP/1.1\r\n", &length, 405, true),
        ("POST, chunked", "POST /sub/ HTTP/1.1\r\n", &chunked, 405, true),
        ("DELETE", "DELETE /sub/ HTTP/1.1\r\n", &length, 405, true),
        ("OPTIONS *", "OPTIONS * HTTP/1.1\r\n", &length, 405, true),
        ("CONNECT", "CONNECT a.test:443 HTTP/1.1\r\n", &length, 405, false),
        ("an expectation that we do not know", "POST /sub/ HTTP/1.1\r\nExpect: wonders\r\n", &length, 417, false),
        ("an expectation that is not waited for", "POST /sub/ HTTP/1.1\r\nExpect: 100-continue\r\n", &length, 405, false),
        ("HTTP/1.0", "POST /sub/ HTTP/1.0\r\nConnection: keep-alive\r\n", &length, 405, false),
        ("more than is drained", "POST /sub/ HTTP/1.1\r\n", &too_long, 405, false),
        ("more than is drained, chunked", "POST /sub/ HTTP/1.1\r\n", &too_long_chunked, 405, false),
    ];
    for (name, head, body, status, stays) in rows {
        let mut client = server.connect();
        client.send(format!("{head}Host: {HOST}\r\n{body}{}", request("GET", "/other.txt", "Connection: close\r\n")));
        let (answers, ending) = client.answers();
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert!(answers.iter().all(|answer| answer.text() != HELLO), "{name}: the body was taken for a request: {statuses:?}");
        assert_eq!(ending, Ending::Eof, "{name}: reset");
        if stays || statuses.len() > 1 {
            assert_eq!(statuses, [status, 200], "{name}");
        } else {
            assert_eq!(statuses, [status], "{name}");
        }
    }
}

#[test]
fn a_broken_body_that_nobody_reads_ends_the_connection() {
    let server = Server::start(&[]);
    let get = request("GET", "/hello.txt", "");
    let rows = [
        ("bad size", format!("zz\r\n{get}")),
        ("no line end after the data", format!("5\r\nhelloX\r\n0\r\n\r\n{get}")),
        ("bare LF after the size", format!("5\nhello\r\n0\r\n\r\n{get}")),
        ("overflowing size", format!("10000000000000005\r\nhello\r\n0\r\n\r\n{get}")),
        ("bad trailer", format!("0\r\nX : y\r\n\r\n{get}")),
    ];
    for (name, body) in rows {
        let mut client = server.connect();
        client.send(format!("POST /sub/ HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        let (answers, ending) = client.answers();
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert!(statuses == [405] || statuses == [400], "{name}: {statuses:?}");
        assert_eq!(ending, Ending::Eof, "{name}");
    }
}

/// Up to the bound the rest of a body is read and dropped; beyond it the connection closes, and the answer says so where it can know.
#[test]
fn unread_bodies_at_the_drain_limit() {
    for (args, limit) in [(&[] as &[&str], 64 * 1024), (&["--drain-limit", "1KiB"], 1024)] {
        let server = Server::start(args);
        for (length, stays) in [(limit - 1, true), (limit, true), (limit + 1, false), (limit * 4, false)] {
            let name = format!("{length} bytes with a limit of {limit}");
            let mut client = server.connect();
            client.send(request("POST", "/hello.txt", &format!("Content-Length: {length}\r\n")));
            client.send(vec![b'x'; length]);
            client.send(request("GET", "/other.txt", "Connection: close\r\n"));
            let (answers, ending) = client.answers();
            let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
            assert_eq!(answers[0].closes(), !stays, "{name}: what the answer says");
            assert_eq!(statuses, if stays { vec![405, 200] } else { vec![405] }, "{name}");
            assert_eq!(ending, Ending::Eof, "{name}: reset");
        }
        // Chunks show their sum only as they come.
        for (length, stays) in [(limit / 2, true), (limit * 4, false)] {
            let mut client = server.connect();
            client.send(request("POST", "/hello.txt", "Transfer-Encoding: chunked\r\n"));
            client.send([format!("{length:x}\r\n").as_bytes(), &vec![b'x'; length], b"\r\n0\r\n\r\n"].concat());
            client.send(request("GET", "/other.txt", "Connection: close\r\n"));
            let (answers, ending) = client.answers();
            let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
            assert_eq!(statuses, if stays { vec![405, 200] } else { vec![405] }, "{length} bytes in chunks with a limit of {limit}");
            assert_eq!(ending, Ending::Eof, "{length} bytes in chunks with a limit of {limit}: reset");
        }
    }
}

#[test]
fn a_big_unwanted_upload_still_reads_its_refusal() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let length = 4 * 1024 * 1024;
    client.send(request("POST", "/hello.txt", &format!("Content-Length: {length}\r\n")));
    client.send(vec![b'x'; length]);
    let answer = client.answer();
    assert_eq!((answer.status, answer.need("allow")), (405, "GET, HEAD"));
    client.assert_end("after four megabytes");
}

#[test]
fn a_body_that_comes_late_is_dropped_all_the_same() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send(request("POST", "/sub/", &format!("Content-Length: {}\r\n", SMUGGLED.len())));
    for part in SMUGGLED.as_bytes().chunks(7) {
        pause(2);
        // It may have been refused and closed by now.
        _ = client.send_what_it_takes(part);
    }
    _ = client.send_what_it_takes(request("GET", "/other.txt", "Connection: close\r\n"));
    let (answers, _) = client.answers();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert!(statuses == [405, 200] || statuses == [405], "{statuses:?}");
    assert!(answers.iter().all(|answer| answer.text() != HELLO), "the body was taken for a request");
}

/// A length that no body ever fills does not overflow anything.
#[test]
fn the_longest_length_there_is() {
    let server = Server::start(&[]);
    for method in ["GET", "POST"] {
        let mut client = server.connect();
        client.send(format!("{method} /sub/ HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 18446744073709551615\r\n\r\n{SMUGGLED}"));
        let (answers, _) = client.answers();
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert!(statuses.len() == 1 && [200, 400, 405, 413].contains(&statuses[0]), "{method}: {statuses:?}");
        assert!(answers[0].closes(), "{method}");
    }
}

#[test]
fn expectations_without_a_reader() {
    let server = Server::start(&[]);
    let rows = [
        ("POST, known", "POST", "Expect: 100-continue\r\nContent-Length: 5\r\n", 405),
        ("POST, known, chunked", "POST", "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", 405),
        ("GET, known, no body", "GET", "Expect: 100-continue\r\n", 200),
        ("GET, known, body", "GET", "Expect: 100-continue\r\nContent-Length: 5\r\n", 200),
        ("unknown", "GET", "Expect: wonders\r\n", 417),
        ("unknown, with a body", "POST", "Expect: 200-ok\r\nContent-Length: 5\r\n", 417),
        ("one known, one unknown", "POST", "Expect: 100-continue, wonders\r\nContent-Length: 5\r\n", 417),
        ("nearly known", "POST", "Expect: 100-continued\r\nContent-Length: 5\r\n", 417),
    ];
    for (name, method, fields, status) in rows {
        let mut client = server.connect();
        client.send(request(method, "/hello.txt", fields));
        let answer = client.any_answer(false).unwrap();
        assert_eq!(answer.status, status, "{name}: the final answer comes first, with no 100 before it");
    }
}

#[cfg(debug_assertions)]
mod read {
    //! Bodies that a handler reads, by way of the fault point that sends them back.

    use super::*;
    use crate::harness::{assert_same_bytes, noise};

    const READ: &str = "Millpond-Fault: body\r\n";

    #[test]
    fn bodies_come_back_as_they_were_sent() {
        let server = Server::start(&[]);
        let mut client = server.connect();
        for method in ["POST", "GET"] {
            for length in [0, 1, 5, 1_000, 16_384, 65_535, 65_536, 65_537, 1_000_000] {
                let body = noise(length as u64, length);
                client.send(request(method, "/echo", &format!("{READ}Content-Length: {length}\r\n")));
                client.send(&body);
                let answer = client.answer();
                assert_eq!(answer.status, 200, "{method} {length}");
                assert_same_bytes(&answer.body, &body, &format!("{method} {length}"));

                client.send(request(method, "/echo", &format!("{READ}Transfer-Encoding: chunked\r\n")));
                for chunk in body.chunks(7_777) {
                    client.send([format!("{:X}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
                }
                client.send("0\r\n\r\n");
                let answer = client.answer();
                assert_eq!(answer.status, 200, "{method} {length} in chunks");
                assert_same_bytes(&answer.body, &body, &format!("{method} {length} in chunks"));
            }
        }
    }

    #[test]
    fn good_chunks() {
        let server = Server::start(&[]);
        let rows = [
            ("one chunk", "5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("several", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "hello"),
            ("none", "0\r\n\r\n", ""),
            ("small letters", "a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
            ("capital letters", "A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
            ("leading zeros", "00000005\r\nhello\r\n0\r\n\r\n", "hello"),
            ("many zeros at the end", "5\r\nhello\r\n00000\r\n\r\n", "hello"),
            ("extension", "5;a=b\r\nhello\r\n0\r\n\r\n", "hello"),
            ("extension without a value", "5;a\r\nhello\r\n0\r\n\r\n", "hello"),
            ("quoted extension", "5;a=\"b c;d\"\r\nhello\r\n0\r\n\r\n", "hello"),
            ("extension of the last chunk", "5\r\nhello\r\n0;a=b\r\n\r\n", "hello"),
            ("trailer", "5\r\nhello\r\n0\r\nX: y\r\n\r\n", "hello"),
            ("two trailers", "5\r\nhello\r\n0\r\nX: y\r\nZ:\r\n\r\n", "hello"),
            ("line ends as data", "4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n"),
            ("what looks like the end as data", "5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n"),
        ];
        let mut client = server.connect();
        for (name, raw, body) in rows {
            client.send(request("POST", "/echo", &format!("{READ}Transfer-Encoding: chunked\r\n")) + raw);
            let answer = client.answer();
            assert_eq!((answer.status, answer.text().as_str()), (200, body), "{name}");
            assert_eq!(client.get("/hello.txt").text(), HELLO, "{name}: the request behind it");
        }
    }

    #[test]
    fn bad_chunks() {
        let server = Server::start(&[]);
        let rows: &[(&str, &[u8])] = &[
            ("no number", b"g\r\nhello\r\n0\r\n\r\n"),
            ("empty size", b"\r\nhello\r\n0\r\n\r\n"),
            ("only an extension", b";a=b\r\nhello\r\n0\r\n\r\n"),
            ("minus", b"-5\r\nhello\r\n0\r\n\r\n"),
            ("plus", b"+5\r\nhello\r\n0\r\n\r\n"),
            ("0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
            ("underscore", b"0_5\r\nhello\r\n0\r\n\r\n"),
            ("space in front", b" 5\r\nhello\r\n0\r\n\r\n"),
            ("two numbers", b"5 5\r\nhello\r\n0\r\n\r\n"),
            ("comma", b"5,a\r\nhello\r\n0\r\n\r\n"),
            ("one more than 64 bits hold", b"10000000000000000\r\nhello\r\n0\r\n\r\n"),
            ("five more than 64 bits hold", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
            ("seventeen times F", b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
            ("data longer than its size", b"5\r\nhelloX\r\n0\r\n\r\n"),
            ("no line end after the data", b"5\r\nhello0\r\n\r\n"),
            ("bare LF after the size", b"5\nhello\r\n0\r\n\r\n"),
            ("bare CR after the size", b"5\rhello\r\n0\r\n\r\n"),
            ("bare CR inside the size line", b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
            ("bare LF inside an extension", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
            ("bare LF in a quoted extension", b"5;a=\"\n\"\r\nhello\r\n0\r\n\r\n"),
            ("NUL in an extension", b"5;a=\0\r\nhello\r\n0\r\n\r\n"),
            ("bare LF after the data", b"5\r\nhello\n0\r\n\r\n"),
            ("bare CR after the data", b"5\r\nhello\r0\r\n\r\n"),
            ("bare LF after the last chunk", b"5\r\nhello\r\n0\n\r\n"),
            ("bare LF at the very end", b"5\r\nhello\r\n0\r\n\n"),
            ("bare LF after a trailer", b"5\r\nhello\r\n0\r\nX: y\n\r\n"),
            ("bare CR in a trailer", b"5\r\nhello\r\n0\r\nX: y\rz\r\n\r\n"),
            ("NUL in a trailer", b"5\r\nhello\r\n0\r\nX: \0\r\n\r\n"),
        ];
        for (name, raw) in rows {
            let head = request("POST", "/echo", &format!("{READ}Transfer-Encoding: chunked\r\n"));
            assert_refused(&server, name, [head.as_bytes(), raw].concat(), &[400]);
        }
        server.assert_well("bad chunks");
    }

    /// A size with its extensions may have 256 bytes.
    #[test]
    fn size_lines_at_their_bound() {
        for (args, bound) in [(&[] as &[&str], 256), (&["--chunk-line-limit", "20"], 20)] {
            let server = Server::start(args);
            for at in ["first", "last"] {
                for (length, fits) in [(bound - 1, true), (bound, true), (bound + 1, false), (bound * 100, false)] {
                    let name = format!("{at} size line of {length} bytes, bound {bound}");
                    let extension = "a".repeat(length - 2);
                    let raw = if at == "first" {
                        format!("5;{extension}\r\nhello\r\n0\r\n\r\n")
                    } else {
                        format!("5\r\nhello\r\n0;{extension}\r\n\r\n")
                    };
                    let raw = request("POST", "/echo", &format!("{READ}Transfer-Encoding: chunked\r\n")) + &raw;
                    if fits {
                        let answer = server.ask(raw);
                        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{name}");
                    } else {
                        assert_refused(&server, &name, raw, &[400, 413, 431]);
                    }
                }
            }
        }
    }

    /// The section of trailers may have 4 KiB. Whether the empty line behind it counts is left open here.
    #[test]
    fn trailers_at_their_bound() {
        for (args, bound) in [(&[] as &[&str], 4096), (&["--trailer-limit", "100"], 100)] {
            let server = Server::start(args);
            for (length, fits) in [(bound - 2, true), (bound + 1, false), (bound * 10, false)] {
                let name = format!("trailers of {length} bytes, bound {bound}");
                let mut section = String::new();
                while section.len() < length {
                    let left = length - section.len();
                    let line = if left > 1_020 { 1_000 } else { left };
                    section.push_str(&format!("X: {}\r\n", "a".repeat(line - 5)));
                }
                let raw = request("POST", "/echo", &format!("{READ}Transfer-Encoding: chunked\r\n"))
                    + &format!("5\r\nhello\r\n0\r\n{section}\r\n");
                if fits {
                    let answer = server.ask(raw);
                    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{name}");
                } else {
                    assert_refused(&server, &name, raw, &[400, 413, 431]);
                }
            }
        }
    }

    /// What stands behind the body is never a field of the request, nor of the next one.
    #[test]
    fn trailers_are_dropped() {
        let server = Server::start(&[]);
        let mut client = server.connect();
        for trailer in [
            "Connection: close",
            "Millpond-Fault: panic",
            "Content-Length: 50",
            "Transfer-Encoding: gzip",
            "Host: b.test",
            "Expect: wonders",
        ] {
            client.send(
                request("POST", "/echo", &format!("{READ}Transfer-Encoding: chunked\r\n"))
                    + &format!("5\r\nhello\r\n0\r\n{trailer}\r\n\r\n"),
            );
            let answer = client.answer();
            assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{trailer}");
            assert!(!answer.closes(), "{trailer}");
            assert_eq!(client.get("/hello.txt").text(), HELLO, "{trailer}: the next request");
        }
    }

    #[test]
    fn continue_is_sent_when_the_body_is_wanted() {
        let server = Server::start(&[]);
        let rows = [
            ("length", "Expect: 100-continue\r\nContent-Length: 5\r\n", "hello"),
            ("chunked", "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
            ("in other letters", "expect:100-CONTINUE\r\nContent-Length: 5\r\n", "hello"),
        ];
        let mut client = server.connect();
        for (name, fields, body) in rows {
            client.send(request("POST", "/echo", &format!("{READ}{fields}")));
            let interim = client.any_answer(false).unwrap();
            assert_eq!((interim.status, interim.body.len()), (100, 0), "{name}: before the body was sent");
            client.send(body);
            let answer = client.any_answer(false).unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{name}: and only one 100");
        }
        assert_eq!(client.get("/hello.txt").text(), HELLO);
    }

    #[test]
    fn continue_is_not_sent_without_need() {
        let server = Server::start(&[]);
        let rows = [
            ("HTTP/1.0 knows no 100", format!("POST /echo HTTP/1.0\r\nHost: a\r\n{READ}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")),
            ("not asked for", request("POST", "/echo", &format!("{READ}Content-Length: 5\r\n"))),
        ];
        for (name, head) in rows {
            let mut client = server.connect();
            client.send(head);
            pause(50);
            client.send("hello");
            let answer = client.any_answer(false).unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{name}");
        }
        let mut client = server.connect();
        client.send(request("POST", "/echo", &format!("{READ}Expect: 100-continue\r\nContent-Length: 0\r\n")));
        assert_eq!(client.any_answer(false).unwrap().status, 200, "there is no body to wait for");
    }

    #[test]
    fn a_body_cut_short_is_not_taken_for_whole() {
        let server = Server::start(&[]);
        for (name, fields, part) in [("length", "Content-Length: 10", "hello"), ("chunked", "Transfer-Encoding: chunked", "5\r\nhello\r\n")]
        {
            let mut client = server.connect();
            client.send(request("POST", "/echo", &format!("{READ}{fields}\r\n")) + part);
            client.close_writing();
            let (answers, _) = client.answers();
            let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
            assert!(statuses.is_empty() || statuses == [400], "{name}: {statuses:?}");
        }
        server.assert_well("bodies cut short");
    }
}
