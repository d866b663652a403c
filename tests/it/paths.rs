//! Hostile paths get nothing; odd but honest ones get their file; redirects stay on this server.
//!
//! Classes of failure covered: dot segments in every coat, double decoding, encoded separators and NUL, overlong UTF-8, prefixes that match
//! without a border, names of devices, redirects to `//host`, line breaks in Location.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::client::{Response, find, request};
use crate::harness::{HELLO, HIDDEN, SECRET, Server, Tree};

#[track_caller]
fn assert_holds_no_secret(answer: &Response, name: &str) {
    for secret in [SECRET, HIDDEN, "root:"] {
        assert!(find(&answer.body, secret.as_bytes()).is_none(), "{name}: {secret} came out");
    }
}

#[test]
fn hostile_paths_get_nothing() {
    refuse_hostile_paths(&Server::start(&[]));
}

pub fn refuse_hostile_paths(server: &Server) {
    // The target, and what it may get.
    let rows: &[(&str, &[u16])] = &[
        // Above the root.
        ("/..", &[400]),
        ("/../", &[400]),
        ("/../secret.txt", &[400]),
        ("/../../../../../../etc/passwd", &[400]),
        ("/./../secret.txt", &[400]),
        ("/sub/../../secret.txt", &[400]),
        ("/sub/deep/../../../secret.txt", &[400]),
        ("/nowhere/../../secret.txt", &[400]),
        ("/../www/hello.txt", &[400]),
        ("/../www_evil/secret.txt", &[400]),
        ("//../secret.txt", &[400]),
        ("/%2e%2e/secret.txt", &[400]),
        ("/%2E%2E/secret.txt", &[400]),
        ("/.%2e/secret.txt", &[400]),
        ("/%2e./secret.txt", &[400]),
        ("/sub/%2e%2e/%2e%2e/secret.txt", &[400]),
        ("/../?x=/hello.txt", &[400]),
        ("http://a.test/../secret.txt", &[400]),
        ("http://a.test/%2e%2e/secret.txt", &[400]),
        // Encoded separators and what passes for one elsewhere.
        ("/..%2fsecret.txt", &[400]),
        ("/..%2Fsecret.txt", &[400]),
        ("/%2e%2e%2fsecret.txt", &[400]),
        ("/%2fetc/passwd", &[400]),
        ("/%2Fetc%2Fpasswd", &[400]),
        ("/sub%2fpage.html", &[400]),
        ("/sub%2Fpage.html", &[400]),
        ("/hello.txt%2f", &[400]),
        ("/..%5csecret.txt", &[400]),
        ("/..%5Csecret.txt", &[400]),
        ("/%5c..%5c..%5cetc%5cpasswd", &[400]),
        ("/sub%5Cpage.html", &[400]),
        ("/..\\secret.txt", &[400]),
        ("/sub\\page.html", &[400]),
        ("/\\evil.test", &[400]),
        ("\\hello.txt", &[400]),
        // NUL.
        ("/%00", &[400]),
        ("/hello.txt%00", &[400]),
        ("/hello.txt%00.png", &[400]),
        ("/..%00/secret.txt", &[400]),
        ("/%00../secret.txt", &[400]),
        // Escapes that are none.
        ("/%", &[400]),
        ("/%2", &[400]),
        ("/hello.txt%", &[400]),
        ("/hello.txt%4", &[400]),
        ("/%zz", &[400]),
        ("/%2g", &[400]),
        ("/%g2", &[400]),
        ("/% 2e", &[400]),
        ("/%+2e", &[400]),
        ("/%-1", &[400]),
        ("/%u002e%u002e/secret.txt", &[400]),
        ("/%u2215etc", &[400]),
        ("/%%2e%%2e/secret.txt", &[400]),
        ("/%2%65%2%65/secret.txt", &[400]),
        // Decoded once only.
        ("/%252e%252e/secret.txt", &[404]),
        ("/%252e%252e%252fsecret.txt", &[404]),
        ("/%25%32%65%25%32%65/secret.txt", &[404]),
        ("/..%252fsecret.txt", &[404]),
        ("/..%255csecret.txt", &[404]),
        ("/hello.txt%2500", &[404]),
        ("/%2568ello.txt", &[404]),
        // Other coats for dots and slashes.
        ("/..;/secret.txt", &[404]),
        ("/..;a=b/secret.txt", &[404]),
        ("/.../secret.txt", &[404]),
        ("/..../secret.txt", &[404]),
        ("/..%20/secret.txt", &[404]),
        ("/%20../secret.txt", &[404]),
        ("/..%09/secret.txt", &[400, 404]),
        ("/..%0a/secret.txt", &[400, 404]),
        ("/..%0d%0a/secret.txt", &[400, 404]),
        ("/%c0%ae%c0%ae/secret.txt", &[404]),
        ("/%e0%80%ae%e0%80%ae/secret.txt", &[404]),
        ("/..%c0%afsecret.txt", &[404]),
        ("/..%e0%80%afsecret.txt", &[404]),
        ("/..%ef%bc%8fsecret.txt", &[404]),
        ("/%ef%bc%8e%ef%bc%8e/secret.txt", &[404]),
        ("/~root/secret.txt", &[404]),
        ("/$HOME", &[404]),
        ("/*", &[404]),
        ("/hello.*", &[404]),
        // Hidden names.
        ("/.hidden", &[404]),
        ("/%2ehidden", &[404]),
        ("/.git/config", &[404]),
        ("/.git/", &[404]),
        ("/.git", &[404]),
        ("/%2egit/config", &[404]),
        ("/sub/.env", &[404]),
        ("/sub/%2Eenv", &[404]),
        ("/sub/../.hidden", &[404]),
        ("/.well-known/../.git/config", &[404]),
        ("/.well-known/../.hidden", &[404]),
        ("/.well-knownx", &[404]),
        ("//.hidden", &[404]),
        // Absolute, and prefixes without a border.
        ("/etc/passwd", &[404]),
        ("//etc/passwd", &[404]),
        ("///etc/passwd", &[404]),
        ("/proc/self/environ", &[404]),
        ("/secret.txt", &[404]),
        ("/www_evil/secret.txt", &[404]),
        ("/_evil/secret.txt", &[404]),
        // Names that mean something on another system.
        ("/c:/windows/win.ini", &[400, 404]),
        ("/C:secret.txt", &[400, 404]),
        ("/hello.txt::$DATA", &[400, 404]),
        ("/hello.txt:stream", &[400, 404]),
        ("/CON", &[400, 404]),
        ("/com1.txt", &[400, 404]),
        ("/HELLO~1.TXT", &[404]),
        ("/hello.txt.", &[404]),
        ("/hello.txt%20", &[404]),
        ("/HELLO.TXT", &[404]),
        // Honest mistakes.
        ("/hello.txt/", &[404]),
        ("/hello.txt/.", &[404]),
        ("/hello.txt/x", &[404]),
        ("/sub/page.html/", &[404]),
        ("/bare/", &[404]),
        ("/hello", &[404]),
        ("/hello.tx", &[404]),
        ("/hello.txtx", &[404]),
    ];
    for (target, statuses) in rows {
        for method in ["GET", "HEAD"] {
            let mut client = server.connect();
            client.send(request(method, target, ""));
            let answer = if method == "HEAD" { client.answer_to_head() } else { client.answer() };
            assert!(statuses.contains(&answer.status), "{method} {target}: {}, wanted {statuses:?}", answer.status);
            assert_holds_no_secret(&answer, target);
        }
    }
    server.assert_well("hostile paths");
}

