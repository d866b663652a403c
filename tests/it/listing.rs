//! Listings of folders that have no index: what is told, in which order, by pages, and that no name gets out of its place.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{CWD, FileType, Mode};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::client::Response;
use crate::codings::decoded;
use crate::harness::{Builder, Server, Tree, assert_same_bytes, set_mode, without_privilege};

/// Names that would break out of a page, an address, a field or an archive if any of them could.
pub fn hostile_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        &b"<img src=x onerror=alert(1)>"[..],
        b"\"><script>alert(1)<",
        b"'onmouseover='alert(1)",
        b"a&b&amp;c",
        b"two\nlines\r\nX-Evil: 1",
        b"tab\tand\x01\x7F",
        b"caf\xE9-\xFF\xFE",
        "caf\u{e9}-\u{1f33e}".as_bytes(),
        "\u{202E}gpj.exe".as_bytes(),
        b"..;",
        b"...x",
        b"-rf",
        b"--checkpoint-action=exec=sh",
        b"javascript:alert(1)",
        b"a b?c#d%2e%zz+e",
        b"{{rows}} {{name}}",
        b" leading and trailing ",
        b" ",
        "\u{A0}\u{3000}".as_bytes(),
        "\u{2029}\u{3164}\u{E0041}".as_bytes(),
        b"CON",
        b"C:evil",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    // the first is hidden, as all that begins with a dot; the others are told
    names.retain(|name| name[0] != b'.');
    names.push(vec![b'x'; 255]);
    names.push("\u{20ac}".repeat(85).into_bytes());
    names
}

fn listed(tree: Tree) -> Server {
    Builder::new(&["--listing"]).tree(tree).start()
}

