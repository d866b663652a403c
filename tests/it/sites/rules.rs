//! Types, caching and fields that the operator sets.
//!
//! Classes of failure covered: header injection; fields that break the framing of messages.

use super::{BROWSER, assert_mistake, page, serve};
use crate::client::{Response, request};
use crate::harness::{Builder, Tree};

#[test]
fn types_by_extension() {
    let tree = Tree::site();
    for name in ["a.md", "a.MD", "a.foo", "a.wasm", "md"] {
        tree.write(name, "x".repeat(2_000));
    }
    let server =
        serve(tree, &["--mime", "md=text/markdown", "--mime", ".foo=application/x-foo;v=\"1\"", "--mime", "wasm=application/x-mine"]);
    for (target, kind) in [
        ("/a.md", "text/markdown; charset=utf-8"),
        ("/a.MD", "text/markdown; charset=utf-8"),
        ("/a.foo", "application/x-foo;v=\"1\""),
        ("/a.wasm", "application/x-mine"),
        ("/md", "application/octet-stream"),
        ("/hello.txt", "text/plain; charset=utf-8"),
    ] {
        assert_eq!(server.get(target).need("content-type"), kind, "{target}");
    }
    // Whether a coding is tried follows from the type.
    let mut client = server.connect();
    assert_eq!(client.get_with("/a.md", "Accept-Encoding: gzip\r\n").field("content-encoding"), Some("gzip"));
    assert_eq!(client.get_with("/a.wasm", "Accept-Encoding: gzip\r\n").field("content-encoding"), None);
    for value in ["md", "=text/plain", "md=", "md=text", "md=text/a\r\nX-B: c", "md=text/a b", "", "a/b=text/plain"] {
        assert_mistake(&["--mime", value], &["--mime"]);
    }
}

#[test]
fn caching_by_pattern() {
    let tree = Tree::site();
    tree.write("assets/app.3f9c2b1a.js", "hashed");
    tree.write("assets/deep/logo.svg", "<svg/>");
    let server = serve(
        tree,
        &[
            "--cache-control",
            "*=public, max-age=60",
            "--cache-control",
            "*.html=no-cache, must-revalidate",
            "--cache-control",
            "/assets/**=max-age=86400",
        ],
    );
    let mut client = server.connect();
    for (target, value) in [
        ("/hello.txt", "public, max-age=60"),
        ("/", "no-cache, must-revalidate"),
        ("/sub/", "no-cache, must-revalidate"),
        ("/sub/page.html", "no-cache, must-revalidate"),
        ("/assets/app.3f9c2b1a.js", "max-age=86400"),
        ("/assets/deep/logo.svg", "max-age=86400"),
    ] {
        let answer = client.get(target);
        assert_eq!((answer.status, answer.need("cache-control")), (200, value), "{target}");
        let etag = answer.need("etag").to_owned();
        let unchanged = client.get_with(target, &format!("If-None-Match: {etag}\r\n"));
        assert_eq!((unchanged.status, unchanged.need("cache-control")), (304, value), "{target}");
    }
    // Errors are never stored, whatever a rule says; redirects and uploads keep their own.
    assert_eq!(client.get("/nowhere.html").need("cache-control"), "no-store");
    assert_eq!(client.get("/sub").need("cache-control"), "no-cache");
    assert_eq!(client.get("/uploads/nothing").need("cache-control"), "no-store");
    for value in ["*.html", "*.html=", "a/b=no-cache", "*=max-age:1", "*=a\r\nX-B: c", "[=no-cache", ""] {
        assert_mistake(&["--cache-control", value], &["--cache-control"]);
    }
}

fn assert_fields(answer: &Response, expected: &[(&str, Option<&str>)], what: &str) {
    for (name, value) in expected {
        assert_eq!(answer.field(name), *value, "{what}: {name}");
    }
}

#[test]
fn fields_for_everything_and_by_pattern() {
    let tree = Tree::site();
    tree.write("404.html", page("lost"));
    tree.write("embed/frame.html", page("frame"));
    let server = serve(
        tree,
        &[
            "--header",
            "X-Frame-Options: DENY",
            "--header",
            "Content-Security-Policy: default-src 'self'; img-src *",
            "--header",
            "*.html X-Page: yes",
            "--header",
            "/embed/** X-Frame-Options: SAMEORIGIN",
        ],
    );
    let mut client = server.connect();
    let etag = client.get("/hello.txt").need("etag").to_owned();
    let (deny, csp) = (("x-frame-options", Some("DENY")), ("content-security-policy", Some("default-src 'self'; img-src *")));
    let rows = [
        ("/hello.txt", String::new(), 200, [deny, csp, ("x-page", None)]),
        ("/hello.txt", format!("If-None-Match: {etag}\r\n"), 304, [deny, csp, ("x-page", None)]),
        ("/hello.txt", "Range: bytes=0-1\r\n".into(), 206, [deny, csp, ("x-page", None)]),
        ("/hello.txt", "Range: bytes=0-1,5-6\r\n".into(), 206, [deny, csp, ("x-page", None)]),
        ("/hello.txt", "Range: bytes=99-\r\n".into(), 416, [deny, csp, ("x-page", None)]),
        ("/hello.txt", "If-Match: \"x\"\r\n".into(), 412, [deny, csp, ("x-page", None)]),
        ("/", String::new(), 200, [deny, csp, ("x-page", Some("yes"))]),
        ("/sub/page.html", String::new(), 200, [deny, csp, ("x-page", Some("yes"))]),
        ("/sub", String::new(), 301, [deny, csp, ("x-page", None)]),
        ("/nowhere", String::new(), 404, [deny, csp, ("x-page", None)]),
        ("/nowhere.html", String::new(), 404, [deny, csp, ("x-page", Some("yes"))]),
        ("/nowhere", "Accept: application/json\r\n".into(), 404, [deny, csp, ("x-page", None)]),
        ("/embed/frame.html", String::new(), 200, [("x-frame-options", Some("SAMEORIGIN")), csp, ("x-page", Some("yes"))]),
        ("/embed/nowhere", String::new(), 404, [("x-frame-options", Some("SAMEORIGIN")), csp, ("x-page", None)]),
    ];
    for (target, fields, status, expected) in &rows {
        let answer = client.get_with(target, fields);
        assert_eq!(answer.status, *status, "{target} {fields}");
        assert_fields(&answer, expected, &format!("{target} {fields}"));
        let head = client.head_with(target, fields);
        assert_fields(&head, &[expected[1]], &format!("HEAD {target}"));
    }
    assert_fields(&server.ask("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n"), &[deny, csp], "what is no request");
    assert_fields(&server.ask(request("POST", "/", "")), &[deny, csp], "405");
    // Uploads have their own.
    assert_fields(&client.get("/uploads/nothing"), &[("x-frame-options", None), ("content-security-policy", None)], "uploads");
}

