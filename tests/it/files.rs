//! Files: their bytes, their fields, what is sent when the client has them already or wants a part, and what happens when they change.
//!
//! Classes of failure covered: arithmetic of ranges, a file truncated or grown while it is sent, stale entries of a cache.

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

#[test]
fn if_none_match() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let whole = client.get("/hello.txt");
    let etag = whole.need("etag").to_owned();
    let bare = etag.trim_matches('"').to_owned();
    let rows = [
        (etag.clone(), 304),
        (format!("W/{etag}"), 304),
        ("*".to_owned(), 304),
        (format!("\"other\", {etag}"), 304),
        (format!("\"other\",{etag},\"third\""), 304),
        (format!("\"a,b\", W/\"c\", {etag}"), 304),
        (format!(" ,, {etag} ,"), 304),
        ("\"other\"".to_owned(), 200),
        (format!("\"{bare}x\""), 200),
        (format!("\"x{bare}\""), 200),
        (format!("\"other, {bare}\""), 200),
        (bare, 200),
        (String::new(), 200),
        ("\"".to_owned(), 200),
        ("W/".to_owned(), 200),
    ];
    for (value, status) in rows {
        for method in ["GET", "HEAD"] {
            client.send(request(method, "/hello.txt", &format!("If-None-Match: {value}\r\n")));
            let answer = if method == "HEAD" { client.answer_to_head() } else { client.answer() };
            assert_eq!(answer.status, status, "{method} with {value:?}");
            assert_eq!(answer.need("etag"), etag, "{method} with {value:?}");
            if status == 304 {
                assert!(answer.field("content-length").is_none_or(|length| length == HELLO.len().to_string()), "{:?}", answer.fields);
                assert_eq!(answer.need("cache-control"), whole.need("cache-control"));
            }
        }
    }
    client.send(request("GET", "/hello.txt", &format!("If-None-Match: \"other\"\r\nIf-None-Match: {etag}\r\n")));
    assert_eq!(client.answer().status, 304, "a list may stand in two lines");
    assert_eq!(client.get_with("/nowhere", "If-None-Match: *\r\n").status, 404, "what is not there has not stayed the same");
    assert_eq!(client.get_with("/sub/", "If-None-Match: *\r\n").status, 304, "a folder's index");
}

#[test]
fn if_modified_since() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let whole = client.get("/hello.txt");
    let modified = http_date::parse_imf(whole.need("last-modified")).expect("Last-Modified in the preferred form");
    let etag = whole.need("etag");
    let rows = [
        ("the same", http_date::imf(modified), 304),
        ("the same, as RFC 850 wrote it", http_date::rfc850(modified), 304),
        ("the same, as asctime writes it", http_date::asctime(modified), 304),
        ("a second later", http_date::imf(modified + 1), 304),
        ("a second earlier", http_date::imf(modified - 1), 200),
        ("a year earlier, as RFC 850 wrote it", http_date::rfc850(modified - 31_536_000), 200),
        ("a year earlier, as asctime writes it", http_date::asctime(modified - 31_536_000), 200),
        ("long ago", http_date::imf(0), 200),
        ("no date", "yesterday".to_owned(), 200),
        ("nothing", String::new(), 200),
        ("a number", modified.to_string(), 200),
        ("half a date", http_date::imf(modified)[..16].to_owned(), 200),
    ];
    for (name, value, status) in rows {
        assert_eq!(client.get_with("/hello.txt", &format!("If-Modified-Since: {value}\r\n")).status, status, "{name}: {value:?}");
        assert_eq!(client.head_with("/hello.txt", &format!("If-Modified-Since: {value}\r\n")).status, status, "HEAD, {name}: {value:?}");
    }
    let same = http_date::imf(modified);
    let long_ago = http_date::imf(0);
    let both = |tag: &str, date: &str| format!("If-None-Match: {tag}\r\nIf-Modified-Since: {date}\r\n");
    assert_eq!(client.get_with("/hello.txt", &both("\"other\"", &same)).status, 200, "If-None-Match decides alone");
    assert_eq!(client.get_with("/hello.txt", &both(etag, &long_ago)).status, 304, "If-None-Match decides alone");
}

