//! Addresses without `.html`.

use std::fs;

use super::{BROWSER, page, poll, serve};
use crate::client::{HOST, request};
use crate::harness::{Builder, Server, Tree, set_mode, without_privilege};

fn tree() -> Tree {
    let tree = Tree::empty();
    tree.write("index.html", page("home"));
    tree.write("about.html", page("about"));
    tree.write("docs/index.html", page("docs"));
    tree.write("docs/intro.html", page("intro"));
    // A page and a folder of one name.
    tree.write("team.html", page("team"));
    tree.write("team/people.html", page("people"));
    // The same with an index: the folder goes first.
    tree.write("blog.html", page("blog as a page"));
    tree.write("blog/index.html", page("blog"));
    // A file without an ending goes before one that has it.
    tree.write("plain", "plain");
    tree.write("plain.html", page("plain as a page"));
    tree.write("two.html.html", page("two"));
    tree.write("with space.html", page("space"));
    tree.write("bare/leaf.txt", "leaf");
    tree.write("UPPER.HTML", page("upper"));
    tree.write("a;b.html", page("semicolon"));
    tree.write(".html", page("hidden"));
    tree.write("dots/...html", page("dots"));
    tree
}

#[track_caller]
fn assert_served(server: &Server, rows: &[(&str, &str)]) {
    for (target, title) in rows {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.text()), (200, page(title)), "{target}");
        assert_eq!(answer.need("content-type"), "text/html; charset=utf-8", "{target}");
    }
}

#[track_caller]
fn assert_moved(server: &Server, rows: &[(&str, &str)]) {
    for (target, location) in rows {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.need("location")), (301, *location), "{target}");
        assert_eq!((answer.need("cache-control"), answer.body.len()), ("no-cache", 0), "{target}");
    }
}

#[test]
fn pages_are_served_without_their_ending_and_redirected_with_it() {
    let server = serve(tree(), &["--clean-urls"]);
    assert_served(
        &server,
        &[
            ("/", "home"),
            ("/about", "about"),
            ("/about?x=1", "about"),
            ("/docs/", "docs"),
            ("/docs/intro", "intro"),
            ("/team", "team"),
            ("/team/people", "people"),
            ("/blog/", "blog"),
            ("/blog.html", "blog as a page"),
            ("/plain.html", "plain as a page"),
            ("/two.html", "two"),
            ("/with%20space", "space"),
            ("/%61bout", "about"),
            ("/x/../about", "about"),
            ("//about", "about"),
        ],
    );
    assert_eq!(server.get("/plain").text(), "plain");
    assert_moved(
        &server,
        &[
            ("/about.html", "/about"),
            ("/about.html?", "/about?"),
            ("/about.html?a=b&c=%20", "/about?a=b&c=%20"),
            ("/about%2ehtml", "/about"),
            ("/about%2Ehtml?x", "/about?x"),
            ("/docs/intro.html", "/docs/intro"),
            ("/index.html", "/"),
            ("/index.html?x=//evil.test", "/?x=//evil.test"),
            ("/index", "/"),
            ("/docs/index.html", "/docs/"),
            ("/docs/index.html?q", "/docs/?q"),
            ("/docs/index", "/docs/"),
            ("/docs", "/docs/"),
            ("/blog", "/blog/"),
            ("/team.html", "/team"),
            ("/two.html.html", "/two.html"),
            ("/with%20space.html", "/with%20space"),
            ("/a;b.html", "/a;b"),
            ("/bare", "/bare/"),
        ],
    );
    for target in [
        "/about/",
        "/about.html/",
        "/about.html/x",
        "/about.htm",
        "/ABOUT",
        "/UPPER",
        "/team/",
        "/bare/",
        "/.html",
        "/..html",
        "/dots/.",
        "/dots/...html",
        "/missing",
        "/missing.html",
        "/docs/index/",
    ] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
    assert_eq!(server.get("/../about").status, 400);
}

#[test]
fn without_the_flag_nothing_moves() {
    let server = serve(tree(), &[]);
    assert_served(&server, &[("/about.html", "about"), ("/index.html", "home"), ("/docs/index.html", "docs")]);
    for target in ["/about", "/docs/intro", "/index"] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
}