#[test]
fn paths_are_normalised_and_decoded_once() {
    let server = Server::start(&[]);
    let rows = [
        ("/hello.txt", HELLO),
        ("/%68ello.txt", HELLO),
        ("/%68%65%6C%6c%6f%2Etxt", HELLO),
        ("/./hello.txt", HELLO),
        ("/%2e/hello.txt", HELLO),
        ("/sub/../hello.txt", HELLO),
        ("/sub/%2e%2e/hello.txt", HELLO),
        ("/sub/.%2E/hello.txt", HELLO),
        ("/nowhere/../hello.txt", HELLO),
        ("/sub/deep/../../hello.txt", HELLO),
        ("/with%20space.txt", "a space in the name\n"),
        ("/sub/deep/leaf.txt", "leaf\n"),
        ("/bare/leaf.txt", "in a folder that has no index\n"),
        ("/.well-known/acme.txt", "well known\n"),
        ("/sub/../.well-known/acme.txt", "well known\n"),
        ("/hello.txt?../../secret.txt", HELLO),
        ("/hello.txt??x", HELLO),
    ];
    for (target, body) in rows {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.text().as_str()), (200, body), "{target}");
    }
    for (target, title) in [
        ("/", "home"),
        ("/?x", "home"),
        ("/.", "home"),
        ("/sub/", "sub"),
        ("/sub/?x", "sub"),
        ("/sub/deep/../", "sub"),
        ("/sub/index.html", "sub"),
    ] {
        let answer = server.get(target);
        assert!(answer.status == 200 && answer.text().contains(title), "{target}: {} {}", answer.status, answer.text());
    }
    // A plus is a plus.
    server.tree().write("a+b.txt", "plus");
    assert_eq!(server.get("/a+b.txt").text(), "plus");
    assert_eq!(server.get("/a%2bb.txt").text(), "plus");
    assert_eq!(server.get("/a%20b.txt").status, 404);
}