fn json(answer: &Response) -> Value {
    assert_eq!((answer.status, answer.need("content-type")), (200, "application/json"), "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

/// The names in a listing, folders with a slash behind them.
fn names(listing: &Value) -> Vec<String> {
    let entries = listing["entries"].as_array().unwrap();
    entries.iter().map(|entry| format!("{}{}", entry["name"].as_str().unwrap(), if entry["type"] == "folder" { "/" } else { "" })).collect()
}

fn told(server: &Server, target: &str) -> Vec<String> {
    let glue = if target.contains('?') { "&" } else { "?" };
    names(&json(&server.get(&format!("{target}{glue}format=json"))))
}

/// The addresses that the rows of a page lead to.
fn links(page: &str) -> Vec<String> {
    let rows = page.split_once("<tbody>").unwrap().1.split_once("</tbody>").unwrap().0;
    let links = rows.split("<a href=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    links.map(|link| link.replace("&amp;", "&").replace("&#39;", "'")).collect()
}

#[test]
fn a_folder_is_listed_only_if_it_was_asked_for() {
    let server = Server::start(&[]);
    for target in ["/bare/", "/bare/?format=json", "/bare/?download=tar"] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
    drop(server);
    let server = listed(Tree::site());
    let page = server.get("/bare/");
    assert_eq!((page.status, page.need("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.text().contains("<bdi>leaf.txt</bdi>"), "{}", page.text());
    assert_eq!(links(&page.text()), ["./leaf.txt"]);
    // a folder with an index, one without its slash, a file with one, and nothing are what they were
    assert!(server.get("/sub/").text().contains("<title>sub</title>"));
    assert!(server.get("/?format=json").text().contains("<title>home</title>"));
    assert_eq!(server.get("/bare?sort=size").need("location"), "/bare/?sort=size");
    for target in ["/hello.txt/", "/missing/", "/.git/", "/sub/.git/"] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
    for args in [&["--listing=yes"][..], &["--listing-limit", "0"], &["--listing-page", "x"], &["--readme-limit", "0"]] {
        assert_eq!(Builder::new(args).tree(Tree::site()).run().code, Some(2), "{args:?}");
    }
    drop(server);
    let server = Builder::new(&[]).env("MILLPOND_LISTING", "true").start();
    assert_eq!(server.get("/bare/").status, 200);
}

#[test]
fn the_fields_of_a_listing() {
    let server = listed(Tree::site());
    for (target, kind) in [("/bare/", "text/html; charset=utf-8"), ("/bare/?format=json", "application/json")] {
        let answer = server.get(target);
        assert_eq!(answer.status, 200);
        for (field, value) in [("content-type", kind), ("cache-control", "no-cache"), ("vary", "Accept, Accept-Encoding")] {
            assert_eq!(answer.need(field), value, "{target}");
        }
        assert!(answer.need("content-security-policy").starts_with("default-src 'none'"), "{target}");
        let head = server.connect().head(target);
        assert_eq!(head.fields_but_date(), answer.fields_but_date(), "{target}");
        let etag = answer.need("etag").to_owned();
        assert!(etag.starts_with("W/\""), "{etag}");
        let again = server.connect().get_with(target, &format!("If-None-Match: {etag}\r\n"));
        assert_eq!((again.status, again.need("etag"), again.need("vary")), (304, &etag[..], "Accept, Accept-Encoding"), "{target}");
        // there is no date: a condition on one changes nothing
        for field in ["If-Modified-Since", "If-Unmodified-Since"] {
            let fields = format!("{field}: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
            assert_eq!(server.connect().get_with(target, &fields).status, 200, "{target} {field}");
        }
        let failed = server.connect().get_with(target, &format!("If-Match: {etag}\r\n"));
        assert_eq!((failed.status, failed.need("vary")), (412, "Accept, Accept-Encoding"), "weak tags never match strongly");
        assert_eq!(server.connect().get_with(target, "If-Match: *\r\n").status, 200);
    }
    for (target, status) in [("/bare/?sort=colour", 400), ("/bare/?page=99", 404)] {
        let refused = server.get(target);
        assert_eq!((refused.status, refused.need("vary")), (status, "Accept, Accept-Encoding"), "{target}");
    }
    let by_accept = server.connect().get_with("/bare/", "Accept: application/json\r\n");
    assert_eq!(names(&json(&by_accept)), ["leaf.txt"]);
    server.tree().write("bare/new.txt", "");
    assert_eq!(told(&server, "/bare/"), ["leaf.txt", "new.txt"], "a change shows at once");
}

/// In every coding it is the same listing, so the weak tag is the same too.
#[test]
fn listings_come_in_the_coding_that_is_accepted() {
    let tree = Tree::empty();
    (0..1000).for_each(|i| tree.write(format!("file {i}"), ""));
    tree.write("few/x", "");
    let server = listed(tree);
    for target in ["/", "/?format=json"] {
        let plain = server.get(target);
        assert_eq!(plain.field("content-encoding"), None, "{target}");
        let accepted = [
            ("gzip", Some("gzip")),
            ("br", Some("br")),
            ("gzip, deflate, br, zstd", Some("zstd")),
            ("gzip;q=0.5, identity", None),
            ("identity;q=0, gzip", Some("gzip")),
            ("deflate", None),
        ];
        for (accepts, coding) in accepted {
            let answer = server.connect().get_with(target, &format!("Accept-Encoding: {accepts}\r\n"));
            assert_eq!((answer.status, answer.field("content-encoding")), (200, coding), "{target} {accepts}");
            assert_same_bytes(&decoded(coding, &answer.body), &plain.body, accepts);
            assert!(coding.is_none() || answer.body.len() < plain.body.len() / 6, "{} of {}", answer.body.len(), plain.body.len());
            for field in ["etag", "vary", "content-type"] {
                assert_eq!(answer.need(field), plain.need(field), "{target} {accepts}");
            }
            let head = server.connect().head_with(target, &format!("Accept-Encoding: {accepts}\r\n"));
            assert_eq!(head.fields_but_date(), answer.fields_but_date(), "{target} {accepts}");
            let fields = format!("Accept-Encoding: {accepts}\r\nIf-None-Match: {}\r\n", plain.need("etag"));
            let again = server.connect().get_with(target, &fields);
            assert_eq!((again.status, again.field("content-encoding")), (304, None), "{target} {accepts}");
        }
        let nothing = server.connect().get_with(target, "Accept-Encoding: identity;q=0\r\n");
        assert_eq!((nothing.status, nothing.need("vary")), (406, "Accept, Accept-Encoding"), "{target}");
    }
    let small = server.connect().get_with("/few/?format=json", "Accept-Encoding: gzip\r\n");
    assert_eq!((small.status, small.field("content-encoding")), (200, None), "it is smaller than --compress-min");
    let off = Builder::new(&["--listing", "--compress", "off"]).root(server.tree().root()).start();
    assert_eq!(off.connect().get_with("/", "Accept-Encoding: gzip\r\n").field("content-encoding"), None);
}

#[test]
fn the_page_runs_nothing_but_its_own_script() {
    let server = listed(Tree::site());
    let page = server.get("/bare/");
    let (policy, text) = (page.need("content-security-policy").to_owned(), page.text());
    for (element, sources) in [("style", "style-src"), ("script", "script-src")] {
        let (start, end) = (format!("<{element}>"), format!("</{element}>"));
        assert_eq!((text.matches(&format!("<{element}")).count(), text.matches(&end).count()), (1, 1), "one {element}");
        let inner = text.split_once(&start).unwrap().1.split_once(&end).unwrap().0;
        let hash = STANDARD.encode(Sha256::digest(inner));
        assert!(policy.contains(&format!("{sources} 'sha256-{hash}';")), "{sources} in {policy}");
    }
    for directive in ["default-src 'none'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'", "img-src data:"] {
        assert!(policy.split("; ").any(|part| part == directive), "{directive} in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for stopped in [" style=\"", " onclick=", "javascript:", "src=\"", "http://", "https://"] {
        assert!(
            !text
                .replace("http://www.w3.org/2000/svg", "")
                .replace("http://127.", "")
                .replace("xmlns='http://www.w3.org", "")
                .contains(stopped),
            "{stopped}"
        );
    }
    assert!(!text.contains("{{") && !text.contains("}}"), "a place was left unfilled");
    // what comes into a live region that is not rendered is not read out
    let hidden = |rule: &&str| rule.contains("#say") && ["display:none", "visibility:hidden"].iter().any(|how| rule.contains(how));
    assert_eq!(text.split('}').find(hidden), None);
}

#[test]
fn no_name_gets_out_of_its_place() {
    let tree = Tree::empty();
    let plain = Tree::empty();
    let wanted = hostile_names();
    for (i, name) in wanted.iter().enumerate() {
        fs::write(tree.path(OsStr::from_bytes(name)), name).unwrap();
        plain.write(format!("plain-{i}"), "");
        let inside = format!("in-{i}");
        tree.write(format!("{inside}/x"), "");
        plain.write(format!("{inside}/x"), "");
        // and as a folder, in headings and in the way up
        fs::create_dir_all(tree.path(&inside).join(OsStr::from_bytes(name)).join("deep")).unwrap();
        plain.write(format!("{inside}/plain/deep/.keep"), "");
    }
    let server = listed(tree);
    let plain = listed(plain);
    // the same marks of HTML as with plain names: no name has opened or closed anything
    let marks = |page: &Response| [b'<', b'>', b'"'].map(|mark| page.body.iter().filter(|&&byte| byte == mark).count());
    let page = server.get("/");
    assert_eq!(marks(&page), marks(&plain.get("/")));
    let addresses: Vec<String> = links(&page.text()).into_iter().filter(|link| !link.ends_with('/')).collect();
    assert_eq!(addresses.len(), wanted.len());
    let mut client = server.connect();
    let mut found: BTreeSet<Vec<u8>> = BTreeSet::new();
    for address in &addresses {
        assert!(address.starts_with("./") && address.bytes().all(|byte| byte.is_ascii_graphic()), "{address}");
        let answer = client.get(&address[1..]);
        assert_eq!(answer.status, 200, "{address}");
        found.insert(answer.body);
    }
    assert_eq!(found, wanted.iter().cloned().collect(), "each link leads to its file");

    let listing = json(&server.get("/?format=json"));
    let entries = listing["entries"].as_array().unwrap();
    for name in &wanted {
        let entry = entries.iter().find(|entry| entry["name"] == *String::from_utf8_lossy(name)).expect("each is told");
        assert_eq!(client.get(entry["path"].as_str().unwrap()).body, *name);
    }

    let folders = entries.iter().filter(|entry| entry["type"] == "folder");
    for (i, folder) in folders.enumerate() {
        let path = folder["path"].as_str().unwrap();
        let inner = json(&client.get(&format!("{path}?format=json")));
        let inner = inner["entries"][0]["path"].as_str().unwrap();
        let page = client.get(inner);
        assert_eq!(page.status, 200, "{inner}");
        assert_eq!(marks(&page), marks(&plain.get(&format!("/in-{i}/plain/"))), "{inner}");
        assert_eq!(client.get(&format!("{inner}deep/")).status, 200, "{inner}");
    }
    // and what is searched for comes back as text
    for (search, hits) in [("%3Cimg%20src=x", 1), ("%22%3E%3Cscript", 1), ("{{rows}}", 1), ("%3Cb%3E", 0)] {
        let page = client.get(&format!("/?q={search}"));
        assert_eq!((page.status, links(&page.text()).len()), (200, hits), "{search}");
        let first = client.get(&format!("/?q={}", if hits == 1 { "C:evil" } else { "nowhere" }));
        assert_eq!(marks(&page), marks(&first), "{search}");
    }
}

#[test]
fn what_may_not_be_fetched_is_not_told() {
    let tree = Tree::empty();
    for name in [".hidden", ".git/config", ".well-known/acme.txt", "a/.well-known/x", "a/.env", "seen.txt", "a/seen.txt", "back\\slash"] {
        tree.write(name, "");
    }
    let secret = tree.outside("secret.txt");
    tree.symlink(&secret, "out-absolute");
    tree.symlink("../secret.txt", "out-relative");
    tree.symlink("..", "out-folder");
    tree.symlink("/proc/self/environ", "out-magic");
    tree.symlink("loop", "loop");
    tree.symlink("nowhere", "dangling");
    tree.symlink("/dev/zero", "device");
    tree.symlink("seen.txt", "in-file");
    tree.symlink("a", "in-folder");
    symlink(tree.root().canonicalize().unwrap().join("a/seen.txt"), tree.path("in-absolute")).unwrap();
    rustix::fs::mknodat(CWD, tree.path("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = UnixListener::bind(tree.path("socket")).unwrap();
    tree.write("uploads/stored.txt", "uploaded");
    let server = listed(tree);
    assert_eq!(told(&server, "/"), [".well-known/", "a/", "in-folder/", "in-absolute", "in-file", "seen.txt"]);
    assert_eq!(told(&server, "/a/"), ["seen.txt"]);
    assert_eq!(told(&server, "/in-folder/"), ["seen.txt"]);
    // all that is told can be fetched, and nothing else is in the page
    let page = server.get("/");
    for link in links(&page.text()) {
        assert_eq!(server.get(&link[1..]).status, 200, "{link}");
    }
    for name in ["out-", "loop", "dangling", "device", "fifo", "socket", ".hidden", ".git", "uploads", "slash"] {
        assert!(!page.text().split_once("<tbody>").unwrap().1.split_once("</tbody>").unwrap().0.contains(name), "{name}");
    }
    assert_eq!(server.get("/out-folder/").status, 404);
    drop(server);
    let tree = Tree::empty();
    tree.write("uploads/x", "");
    tree.write("data/in/x", "");
    let server = Builder::new(&["--listing", "--uploads", tree.path("data/in").to_str().unwrap()]).tree(tree).start();
    assert_eq!(told(&server, "/"), ["data/"], "at /uploads/ is something else, too");
    assert_eq!(told(&server, "/data/"), Vec::<String>::new());
    assert_eq!(server.get("/data/in/").status, 404);
    drop(server);
    let tree = Tree::empty();
    tree.write("uploads/x", "");
    let server = Builder::new(&["--listing", "--uploads", "off"]).tree(tree).start();
    assert_eq!(told(&server, "/"), ["uploads/"], "a folder like any other");
    assert_eq!(told(&server, "/uploads/"), ["x"]);
}

#[test]
fn what_the_server_may_not_read_is_not_told() {
    let Some(wrapper) = without_privilege() else {
        eprintln!("skipped: root keeps the right to read everything here");
        return;
    };
    let tree = Tree::empty();
    for name in [
        "open.txt",
        "closed.txt",
        "open/x",
        "closed/x",
        "unlistable/x",
        "unsearchable/x",
        "locked-root/x",
        "shut/index.html",
        "home/index.html",
    ] {
        tree.write(name, "");
    }
    for (name, mode) in
        [("closed.txt", 0o000), ("closed", 0o000), ("unlistable", 0o300), ("unsearchable", 0o600), ("shut/index.html", 0o000)]
    {
        set_mode(&tree.path(name), mode);
    }
    let folders = ["closed", "unlistable", "unsearchable"].map(|name| tree.path(name));
    let server = Builder::new(&["--listing"]).tree(tree).through(&wrapper).start();
    assert_eq!(told(&server, "/"), ["home/", "locked-root/", "open/", "open.txt"]);
    for target in ["/closed/", "/unlistable/", "/closed.txt", "/shut/"] {
        assert_eq!(server.get(target).status, 403, "{target}");
    }
    folders.iter().for_each(|folder| set_mode(folder, 0o700));
}

#[test]
fn order_by_links() {
    let tree = Tree::empty();
    for (name, len) in [("b10.txt", 3), ("B9.txt", 30), ("a.txt", 300), ("z/x", 0), ("Y/x", 0)] {
        tree.write(name, vec![b'x'; len]);
    }
    for (name, modified_s) in [("b10.txt", 3), ("B9.txt", 1), ("a.txt", 2), ("z", 5), ("Y", 4)] {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(modified_s);
        fs::File::open(tree.path(name)).unwrap().set_modified(time).unwrap();
    }
    let server = listed(tree);
    let rows = [
        ("/", "Y/ z/ a.txt B9.txt b10.txt"),
        ("/?sort=name&order=desc", "z/ Y/ b10.txt B9.txt a.txt"),
        ("/?sort=size", "Y/ z/ b10.txt B9.txt a.txt"),
        ("/?sort=size&order=desc", "Y/ z/ a.txt B9.txt b10.txt"),
        ("/?sort=time", "Y/ z/ B9.txt a.txt b10.txt"),
        ("/?sort=time&order=desc", "z/ Y/ b10.txt a.txt B9.txt"),
        ("/?q=B", "B9.txt b10.txt"),
        ("/?q=.TXT&sort=size", "b10.txt B9.txt a.txt"),
    ];
    for (target, expected) in rows {
        assert_eq!(told(&server, target).join(" "), expected, "{target}");
    }
    // the heads of the columns are links to these orders, and say which one it is
    for (target, sorted, expected) in [
        ("/", ["ascending", "", ""], ["?sort=name&order=desc", "?sort=size&order=desc", "?sort=time&order=desc"]),
        ("/?sort=size&order=desc&q=b", ["", "descending", ""], ["?q=b", "?sort=size&order=asc&q=b", "?sort=time&order=desc&q=b"]),
    ] {
        let page = server.get(target).text();
        let head = page.split_once("<thead>").unwrap().1.split_once("</thead>").unwrap().0;
        let heads: Vec<&str> = head.split("<th scope=\"col\"").skip(1).collect();
        for ((head, sorted), link) in heads.iter().zip(sorted).zip(expected) {
            assert!(head.contains(&format!("<a href=\"{}\">", link.replace('&', "&amp;"))), "{target}: {head}");
            assert_eq!(head.contains("aria-sort"), !sorted.is_empty(), "{target}: {head}");
            assert!(head.contains(&format!("aria-sort=\"{sorted}\"")) || sorted.is_empty(), "{target}: {head}");
        }
    }
    for target in ["/?sort=colour", "/?order=up", "/?page=0", "/?page=x", "/?format=xml"] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.closes()), (400, false), "{target}");
    }
    assert_eq!(server.get("/?page=2").status, 404);
}

/// The script filters the rows that are there, so it has to be told when there are others.
#[test]
fn what_is_searched_for_leads_back_to_all() {
    let tree = Tree::empty();
    for name in ["plan 1", "plan 2", "other", "docs/x"] {
        tree.write(name, "");
    }
    let server = listed(tree);
    let all_of = |page: &str| page.split_once(" data-all=\"").unwrap().1.split_once('"').unwrap().0.to_owned();
    let page = server.get("/").text();
    assert_eq!((all_of(&page).as_str(), page.contains("Show all")), ("", false));
    for (target, found, back) in [
        ("/?q=plan", 2, "?"),
        ("/?q=nowhere", 0, "?"),
        ("/?sort=size&order=desc&q=plan", 2, "?sort=size&amp;order=desc"),
        ("/?q=docs", 1, "?"),
        ("/?q=docs/", 0, "?"),
    ] {
        let page = server.get(target).text();
        assert_eq!((links(&page).len(), all_of(&page).as_str()), (found, "4"), "{target}");
        assert!(page.contains(&format!("<a href=\"{back}\">Show all</a>")), "{target}: {page}");
    }
    let small = Builder::new(&["--listing", "--listing-page", "3"]).root(server.tree().root()).start();
    assert_eq!(all_of(&small.get("/").text()), "4", "the others are on another page");
}

#[test]
fn the_folders_above_are_reached_whatever_the_address_looks_like() {
    let tree = Tree::empty();
    tree.write("a/b/c/x", "");
    let server = listed(tree);
    for (target, expected) in [
        ("/a/b/c/", ["../../../", "../../", "../"]),
        ("/a//b/c/?sort=size", ["../../../../", "../../../", "../"]),
        ("//a/b/c///", ["../../../../../../", "../../../../", "../../../"]),
    ] {
        let page = server.get(target).text();
        let above = page.split_once("<ol").unwrap().1.split_once("</ol>").unwrap().0;
        let links: Vec<&str> = above.split("<a href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(links, expected, "{target}");
    }
}

#[test]
fn every_page_has_a_title_of_its_own() {
    let tree = Tree::empty();
    for name in ["a", "b", "c", "docs/x", "a & b/x"] {
        tree.write(name, "");
    }
    let server = Builder::new(&["--listing", "--listing-page", "2"]).tree(tree).start();
    let raw = |request: &str| {
        let mut client = server.connect();
        client.send(request);
        client.answer()
    };
    let title = |page: &str| page.split_once("<title>").unwrap().1.split_once("</title>").unwrap().0.to_owned();
    for (target, expected) in [
        ("/", "files.example:81, page 1 of 3"),
        ("/?page=2", "files.example:81, page 2 of 3"),
        ("/?q=a", "\u{201c}a\u{201d} in files.example:81"),
        ("/docs/", "docs"),
        ("/a%20&%20b/", "a &amp; b"),
    ] {
        let answer = raw(&format!("GET {target} HTTP/1.1\r\nHost: files.example:81\r\n\r\n"));
        assert_eq!(title(&answer.text()), expected, "{target}");
    }
    let nameless = raw("GET /docs/../ HTTP/1.0\r\n\r\n");
    assert_eq!(title(&nameless.text()), "Files, page 1 of 3");
}

#[test]
fn an_empty_folder_has_nothing_to_filter_or_to_download() {
    let tree = Tree::empty();
    fs::create_dir(tree.path("empty")).unwrap();
    let server = Builder::new(&["--listing", "--archive", "--uploads", "off"]).tree(tree).start();
    for (target, has_tools) in [("/", true), ("/?q=nowhere", true), ("/empty/", false), ("/empty/?q=x", false)] {
        let page = server.get(target).text();
        assert_eq!(page.contains("<div class=\"tools\" hidden>"), !has_tools, "{target}");
        assert_eq!(page.contains("?download=zip"), has_tools, "{target}");
    }
}

#[test]
fn pages_at_their_bound() {
    for (files, pages) in [(4, 1), (5, 1), (6, 2), (10, 2), (11, 3)] {
        let tree = Tree::empty();
        (0..files).for_each(|i| tree.write(format!("f{i}"), ""));
        let server = Builder::new(&["--listing", "--listing-page", "5"]).tree(tree).start();
        let mut all = Vec::new();
        for page in 1..=pages {
            let listing = json(&server.get(&format!("/?format=json&page={page}")));
            assert_eq!((&listing["page"], &listing["pages"], &listing["total"]), (&page.into(), &pages.into(), &files.into()));
            all.extend(names(&listing));
            let html = server.get(&format!("/?page={page}")).text();
            assert_eq!(html.contains("rel=\"next\""), page < pages, "{files} files, page {page}");
            assert_eq!(html.contains("rel=\"prev\""), page > 1, "{files} files, page {page}");
            assert_eq!(html.contains("aria-current=\"page\""), pages > 1);
        }
        assert_eq!(all, (0..files).map(|i| format!("f{i}")).collect::<Vec<_>>());
        assert_eq!(server.get(&format!("/?page={}", pages + 1)).status, 404, "{files} files");
    }
}

#[test]
fn entries_at_their_bound() {
    for (files, told_files) in [(4, 4), (5, 5), (6, 5)] {
        let tree = Tree::empty();
        (0..files).for_each(|i| tree.write(format!("f{i}"), ""));
        let server = Builder::new(&["--listing", "--listing-limit", "5", "--uploads", "off"]).tree(tree).start();
        let listing = json(&server.get("/?format=json"));
        assert_eq!((names(&listing).len(), &listing["complete"]), (told_files, &(files <= 5).into()), "{files} files");
        assert_eq!(server.get("/").text().contains("Only the first 5 entries"), files > 5, "{files} files");
    }
}

#[test]
fn a_readme_is_shown_as_text() {
    let tree = Tree::empty();
    tree.write("README", "plain");
    tree.write("a/ReadMe.md", "<b>bold</b> & \u{20ac}\n");
    tree.write("b/README.txt", b"\xFF\xFE</pre><script>alert(1)</script>");
    tree.write("c/README/x", "");
    tree.write("d/readme.TXT", "");
    tree.write("d/README.md", "first");
    tree.write("f/README", "\u{202E}one\r\n\ttwo\x1B[31m\0\n");
    fs::create_dir(tree.path("e")).unwrap();
    symlink(tree.outside("secret.txt"), tree.path("e/README")).unwrap();
    let server = listed(tree);
    let shown = |target: &str| {
        let page = server.get(target).text();
        page.split_once("<pre>\n").map(|(_, rest)| rest.split_once("</pre>").unwrap().0.to_owned())
    };
    assert_eq!(shown("/").as_deref(), Some("plain"));
    assert_eq!(shown("/a/").as_deref(), Some("&lt;b&gt;bold&lt;/b&gt; &amp; \u{20ac}\n"));
    assert_eq!(shown("/b/").as_deref(), Some("\u{FFFD}\u{FFFD}&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert_eq!(shown("/c/"), None, "a folder is no text");
    assert_eq!(shown("/d/").as_deref(), Some("first"));
    assert_eq!(shown("/e/"), None, "not out of the root");
    assert_eq!(shown("/f/").as_deref(), Some("\u{FFFD}one\n\ttwo\u{241B}[31m\u{2400}\n"), "nothing that is not seen");
    assert_eq!(shown("/?q=x"), None, "not below what was searched for");
    // at its bound, and a character that the bound cuts in two
    for (text, expected) in [("abc", "abc"), ("abcd", "abcd"), ("abcde", "abcd"), ("ab\u{20ac}c", "ab")] {
        let tree = Tree::empty();
        tree.write("README", text);
        let server = Builder::new(&["--listing", "--readme-limit", "4"]).tree(tree).start();
        let page = server.get("/").text();
        let shown = page.split_once("<pre>\n").unwrap().1.split_once("</pre>").unwrap().0;
        assert_eq!((shown, page.contains("only its beginning")), (expected, text.len() > 4), "{text}");
    }
}

#[test]
fn many_entries_come_by_pages() {
    const FILES: usize = 50_000;
    let tree = Tree::empty();
    fs::create_dir(tree.path("many")).unwrap();
    for i in 0..FILES {
        rustix::fs::mknodat(CWD, tree.path(format!("many/file {i}")), FileType::RegularFile, Mode::RUSR, 0).unwrap();
    }
    let server = listed(tree);
    let page = server.get("/many/");
    assert_eq!(page.status, 200);
    assert!(page.body.len() < 400_000, "{} bytes for a page", page.body.len());
    assert!(page.text().contains("50,000 files") && page.text().contains("aria-label=\"Page 50\""), "all are counted");
    assert_eq!(told(&server, "/many/?page=50").last().unwrap(), "file 49999");
    assert_eq!(told(&server, "/many/?q=file%2049999"), ["file 49999"]);
    let large = Builder::new(&["--listing", "--listing-page", "5000"]).root(server.tree().root()).start();
    let mut client = large.connect();
    let mut all = Vec::with_capacity(FILES);
    for page in 1..=10 {
        let listing = json(&client.get(&format!("/many/?format=json&page={page}")));
        let names = names(&listing);
        assert_eq!((names.len(), &listing["complete"]), (5000, &true.into()));
        all.extend(names);
    }
    let in_order = (0..FILES).map(|i| format!("file {i}"));
    assert!(all.into_iter().eq(in_order), "all of them, once each, and in order");
}

/// Whoever reads a folder while it changes sees some state of each entry, and never an error.
#[test]
fn a_folder_that_changes_meanwhile() {
    let tree = Tree::empty();
    (0..50).for_each(|i| tree.write(format!("f/stays-{i:02}"), ""));
    let folder = tree.path("f");
    let server = listed(tree);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let (file, link) = (folder.join(format!("comes-{}", round % 7)), folder.join("link"));
                _ = fs::write(&file, "x");
                _ = symlink(if round % 2 == 0 { "stays-00" } else { "../../secret.txt" }, &link);
                _ = fs::rename(&file, folder.join("moved"));
                _ = fs::remove_file(&link);
                _ = fs::remove_file(folder.join("moved"));
                _ = fs::create_dir(&link);
                _ = fs::remove_dir(&link);
            }
        });
        let mut client = server.connect();
        for _ in 0..200 {
            let names = names(&json(&client.get("/f/?format=json")));
            assert_eq!(names.iter().filter(|name| name.starts_with("stays-")).count(), 50, "{names:?}");
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn links_to_folders_inside_are_walked() {
    let tree = Tree::empty();
    tree.write("a/b/x", "");
    tree.symlink("a/b", "in");
    tree.symlink("..", "out");
    let root = tree.root().canonicalize().unwrap();
    symlink(root.join("a"), tree.path("in-absolute")).unwrap();
    let server = listed(tree);
    assert_eq!(told(&server, "/"), ["a/", "in/", "in-absolute/"]);
    assert_eq!(told(&server, "/in-absolute/b/"), ["x"], "an absolute link is walked");
}
