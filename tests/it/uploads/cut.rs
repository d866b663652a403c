//! Clients that stop: whatever was begun is given up, and nothing of it is left.

use std::net::Shutdown;
use std::time::Duration;

use super::{FORM, assert_nothing_left, assert_stored, chunks, folder, form, head, listing, post_named, request};
use crate::client::Client;
use crate::harness::{Builder, Server, noise, until};

/// A small form of two files, as a whole request.
fn small_form(server: &Server) -> Vec<u8> {
    let parts: [(&str, &[u8]); 3] = [
        ("name=\"f\"; filename=\"one.txt\"", b"the content of the first file, long enough to be cut in its middle"),
        ("name=\"t\"", b"text"),
        ("name=\"f\"; filename=\"two.txt\"", b"the content of the second"),
    ];
    request(server, "/uploads/", FORM, &form(&parts))
}

/// The sockets of the server when all clients are gone.
fn at_rest(server: &Server) -> usize {
    let before = Server::start(&[]).sockets();
    until("nobody is there", || server.sockets() <= before);
    before
}

fn body_start(request: &[u8]) -> usize {
    crate::client::find(request, b"\r\n\r\n").unwrap() + 4
}

#[test]
fn a_client_that_goes_at_every_tenth_byte() {
    let server = Server::start(&[]);
    server.assert_well("start");
    let whole = small_form(&server);
    let start = body_start(&whole);
    let at_rest = at_rest(&server);
    for way in ["closes", "closes its side", "resets"] {
        let cuts: Vec<usize> = (start..whole.len()).step_by(10).chain([whole.len() - 3, whole.len() - 2, whole.len() - 1]).collect();
        let mut clients: Vec<(usize, Client)> = Vec::new();
        for cut in cuts {
            let mut client = server.connect();
            client.send(&whole[..cut]);
            match way {
                "closes" => drop(client),
                "closes its side" => {
                    client.close_writing();
                    clients.push((cut, client));
                }
                _ => {
                    rustix::net::sockopt::set_socket_linger(client.stream(), Some(Duration::ZERO)).unwrap();
                    drop(client);
                }
            }
        }
        for (cut, mut client) in clients {
            // It can still listen: what it is told is no success.
            if let Ok(answer) = client.try_answer(false) {
                assert!((400..=499).contains(&answer.status), "cut at {} of the body: {}", cut - start, answer.status);
            }
        }
        until("the server has seen them go", || server.sockets() <= at_rest);
        assert_nothing_left(&server, &folder(&server), way);
    }
    server.assert_well("clients that went");
}

#[test]
fn a_client_that_falls_silent_at_every_tenth_byte() {
    let server = Server::start(&["--body-window", "300ms", "--body-rate", "1KiB"]);
    let whole = small_form(&server);
    let start = body_start(&whole);
    let mut clients: Vec<(usize, Client)> = (start..whole.len() - 2)
        .step_by(10)
        .map(|cut| {
            let mut client = server.connect();
            client.send(&whole[..cut]);
            (cut, client)
        })
        .collect();
    for (cut, client) in &mut clients {
        let name = format!("silent at {} of the body", *cut - start);
        match client.try_answer(false) {
            Ok(answer) => {
                assert_eq!(answer.status, 408, "{name}");
                assert!(answer.closes(), "{name}");
            }
            Err(end) => assert!(end.partial.is_none() && end.stray.is_empty(), "{name}: {end:?}"),
        }
    }
    assert_nothing_left(&server, &folder(&server), "silent clients");
    server.assert_well("silent clients");
}

