//! Anomalies: clients that stop at every byte, folders that are replaced, panics by the thousand. What is counted at the end is what must
//! not have grown: sockets, descriptors, and what was stored.
//!
//! Classes of failure covered: a place or a descriptor that is lost with a client, half of an upload that is kept, a fault that adds up.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, HOST, request};
use crate::harness::{HELLO, PATIENCE, Server, Tree, noise, pause};

/// Waits until the server has no more sockets than before.
#[track_caller]
fn assert_sockets_go(server: &Server, before: usize, what: &str) {
    let begun = Instant::now();
    while server.sockets() > before {
        assert!(begun.elapsed() < PATIENCE, "{what}: {} sockets, {before} before", server.sockets());
        pause(10);
    }
}

/// Whole exchanges: what a client sends, and how many bytes it gets for that.
fn exchanges(server: &Server) -> Vec<(&'static str, Vec<u8>, usize)> {
    let upload = request("POST", "/uploads/?name=a.txt", "Content-Length: 10\r\nIf-None-Match: *\r\n") + "0123456789";
    let chunked = request("POST", "/uploads/?name=b.txt", "Transfer-Encoding: chunked\r\n") + "5\r\n01234\r\n0\r\n\r\n";
    let rows = [
        ("two requests", request("GET", "/hello.txt", "") + &request("GET", "/other.txt", "Connection: close\r\n")),
        ("a range of a large file", request("GET", "/large.bin", "Range: bytes=100000-100099,200000-200099\r\nConnection: close\r\n")),
        ("an upload", upload.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")),
        ("an upload in chunks", chunked.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)),
    ];
    rows.into_iter()
        .map(|(what, bytes)| {
            let mut client = server.connect();
            client.send(&bytes);
            (what, bytes.into_bytes(), client.rest().0.len())
        })
        .collect()
}

/// Ends a connection: in order, or by a reset.
fn end(stream: TcpStream, resets: bool) {
    if resets {
        // what was sent to it and not read makes the kernel reset it
        drop(stream);
    } else {
        let _ = stream.shutdown(Shutdown::Write);
        let mut rest = Vec::new();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = (&stream).read_to_end(&mut rest);
    }
}

/// A client that stops after each byte that it sends, and after each that it gets, leaves nothing behind.
#[test]
fn an_exchange_that_is_cut_at_each_byte() {
    let tree = Tree::site();
    tree.write("large.bin", noise(1, 2 << 20));
    let server = crate::harness::Builder::new(&["--allow-host", HOST]).tree(tree).start();
    let exchanges = exchanges(&server);
    let uploads = server.tree().path("uploads");
    let stored = |what: &str| {
        let names: Vec<_> = fs::read_dir(&uploads).unwrap().map(|entry| entry.unwrap().path()).collect();
        for path in &names {
            let bytes = fs::read(path).unwrap();
            assert!(bytes == b"0123456789" || bytes == b"01234", "{what}: {path:?} holds {bytes:?}");
        }
        names.len()
    };
    let (sockets, begun) = (server.sockets(), stored("whole"));
    assert_eq!(begun, 2, "both uploads are there");
    for (what, bytes, answer) in &exchanges {
        for resets in [false, true] {
            for sent in 0..bytes.len() {
                let mut stream = TcpStream::connect(server.address()).unwrap();
                stream.write_all(&bytes[..sent]).unwrap();
                end(stream, resets);
            }
            assert_sockets_go(&server, sockets, what);
            if what.starts_with("an upload") {
                assert_eq!(stored(what), begun, "{what}: something of a body that did not come whole was stored");
            } else {
                for got in 0..*answer {
                    let mut stream = TcpStream::connect(server.address()).unwrap();
                    stream.write_all(bytes).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    stream.read_exact(&mut vec![0; got]).unwrap();
                    end(stream, resets);
                }
                assert_sockets_go(&server, sockets, what);
            }
        }
        server.assert_well(what);
    }
    assert_eq!(server.stop().assert_clean().panics, 0);
}

/// A thousand panics cost their own connections and nothing else.
#[test]
fn a_thousand_panics_under_load() {
    const PANICS: u32 = 1000;
    let server = Server::start(&["--threads", "2"]);
    server.assert_well("the start");
    let (sockets, stop, honest) = (server.sockets(), AtomicBool::new(false), AtomicU32::new(0));
    let mut memory = 0;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = server.connect();
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.get("/hello.txt");
                    assert_eq!((answer.status, answer.text().as_str()), (200, HELLO));
                    honest.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _stops = crate::symlinks::Stops(&stop);
        for number in 0..PANICS {
            let answer = server.ask(request("GET", "/hello.txt", "Millpond-Fault: panic\r\n"));
            assert_eq!(answer.status, 500, "panic {number}");
            if number == PANICS / 2 {
                memory = server.memory();
            }
        }
    });
    assert!(honest.load(Ordering::Relaxed) > 100, "the honest clients were served meanwhile");
    assert_sockets_go(&server, sockets, "panics");
    // each would be some kilobytes, if it were kept
    assert!(server.memory() < memory + (2 << 20), "{} bytes, {memory} after the first half", server.memory());
    assert_eq!(server.stop().assert_clean().panics, u64::from(PANICS));
}

/// The folder is opened once. Another one in its place is not looked at: what is served stays the folder that was opened.
#[test]
fn a_root_that_is_replaced() {
    let server = Server::start(&[]);
    let (root, moved) = (server.tree().root(), server.tree().outside("moved"));
    let mut client = server.connect();
    assert_eq!(client.get("/hello.txt").text(), HELLO);
    fs::rename(&root, &moved).unwrap();
    fs::create_dir(&root).unwrap();
    fs::write(root.join("hello.txt"), "of another folder\n").unwrap();
    fs::write(moved.join("later.txt"), "later\n").unwrap();
    for _ in 0..3 {
        assert_eq!(client.get("/hello.txt").text(), HELLO);
        assert_eq!(client.get("/later.txt").text(), "later\n");
        // longer than anything is believed without a look at the disk
        pause(600);
    }
    server.assert_well("its folder was moved");
}

/// Files that come and go under load are there or not; nothing else is ever said of them.
#[test]
fn files_that_vanish_under_load() {
    let tree = Tree::site();
    let server = Server::serving(tree);
    let stop = AtomicBool::new(false);
    let (small, large) = (server.tree().path("small.txt"), server.tree().path("large.bin"));
    let bytes = noise(3, 200_000);
    thread::scope(|scope| {
        let _stops = crate::symlinks::Stops(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for (path, bytes) in [(&small, &bytes[..100]), (&large, &bytes[..])] {
                    fs::write(server.tree().outside("new"), bytes).unwrap();
                    fs::rename(server.tree().outside("new"), path).unwrap();
                    fs::remove_file(path).unwrap();
                }
            }
        });
        let mut clients: Vec<Client> = (0..2).map(|_| server.connect()).collect();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            for client in &mut clients {
                for (target, len) in [("/small.txt", 100), ("/large.bin", 200_000)] {
                    let answer = client.get(target);
                    let is_whole = answer.status == 200 && answer.body == bytes[..len];
                    assert!(is_whole || answer.status == 404, "{target}: {} with {} bytes", answer.status, answer.body.len());
                }
            }
        }
    });
    server.assert_well("files that vanish");
}
