//! The error answers: a page for people, a problem document for programs, and nothing of the request in either.
//!
//! Classes of failure covered: HTML injection by path, query and fields; bodies of redirects.

use crate::client::{HOST, Response, request};
use crate::harness::Server;

fn is_page(answer: &Response) -> bool {
    answer.need("content-type") == "text/html; charset=utf-8" && answer.text().to_lowercase().starts_with("<!doctype html>")
}

fn is_problem(answer: &Response) -> bool {
    answer.need("content-type") == "application/problem+json" && json_object(&answer.text()).is_some()
}

/// The members of a flat JSON object, read strictly: strings keep their quotation marks.
fn json_object(text: &str) -> Option<Vec<(String, String)>> {
    let mut rest = text.trim().strip_prefix('{')?.trim_start();
    let mut members = Vec::new();
    loop {
        let (name, after) = json_string(rest)?;
        rest = after.trim_start().strip_prefix(':')?.trim_start();
        let (value, after) = if rest.starts_with('"') {
            json_string(rest)?
        } else {
            rest.split_at(rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-')?)
        };
        if value.is_empty() {
            return None;
        }
        members.push((name.to_owned(), value.to_owned()));
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None => return (rest == "}").then_some(members),
        }
    }
}

/// A string with its quotation marks, and what follows.
fn json_string(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' if at == 0 => {}
            _ if at == 0 => return None,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(text.split_at(at + 1)),
            c if c < ' ' => return None,
            _ => {}
        }
    }
    None
}