#[test]
fn bodies_cut_midway() {
    let server = Server::start(&[]);
    let at_rest = at_rest(&server);
    let body = noise(1, 2_000_000);
    let raw = request(&server, "/uploads/?name=cut.bin", "", &body);
    let chunked = [head(&server, "/uploads/?name=cut.bin", "Transfer-Encoding: chunked\r\n").into_bytes(), chunks(&body, 50_000)].concat();
    let multi = request(
        &server,
        "/uploads/",
        FORM,
        &form(&[("name=\"f\"; filename=\"cut.bin\"", &body), ("name=\"f\"; filename=\"b.bin\"", &body)]),
    );
    for (name, whole) in [("raw", raw), ("chunked", chunked), ("a form", multi)] {
        for part in [0.01, 0.25, 0.5, 0.75, 0.99] {
            let mut client = server.connect();
            let cut = (whole.len() as f64 * part) as usize;
            client.send(&whole[..cut]);
            if part < 0.6 {
                drop(client);
            } else {
                client.stream().shutdown(Shutdown::Both).unwrap();
            }
        }
        until("the server has seen them go", || server.sockets() <= at_rest);
        assert_nothing_left(&server, &folder(&server), name);
    }
    // Chunked bodies that are broken and not only short.
    for (name, tail) in [
        ("a bad size", "zz\r\n"),
        ("no line end behind a chunk", "3\r\nabcd\r\n"),
        ("a bare line feed", "3\nabc\r\n"),
        ("a bad trailer", "0\r\nbad\r\n\r\n"),
    ] {
        let mut client = server.connect();
        client.send(head(&server, "/uploads/?name=cut.bin", "Transfer-Encoding: chunked\r\n"));
        client.send(format!("5\r\nhello\r\n{tail}"));
        assert_eq!(client.answer().status, 400, "{name}");
        assert_nothing_left(&server, &folder(&server), name);
    }
}

/// A client that went before it could read its 201 has stored its file or not: there is no third.
#[test]
fn a_client_that_does_not_wait_for_its_answer() {
    let server = Server::start(&[]);
    let at_rest = at_rest(&server);
    let body = noise(2, 100_000);
    for number in 0..20 {
        let mut client = server.connect();
        client.send(request(&server, &format!("/uploads/?name=gone-{number}.bin"), "", &body));
        drop(client);
    }
    until("all are done", || server.sockets() <= at_rest);
    assert_stored(&server, &folder(&server), &post_named(&server, "after.bin", "after"), &[b"after"], "after them");
    for name in listing(&folder(&server)) {
        assert!(!name.starts_with('.'), "{name}");
        if name != "after.bin" {
            assert_eq!(std::fs::read(folder(&server).join(&name)).unwrap(), body, "{name}");
        }
    }
}

/// A stop in the middle of an upload: it may end, and if it does not, nothing is left.
#[test]
fn a_stop_in_the_middle() {
    for finishes in [true, false] {
        let tree = crate::harness::Tree::site();
        let root = tree.root();
        let server = Builder::new(&["--shutdown-grace", if finishes { "10s" } else { "300ms" }]).root(&root).start();
        let body = noise(3, 500_000);
        let mut client = server.connect();
        let whole = request(&server, "/uploads/?name=stopped.bin", "", &body);
        client.send(&whole[..300_000]);
        until("the upload has begun", || super::open_files(&server, &root.join("uploads")) > 0);
        server.signal(rustix::process::Signal::TERM);
        until("the server has heard it", || std::net::TcpStream::connect(server.address()).is_err());
        if finishes {
            client.send(&whole[300_000..]);
            assert_eq!(client.answer().status, 201, "what was begun before the stop is finished");
            server.finish().assert_clean();
            assert_eq!(std::fs::read(root.join("uploads/stopped.bin")).unwrap(), body);
        } else {
            server.finish();
            assert_eq!(listing(&root.join("uploads")), Vec::<String>::new());
        }
    }
}

/// A handler that is stopped by a panic leaves nothing either.
#[cfg(debug_assertions)]
#[test]
fn a_panic_in_the_middle() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send(request(&server, "/uploads/?name=panic.bin", "Millpond-Fault: panic\r\n", b"hello"));
    assert_eq!(client.answer().status, 500);
    assert_nothing_left(&server, &folder(&server), "a panic");
}
