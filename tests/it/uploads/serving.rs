//! How uploaded files are served: as things to be looked at or kept, never as a part of the site.

use std::fs;

use super::{folder, listing, post_named, receipt};
use crate::client::Response;
use crate::harness::{Builder, HELLO, SECRET, Server, Tree};

#[track_caller]
fn assert_contained(answer: &Response, name: &str) {
    assert_eq!(answer.need("content-security-policy"), "sandbox; default-src 'none'", "{name}");
    assert_eq!(answer.need("cache-control"), "no-store", "{name}");
    assert_eq!(answer.need("x-content-type-options"), "nosniff", "{name}");
}

#[test]
fn fields_by_type() {
    let server = Server::start(&[]);
    // The name, and whether a browser may show it in its place.
    let rows = [
        ("page.html", false),
        ("page.htm", false),
        ("PAGE.HTML", false),
        ("page.xhtml", false),
        ("page.shtml", false),
        ("drawing.svg", false),
        ("DRAWING.SVG", false),
        ("drawing.svgz", false),
        ("data.xml", false),
        ("style.xsl", false),
        ("feed.rss", false),
        ("app.js", false),
        ("app.mjs", false),
        ("style.css", false),
        ("data.json", false),
        ("table.csv", false),
        ("paper.pdf", false),
        ("code.wasm", false),
        ("pack.zip", false),
        ("site.webmanifest", false),
        ("unknown.unheard-of", false),
        ("README", false),
        ("a.txt.html", false),
        ("page.html.unheard-of", false),
        ("a.png", true),
        ("A.PNG", true),
        ("a.jpg", true),
        ("a.gif", true),
        ("a.webp", true),
        ("a.avif", true),
        ("a.mp4", true),
        ("a.webm", true),
        ("a.mp3", true),
        ("a.ogg", true),
        ("a.flac", true),
        ("a.txt", true),
        ("page.html.txt", true),
    ];
    for (name, shown) in rows {
        let content = format!("<script>alert('{name}')</script>");
        let path = receipt(&post_named(&server, name, &content), name).files[0].path.clone();
        let mut client = server.connect();
        let whole = client.get(&path);
        let head = client.head(&path);
        let part = client.get_with(&path, "Range: bytes=0-3\r\n");
        assert_eq!((whole.status, whole.text()), (200, content), "{name}");
        assert_eq!((head.status, head.fields_but_date()), (200, whole.fields_but_date()), "{name}: HEAD");
        assert!([200, 206].contains(&part.status), "{name}: {}", part.status);
        let answers = [("GET", whole.clone()), ("HEAD", head), ("a range", part)];
        let conditions = [
            whole.field("etag").map(|etag| format!("If-None-Match: {etag}\r\n")),
            whole.field("last-modified").map(|date| format!("If-Modified-Since: {date}\r\n")),
        ];
        for condition in conditions.into_iter().flatten() {
            let answer = client.get_with(&path, &condition);
            if answer.status == 304 {
                // It has no content, and changes nothing of what the first answer said.
                assert_eq!(answer.need("cache-control"), "no-store", "{name}: 304");
            } else {
                assert_contained(&answer, &format!("{name}, {condition:?}"));
            }
        }
        for (way, answer) in &answers {
            let name = format!("{name}, {way}");
            assert_contained(answer, &name);
            match answer.field("content-disposition") {
                None => assert!(shown, "{name}: shown in its place"),
                Some(value) => {
                    assert!(!shown, "{name}: {value}");
                    assert!(value == "attachment" || value.starts_with("attachment;"), "{name}: {value}");
                }
            }
        }
        let impossible = client.get_with(&path, "Range: bytes=99999-\r\n");
        assert!([200, 416].contains(&impossible.status), "{name}: {}", impossible.status);
        assert_eq!(impossible.need("cache-control"), "no-store", "{name}: 416");
    }
}

/// Plain text is text whatever it holds, with a charset; the others have their own type.
#[test]
fn types_are_told_as_ever() {
    let server = Server::start(&[]);
    let rows = [
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.png", "image/png"),
        ("a.mp4", "video/mp4"),
        ("a.pdf", "application/pdf"),
        ("A", "application/octet-stream"),
    ];
    for (name, kind) in rows {
        let path = receipt(&post_named(&server, name, "<b>"), name).files[0].path.clone();
        assert_eq!(server.get(&path).need("content-type"), kind, "{name}");
    }
}

/// The rules hold for files that were put there by hand, and by whatever way around the address is written.
#[test]
fn no_way_around() {
    let tree = Tree::site();
    tree.write("uploads/page.html", "<script>alert(1)</script>");
    tree.write("uploads/app.3f9c2b1a.js", "alert(1)");
    let server = Builder::new(&["--immutable", "on"]).tree(tree).start();
    let targets = [
        "/uploads/page.html",
        "/uploads//page.html",
        "//uploads/page.html",
        "/./uploads/page.html",
        "/sub/../uploads/page.html",
        "/uploads/x/../page.html",
        "/uploads/./page.html",
        "/%75ploads/page.html",
        "/uploads/%70age.html",
        "/uploads/page.html?x=y",
        "/uploads/app.3f9c2b1a.js",
    ];
    for target in targets {
        let answer = server.get(target);
        if answer.status == 200 {
            assert_contained(&answer, target);
            assert!(answer.need("content-disposition").starts_with("attachment"), "{target}");
        } else {
            assert!([301, 308, 400, 404].contains(&answer.status), "{target}: {}", answer.status);
        }
    }
    for target in ["/uploads/page", "/uploads/page/", "/uploads/page.html/", "/uploads", "/Uploads/page.html"] {
        let answer = server.get(target);
        assert!(!answer.text().contains("alert(1)"), "{target}: {}", answer.status);
    }
    // The site around it is as it was.
    let page = server.get("/sub/page.html");
    assert_eq!((page.field("content-disposition"), page.field("content-security-policy")), (None, None));
}