/// A listing has a strict policy that its page was made for.
#[test]
fn fields_of_a_listing() {
    let server = serve(Tree::site(), &["--listing", "--header", "X-A: b", "--header", "Content-Security-Policy: default-src *"]);
    let answer = server.get("/bare/");
    assert_fields(&answer, &[("x-a", Some("b"))], "a listing");
    assert!(answer.need("content-security-policy").starts_with("default-src 'none'"), "{:?}", answer.fields);
    let etag = answer.need("etag").to_owned();
    let unchanged = server.connect().get_with("/bare/", &format!("If-None-Match: {etag}\r\n"));
    assert_eq!(unchanged.status, 304);
    assert_fields(&unchanged, &[("x-a", Some("b"))], "a listing that has not changed");
    assert_fields(&server.get("/bare/?page=0"), &[("x-a", Some("b"))], "a listing that is asked for wrongly");
}

#[test]
fn fields_of_an_app() {
    let server = serve(Tree::site(), &["--spa", "--header", "*.html X-Page: yes", "--cache-control", "*.html=no-store"]);
    let answer = server.connect().get_with("/login", BROWSER);
    assert_fields(&answer, &[("x-page", Some("yes")), ("cache-control", Some("no-store"))], "the app");
}

#[test]
fn fields_that_may_not_be_set() {
    let rows = [
        "Content-Length: 0",
        "content-length: 0",
        "Transfer-Encoding: chunked",
        "Connection: close",
        "Date: today",
        "Content-Range: bytes 0-1/2",
        "Content-Encoding: gzip",
        "ETag: \"1\"",
        "Location: /",
        "*.html Upgrade: h2c",
    ];
    for value in rows {
        assert_mistake(&["--header", value], &["--header", "set by the server itself"]);
    }
    assert_mistake(&["--header", "Content-Type: text/html"], &["--header", "--mime"]);
    assert_mistake(&["--header", "Cache-Control: no-store"], &["--header", "--cache-control"]);
    let rows = [
        "",
        "X-A",
        "X-A:",
        ": b",
        "X(A): b",
        "X-A : b",
        "X-A: a\r\nSet-Cookie: b=c",
        "X-A: a\nSet-Cookie",
        "X-A: a\rb",
        "X-A\r\n: b",
        "X-A: \u{e9}",
        "X-A: a\u{7f}",
        "a/b X-A: b",
        "[ X-A: b",
    ];
    for value in rows {
        assert_mistake(&["--header", value], &["--header"]);
    }
}

/// In the environment several stand in lines.
#[test]
fn the_environment_takes_several() {
    let tree = Tree::site();
    tree.write("a.foo", "foo");
    let server = Builder::new(&[])
        .tree(tree)
        .env("MILLPOND_HEADER", "X-A: one, two; three\n*.txt X-B: b")
        .env("MILLPOND_CACHE_CONTROL", "*=public, max-age=1\n*.txt=public, max-age=2")
        .env("MILLPOND_MIME", "foo=application/x-foo\nbar=application/x-bar")
        .start();
    let expected = [("x-a", Some("one, two; three")), ("x-b", Some("b")), ("cache-control", Some("public, max-age=2"))];
    assert_fields(&server.get("/hello.txt"), &expected, "a text");
    let expected = [("x-b", None), ("cache-control", Some("public, max-age=1")), ("content-type", Some("application/x-foo"))];
    assert_fields(&server.get("/a.foo"), &expected, "another");
}

/// Rule and file see one path, however it is written.
#[test]
fn no_way_of_writing_a_path_gets_around_a_rule() {
    let server = serve(Tree::site(), &["--header", "/sub/** X-Rule: yes", "--clean-urls"]);
    for target in
        ["/sub/page", "/s%75b/page", "//sub//page", "/sub/./page", "/x/../sub/page", "/sub/deep/../page", "/%73%75%62/%70age", "/sub/"]
    {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.field("x-rule")), (200, Some("yes")), "{target}");
    }
}