/// Whatever stands in front of the name, `Location` is a path on the same host, in one line.
#[test]
fn a_redirect_stays_here() {
    let tree = tree();
    tree.write("evil.test/index.html", page("evil"));
    tree.write("evil.test.html", page("evil"));
    tree.write("a\r\nX-Injected: yes.html", page("line"));
    let server = serve(tree, &["--clean-urls", "--dotfiles", "allow"]);
    let rows = [
        "//evil.test/index.html",
        "///evil.test/index.html",
        "//evil.test.html",
        "/./evil.test/index.html",
        "/x/..//evil.test/index.html",
        "/%0d%0a/..//evil.test/index.html",
        "/a%0d%0aX-Injected:%20yes.html",
        "/about.html?%0d%0aX-Injected:%20yes",
        "http://evil.test/about.html",
        "/dots/...html",
        "/.html",
        "/..html",
    ];
    for target in rows {
        let answer = server.get(target);
        assert!([200, 301, 404].contains(&answer.status), "{target}: {}", answer.status);
        assert_eq!(answer.field("x-injected"), None, "{target}");
        if let Some(location) = answer.field("location") {
            assert!(
                location.starts_with('/') && !location.starts_with("//") && !location.contains(['\r', '\n', '\\']),
                "{target}: {location}"
            );
        }
    }
    let raw = format!("GET /about.html HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-Host: evil.test\r\n\r\n");
    assert_eq!(server.ask(raw).need("location"), "/about");
}

/// What is below the folder of uploads is not served by its path, so a page of that name has no clean address there.
#[test]
fn a_page_that_is_named_as_the_folder_of_uploads_is() {
    let tree = Tree::empty();
    tree.write("in.html", page("in"));
    let folder = tree.path("in").to_str().unwrap().to_owned();
    let server = serve(tree, &["--clean-urls", "--uploads", &folder]);
    assert_served(&server, &[("/in.html", "in")]);
    assert_eq!(server.get("/in").status, 404);
}

/// The address of uploads is theirs while there are any.
#[test]
fn a_page_that_is_named_as_uploads_are() {
    for (args, moved) in [(&["--clean-urls"][..], false), (&["--clean-urls", "--uploads", "off"], true)] {
        let tree = Tree::empty();
        tree.write("uploads.html", page("uploads"));
        let server = serve(tree, args);
        let answer = server.get("/uploads.html");
        assert_eq!((answer.status, answer.field("location")), if moved { (301, Some("/uploads")) } else { (200, None) }, "{args:?}");
        assert_eq!(server.get("/uploads").text() == page("uploads"), moved, "{args:?}");
    }
}

/// Following redirects always ends at a page.
#[test]
fn redirects_end() {
    let server = serve(tree(), &["--clean-urls", "--index", "index.html,about.html,index.htm"]);
    for first in [
        "/about.html",
        "/about",
        "/index.html",
        "/index",
        "/docs/index",
        "/docs",
        "/team.html",
        "/team",
        "/blog",
        "/blog.html",
        "/plain.html",
    ] {
        let mut target = first.to_owned();
        let mut steps = 0;
        let last = loop {
            let answer = server.get(&target);
            match answer.field("location") {
                Some(location) => target = location.to_owned(),
                None => break answer,
            }
            steps += 1;
            assert!(steps <= 2, "{first} goes on to {target}");
        };
        assert_eq!(last.status, 200, "{first} ends at {target}");
    }
}

#[test]
fn the_methods_of_a_file_are_those_of_its_clean_address() {
    let server = serve(tree(), &["--clean-urls"]);
    let mut client = server.connect();
    for target in ["/about", "/about.html", "/docs/"] {
        let (get, head) = (client.get(target), client.head(target));
        assert_eq!((get.status, get.fields_but_date()), (head.status, head.fields_but_date()), "{target}");
        client.send(request("POST", target, ""));
        assert_eq!(client.answer().status, 405, "{target}");
    }
    let etag = client.get("/about").need("etag").to_owned();
    assert_eq!(client.get_with("/about", &format!("If-None-Match: {etag}\r\n")).status, 304);
}

