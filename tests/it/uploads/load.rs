//! Many uploads at once: each byte where it belongs, and memory that does not grow with them.

use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use super::{FORM, assert_stored, chunks, folder, form, head, listing, request};
use crate::harness::{Builder, Server, Tree, noise};

const UPLOADS: usize = 20;
const BYTES: usize = 5 << 20;
/// What memory may grow by: much less than the 100 MiB that go through it.
const GROWTH_KIB: u64 = 40 * 1024;
/// All of them have to be hashed, and other tests run beside this one.
const LONG: Duration = Duration::from_secs(60);

/// A figure of the process in KiB, by its name in /proc.
fn memory_kib(server: &Server, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn many_large_uploads_at_once() {
    let server = Builder::new(&["--threads", "4"]).tree(Tree::site()).start();
    server.assert_well("start");
    let before = memory_kib(&server, "VmRSS:");
    let (together, verified) = (Barrier::new(UPLOADS), Barrier::new(UPLOADS));
    thread::scope(|scope| {
        for number in 0..UPLOADS {
            let (server, together, verified) = (&server, &together, &verified);
            scope.spawn(move || {
                // The lengths differ by an odd number, so that no two end at the same place of a buffer.
                let content = noise(number as u64 + 1, BYTES + number * 1_237);
                let name = format!("large-{number}.bin");
                let target = format!("/uploads/?name={name}");
                let sent = match number % 3 {
                    0 => request(server, &target, "", &content),
                    1 => request(server, "/uploads/", FORM, &form(&[(&format!("name=\"f\"; filename=\"{name}\""), &content)])),
                    _ => [head(server, &target, "Transfer-Encoding: chunked\r\n").into_bytes(), chunks(&content, 100_000)].concat(),
                };
                let mut client = server.connect();
                together.wait();
                client.send(sent);
                assert!(client.hears_within(LONG), "{name}: no answer");
                let answer = client.answer();
                // Files that are read again count elsewhere: memory is looked at before that.
                if verified.wait().is_leader() {
                    let peak = memory_kib(server, "VmHWM:");
                    let growth = peak.saturating_sub(before);
                    assert!(growth < GROWTH_KIB, "memory grew by {growth} KiB, from {before} to {peak} KiB");
                }
                let receipt = assert_stored(server, &folder(server), &answer, &[&content], &name);
                assert_eq!(receipt.names(), [name]);
            });
        }
    });
    assert_eq!(listing(&folder(&server)).len(), UPLOADS);
    assert_eq!(server.stop().assert_clean().panics, 0);
}

/// While files are written and hashed, other requests are answered.
#[test]
fn an_upload_holds_up_nobody() {
    let server = Server::start(&["--threads", "1"]);
    let content = noise(1, 8 << 20);
    thread::scope(|scope| {
        let upload = scope.spawn(|| {
            let mut client = server.connect();
            client.send(request(&server, "/uploads/?name=long.bin", "", &content));
            assert!(client.hears_within(LONG), "no answer");
            client.answer().status
        });
        let (mut client, mut answered) = (server.connect(), 0);
        while !upload.is_finished() {
            assert_eq!(client.get("/hello.txt").status, 200);
            answered += 1;
        }
        assert_eq!(upload.join().unwrap(), 201);
        assert!(answered > 20, "{answered} requests were answered beside one upload");
    });
}

/// The names of text fields are told in the answer; a form of nothing but long names is no way to take memory.
#[test]
fn text_fields_with_long_names() {
    let server = Builder::new(&["--threads", "1"]).tree(Tree::site()).start();
    server.assert_well("start");
    let name = format!("name=\"{}\"", "n".repeat(15_000));
    let mut parts: Vec<(&str, &[u8])> = vec![(name.as_str(), b"t".as_slice()); 999];
    parts.push(("name=\"f\"; filename=\"a.txt\"", b"x"));
    let body = form(&parts);
    let before = memory_kib(&server, "VmRSS:");
    let mut client = server.connect();
    _ = client.send_what_it_takes(request(&server, "/uploads/", FORM, &body));
    assert!(client.hears_within(LONG), "no answer");
    let status = client.answer().status;
    assert!([201, 413].contains(&status), "{status}");
    let growth = memory_kib(&server, "VmHWM:").saturating_sub(before);
    assert!(growth < 8 * 1024, "memory grew by {growth} KiB for one form of {} KiB", body.len() / 1024);
}

/// An upload that rests keeps little, and the connections of many that rest hold up nobody.
#[test]
fn many_uploads_that_wait() {
    let server = Server::start(&["--threads", "2", "--blocking-threads", "4"]);
    server.assert_well("start");
    let before = memory_kib(&server, "VmRSS:");
    let mut clients: Vec<_> = (0..60)
        .map(|number| {
            let mut client = server.connect();
            client.send(head(&server, &format!("/uploads/?name=wait-{number}.bin"), "Content-Length: 200000\r\n"));
            client.send(noise(number, 100_000));
            client
        })
        .collect();
    crate::harness::until("all have begun", || super::open_files(&server, &folder(&server)) == clients.len());
    server.assert_well("uploads that wait");
    let growth = memory_kib(&server, "VmHWM:").saturating_sub(before);
    assert!(growth < GROWTH_KIB, "memory grew by {growth} KiB for 60 uploads that wait");
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(noise(1_000 + number as u64, 100_000));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let content = [noise(number as u64, 100_000), noise(1_000 + number as u64, 100_000)].concat();
        assert_stored(&server, &folder(&server), &client.answer(), &[&content], &format!("upload {number}"));
    }
}