/// A folder with a name of its own below the root: its files are uploads by whichever address they are reached.
#[test]
fn a_named_folder_below_the_root_is_no_way_around() {
    let tree = Tree::site();
    let given = tree.path("drop");
    fs::create_dir(&given).unwrap();
    fs::write(given.join("page.html"), "<script>alert(1)</script>").unwrap();
    let root = tree.root();
    let mut server = Builder::new(&["--uploads"]).arg(&given).root(&root).start();
    assert_contained(&server.get("/uploads/page.html"), "by the address of uploads");
    for target in ["/drop/page.html", "/sub/../drop/page.html", "/drop/"] {
        let answer = server.get(target);
        if answer.status == 200 {
            assert_contained(&answer, target);
        }
    }
    assert!(server.is_running());
}

#[test]
fn no_file_has_a_special_effect() {
    let tree = Tree::site();
    for name in
        ["index.html", "404.html", "50x.html", "error.html", ".hidden", ".htaccess", "about.html", "foo.txt", "_headers", "_redirects"]
    {
        tree.write(format!("uploads/{name}"), format!("EFFECT of {name}"));
    }
    for sidecar in ["foo.txt.gz", "foo.txt.br", "foo.txt.zst", "index.html.gz"] {
        tree.write(format!("uploads/{sidecar}"), format!("EFFECT of {sidecar}"));
    }
    let server = Server::serving(tree);
    let page = server.get("/uploads/");
    assert!(!page.text().contains("EFFECT"), "an index: {}", page.text());
    for target in ["/uploads/nowhere.txt", "/uploads/about", "/uploads/.hidden", "/uploads/.htaccess", "/uploads/index.html/", "/nowhere"] {
        let answer = server.get(target);
        assert_eq!(answer.status, 404, "{target}");
        assert!(!answer.text().contains("EFFECT"), "{target}: {}", answer.text());
    }
    for coding in ["gzip", "br", "zstd", "gzip, br, zstd", "*"] {
        let mut client = server.connect();
        let answer = client.get_with("/uploads/foo.txt", &format!("Accept-Encoding: {coding}\r\n"));
        assert_eq!((answer.status, answer.field("content-encoding")), (200, None), "{coding}");
        assert_eq!(answer.text(), "EFFECT of foo.txt", "{coding}");
    }
    for name in ["index.html", "404.html", "foo.txt.gz", "_headers"] {
        let answer = server.get(&format!("/uploads/{name}"));
        assert_eq!((answer.status, answer.text()), (200, format!("EFFECT of {name}")), "a file as any other");
        assert_eq!(answer.field("content-encoding"), None, "{name}");
        assert_contained(&answer, name);
    }
    assert_eq!(server.get("/").text(), "<!doctype html><title>home</title>\n");
    // Uploaded under those names, they are files too.
    for name in ["index.html", "404.html", "foo.txt.gz", ".hidden"] {
        let stored = receipt(&post_named(&server, name, "uploaded"), name);
        assert_eq!(server.get(&stored.files[0].path).text(), "uploaded", "{name}");
    }
    assert!(!server.get("/uploads/").text().contains("EFFECT"));
}

/// There are no folders below it, and no links that lead out of it.
#[test]
fn only_plain_files_in_the_folder_are_served() {
    let tree = Tree::site();
    tree.write("uploads/sub/inside.txt", "in a folder");
    tree.write("uploads/sub/index.html", "an index in a folder");
    tree.symlink(tree.outside("secret.txt"), "uploads/link.txt");
    tree.symlink("/etc/passwd", "uploads/passwd");
    tree.symlink(tree.outside(""), "uploads/outside");
    let server = Server::serving(tree);
    for target in [
        "/uploads/sub/inside.txt",
        "/uploads/sub/",
        "/uploads/sub",
        "/uploads/sub/index.html",
        "/uploads/link.txt",
        "/uploads/passwd",
        "/uploads/outside/secret.txt",
        "/uploads/sub/../../../secret.txt",
    ] {
        let answer = server.get(target);
        assert!([400, 404].contains(&answer.status), "{target}: {}", answer.status);
        assert!(!answer.text().contains(SECRET) && !answer.text().contains("in a folder"), "{target}");
    }
    // A way out of it is a way to the site.
    assert_eq!(server.get("/uploads/../hello.txt").text(), HELLO);
    assert_eq!(listing(&folder(&server)), ["link.txt", "outside", "passwd", "sub"]);
}

/// A file that the owner changes or takes away is as one of the site: seen within a second.
#[test]
fn the_owner_can_take_files_away() {
    let server = Server::start(&[]);
    receipt(&post_named(&server, "a.txt", "first"), "first");
    assert_eq!(server.get("/uploads/a.txt").text(), "first");
    fs::remove_file(folder(&server).join("a.txt")).unwrap();
    crate::harness::until("it is gone", || server.get("/uploads/a.txt").status == 404);
}
