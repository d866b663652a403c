//! Preconditions: what a client knows already, and what it wants done only if nothing has changed.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::client::{Response, request};
use crate::harness::{HELLO, Server};
use crate::http_date;

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
        ("before 1970", http_date::imf(-1), 200),
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
fn if_match() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let etag = client.get("/hello.txt").need("etag").to_owned();
    let rows = [
        (etag.clone(), 200),
        ("*".to_owned(), 200),
        (format!("\"other\" ,, {etag}"), 200),
        (format!("\"other\"\r\nIf-Match: {etag}"), 200),
        (format!("W/{etag}"), 412),
        ("\"other\"".to_owned(), 412),
        (etag.trim_matches('"').to_owned(), 412),
        (String::new(), 412),
    ];
    for (value, status) in rows {
        assert_eq!(client.get_with("/hello.txt", &format!("If-Match: {value}\r\n")).status, status, "{value:?}");
        assert_eq!(client.head_with("/hello.txt", &format!("If-Match: {value}\r\n")).status, status, "HEAD, {value:?}");
    }
    assert_eq!(client.get("/hello.txt").text(), HELLO, "the connection goes on");
}

#[test]
fn if_unmodified_since() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let modified = http_date::parse_imf(client.get("/hello.txt").need("last-modified")).unwrap();
    let earlier = http_date::imf(modified - 1);
    let rows = [
        ("the same", http_date::imf(modified), 200),
        ("the same, as RFC 850 wrote it", http_date::rfc850(modified), 200),
        ("a second later", http_date::imf(modified + 1), 200),
        ("a second earlier", earlier.clone(), 412),
        ("a second earlier, as asctime writes it", http_date::asctime(modified - 1), 412),
        ("before 1970", http_date::imf(-1), 412),
        ("no date", "yesterday".to_owned(), 200),
        ("two dates", format!("{earlier}\r\nIf-Unmodified-Since: {earlier}"), 200),
    ];
    for (name, value, status) in rows {
        assert_eq!(client.get_with("/hello.txt", &format!("If-Unmodified-Since: {value}\r\n")).status, status, "{name}");
        assert_eq!(client.head_with("/hello.txt", &format!("If-Unmodified-Since: {value}\r\n")).status, status, "HEAD, {name}");
    }
}

/// RFC 9110 section 13.2.2: which goes before which, on every pair of them.
#[test]
fn precedence() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let whole = client.get("/hello.txt");
    let modified = http_date::parse_imf(whole.need("last-modified")).unwrap();
    let (etag, at, before) = (whole.need("etag"), http_date::imf(modified), http_date::imf(modified - 1));
    let holds = [
        format!("If-Match: {etag}"),
        format!("If-Unmodified-Since: {at}"),
        "If-None-Match: \"x\"".to_owned(),
        format!("If-Modified-Since: {before}"),
    ];
    let fails = [
        "If-Match: \"x\"".to_owned(),
        format!("If-Unmodified-Since: {before}"),
        format!("If-None-Match: {etag}"),
        format!("If-Modified-Since: {at}"),
    ];
    // Every subset of the four, each of them as one that holds or one that does not.
    for choice in 0..3_u32.pow(4) {
        let state: Vec<_> = (0..4).map(|i| choice / 3_u32.pow(i) % 3).collect();
        let fields: String =
            (0..4).filter(|&i| state[i] > 0).map(|i| format!("{}\r\n", if state[i] == 1 { &holds[i] } else { &fails[i] })).collect();
        let (first, second) = (if state[0] > 0 { state[0] } else { state[1] }, if state[2] > 0 { state[2] } else { state[3] });
        let status = match (first, second) {
            (2, _) => 412,
            (_, 2) => 304,
            _ => 200,
        };
        assert_eq!(client.get_with("/hello.txt", &fields).status, status, "{fields}");
    }
}

/// What would not have been a success stays what it is (RFC 9110 section 13.2.1).
#[test]
fn conditions_of_what_is_not_there() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for field in ["If-Match: \"x\"", "If-Match: *", "If-None-Match: *", "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT"] {
        assert_eq!(client.get_with("/nowhere", &format!("{field}\r\n")).status, 404, "{field}");
        assert_eq!(client.get_with("/sub", &format!("{field}\r\n")).status, 301, "{field}");
        client.send(request("DELETE", "/hello.txt", &format!("{field}\r\n")));
        assert_eq!(client.answer().status, 405, "{field}");
    }
}

/// RFC 9110 section 15.4.5: what a cache needs to bring its copy up to date, and nothing that describes a body.
#[test]
fn the_fields_of_304() {
    let server = Server::start(&[]);
    server.tree().write("app.3f9c2b1a.js", "hashed");
    let mut client = server.connect();
    for target in ["/hello.txt", "/app.3f9c2b1a.js"] {
        let whole = client.get(target);
        let etag = whole.need("etag");
        let answer = client.get_with(target, &format!("If-None-Match: {etag}\r\n"));
        let named = |answer: &Response, name: &str| answer.field(name).map(str::to_owned);
        for name in ["etag", "cache-control", "last-modified", "vary", "content-location", "expires"] {
            assert_eq!(named(&answer, name), named(&whole, name), "{target}: {name}");
        }
        assert!(answer.field("date").is_some(), "{target}");
        for name in ["content-type", "content-range", "transfer-encoding"] {
            assert_eq!(answer.field(name), None, "{target}: {name}");
        }
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{target}");
    }
}

/// A client that knows an old state gets the new one, by tag and by date.
#[test]
fn a_change_is_seen_through_conditions() {
    let server = Server::start(&[]);
    let tree = server.tree();
    let write = |text: &str, age_s: u64| {
        tree.replace("page.txt", text);
        let modified = SystemTime::now() - Duration::from_secs(age_s);
        fs::File::options().write(true).open(tree.path("page.txt")).unwrap().set_modified(modified).unwrap();
    };
    write("old", 7_200);
    let mut client = server.connect();
    let old = client.get("/page.txt");
    let (etag, modified) = (old.need("etag"), old.need("last-modified"));
    let conditions = [format!("If-None-Match: {etag}\r\n"), format!("If-Modified-Since: {modified}\r\n")];
    let guards = [format!("If-Match: {etag}\r\n"), format!("If-Unmodified-Since: {modified}\r\n")];
    let statuses =
        |client: &mut crate::client::Client, fields: &[String; 2]| [0, 1].map(|i| client.get_with("/page.txt", &fields[i]).status);
    assert_eq!((statuses(&mut client, &conditions), statuses(&mut client, &guards)), ([304, 304], [200, 200]), "unchanged");
    write("new", 3_600);
    // What is known of a file may be a second old.
    let begun = std::time::Instant::now();
    while client.get("/page.txt").text() == "old" {
        assert!(begun.elapsed() < Duration::from_secs(3), "still the old file");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((statuses(&mut client, &conditions), statuses(&mut client, &guards)), ([200, 200], [412, 412]), "changed");
}
