//! Preconditions (RFC 9110 section 13): whether a request is carried out, answered with 304, or refused with 412.

use super::{Method, Request, date, header};

/// What a resource is compared by.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// The strong entity tag, with its quotes.
    pub etag: &'a [u8],
    /// Last-Modified, in seconds since 1970.
    pub modified_s: u64,
}

/// What the preconditions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Carry the request out.
    Proceed,
    /// The client has it already: 304.
    NotModified,
    /// A condition failed: 412.
    Failed,
}

/// Evaluates the preconditions in their order of precedence (RFC 9110 section 13.2.2). If-Range is apart: see `range_holds`.
pub fn evaluate(request: &Request, now: Validators) -> Verdict {
    if has(request, &header::IF_MATCH) {
        if !lists(request, &header::IF_MATCH, now.etag, Comparison::Strong) {
            return Verdict::Failed;
        }
    } else if let Some(since) = request.field(&header::IF_UNMODIFIED_SINCE).and_then(date::parse)
        && now.modified_s > since
    {
        return Verdict::Failed;
    }
    let safe = matches!(request.method, Method::GET | Method::HEAD);
    if has(request, &header::IF_NONE_MATCH) {
        if lists(request, &header::IF_NONE_MATCH, now.etag, Comparison::Weak) {
            return if safe { Verdict::NotModified } else { Verdict::Failed };
        }
    } else if safe
        && let Some(since) = request.field(&header::IF_MODIFIED_SINCE).and_then(date::parse)
        && now.modified_s <= since
    {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// Whether If-Range lets the range be served: there is none, or it names exactly these bytes (RFC 9110 section 13.1.5).
pub fn range_holds(request: &Request, now: Validators) -> bool {
    let Some(value) = request.field(&header::IF_RANGE) else { return true };
    if value.starts_with(b"\"") || value.starts_with(b"W/") { value == now.etag } else { date::parse(value) == Some(now.modified_s) }
}

#[derive(Clone, Copy, PartialEq)]
enum Comparison {
    Strong,
    Weak,
}

fn has(request: &Request, name: &header::HeaderName) -> bool {
    request.field(name).is_some()
}

/// Whether a list of entity tags, over all fields of the name, holds this one (RFC 9110 section 8.8.3.2); `*` holds any.
fn lists(request: &Request, name: &header::HeaderName, etag: &[u8], comparison: Comparison) -> bool {
    request.named(name.as_str()).any(|value| {
        value.trim_ascii() == b"*" || tags(value).any(|(weak, tag)| tag == etag && !(weak && comparison == Comparison::Strong))
    })
}

/// The entity tags of a list: whether each is weak, and its opaque part with the quotes. A tag may hold commas, so the list is
/// read and not split; it ends at the first thing that is no tag.
fn tags(list: &[u8]) -> impl Iterator<Item = (bool, &[u8])> {
    let mut rest = list;
    std::iter::from_fn(move || {
        while let [b' ' | b'\t' | b',', tail @ ..] = rest {
            rest = tail;
        }
        let weak = rest.starts_with(b"W/");
        let opaque = if weak { &rest[2..] } else { rest };
        let end = 1 + memchr::memchr(b'"', opaque.strip_prefix(b"\"")?)?;
        let (tag, tail) = opaque.split_at(end + 1);
        rest = tail;
        Some((weak, tag))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::tests::request;

    const NOW: Validators = Validators { etag: b"\"abc\"", modified_s: 784_111_777 };
    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    #[test]
    fn preconditions() {
        use Verdict::{Failed, NotModified, Proceed};
        let cases = [
            ("GET", String::new(), Proceed),
            ("GET", "If-None-Match: \"abc\"".into(), NotModified),
            ("HEAD", "If-None-Match: \"abc\"".into(), NotModified),
            ("POST", "If-None-Match: \"abc\"".into(), Failed),
            ("GET", "If-None-Match: W/\"abc\"".into(), NotModified),
            ("GET", "If-None-Match: *".into(), NotModified),
            ("GET", "If-None-Match: \"x\", \"a,b\" ,, \"abc\"".into(), NotModified),
            ("GET", "If-None-Match: \"x\"\r\nIf-None-Match: \"abc\"".into(), NotModified),
            ("GET", "If-None-Match: \"x\"".into(), Proceed),
            ("GET", "If-None-Match: abc".into(), Proceed),
            ("GET", "If-None-Match: \"abc".into(), Proceed),
            ("GET", "If-None-Match:".into(), Proceed),
            ("GET", format!("If-Modified-Since: {AT}"), NotModified),
            ("GET", format!("If-Modified-Since: {BEFORE}"), Proceed),
            ("POST", format!("If-Modified-Since: {AT}"), Proceed),
            ("GET", "If-Modified-Since: soon".into(), Proceed),
            ("GET", format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {AT}"), Proceed),
            ("GET", "If-Match: \"abc\"".into(), Proceed),
            ("GET", "If-Match: *".into(), Proceed),
            ("GET", "If-Match: W/\"abc\"".into(), Failed),
            ("GET", "If-Match: \"x\"".into(), Failed),
            ("GET", "If-Match: \"abc\"\r\nIf-None-Match: \"abc\"".into(), NotModified),
            ("GET", format!("If-Unmodified-Since: {AT}"), Proceed),
            ("GET", format!("If-Unmodified-Since: {BEFORE}"), Failed),
            ("GET", format!("If-Match: \"abc\"\r\nIf-Unmodified-Since: {BEFORE}"), Proceed),
        ];
        for (method, field, expected) in cases {
            assert_eq!(evaluate(&request(method, "/", &field), NOW), expected, "{method} {field}");
        }
    }

    #[test]
    fn if_range_compares_strongly() {
        let cases = [
            ("\"abc\"".to_owned(), true),
            ("W/\"abc\"".into(), false),
            ("\"x\"".into(), false),
            (AT.into(), true),
            (BEFORE.into(), false),
            ("soon".into(), false),
        ];
        for (value, holds) in cases {
            assert_eq!(range_holds(&request("GET", "/", &format!("If-Range: {value}")), NOW), holds, "{value}");
        }
        assert!(range_holds(&request("GET", "/", ""), NOW));
    }
}