/// Names are bytes: what the file system allows can be asked for, the separators aside.
#[test]
fn names_of_any_bytes() {
    let tree = Tree::site();
    let mut names: Vec<Vec<u8>> = (1..=255u8).filter(|byte| !b"/\\.".contains(byte)).map(|byte| vec![b'n', byte]).collect();
    names.extend([
        b"\xff\xfe\xfd".to_vec(),
        "größe.txt".into(),
        "日本語".into(),
        b"a%20b".to_vec(),
        b"?".to_vec(),
        b"#x".to_vec(),
        b"a&b=c;d".to_vec(),
    ]);
    for name in &names {
        tree.write(OsStr::from_bytes(name), name);
    }
    let server = Server::serving(tree);
    let mut client = server.connect();
    for name in &names {
        let target: String = "/".chars().chain(name.iter().flat_map(|byte| format!("%{byte:02x}").chars().collect::<Vec<_>>())).collect();
        let control = name.iter().any(|byte| *byte < 0x20 || *byte == 0x7f);
        let answer = client.get(&target);
        // Control characters may be refused: they belong in no name, and some terminals believe them.
        assert!(
            answer.status == 200 && &answer.body == name || control && [400, 404].contains(&answer.status),
            "{target}: {}",
            answer.status
        );
        if answer.closes() {
            client = server.connect();
        }
    }
}

#[test]
fn long_paths_are_simply_not_there() {
    let server = Server::start(&[]);
    let rows = [
        ("a name of 255 bytes", format!("/{}", "a".repeat(255))),
        ("a name of 256 bytes", format!("/{}", "a".repeat(256))),
        ("a name of 4,000 bytes", format!("/{}", "a".repeat(4_000))),
        ("a path longer than the system takes", format!("/{}", "abcdefg/".repeat(900))),
        ("very deep", "/a".repeat(4_000)),
        ("very deep, and back up", format!("{}/hello.txtx", "/a".repeat(1_000) + &"/..".repeat(1_000))),
        ("through files", "/hello.txt/a".repeat(300)),
    ];
    for (name, target) in rows {
        assert_eq!(server.get(&target).status, 404, "{name}");
    }
    let name = "n".repeat(255);
    server.tree().write(&name, "the longest name");
    assert_eq!(server.get(&format!("/{name}")).text(), "the longest name");
    assert_eq!(server.get(&("/a".repeat(1_000) + &"/..".repeat(1_000) + "/hello.txt")).text(), HELLO);
}

#[test]
fn folders_without_their_slash_are_redirected() {
    let tree = Tree::site();
    for folder in ["a b", "a?b", "a#b", "a%b", "größe", "a\"b<c>", "evil.test"] {
        tree.write(format!("{folder}/index.html"), "x");
    }
    tree.write(OsStr::from_bytes(b"\xff/index.html"), "x");
    let server = Server::serving(tree);
    let rows = [
        ("/sub", "/sub/"),
        ("/sub?", "/sub/?"),
        ("/sub?a=b&c=%20/..", "/sub/?a=b&c=%20/.."),
        ("/sub/deep", "/sub/deep/"),
        ("/bare/../sub", "/sub/"),
        ("/a%20b", "/a%20b/"),
        ("/a%3Fb", "/a%3Fb/"),
        ("/a%3fb?q", "/a%3Fb/?q"),
        ("/a%23b", "/a%23b/"),
        ("/a%25b", "/a%25b/"),
        ("/gr%c3%b6%C3%9Fe", "/gr%C3%B6%C3%9Fe/"),
        ("/%ff", "/%FF/"),
    ];
    let mut client = server.connect();
    for (target, location) in rows {
        let answer = client.get(target);
        assert_eq!(answer.status, 301, "{target}");
        let got = answer.need("location");
        assert!(got.eq_ignore_ascii_case(location), "{target}: Location {got:?}, wanted {location:?}");
        let followed = client.get(got);
        assert!([200, 404].contains(&followed.status), "{target} leads to {got} and {}", followed.status);
    }
    // A quotation mark or angle bracket stays out of the header and of the page.
    let answer = client.get("/a%22b%3Cc%3E");
    assert_eq!(answer.status, 301);
    assert!(!answer.need("location").contains(['"', '<', '>']), "{:?}", answer.fields);
    assert!(!answer.text().contains("<c>"), "{}", answer.text());
}

