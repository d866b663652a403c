//! Preconditions and If-Range: the verdict is what a plain reference says.
//!
//! An input is a line with the method and the time of the response in seconds, such as `GET 784111779`, and then field lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::http::conditional::{self, Validators, Verdict};
use millpond::http::h1::head;
use millpond::http::{Bounds, Request, date};

const ETAG: &str = "\"abc\"";
/// Sun, 06 Nov 1994 08:49:37 GMT
const MODIFIED_S: u64 = 784_111_777;

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|&b| b == b'\n');
    let Some((method, now_s)) = lines.next().and_then(|line| std::str::from_utf8(line).ok()).and_then(|line| line.split_once(' ')) else {
        return;
    };
    let Ok(now_s) = now_s.parse::<u64>() else { return };
    let mut bytes = format!("{method} / HTTP/1.1\r\nHost: h\r\n").into_bytes();
    for line in lines {
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    let mut request = Request::default();
    if head::parse(&bytes, &Bounds::default(), &mut request).is_err() {
        return;
    }
    let current = Validators { etag: ETAG.as_bytes(), modified_s: MODIFIED_S };
    assert_eq!(conditional::evaluate(&request, current, now_s), verdict(&request, now_s));
    assert_eq!(conditional::range_holds(&request, current, now_s), range_holds(&request, now_s));
});

/// The steps of RFC 9110 section 13.2.2, one after the other.
fn verdict(request: &Request, now_s: u64) -> Verdict {
    let is_read = request.method == "GET" || request.method == "HEAD";
    let (matched, none_matched) = (values(request, "if-match"), values(request, "if-none-match"));
    if !matched.is_empty() {
        if !matched.iter().any(|value| is_any(value) || tags(value).contains(&(false, ETAG.to_owned()))) {
            return Verdict::Failed;
        }
    } else if let Some(since) = only_date(request, "if-unmodified-since", now_s) {
        if since < MODIFIED_S as i64 {
            return Verdict::Failed;
        }
    }
    if !none_matched.is_empty() {
        let is_named = none_matched.iter().any(|value| is_any(value) || tags(value).iter().any(|(_, tag)| tag == ETAG));
        return match (is_named, is_read) {
            (false, _) => Verdict::Proceed,
            (true, true) => Verdict::NotModified,
            (true, false) => Verdict::Failed,
        };
    }
    match only_date(request, "if-modified-since", now_s) {
        Some(since) if is_read && since >= MODIFIED_S as i64 => Verdict::NotModified,
        _ => Verdict::Proceed,
    }
}

/// RFC 9110 section 13.1.5.
fn range_holds(request: &Request, now_s: u64) -> bool {
    match &values(request, "if-range")[..] {
        [] => true,
        [value] if value == ETAG => true,
        [_] => only_date(request, "if-range", now_s) == Some(MODIFIED_S as i64) && now_s >= MODIFIED_S + 2,
        _ => false,
    }
}

/// The values of a field, byte for byte as characters.
fn values(request: &Request, name: &str) -> Vec<String> {
    request.named(name).map(|value| value.iter().map(|&b| char::from(b)).collect()).collect()
}

fn only_date(request: &Request, name: &str, now_s: u64) -> Option<i64> {
    match &request.named(name).collect::<Vec<_>>()[..] {
        [value] => date::parse(value, now_s),
        _ => None,
    }
}

fn is_any(value: &str) -> bool {
    value.trim_matches([' ', '\t']) == "*"
}

/// The tags of a list up to the first thing that is none, read character by character: whether each is weak, and the rest of it.
fn tags(list: &str) -> Vec<(bool, String)> {
    let mut chars = list.chars().peekable();
    let mut tags = Vec::new();
    loop {
        while chars.next_if(|c| [' ', '\t', ','].contains(c)).is_some() {}
        let is_weak = chars.next_if_eq(&'W').is_some();
        if is_weak && chars.next() != Some('/') || chars.next() != Some('"') {
            return tags;
        }
        let mut tag = String::from('"');
        loop {
            match chars.next() {
                Some(c) => tag.push(c),
                None => return tags,
            }
            if tag.ends_with('"') {
                break;
            }
        }
        while chars.next_if(|c| [' ', '\t'].contains(c)).is_some() {}
        if chars.peek().is_some_and(|&c| c != ',') {
            return tags;
        }
        tags.push((is_weak, tag));
    }
}
