//! Pages that a site has for its errors.
//!
//! Classes of failure covered: a page that makes an error look like a success, to people or to caches; one that leads out of the root, that
//! holds up whoever opens it, or that costs more than an error may.

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{ANYTHING, BROWSER, JSON, page, poll, serve};
use crate::client::request;
use crate::harness::{Builder, HELLO, SECRET, Tree, noise, set_mode, without_privilege};

fn tree() -> Tree {
    let tree = Tree::site();
    tree.write("404.html", page("lost"));
    tree
}

#[test]
fn an_error_has_the_page_of_its_status() {
    let tree = tree();
    for status in [400, 405, 406, 412, 414, 416, 417, 431, 501, 505] {
        tree.write(format!("{status}.html"), page(&status.to_string()));
    }
    let server = serve(tree, &[]);
    let long = "a".repeat(9_000);
    let rows = [
        (400, request("GET", "/%zz", "")),
        (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (405, request("DELETE", "/hello.txt", "")),
        (405, request("POST", "/nowhere", "")),
        (406, request("GET", "/hello.txt", "Accept-Encoding: identity;q=0\r\n")),
        (412, request("GET", "/hello.txt", "If-Match: \"other\"\r\n")),
        (414, request("GET", &format!("/{long}"), "")),
        (416, request("GET", "/hello.txt", "Range: bytes=99-\r\n")),
        (417, request("GET", "/", "Expect: wonders\r\n")),
        (431, request("GET", "/", &"X: y\r\n".repeat(101))),
        (501, request("POST", "/", "Transfer-Encoding: gzip, chunked\r\n")),
        (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned()),
    ];
    for (status, raw) in rows {
        // The soundness check of every answer holds no-store, nosniff and Allow.
        let answer = server.ask(raw);
        assert_eq!((answer.status, answer.text()), (status, page(&status.to_string())));
        assert_eq!((answer.need("content-type"), answer.length()), ("text/html; charset=utf-8", answer.body.len() as u64), "{status}");
        for name in ["etag", "last-modified", "accept-ranges", "content-encoding"] {
            assert_eq!(answer.field(name), None, "{status}: {name}");
        }
    }
    let answer = server.ask(request("GET", "/hello.txt", "Range: bytes=99-\r\n"));
    assert_eq!(answer.need("content-range"), format!("bytes */{}", HELLO.len()));
}

#[test]
fn wherever_nothing_is() {
    let server = serve(tree(), &[]);
    let mut client = server.connect();
    // Twice: the second may come from the cache.
    for _ in 0..2 {
        for target in ["/nowhere", "/sub/nowhere", "/bare/", "/.env", "/hello.txt/", "/404"] {
            for accept in ["", ANYTHING, BROWSER] {
                let answer = client.get_with(target, accept);
                assert_eq!((answer.status, answer.text()), (404, page("lost")), "{target} {accept}");
            }
        }
    }
    let head = client.head("/nowhere");
    assert_eq!((head.status, head.length()), (404, page("lost").len() as u64));
    assert_eq!(head.fields_but_date(), client.get("/nowhere").fields_but_date());
    let file = client.get("/404.html");
    assert_eq!((file.status, file.text()), (200, page("lost")), "by its own name it is a file like any other");
}

#[test]
fn who_prefers_json_gets_json() {
    let server = serve(tree(), &[]);
    let answer = server.connect().get_with("/nowhere", JSON);
    assert_eq!((answer.status, answer.need("content-type")), (404, "application/problem+json"));
    assert!(answer.text().contains("\"status\":404"), "{}", answer.text());
}

/// No condition and no range makes anything else of an error.
#[test]
fn an_error_is_never_another_answer() {
    let server = serve(tree(), &[]);
    let mut client = server.connect();
    let file = client.get("/404.html");
    let (etag, modified) = (file.need("etag").to_owned(), file.need("last-modified").to_owned());
    let rows = [
        format!("If-None-Match: {etag}\r\n"),
        "If-None-Match: *\r\n".into(),
        format!("If-Modified-Since: {modified}\r\n"),
        "If-Match: \"x\"\r\n".into(),
        "Range: bytes=0-4\r\n".into(),
        format!("Range: bytes=0-4\r\nIf-Range: {etag}\r\n"),
        "Accept-Encoding: gzip, br, zstd\r\n".into(),
        "Want-Repr-Digest: sha-256=1\r\n".into(),
    ];
    for fields in rows {
        let answer = client.get_with("/nowhere", &fields);
        assert_eq!((answer.status, answer.text()), (404, page("lost")), "{fields}");
    }
    assert_eq!(client.get_with("/404.html", &format!("If-None-Match: {etag}\r\n")).status, 304);
}

#[test]
fn errors_of_the_server_share_a_page() {
    let tree = Tree::site();
    tree.write("50x.html", page("our fault"));
    tree.write("501.html", page("not made"));
    let server = serve(tree, &[]);
    let answer = server.ask("GET / HTTP/2.0\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status, answer.text()), (505, page("our fault")));
    let answer = server.ask(request("POST", "/", "Transfer-Encoding: gzip, chunked\r\n"));
    assert_eq!((answer.status, answer.text()), (501, page("not made")));
    assert!(server.get("/nowhere").text().contains("There is nothing at this address."));
}

#[test]
fn a_page_for_what_may_not_be_read() {
    let Some(wrapper) = without_privilege() else {
        eprintln!("SKIPPED: running as root without setpriv, everything may be read");
        return;
    };
    let tree = tree();
    tree.write("403.html", page("closed"));
    tree.write("closed.txt", SECRET);
    set_mode(&tree.path("closed.txt"), 0o000);
    // A page that may not be read itself is none, and brings no page of another error.
    tree.write("405.html", SECRET);
    set_mode(&tree.path("405.html"), 0o000);
    let server = Builder::new(&[]).tree(tree).through(&wrapper).start();
    let answer = server.get("/closed.txt");
    assert_eq!((answer.status, answer.text()), (403, page("closed")));
    let answer = server.ask(request("POST", "/hello.txt", ""));
    assert_eq!(answer.status, 405);
    assert!(answer.text().contains("can not be used with that method"), "{}", answer.text());
}

#[test]
fn what_is_no_page_is_not_used() {
    type Make = fn(&Tree);
    let make: [(&str, Make); 7] = [
        ("a link out of the root", |tree| tree.symlink("../secret.txt", "404.html")),
        ("a device", |tree| tree.symlink("/dev/zero", "404.html")),
        ("a fifo", |tree| mknodat(CWD, tree.path("404.html"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap()),
        ("a link to itself", |tree| tree.symlink("404.html", "404.html")),
        ("a folder", |tree| tree.write("404.html/index.html", SECRET)),
        ("a page elsewhere", |tree| tree.write("sub/404.html", SECRET)),
        ("another case", |tree| tree.write("404.HTML", SECRET)),
    ];
    for (name, make) in make {
        let tree = Tree::site();
        make(&tree);
        let server = serve(tree, &["--threads", "1", "--blocking-threads", "2"]);
        for _ in 0..4 {
            let answer = server.get("/sub/nowhere");
            assert_eq!(answer.status, 404, "{name}");
            assert!(answer.text().contains("There is nothing at this address."), "{name}: {}", answer.text());
        }
        server.assert_well(name);
    }
}

#[test]
fn pages_up_to_the_bound() {
    let large = Tree::site();
    let sizes = [("404", 65_535), ("405", 65_536), ("416", 65_537)];
    for (status, size) in sizes {
        large.write(format!("{status}.html"), noise(1, size));
    }
    let server = serve(large, &["--error-page-limit", "64KiB"]);
    assert_eq!(server.get("/nowhere").body, noise(1, 65_535));
    assert_eq!(server.ask(request("POST", "/hello.txt", "")).body, noise(1, 65_536));
    let answer = server.ask(request("GET", "/hello.txt", "Range: bytes=99-\r\n"));
    assert!(answer.status == 416 && answer.text().starts_with("<!DOCTYPE html>"), "{}", answer.text());
    let server = serve(tree(), &["--error-page-limit", "0"]);
    assert!(server.get("/nowhere").text().contains("There is nothing at this address."));
}

#[test]
fn pages_come_change_and_go() {
    for args in [&[][..], &["--cache-size", "0"]] {
        let server = serve(Tree::site(), args);
        let mut client = server.connect();
        assert!(client.get("/nowhere").text().contains("There is nothing at this address."));
        server.tree().write("404.html", page("first"));
        poll(&mut client, "/nowhere", "a page", |answer| answer.status == 404 && answer.text() == page("first"));
        server.tree().replace("404.html", page("the second"));
        poll(&mut client, "/nowhere", "a new one", |answer| answer.status == 404 && answer.text() == page("the second"));
        std::fs::remove_file(server.tree().path("404.html")).unwrap();
        poll(&mut client, "/nowhere", "none", |answer| answer.text().contains("There is nothing at this address."));
    }
}

/// Answers that are sent ahead of errors leave with them, in their order.
#[test]
fn errors_keep_their_place_among_pipelined_answers() {
    let server = serve(tree(), &[]);
    let mut client = server.connect();
    client.send((request("GET", "/hello.txt", "") + &request("GET", "/nowhere", "") + &request("HEAD", "/nowhere", "")).repeat(20));
    for _ in 0..20 {
        assert_eq!(client.answer().text(), HELLO);
        assert_eq!(client.answer().text(), page("lost"));
        assert_eq!(client.answer_to_head().status, 404);
    }
}

#[test]
fn with_clean_addresses_and_apps() {
    let tree = tree();
    tree.write("index.html", page("app"));
    let server = serve(tree, &["--clean-urls", "--spa"]);
    let mut client = server.connect();
    assert_eq!(client.get("/nowhere.js").text(), page("lost"));
    assert_eq!(client.get_with("/nowhere", BROWSER).text(), page("app"));
    let file = client.get("/404.html");
    assert_eq!((file.status, file.text()), (200, page("lost")), "it keeps its name");
}

/// Uploads answer as they always do.
#[test]
fn uploads_keep_their_answers() {
    let tree = tree();
    tree.write("405.html", page("no"));
    let server = serve(tree, &[]);
    for (target, method, status) in [("/uploads/nothing.txt", "GET", 404), ("/uploads/x", "DELETE", 405)] {
        let answer = server.ask(request(method, target, ""));
        assert_eq!(answer.status, status, "{target}");
        assert!(answer.text().starts_with("<!DOCTYPE html>") && !answer.text().contains("lost"), "{target}: {}", answer.text());
    }
}