#[test]
fn single_ranges() {
    let tree = Tree::site();
    let small = noise(5, 1_000);
    tree.write("small.bin", &small);
    // Beyond the size that leaves from memory.
    let big = noise(6, 300_000);
    tree.write("big.bin", &big);
    let server = Server::serving(tree);
    let mut client = server.connect();
    for (target, bytes) in [("/small.bin", &small), ("/big.bin", &big)] {
        let total = bytes.len();
        let rows = [
            ("0-0".to_owned(), 0, 0),
            ("0-499".to_owned(), 0, 499),
            ("500-999".to_owned(), 500, 999),
            ("7-7".to_owned(), 7, 7),
            (format!("0-{}", total - 1), 0, total - 1),
            ("0-".to_owned(), 0, total - 1),
            ("500-".to_owned(), 500, total - 1),
            (format!("{}-", total - 1), total - 1, total - 1),
            (format!("500-{}", total + 5), 500, total - 1),
            ("500-18446744073709551615".to_owned(), 500, total - 1),
            ("-1".to_owned(), total - 1, total - 1),
            ("-500".to_owned(), total - 500, total - 1),
            (format!("-{total}"), 0, total - 1),
            (format!("-{}", total + 1), 0, total - 1),
            ("-18446744073709551615".to_owned(), 0, total - 1),
            ("00-0001".to_owned(), 0, 1),
        ];
        let whole = client.get(target);
        for (range, first, last) in rows {
            let answer = client.get_with(target, &format!("Range: bytes={range}\r\n"));
            let name = format!("{target} {range}");
            assert_eq!(answer.status, 206, "{name}");
            assert_eq!(answer.need("content-range"), format!("bytes {first}-{last}/{total}"), "{name}");
            assert_same_bytes(&answer.body, &bytes[first..=last], &name);
            for field in ["etag", "last-modified", "content-type", "cache-control", "accept-ranges"] {
                assert_eq!(answer.need(field), whole.need(field), "{name}: {field}");
            }
        }
    }
    assert_eq!(client.get_with("/small.bin", "Range: BYTES=0-1\r\n").status, 206, "the unit in capitals");
    // Half a mebibyte out of the middle of a big file, many times on one connection.
    for start in (0..250_000).step_by(25_000) {
        let answer = client.get_with("/big.bin", &format!("Range: bytes={start}-{}\r\n", start + 40_000));
        assert_same_bytes(&answer.body, &big[start..=start + 40_000], &format!("from {start}"));
    }
}

#[test]
fn ranges_that_cannot_be_satisfied() {
    let tree = Tree::site();
    tree.write("small.bin", noise(5, 1_000));
    let server = Server::serving(tree);
    let mut client = server.connect();
    for range in ["1000-", "1000-1000", "1000-2000", "5000-", "18446744073709551615-", "-0"] {
        let answer = client.get_with("/small.bin", &format!("Range: bytes={range}\r\n"));
        assert_eq!((answer.status, answer.need("content-range")), (416, "bytes */1000"), "{range}");
    }
    let answer = client.get_with("/empty.txt", "Range: bytes=0-\r\n");
    assert_eq!((answer.status, answer.need("content-range")), (416, "bytes */0"), "nothing has no first byte");
    assert_eq!(client.get("/hello.txt").text(), HELLO);
}