/// `Location: //host/` would send the browser to another server.
#[test]
fn redirects_never_leave_the_server() {
    let tree = Tree::site();
    tree.write("evil.test/index.html", "x");
    tree.write("evil.test/in/index.html", "x");
    let server = Server::serving(tree);
    let targets = [
        "//evil.test",
        "///evil.test",
        "////evil.test",
        "//evil.test?x",
        "/.//evil.test",
        "/./evil.test",
        "/sub/..//evil.test",
        "//./evil.test",
        "/%2e//evil.test",
        "//sub/../evil.test",
        "//evil.test/in",
        "//evil.test//in",
        "/%2fevil.test",
        "/%5cevil.test",
        "/\\evil.test",
        "//%5cevil.test",
        "/%09/evil.test",
        "/%0d%0aSet-Cookie:%20a=b/..//evil.test",
        "//evil.test/%2e%2e",
        "//evil.test/..",
        "http://a.test//evil.test",
        "http://evil.test:80//evil.test",
        "/evil.test%0d%0aSet-Cookie:%20a=b",
        "/sub%0d%0aLocation:%20http://evil.test",
        "/sub?%0d%0aSet-Cookie:%20a=b",
        "//",
        "///",
        "/?//evil.test",
    ];
    for target in targets {
        let answer = server.get(target);
        assert!([200, 301, 400, 404].contains(&answer.status), "{target}: {}", answer.status);
        assert_eq!(answer.field("set-cookie"), None, "{target}");
        if answer.status == 301 {
            let location = answer.need("location");
            assert!(
                location.starts_with('/') && !location.starts_with("//") && !location.starts_with("/\\"),
                "{target}: Location {location:?}"
            );
            assert!(location.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'), "{target}: Location {location:?}");
        }
    }
}

/// A folder's name may hold anything, and ends up in Location.
#[test]
fn a_line_break_in_a_folder_name_breaks_no_header() {
    let tree = Tree::site();
    tree.write("a\r\nSet-Cookie: b=c/index.html", "x");
    let server = Server::serving(tree);
    let answer = server.get("/a%0d%0aSet-Cookie:%20b=c");
    assert!([301, 400, 404].contains(&answer.status), "{}", answer.status);
    assert_eq!(answer.field("set-cookie"), None);
}

/// Whatever is put together from the pieces of attacks, nothing from outside comes out.
#[test]
fn no_composed_path_leaves_the_root() {
    let server = Server::start(&[]);
    let piece = prop::sample::select(vec![
        "/",
        "/",
        "/",
        "//",
        "..",
        "..",
        ".",
        "%2e",
        "%2E%2e",
        "%2f",
        "%5c",
        "\\",
        "%00",
        ";",
        "%",
        "%25",
        "%252e",
        "%c0%ae",
        "sub",
        "deep",
        "secret.txt",
        "www_evil",
        "www",
        ".hidden",
        ".git",
        "config",
        "etc",
        "passwd",
        "hello.txt",
        "?",
        "%20",
        "~",
        ":",
        "a",
        ".well-known",
    ]);
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let result = runner.run(&prop::collection::vec(piece, 0..12), |pieces| {
        let target = format!("/{}", pieces.concat());
        let answer = server.get(&target);
        prop_assert!([200, 301, 400, 404].contains(&answer.status), "{}: {}", target, answer.status);
        for secret in [SECRET, HIDDEN, "root:"] {
            prop_assert!(find(&answer.body, secret.as_bytes()).is_none(), "{}: {} came out", target, secret);
        }
        let location = answer.field("location").unwrap_or("/");
        prop_assert!(location.starts_with('/') && !location.starts_with("//"), "{}: Location {}", target, location);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
