//! Files: their bytes, their fields, and what happens when they change.
//!
//! Classes of failure covered: a file truncated or grown while it is sent, stale entries of a cache.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use crate::client::{Client, HOST, Response, request};
use crate::harness::{HELLO, Server, Tree, assert_same_bytes, noise};
use crate::http_date;

/// How long an old answer may be given after a change: a second, and some room for a busy machine.
const STALE_MAX: Duration = Duration::from_secs(3);

/// Asks until the answer satisfies `fresh`; every answer passes `sound`.
#[track_caller]
fn poll(client: &mut Client, target: &str, what: &str, mut fresh: impl FnMut(&Response) -> bool) -> Response {
    let begun = Instant::now();
    loop {
        let answer = client.get(target);
        if fresh(&answer) {
            return answer;
        }
        assert!(begun.elapsed() < STALE_MAX, "{what}: still {} {:?}", answer.status, answer.text());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn files_of_every_size_arrive_byte_by_byte() {
    let tree = Tree::site();
    let sizes = [
        0,
        1,
        2,
        1_023,
        1_024,
        4_095,
        4_096,
        4_097,
        16_384,
        65_535,
        65_536,
        65_537,
        131_072,
        1_048_575,
        1_048_576,
        1_048_577,
        10 * 1024 * 1024 + 3,
    ];
    for size in sizes {
        tree.write(format!("{size}.bin"), noise(size as u64, size));
    }
    let server = Server::serving(tree);
    let mut client = server.connect();
    // Twice: the second answer may come from the cache.
    for round in ["first", "second"] {
        for size in sizes {
            let answer = client.get(&format!("/{size}.bin"));
            let name = format!("{size} bytes, {round} time");
            assert_eq!((answer.status, answer.length()), (200, size as u64), "{name}");
            assert_same_bytes(&answer.body, &noise(size as u64, size), &name);
        }
    }
    assert_eq!(client.get("/hello.txt").text(), HELLO);
}

#[test]
fn a_big_file_to_many_clients_at_once() {
    let tree = Tree::site();
    let big = noise(9, 3 * 1024 * 1024);
    tree.write("big.bin", &big);
    let server = Server::serving(tree);
    let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send_get("/big.bin"));
    for (number, client) in clients.iter_mut().enumerate() {
        assert_same_bytes(&client.answer().body, &big, &format!("client {number}"));
    }
}

#[test]
fn a_file_has_its_fields() {
    let server = Server::start(&[]);
    let modified = http_date::now() - 86_400 * 400;
    let file = fs::File::options().write(true).open(server.tree().path("hello.txt")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(modified.unsigned_abs())).unwrap();
    let answer = server.get("/hello.txt");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.need("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.length(), HELLO.len() as u64);
    assert_eq!(answer.need("last-modified"), http_date::imf(modified));
    assert_eq!(answer.need("accept-ranges"), "bytes");
    assert_eq!(answer.need("cache-control"), "no-cache");
    assert_eq!(answer.need("x-content-type-options"), "nosniff");
    let etag = answer.need("etag");
    assert!(etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'), "a strong tag: {etag}");
    assert!(etag[1..etag.len() - 1].bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'), "{etag}");
}

#[test]
fn every_answer_has_the_date() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (target, fields, status) in [
        ("/hello.txt", "", 200),
        ("/", "", 200),
        ("/nowhere", "", 404),
        ("/sub", "", 301),
        ("/hello.txt", "If-None-Match: *\r\n", 304),
        ("/hello.txt", "Range: bytes=0-1\r\n", 206),
        ("/hello.txt", "Range: bytes=99-\r\n", 416),
    ] {
        let before = http_date::now();
        let answer = client.get_with(target, fields);
        let after = http_date::now();
        assert_eq!(answer.status, status, "{target} {fields}");
        let date = http_date::parse_imf(answer.need("date")).unwrap_or_else(|| panic!("Date: {}", answer.need("date")));
        // Rendered once a second.
        assert!((before - 2..=after + 1).contains(&date), "{target} {fields}: {date} is not between {before} and {after}");
    }
    std::thread::sleep(Duration::from_millis(1_100));
    let date = http_date::parse_imf(client.get("/hello.txt").need("date")).unwrap();
    assert!((date - http_date::now()).abs() <= 2, "the date moves on");
}

#[test]
fn types_follow_from_names() {
    let tree = Tree::site();
    let rows = [
        ("a.html", "text/html; charset=utf-8"),
        ("a.htm", "text/html; charset=utf-8"),
        ("a.HTML", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.csv", "text/csv; charset=utf-8"),
        ("a.b.txt", "text/plain; charset=utf-8"),
        ("a.png", "image/png"),
        ("a.PNG", "image/png"),
        ("a.jpg", "image/jpeg"),
        ("a.jpeg", "image/jpeg"),
        ("a.gif", "image/gif"),
        ("a.webp", "image/webp"),
        ("a.avif", "image/avif"),
        ("a.svg", "image/svg+xml"),
        ("a.ico", "image/x-icon"),
        ("a.woff2", "font/woff2"),
        ("a.json", "application/json"),
        ("a.wasm", "application/wasm"),
        ("a.pdf", "application/pdf"),
        ("a.zip", "application/zip"),
        ("a.mp4", "video/mp4"),
        ("a.mp3", "audio/mpeg"),
        ("a.unheard-of", "application/octet-stream"),
        ("no-ending", "application/octet-stream"),
        ("html", "application/octet-stream"),
        ("a.", "application/octet-stream"),
    ];
    for (name, _) in rows {
        tree.write(name, "<script>alert(1)</script>");
    }
    let server = Server::serving(tree);
    for (name, wanted) in rows {
        let answer = server.get(&format!("/{name}"));
        let got = answer.need("content-type");
        // What is text without being called so may name its charset too.
        let fits = got == wanted || ["image/svg+xml", "application/json"].contains(&wanted) && got == format!("{wanted}; charset=utf-8");
        assert!(fits, "{name}: {got}, wanted {wanted}");
    }
    assert_eq!(server.get("/sub/").need("content-type"), "text/html; charset=utf-8");
}

const YEAR: &str = "31536000";

#[test]
fn names_with_a_hash_are_kept_for_a_year() {
    let tree = Tree::site();
    let hashed = [
        "app.3f9c2b1a.js",
        "style.0123abcd.css",
        "font.deadbeef1.woff2",
        "photo.a1b2c3d4e5f60718.png",
        "photo.3f9c2b1a.jpg",
        "icon.3f9c2b1a.svg",
        "app.3f9c2b1a.mjs",
        "app-3f9c2b1a.js",
        "app.min.3f9c2b1a.js",
        "photo.3f9c2b1a.webp",
    ];
    let plain = [
        "app.js",
        "style.css",
        "app.3f9c2b1.js",
        "app.12345678.js",
        "app.abcdefgh.js",
        "app.deadbeef.js",
        "page.3f9c2b1a.html",
        "data.3f9c2b1a.json",
        "text.3f9c2b1a.txt",
        "archive.3f9c2b1a.zip",
        "3f9c2b1a/app.js",
        "app.2024-01-31.js",
        "noending3f9c2b1a",
        "photo.png",
    ];
    for name in hashed.iter().chain(&plain) {
        tree.write(name, "x");
    }
    let server = Server::serving(tree);
    for name in hashed {
        let answer = server.get(&format!("/{name}"));
        let control = answer.need("cache-control");
        let parts: Vec<&str> = control.split(',').map(str::trim).collect();
        assert!(parts.contains(&format!("max-age={YEAR}").as_str()) && parts.contains(&"immutable"), "{name}: {control}");
        let etag = answer.need("etag").to_owned();
        let known = server.connect().get_with(&format!("/{name}"), &format!("If-None-Match: {etag}\r\n"));
        assert_eq!((known.status, known.need("cache-control")), (304, control), "{name}: 304 says the same");
    }
    for name in plain {
        assert_eq!(server.get(&format!("/{name}")).need("cache-control"), "no-cache", "{name}");
    }
    assert_eq!(server.get("/gone.3f9c2b1a.js").need("cache-control"), "no-store", "what is not there is not kept");
}

#[test]
fn keeping_for_a_year_can_be_turned_off() {
    let tree = Tree::site();
    tree.write("app.3f9c2b1a.js", "x");
    let server = crate::harness::Builder::new(&["--immutable", "off"]).tree(tree).start();
    assert_eq!(server.get("/app.3f9c2b1a.js").need("cache-control"), "no-cache");
}

/// A change shows after a second at the latest, and no answer mixes the old and the new.
#[test]
fn changes_are_seen() {
    let server = Server::start(&[]);
    let tree = server.tree();
    tree.write("page.txt", "old");
    let mut client = server.connect();
    let old = client.get("/page.txt");
    let old_etag = old.need("etag").to_owned();
    let is = |body: &'static str, etag: Option<&str>| {
        let etag = etag.map(str::to_owned);
        move |answer: &Response| {
            let fresh = answer.text() == body;
            if let Some(etag) = &etag {
                assert_eq!(answer.need("etag") != etag, fresh, "the tag belongs to the bytes: {:?}", answer.text());
            }
            fresh
        }
    };

    tree.replace("page.txt", "new, and longer");
    let new = poll(&mut client, "/page.txt", "another file in its place", is("new, and longer", Some(&old_etag)));
    assert_ne!(new.need("etag"), old_etag);
    assert_eq!(client.get_with("/page.txt", &format!("If-None-Match: {old_etag}\r\n")).status, 200, "what the client knows is old");

    tree.write("page.txt", "new, same size!");
    let edited = poll(&mut client, "/page.txt", "written in place, same size", is("new, same size!", None));
    assert_ne!(edited.need("etag"), new.need("etag"), "written in place, same size");

    fs::remove_file(tree.path("page.txt")).unwrap();
    poll(&mut client, "/page.txt", "removed", |answer| answer.status == 404);
    tree.write("page.txt", "there again");
    poll(&mut client, "/page.txt", "there again, though it was missed", is("there again", None));

    fs::remove_file(tree.path("page.txt")).unwrap();
    tree.write("page.txt/index.html", "now a folder");
    poll(&mut client, "/page.txt", "now a folder", |answer| answer.status == 301);
    assert_eq!(client.get("/page.txt/").text(), "now a folder");
}

/// Size and time of modification are the same: the tag is another all the same, for it is strong.
#[test]
fn the_tag_changes_though_size_and_time_do_not() {
    let server = Server::start(&[]);
    let tree = server.tree();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    let put = |bytes: &str| {
        let new = tree.outside("new");
        fs::write(&new, bytes).unwrap();
        fs::File::options().write(true).open(&new).unwrap().set_modified(time).unwrap();
        fs::rename(new, tree.path("page.txt")).unwrap();
    };
    put("one");
    let mut client = server.connect();
    let one = client.get("/page.txt");
    put("two");
    let two = poll(&mut client, "/page.txt", "replaced", |answer| answer.text() == "two");
    assert_eq!(one.need("last-modified"), two.need("last-modified"));
    assert_ne!(one.need("etag"), two.need("etag"));
}

#[test]
fn the_tag_stays_while_the_file_does() {
    let tree = Tree::site();
    // what has changed at this very moment has a tag that another server does not know
    std::thread::sleep(Duration::from_millis(100));
    let server = Server::serving(tree);
    let first = server.get("/hello.txt").need("etag").to_owned();
    let others = ["/other.txt", "/sub/", "/style.css"].map(|target| server.get(target).need("etag").to_owned());
    assert!(others.iter().all(|other| *other != first), "every file has its own");
    // Past the time after which the entry is looked at again.
    std::thread::sleep(Duration::from_millis(1_200));
    assert_eq!(server.get("/hello.txt").need("etag"), first);
    let again = crate::harness::Builder::new(&[]).root(server.tree().root()).start();
    assert_eq!(again.get("/hello.txt").need("etag"), first, "another server of the same file says the same");
}

/// The connection ends short of the promised length; nothing is made up for what is missing.
#[test]
fn a_file_truncated_while_it_is_sent() {
    let tree = Tree::site();
    // What is on its way already when the file shrinks lies far before what is taken from it: pages that the kernel is sending are the
    // file's own, and it clears those that it cuts.
    let (length, kept) = (32 * 1024 * 1024, 24 * 1024 * 1024 + 12_345);
    tree.write("big.bin", vec![b'x'; length]);
    let server = Server::serving(tree);
    let mut client = server.connect();
    client.send_get("/big.bin");
    let begin = client.take(64 * 1024);
    fs::File::options().write(true).open(server.tree().path("big.bin")).unwrap().set_len(kept as u64).unwrap();
    let (rest, _) = client.rest();
    let all = [begin, rest].concat();
    let head = crate::client::find(&all, b"\r\n\r\n").unwrap() + 4;
    assert!(String::from_utf8_lossy(&all[..head]).to_lowercase().contains(&format!("content-length: {length}\r\n")));
    let body = &all[head..];
    assert!(body.len() <= kept, "{} bytes came of the {kept} that were there", body.len());
    assert!(body.len() >= 32 * 1024, "some of what was there came: {}", body.len());
    assert!(body.iter().all(|byte| *byte == b'x'), "something stands in for what is missing");
    server.assert_well("a truncated file");
}

/// A file that is written to while it is sent is cut off: what has left is of its old state, and nothing of the new one is mixed in.
#[test]
fn a_file_that_is_written_to_while_it_is_sent() {
    let length = 24 * 1024 * 1024;
    for (how, options) in [("at its end", fs::File::options().append(true)), ("in place", fs::File::options().write(true))] {
        let tree = Tree::site();
        tree.write("log.bin", vec![b'x'; length]);
        let server = Server::serving(tree);
        let mut client = server.connect();
        client.send(request("GET", "/log.bin", ""));
        let begin = client.any_answer_head();
        assert_eq!(begin.length(), length as u64, "{how}");
        let mut file = options.open(server.tree().path("log.bin")).unwrap();
        // in place, what is changed lies far behind what is on its way
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(length as u64 - 1024 * 1024)).unwrap();
        std::io::Write::write_all(&mut file, &vec![b'y'; 1024 * 1024]).unwrap();
        let (body, _) = client.rest();
        assert!(body.len() < length, "{how}: cut off, and not sent to its end");
        assert!(body.iter().all(|byte| *byte == b'x'), "{how}: something of the new state is mixed in");
        let again = server.get("/log.bin");
        assert_eq!(again.body.last(), Some(&b'y'), "{how}: whoever asks again gets the new state");
        assert_ne!(again.need("etag"), begin.need("etag"), "{how}");
    }
}

/// The same with what is sent in one go, of which the client has taken a part.
#[test]
fn a_file_that_is_rewritten_while_its_last_bytes_wait() {
    let length = 1_300_000;
    let tree = Tree::site();
    tree.write("page.bin", vec![b'x'; length]);
    let server = Server::serving(tree);
    // small packets and a small window: the kernel takes only a part
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_tcp_mss(536).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.address().into()).unwrap();
    let mut client = Client::over(socket.into());
    client.send(request("GET", "/page.bin", ""));
    assert_eq!(client.any_answer_head().length(), length as u64);
    crate::harness::pause(100);
    // a new file under the old inode: what is on its way stays as it was
    server.tree().write("page.bin", vec![b'y'; length]);
    let (body, _) = client.rest();
    assert!(body.len() < length, "cut off, and not sent to its end");
    assert!(body.iter().all(|byte| *byte == b'x'), "something of the new state is mixed in");
}

/// More files than any small cache holds, and back to the first.
#[test]
fn a_cache_too_small_for_the_site() {
    let tree = Tree::site();
    for number in 0..200_u64 {
        tree.write(format!("n/{number}.bin"), noise(number, 10_000));
    }
    let server = crate::harness::Builder::new(&["--cache-size", "100KiB"]).tree(tree).start();
    let mut client = server.connect();
    for round in 0..2 {
        for number in 0..200 {
            let answer = client.get(&format!("/n/{number}.bin"));
            assert_same_bytes(&answer.body, &noise(number, 10_000), &format!("round {round}, file {number}"));
        }
    }
}

/// Random misses do not fill the memory or the descriptors.
#[test]
fn misses_leave_nothing_open() {
    let server = Server::start(&["--threads", "1"]);
    let mut client = server.connect();
    client.get("/hello.txt");
    let before = server.descriptors();
    for number in 0..2_000 {
        assert_eq!(client.get(&format!("/missing-{number}")).status, 404);
    }
    let after = server.descriptors();
    assert!(after <= before + 5, "{before} descriptors before, {after} after 2,000 misses");
}

#[test]
fn http_1_0_gets_files_too() {
    let tree = Tree::site();
    let big = noise(8, 200_000);
    tree.write("big.bin", &big);
    let server = Server::serving(tree);
    let mut client = server.connect();
    client.send(format!("GET /big.bin HTTP/1.0\r\nHost: {HOST}\r\n\r\n"));
    let answer = client.answer();
    assert_eq!(answer.field("transfer-encoding"), None);
    assert_same_bytes(&answer.body, &big, "HTTP/1.0");
    client.assert_end("HTTP/1.0");
}