#[test]
fn ranges_that_are_none_are_ignored() {
    let tree = Tree::site();
    let small = noise(5, 1_000);
    tree.write("small.bin", &small);
    let server = Server::serving(tree);
    let mut client = server.connect();
    let ignored = [
        "bytes=5-2",
        "bytes=-",
        "bytes=",
        "bytes",
        "",
        "bytes=a-b",
        "bytes=0-b",
        "bytes=a-5",
        "bytes=0x0-0x5",
        "bytes=--5",
        "bytes=5--",
        "bytes=+1-5",
        "bytes=1-+5",
        "bytes=0-5x",
        "bytes=5",
        "bytes=0 - 5 x",
        "bytes:0-5",
        "bytes 0-5",
        "0-5",
        "items=0-5",
        "byte=0-5",
        "bytess=0-5",
        "=0-5",
        "bytes=0.5-5",
        "bytes=\u{660}-5",
    ];
    for range in ignored {
        let answer = client.get_with("/small.bin", &format!("Range: {range}\r\n"));
        assert_eq!(answer.status, 200, "{range:?}");
        assert_same_bytes(&answer.body, &small, range);
        assert_eq!(answer.field("content-range"), None, "{range:?}");
    }
    // Numbers beyond every file: ignored, or taken for what they mean; never wrapped around.
    for (range, statuses) in [
        ("0-99999999999999999999999", [200, 206]),
        ("-99999999999999999999999", [200, 206]),
        ("99999999999999999999999-", [200, 416]),
        ("18446744073709551616-18446744073709551620", [200, 416]),
        ("18446744073709551616-5", [200, 416]),
    ] {
        let answer = client.get_with("/small.bin", &format!("Range: bytes={range}\r\n"));
        assert!(statuses.contains(&answer.status), "{range}: {}", answer.status);
        assert!(answer.status == 416 || answer.body == small, "{range}: {} bytes", answer.body.len());
    }
}

#[test]
fn ranges_and_conditions() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let whole = client.get("/hello.txt");
    let (etag, modified) = (whole.need("etag").to_owned(), whole.need("last-modified").to_owned());
    let rows = [
        ("known: 304 goes before the range", format!("If-None-Match: {etag}\r\nRange: bytes=0-1\r\n"), 304),
        ("not known", "If-None-Match: \"other\"\r\nRange: bytes=0-1\r\n".to_owned(), 206),
        ("known, and the range impossible", format!("If-None-Match: {etag}\r\nRange: bytes=99-\r\n"), 304),
        ("If-Range fits", format!("If-Range: {etag}\r\nRange: bytes=0-1\r\n"), 206),
        ("If-Range does not fit", "If-Range: \"other\"\r\nRange: bytes=0-1\r\n".to_owned(), 200),
        ("If-Range is weak", format!("If-Range: W/{etag}\r\nRange: bytes=0-1\r\n"), 200),
        ("If-Range is another date", format!("If-Range: {}\r\nRange: bytes=0-1\r\n", http_date::imf(0)), 200),
        ("If-Range does not fit, and the range impossible", "If-Range: \"other\"\r\nRange: bytes=99-\r\n".to_owned(), 200),
        ("If-Range alone", format!("If-Range: {etag}\r\n"), 200),
        ("nothing there", "Range: bytes=0-1\r\n".to_owned(), 206),
    ];
    for (name, fields, status) in rows {
        assert_eq!(client.get_with("/hello.txt", &fields).status, status, "{name}");
    }
    let same_date = client.get_with("/hello.txt", &format!("If-Range: {modified}\r\nRange: bytes=0-1\r\n"));
    assert!([200, 206].contains(&same_date.status), "a date is strong only some time after it: {}", same_date.status);
    assert_eq!(client.get_with("/nowhere", "Range: bytes=0-1\r\n").status, 404);
    assert_eq!(client.get_with("/sub", "Range: bytes=0-1\r\n").status, 301);
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

/// A file that grows gives what was promised and no more: the next answer begins where this one ends.
#[test]
fn a_file_that_grows_while_it_is_sent() {
    let tree = Tree::site();
    let length = 24 * 1024 * 1024;
    tree.write("log.bin", vec![b'x'; length]);
    let server = Server::serving(tree);
    let mut client = server.connect();
    client.send(request("GET", "/log.bin", "") + &request("GET", "/hello.txt", ""));
    let begin = client.any_answer_head();
    assert_eq!(begin.length(), length as u64);
    let mut file = fs::File::options().append(true).open(server.tree().path("log.bin")).unwrap();
    std::io::Write::write_all(&mut file, &vec![b'y'; 1024 * 1024]).unwrap();
    let body = client.take_many(length);
    assert!(body.iter().all(|byte| *byte == b'x'), "what was appended is not part of it");
    assert_eq!(client.answer().text(), HELLO, "the next answer follows at once");
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
