//! Who may post: pages of this server and programs, but no page of another site and no name that was bent towards this machine.
//!
//! Classes of failure covered: uploads across sites, DNS rebinding.

use super::{BROWSER, FORM, assert_nothing_left, assert_refused, folder, form, head, listing, post, receipt};
use crate::client::HOST;
use crate::harness::{Builder, Server, Tree};

/// Posts a raw body and a form with these fields.
fn both(server: &Server, fields: &str) -> Vec<crate::client::Response> {
    let raw = post(server, "/uploads/?name=a.txt", fields, "hello");
    let form = post(server, "/uploads/", &format!("{fields}{FORM}"), form(&[("name=\"f\"; filename=\"b.txt\"", b"hello")]));
    vec![raw, form]
}

#[test]
fn the_matrix_of_sites() {
    let server = Server::start(&[]);
    let own = format!("http://{}", server.address());
    let port = server.address().port();
    let other_port = if port == 65_535 { 1 } else { port + 1 };
    let rows: Vec<(&str, String, bool)> = vec![
        ("neither", String::new(), true),
        ("from a page of ours", "Sec-Fetch-Site: same-origin\r\n".to_owned(), true),
        ("typed by the user", "Sec-Fetch-Site: none\r\n".to_owned(), true),
        ("same site", "Sec-Fetch-Site: same-site\r\n".to_owned(), false),
        ("cross site", "Sec-Fetch-Site: cross-site\r\n".to_owned(), false),
        ("a value that nobody knows", "Sec-Fetch-Site: next-door\r\n".to_owned(), false),
        ("an empty value", "Sec-Fetch-Site:\r\n".to_owned(), false),
        ("a list", "Sec-Fetch-Site: same-origin, cross-site\r\n".to_owned(), false),
        ("our origin", format!("Origin: {own}\r\n"), true),
        ("another host", format!("Origin: http://evil.test:{port}\r\n"), false),
        ("another port", format!("Origin: http://127.0.0.1:{other_port}\r\n"), false),
        ("no port", "Origin: http://127.0.0.1\r\n".to_owned(), false),
        ("our port in a longer one", format!("Origin: {own}0\r\n"), false),
        ("our address as a prefix", format!("Origin: {own}.evil.test\r\n"), false),
        ("our address as a user", format!("Origin: {own}@evil.test\r\n"), false),
        ("our address as a suffix", format!("Origin: http://evil.test/{}\r\n", server.address()), false),
        ("another name for the same", format!("Origin: http://localhost:{port}\r\n"), false),
        ("null", "Origin: null\r\n".to_owned(), false),
        ("empty", "Origin:\r\n".to_owned(), false),
        ("no scheme", format!("Origin: {}\r\n", server.address()), false),
        ("an extension", "Origin: moz-extension://0f1e2d3c\r\n".to_owned(), false),
        ("two origins in one", format!("Origin: {own} http://evil.test\r\n"), false),
        ("ours, said of another origin", "Sec-Fetch-Site: same-origin\r\nOrigin: http://evil.test\r\n".to_owned(), true),
        ("another site, said of ours", format!("Sec-Fetch-Site: cross-site\r\nOrigin: {own}\r\n"), false),
        ("same site, said of ours", format!("Sec-Fetch-Site: same-site\r\nOrigin: {own}\r\n"), false),
        ("only a referer", "Referer: http://evil.test/\r\n".to_owned(), true),
        ("a name with capitals", "SEC-FETCH-SITE: cross-site\r\n".to_owned(), false),
        ("a request for it", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\n".to_owned(), false),
    ];
    for (name, fields, allowed) in rows {
        for answer in both(&server, &fields) {
            if allowed {
                receipt(&answer, name);
            } else {
                assert_refused(&answer, 403, "", name);
            }
        }
        let before = listing(&folder(&server));
        if !allowed {
            both(&server, &format!("{fields}{BROWSER}")).iter().for_each(|answer| assert_eq!(answer.status, 403, "{name}, a browser"));
            assert_eq!(listing(&folder(&server)), before, "{name}: refused, and yet something was stored");
        }
    }
}

/// A field that stands twice is not taken by its better half.
#[test]
fn fields_that_stand_twice() {
    let server = Server::start(&[]);
    let own = format!("http://{}", server.address());
    let rows = [
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site\r\n".to_owned(),
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Site: same-origin\r\n".to_owned(),
        format!("Origin: {own}\r\nOrigin: http://evil.test\r\n"),
        format!("Origin: http://evil.test\r\nOrigin: {own}\r\n"),
    ];
    for row in rows {
        for answer in both(&server, &row) {
            assert!([400, 403].contains(&answer.status), "{row:?}: {}", answer.status);
        }
        assert_nothing_left(&server, &folder(&server), &row);
    }
}

/// The origin is compared with the host and port that the request was for, whatever the port of the listener.
#[test]
fn the_effective_host_and_port_count() {
    let server = Builder::new(&["--allow-host", HOST]).start();
    let port = server.address().port();
    let rows: Vec<(String, String, bool)> = vec![
        (HOST.to_owned(), format!("http://{HOST}"), true),
        (format!("{HOST}:8080"), format!("http://{HOST}:8080"), true),
        (format!("{HOST}:8080"), format!("http://{HOST}"), false),
        (HOST.to_owned(), format!("http://{HOST}:8080"), false),
        (HOST.to_owned(), format!("http://{}", HOST.to_uppercase()), true),
        (HOST.to_uppercase(), format!("http://{HOST}"), true),
        (format!("localhost:{port}"), format!("http://localhost:{port}"), true),
        (format!("localhost:{port}"), format!("http://127.0.0.1:{port}"), false),
        (format!("[::1]:{port}"), format!("http://[::1]:{port}"), true),
        (HOST.to_owned(), "http://pond.test.evil.test".to_owned(), false),
        (HOST.to_owned(), "http://evilpond.test".to_owned(), false),
    ];
    for (host, origin, allowed) in rows {
        for answer in both(&server, &format!("Host: {host}\r\nOrigin: {origin}\r\n")) {
            assert_eq!(answer.status, if allowed { 201 } else { 403 }, "{host} and {origin}: {}", answer.text());
        }
    }
}

#[test]
fn on_loopback_only_names_of_this_machine_are_believed() {
    let plain = Server::start(&[]);
    let named = Builder::new(&["--allow-host", "pond.test", "--allow-host", "other.test"]).start();
    let by_environment = Builder::new(&[]).env("MILLPOND_ALLOW_HOST", "pond.test,other.test").start();
    let rows = [
        ("127.0.0.1", true),
        ("127.0.0.1:1", true),
        ("127.9.8.7:8080", true),
        ("localhost", true),
        ("LocalHost:8080", true),
        ("[::1]", true),
        ("[::1]:8080", true),
        ("evil.test", false),
        ("evil.test:8080", false),
        ("127.0.0.1.evil.test", false),
        ("localhost.evil.test", false),
        ("evil-localhost", false),
        ("localhostx", false),
        ("10.0.0.1", false),
        ("192.168.1.1:8080", false),
        ("0.0.0.0", false),
        ("[::]", false),
        ("[fe80::1]", false),
        ("[2001:db8::1]:8080", false),
        ("pond.test.evil.test", false),
        ("xpond.test", false),
    ];
    for (host, allowed) in rows {
        for server in [&plain, &named, &by_environment] {
            for answer in both(server, &format!("Host: {host}\r\n")) {
                if allowed {
                    receipt(&answer, host);
                } else {
                    assert_refused(&answer, 421, "", host);
                }
            }
        }
    }
    for host in ["pond.test", "pond.test:8080", "POND.test", "other.test"] {
        for answer in both(&plain, &format!("Host: {host}\r\n")) {
            assert_refused(&answer, 421, "--allow-host", host);
        }
        for server in [&named, &by_environment] {
            both(server, &format!("Host: {host}\r\n")).iter().for_each(|answer| _ = receipt(answer, host));
        }
    }
    // A page that was bent to this machine is its own origin: the name alone gives it away.
    for fields in ["Sec-Fetch-Site: same-origin\r\n", "Origin: http://evil.test\r\n", "Sec-Fetch-Site: none\r\n"] {
        for answer in both(&plain, &format!("Host: evil.test\r\n{fields}")) {
            assert!([403, 421].contains(&answer.status), "{fields:?}: {}", answer.status);
        }
    }
    for answer in both(&plain, "Host: evil.test\r\nSec-Fetch-Site: same-origin\r\nOrigin: http://evil.test\r\n") {
        assert_refused(&answer, 421, "", "a name that was bent to this machine");
    }
    // Reading is as it was.
    assert_eq!(plain.get("/hello.txt").status, 200);
}

/// The authority of the target counts, not a Host beside it.
#[test]
fn the_authority_of_an_absolute_target() {
    let server = Server::start(&[]);
    let own = server.address();
    for (authority, host, status) in [("evil.test", own.to_string(), 421), (own.to_string().as_str(), own.to_string(), 201)] {
        let answer = post(&server, &format!("http://{authority}/uploads/?name=a.txt"), &format!("Host: {host}\r\n"), "hello");
        assert_eq!(answer.status, status, "{authority} with Host {host}: {}", answer.text());
    }
}

/// The check belongs to loopback listeners, also where a folder was named.
#[test]
fn a_named_folder_does_not_end_the_check() {
    let tree = Tree::site();
    let given = tree.outside("drop");
    std::fs::create_dir(&given).unwrap();
    let server = Builder::new(&["--uploads"]).arg(&given).tree(tree).start();
    for answer in both(&server, "Host: evil.test\r\n") {
        assert_refused(&answer, 421, "--allow-host", "a named folder");
    }
    assert_nothing_left(&server, &given, "a named folder");
}

/// Who is refused by the head is not asked for the body first.
#[test]
fn a_refusal_by_the_head_needs_no_body() {
    let server = Server::start(&[]);
    for (fields, status) in [("Sec-Fetch-Site: cross-site\r\n", 403), ("Host: evil.test\r\n", 421), ("Via: 1.1 proxy.test\r\n", 403)] {
        let mut client = server.connect();
        client.send(head(&server, "/uploads/?name=a.txt", &format!("{fields}Expect: 100-continue\r\nContent-Length: 1000000\r\n")));
        let answer = client.any_answer(false).unwrap();
        assert_refused(&answer, status, "", fields);
    }
    assert_nothing_left(&server, &folder(&server), "refused by the head");
}
