//! Digests: Repr-Digest for who asks by Want-Repr-Digest (RFC 9530).
//!
//! Classes of failure covered: a digest of other bytes than those that are sent, a digest that nobody asked for, a digest of an old state,
//! a request that is cheap to send and dear to answer.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sha2::Digest;

use crate::client::{HOST, Response, request};
use crate::codings::{decoded, text};
use crate::harness::{Builder, PATIENCE, Server, Tree, noise, pause, until};

const WANT: &str = "Want-Repr-Digest: sha-256=1\r\n";

/// The field for these bytes.
fn digest(bytes: &[u8]) -> String {
    use base64::Engine;
    format!("sha-256=:{}:", base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(bytes)))
}

#[track_caller]
fn assert_digest(answer: &Response, representation: &[u8], name: &str) {
    assert_eq!(answer.field("repr-digest"), Some(digest(representation).as_str()), "{name}");
}

/// The digest that this file uses is the one that everybody else uses.
#[test]
fn what_is_expected_is_what_other_programs_say() {
    let Ok(mut child) = Command::new("openssl").args(["dgst", "-sha256", "-binary"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
    else {
        eprintln!("SKIPPED: no openssl");
        return;
    };
    child.stdin.take().unwrap().write_all(b"pond").unwrap();
    use base64::Engine;
    let said = base64::engine::general_purpose::STANDARD.encode(child.wait_with_output().unwrap().stdout);
    assert_eq!(digest(b"pond"), format!("sha-256=:{said}:"));
}

#[test]
fn files_of_every_size() {
    let tree = Tree::empty();
    let sizes = [0, 1, 1_000, 24 * 1024, 24 * 1024 + 1, 1 << 20, (9 << 20) + 7];
    for size in sizes {
        tree.write(format!("{size}.bin"), noise(size as u64, size));
    }
    for args in [&[][..], &["--cache-size", "0"]] {
        let server = Builder::new(args).tree(Tree::empty()).root(tree.root()).start();
        let mut client = server.connect();
        for size in sizes {
            let (target, bytes) = (format!("/{size}.bin"), noise(size as u64, size));
            // twice: the second may come from the cache
            for round in ["first", "second"] {
                let name = format!("{target}, {round} time, {args:?}");
                let answer = client.get_with(&target, WANT);
                assert_eq!(answer.status, 200, "{name}");
                assert_digest(&answer, &bytes, &name);
                assert!(answer.body == bytes, "{name}");
                let head = client.head_with(&target, WANT);
                assert_eq!(head.fields_but_date(), answer.fields_but_date(), "{name}");
                assert_eq!(client.get(&target).field("repr-digest"), None, "{name}: nobody asked");
                if size > 100 {
                    let part = client.get_with(&target, &format!("{WANT}Range: bytes=10-19\r\n"));
                    assert_eq!((part.status, part.body.as_slice()), (206, &bytes[10..20]), "{name}");
                    assert_digest(&part, &bytes, &format!("{name}: of a part, that of the whole"));
                    let parts = client.get_with(&target, &format!("{WANT}Range: bytes=0-0,-1\r\n"));
                    assert_digest(&parts, &bytes, &format!("{name}: of parts, that of the whole"));
                }
            }
        }
    }
}

#[test]
fn what_is_asked_for() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (value, wanted) in [
        ("sha-256=1", true),
        ("sha-256=10", true),
        ("sha-512=5, sha-256=1", true),
        ("sha-512=5\r\nWant-Repr-Digest: sha-256=1", true),
        ("sha-256=0", false),
        ("sha-256=11", false),
        ("sha-512=1", false),
        ("md5=10", false),
        ("", false),
    ] {
        let answer = client.get_with("/hello.txt", &format!("Want-Repr-Digest: {value}\r\n"));
        assert_eq!((answer.status, answer.field("repr-digest").is_some()), (200, wanted), "{value:?}");
    }
    assert_eq!(client.get_with("/nowhere", WANT).field("repr-digest"), None);
    assert_eq!(client.get_with("/sub", WANT).field("repr-digest"), None);
    let etag = client.get("/hello.txt").need("etag").to_owned();
    let known = client.get_with("/hello.txt", &format!("{WANT}If-None-Match: {etag}\r\n"));
    assert_eq!(known.status, 304);
}

/// Of a coding it is the digest of the coded bytes (RFC 9530 section 3: of the representation, and that is coded).
#[test]
fn codings_have_digests_of_their_own() {
    let tree = Tree::empty();
    let file = text(1, 40_000);
    tree.write("page.html", &file);
    tree.write("beside.html", &file);
    tree.write("beside.html.br", noise(1, 40_000));
    let server = Server::serving(tree);
    let mut client = server.connect();
    for coding in ["br", "zstd", "gzip"] {
        let begun = Instant::now();
        loop {
            let answer = client.get_with("/page.html", &format!("{WANT}Accept-Encoding: {coding}\r\n"));
            assert_eq!(answer.field("content-encoding"), Some(coding));
            assert_digest(&answer, &answer.body, coding);
            assert!(decoded(Some(coding), &answer.body) == file, "{coding}");
            if !answer.need("etag").contains("quick") {
                break;
            }
            assert!(begun.elapsed() < PATIENCE * 3, "{coding}");
            pause(10);
        }
        let part = client.get_with("/page.html", &format!("{WANT}Accept-Encoding: {coding}, identity;q=0\r\nRange: bytes=0-9\r\n"));
        assert_eq!((part.status, part.body.len()), (206, 10), "{coding}");
        let whole = client.get_with("/page.html", &format!("Accept-Encoding: {coding}\r\n"));
        assert_digest(&part, &whole.body, coding);
    }
    assert_digest(&client.get_with("/page.html", WANT), &file, "as it is");
    let beside = client.get_with("/beside.html", &format!("{WANT}Accept-Encoding: br\r\n"));
    assert_digest(&beside, &noise(1, 40_000), "beside");
}

#[test]
fn a_digest_follows_its_file() {
    for length in [100, 200_000] {
        let tree = Tree::empty();
        let state = |number: u64| noise(number, length);
        tree.write("page.bin", state(0));
        let server = Server::serving(tree);
        let mut client = server.connect();
        for number in 0..40 {
            if number % 2 == 0 {
                server.tree().replace("page.bin", state(number));
            } else {
                server.tree().write("page.bin", state(number));
            }
            let begun = Instant::now();
            loop {
                let answer = client.get_with("/page.bin", WANT);
                assert_digest(&answer, &answer.body, &format!("{length} bytes, state {number}"));
                if answer.body == state(number) {
                    break;
                }
                assert!(begun.elapsed() < PATIENCE, "{length} bytes: state {number} does not show");
            }
        }
    }
}

/// Bytes that a process has read, from files and pipes.
fn bytes_read(server: &Server) -> u64 {
    let counts = fs::read_to_string(format!("/proc/{}/io", server.pid().as_raw_nonzero())).expect("the process lives");
    counts.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
fn a_file_that_changes_while_its_digest_is_made_is_told_of_as_it_is_then() {
    const BYTES: u64 = 24 << 20;
    let tree = Tree::empty();
    let file = fs::File::create(tree.path("large.bin")).unwrap();
    file.set_len(BYTES).unwrap();
    let server = Server::serving(tree);
    let mut client = server.connect();
    let before = client.head("/large.bin").need("etag").to_owned();
    let begun = bytes_read(&server);
    client.send(request("GET", "/large.bin", WANT));
    until("the file is read for its digest", || bytes_read(&server) > begun + (1 << 20));
    file.write_all_at(b"new", BYTES - 3).unwrap();
    let answer = client.answer();
    assert_eq!(answer.status, 200);
    assert!(answer.body.len() as u64 == BYTES && answer.body.ends_with(b"new"));
    assert_ne!(answer.need("etag"), before);
    if answer.field("repr-digest").is_some() {
        assert_digest(&answer, &answer.body, "a digest of what was sent");
    }
}

#[test]
fn many_at_once_get_the_same_digest() {
    let tree = Tree::site();
    let bytes = noise(3, 2_000_000);
    tree.write("big.bin", &bytes);
    let server = Server::serving(tree);
    let mut clients: Vec<_> = (0..30).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(request("HEAD", "/big.bin", WANT)));
    // Some go away before it is there.
    clients.truncate(20);
    for client in &mut clients {
        assert_eq!(client.answer_to_head().need("repr-digest"), digest(&bytes));
    }
    server.assert_well("many digests");
}

/// Large files are hashed a few at a time: other work that waits for the disk goes on meanwhile.
#[test]
fn digests_leave_room_for_other_work() {
    let tree = Tree::site();
    for number in 0..8 {
        fs::File::create(tree.path(format!("{number}.bin"))).unwrap().set_len(8 << 30).unwrap();
    }
    let server = Builder::new(&["--blocking-threads", "3", "--allow-host", HOST]).tree(tree).start();
    let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(request("HEAD", &format!("/{number}.bin"), WANT));
    }
    let begun = Instant::now();
    while server.threads("blocking") < 2 {
        assert!(begun.elapsed() < PATIENCE, "the digests do not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    let stored = server.ask(request("POST", "/uploads/?name=a.txt", "Content-Length: 5\r\n") + "hello");
    assert_eq!(stored.status, 201, "{}", stored.text());
    let done = clients.iter_mut().filter_map(|client| client.hears_now().then_some(())).count();
    assert!(done < 5, "the upload had to wait until {done} of 8 digests were there");
}