#[test]
fn pages_come_go_and_become_folders() {
    let server = serve(tree(), &["--clean-urls"]);
    let tree = server.tree();
    let mut client = server.connect();
    assert_eq!(client.get("/about").text(), page("about"));
    assert_eq!(client.get("/about.html").status, 301);
    // The page becomes a folder.
    fs::remove_file(tree.path("about.html")).unwrap();
    tree.write("about/index.html", page("about, a folder"));
    poll(&mut client, "/about", "the folder", |answer| answer.status == 301 && answer.need("location") == "/about/");
    poll(&mut client, "/about.html", "the page has gone", |answer| answer.status == 404);
    assert_eq!(client.get("/about/").text(), page("about, a folder"));
    // Both are there: the folder goes first, and the page has its own name.
    tree.write("about.html", page("about, a page"));
    poll(&mut client, "/about.html", "both", |answer| answer.text() == page("about, a page"));
    assert_eq!(client.get("/about").need("location"), "/about/");
    // The folder loses its index: the page has the clean address again.
    fs::remove_file(tree.path("about/index.html")).unwrap();
    poll(&mut client, "/about", "without an index", |answer| answer.text() == page("about, a page"));
    poll(&mut client, "/about.html", "the same", |answer| answer.status == 301);
    // A file of the very name takes it.
    fs::remove_dir(tree.path("about")).unwrap();
    tree.write("about", "a file");
    poll(&mut client, "/about", "a file", |answer| answer.text() == "a file");
    poll(&mut client, "/about.html", "the page beside it", |answer| answer.text() == page("about, a page"));
    // A new version of the page.
    fs::remove_file(tree.path("about")).unwrap();
    tree.replace("about.html", page("about, anew"));
    poll(&mut client, "/about", "anew", |answer| answer.text() == page("about, anew"));
}

#[test]
fn an_app_and_clean_addresses_together() {
    let server = serve(tree(), &["--clean-urls", "--spa"]);
    let mut client = server.connect();
    assert_eq!(client.get_with("/about", BROWSER).text(), page("about"));
    assert_eq!(client.get_with("/about.html", BROWSER).status, 301);
    let answer = client.get_with("/nowhere", BROWSER);
    assert_eq!((answer.status, answer.text()), (200, page("home")));
    assert_eq!(client.get("/nowhere").status, 404);
}

#[test]
fn a_listing_stands_beside_the_page_of_its_name() {
    let server = serve(tree(), &["--clean-urls", "--listing"]);
    assert_served(&server, &[("/team", "team")]);
    assert!(server.get("/team/").text().contains("people.html"));
    assert_moved(&server, &[("/bare", "/bare/")]);
}

#[test]
fn what_is_loaded_at_the_start_is_the_same() {
    let server = serve(tree(), &["--clean-urls", "--cache-warm"]);
    assert_served(&server, &[("/about", "about"), ("/docs/", "docs")]);
    assert_moved(&server, &[("/about.html", "/about"), ("/docs/index.html", "/docs/")]);
}

#[test]
fn links_out_of_the_root_have_no_clean_address() {
    let tree = tree();
    tree.symlink("../secret.txt", "out.html");
    tree.symlink("about.html", "in.html");
    let server = serve(tree, &["--clean-urls"]);
    for target in ["/out", "/out.html"] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
    assert_served(&server, &[("/in", "about")]);
}

#[test]
fn a_page_that_may_not_be_read_is_not_passed_over() {
    let Some(wrapper) = without_privilege() else {
        eprintln!("SKIPPED: running as root without setpriv, everything may be read");
        return;
    };
    for app in [&[][..], &["--spa=app.html"]] {
        let tree = Tree::empty();
        tree.write("app.html", page("app"));
        tree.write("denied.html", page("closed"));
        set_mode(&tree.path("denied.html"), 0o000);
        let server = Builder::new(&[&["--clean-urls"], app].concat()).tree(tree).through(&wrapper).start();
        let mut client = server.connect();
        for target in ["/denied", "/denied.html"] {
            assert_eq!(client.get_with(target, BROWSER).status, 403, "{target} {app:?}");
        }
    }
}

#[test]
fn a_page_may_become_unreadable_and_readable_again() {
    let Some(wrapper) = without_privilege() else {
        eprintln!("SKIPPED: running as root without setpriv, everything may be read");
        return;
    };
    let tree = Tree::empty();
    tree.write("about.html", page("about"));
    let about = tree.path("about.html");
    let server = Builder::new(&["--clean-urls"]).tree(tree).through(&wrapper).start();
    let mut client = server.connect();
    for _ in 0..2 {
        for (mode, statuses) in [(0o644, [200, 301]), (0o000, [403, 403])] {
            set_mode(&about, mode);
            for (target, status) in ["/about", "/about.html"].into_iter().zip(statuses) {
                poll(&mut client, target, &format!("{target} with the mode {mode:o}"), |answer| answer.status == status);
            }
        }
    }
}