#[test]
fn the_reader_of_json_is_strict() {
    assert!(json_object(r#"{"status": 404,"title":"Not \"Found\""}"#).is_some());
    for wrong in ["", "{", r#"{"a":}"#, r#"{"a":1,}"#, r#"{"a":"b}"#, r#"{a:1}"#, "{\"a\":\"\n\"}", r#"{"a":1} x"#] {
        assert!(json_object(wrong).is_none(), "{wrong}");
    }
}

#[test]
fn the_form_follows_accept() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let pages = [
        "",
        "Accept: */*\r\n",
        "Accept: text/html\r\n",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n",
        "Accept: text/html, application/json\r\n",
        "Accept: application/json, text/html\r\n",
        "Accept: application/json;q=0.5, text/html\r\n",
        "Accept: application/json;q=0.1, text/*;q=0.2\r\n",
        "Accept: application/json;q=0\r\n",
        "Accept: image/png\r\n",
        "Accept: text/plain\r\n",
        "Accept: nonsense\r\n",
        "Accept: ;;;,,,q=\r\n",
        "Accept:\r\n",
    ];
    for accept in pages {
        let answer = client.get_with("/nowhere", accept);
        assert!(answer.status == 404 && is_page(&answer), "{accept:?}: {:?} {}", answer.fields, answer.text());
    }
    let problems = [
        "Accept: application/json\r\n",
        "Accept: application/problem+json\r\n",
        "Accept: APPLICATION/JSON\r\n",
        "Accept: application/json; charset=utf-8\r\n",
        "Accept: application/json, text/html;q=0.5\r\n",
        "Accept: text/html;q=0.5,application/json;q=0.9\r\n",
        "Accept: application/json, */*;q=0.1\r\n",
        "Accept: text/html;q=0, application/json;q=0.1\r\n",
        "Accept: text/html;q=0.1\r\nAccept: application/json\r\n",
    ];
    for accept in problems {
        let answer = client.get_with("/nowhere", accept);
        assert!(answer.status == 404 && is_problem(&answer), "{accept:?}: {:?} {}", answer.fields, answer.text());
    }
}

#[test]
fn a_problem_says_what_it_is() {
    let server = Server::start(&[]);
    let rows = [
        (404, request("GET", "/nowhere", "Accept: application/json\r\n")),
        (405, request("DELETE", "/hello.txt", "Accept: application/json\r\n")),
        (416, request("GET", "/hello.txt", "Accept: application/json\r\nRange: bytes=99-\r\n")),
        (400, request("GET", "/%zz", "Accept: application/json\r\n")),
        (417, request("GET", "/hello.txt", "Accept: application/json\r\nExpect: wonders\r\n")),
    ];
    for (status, raw) in rows {
        let answer = server.ask(raw);
        assert!(answer.status == status && is_problem(&answer), "{status}: {:?} {}", answer.fields, answer.text());
        let members = json_object(&answer.text()).unwrap();
        let member = |name: &str| members.iter().find(|(known, _)| *known == format!("\"{name}\"")).map(|(_, value)| value.as_str());
        assert_eq!(member("status"), Some(status.to_string().as_str()), "{}", answer.text());
        assert!(member("title").is_some_and(|title| title.len() > 2), "{}", answer.text());
    }
}

#[test]
fn the_page_is_good_in_the_dark_and_on_a_phone() {
    let server = Server::start(&[]);
    let answer = server.get("/nowhere");
    let page = answer.text();
    assert!(page.contains("404"), "{page}");
    assert!(page.contains("name=\"viewport\"") || page.contains("name=viewport"), "{page}");
    assert!(page.contains("color-scheme"), "{page}");
    assert!(!page.contains("<script"), "{page}");
    assert!(page.len() < 8 * 1024, "small: {} bytes", page.len());
    for source in ["http://", "https://", "src=", "url("] {
        assert!(!page.contains(source), "the page needs nothing from elsewhere: {page}");
    }
}

/// Every status that can be had has its answer, with its length and its form.
#[test]
fn every_refusal_has_a_body_of_the_length_it_says() {
    let server = Server::start(&[]);
    let long = "a".repeat(9_000);
    let rows = [
        (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (404, request("GET", "/nowhere", "")),
        (405, request("PUT", "/", "")),
        (414, request("GET", &format!("/{long}"), "")),
        (416, request("GET", "/hello.txt", "Range: bytes=99-\r\n")),
        (417, request("GET", "/", "Expect: wonders\r\n")),
        (431, request("GET", "/", &"X: y\r\n".repeat(101))),
        (501, request("POST", "/", "Transfer-Encoding: gzip, chunked\r\n")),
        (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned()),
    ];
    for (status, raw) in rows {
        let answer = server.ask(raw);
        assert_eq!(answer.status, status);
        assert!(is_page(&answer), "{status}: {:?}", answer.fields);
        assert_eq!(answer.length(), answer.body.len() as u64, "{status}");
        assert!(answer.text().contains(&status.to_string()), "{status}: {}", answer.text());
    }
}

#[test]
fn nothing_of_the_request_is_repeated_unescaped() {
    let server = Server::start(&[]);
    let marks = ["<script>alert(1)</script>", "\"><img/src=x>", "'onload='x", "\"x\":\"y"];
    for mark in marks {
        let encoded: String = mark.bytes().map(|byte| format!("%{byte:02x}")).collect();
        // A slash would make folders of it.
        let name = encoded.replace("%2f", "%25");
        let raws = [
            format!("GET /{name} HTTP/1.1\r\nHost: {HOST}\r\n"),
            format!("GET /{mark} HTTP/1.1\r\nHost: {HOST}\r\n"),
            format!("GET /nowhere?{mark} HTTP/1.1\r\nHost: {HOST}\r\n"),
            format!("GET /sub?{encoded} HTTP/1.1\r\nHost: {HOST}\r\n"),
            format!("GET /sub?{mark} HTTP/1.1\r\nHost: {HOST}\r\n"),
            format!("GET /nowhere HTTP/1.1\r\nHost: {HOST}\r\nReferer: {mark}\r\nUser-Agent: {mark}\r\nCookie: {mark}\r\n"),
            format!("GET / HTTP/1.1\r\nHost: {mark}\r\n"),
            format!("{mark} / HTTP/1.1\r\nHost: {HOST}\r\n"),
            format!("GET / {mark}\r\nHost: {HOST}\r\n"),
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{mark}\r\n"),
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nExpect: {mark}\r\n"),
            format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: {mark}\r\n"),
            format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {mark}\r\n"),
            format!("GET /hello.txt HTTP/1.1\r\nHost: {HOST}\r\nRange: bytes=99-\r\nX: {mark}\r\n"),
        ];
        for raw in raws {
            for accept in ["", "Accept: application/json\r\n"] {
                let answer = server.ask(format!("{raw}{accept}\r\n"));
                let text = answer.text();
                // An apostrophe may stand in a Host.
                assert!(answer.status >= 300 || text.contains("home"), "{raw}: {} {text}", answer.status);
                assert!(!text.contains(mark), "{raw}: {text}");
                assert!(
                    !answer.field("content-type").is_some_and(|kind| kind.contains("json")) || json_object(&text).is_some(),
                    "{raw}: {text}"
                );
                // In Location it stands where the browser reads an address, so it may not end the address.
                assert!(
                    !answer.field("location").is_some_and(|location| location.contains(['<', '>', '"', ' '])),
                    "{raw}: {:?}",
                    answer.fields
                );
            }
        }
    }
}
