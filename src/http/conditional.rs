//! Preconditions (RFC 9110 section 13): whether a request is carried out, answered with 304, or refused with 412.

use super::{Method, Names, Request, date, header};

/// How long after Last-Modified it tells the bytes apart: the second that it names has to be over, so that no change can have
/// followed in it (RFC 9110 section 8.8.2.2), and one more, for clocks that are not read at the same moment.
const STRONG_AFTER_S: u64 = 2;

/// What a resource is compared by.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// The strong entity tag, with its quotes.
    pub etag: &'a [u8],
    /// Last-Modified, in seconds since 1970.
    pub modified_s: u64,
}

/// The fields that are preconditions, without If-Range.
pub const CONDITIONS: Names = Names::of(&["if-match", "if-unmodified-since", "if-none-match", "if-modified-since"]);

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
///
/// It is for requests that would succeed without them (section 13.2.1), and for a resource that is there: `*` names it. `now_s` is the
/// time of the response in seconds since 1970.
pub fn evaluate(request: &Request, current: Validators, now_s: u64) -> Verdict {
    let is_newer = |since: i64| i128::from(current.modified_s) > i128::from(since);
    if request.lacks(CONDITIONS) {
        return Verdict::Proceed;
    }
    if has(request, &header::IF_MATCH) {
        if !lists(request, &header::IF_MATCH, current.etag, Comparison::Strong) {
            return Verdict::Failed;
        }
    } else if let Some(since) = since(request, &header::IF_UNMODIFIED_SINCE, now_s)
        && is_newer(since)
    {
        return Verdict::Failed;
    }
    let safe = matches!(request.method, Method::GET | Method::HEAD);
    if has(request, &header::IF_NONE_MATCH) {
        if lists(request, &header::IF_NONE_MATCH, current.etag, Comparison::Weak) {
            return if safe { Verdict::NotModified } else { Verdict::Failed };
        }
    } else if safe
        && let Some(since) = since(request, &header::IF_MODIFIED_SINCE, now_s)
        && !is_newer(since)
    {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// Whether If-Range lets the range be served: there is none, or it names exactly these bytes (RFC 9110 section 13.1.5). A date does
/// so only when it is old enough at `now_s`, the time of the response in seconds since 1970.
pub fn range_holds(request: &Request, current: Validators, now_s: u64) -> bool {
    if !has(request, &header::IF_RANGE) {
        return true;
    }
    match request.only(&header::IF_RANGE) {
        Some(tag @ ([b'"', ..] | [b'W', b'/', ..])) => tag == current.etag,
        Some(value) => {
            let is_named = date::parse(value, now_s).is_some_and(|date_s| u64::try_from(date_s) == Ok(current.modified_s));
            is_named && now_s >= current.modified_s.saturating_add(STRONG_AFTER_S)
        }
        None => false,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Comparison {
    Strong,
    Weak,
}

fn has(request: &Request, name: &header::HeaderName) -> bool {
    request.field(name).is_some()
}

/// The date in a field; what is no date, or more than one, is ignored (RFC 9110 sections 13.1.3 and 13.1.4).
fn since(request: &Request, name: &header::HeaderName, now_s: u64) -> Option<i64> {
    request.only(name).and_then(|value| date::parse(value, now_s))
}

/// Whether a list of entity tags, over all fields of the name, holds this one (RFC 9110 section 8.8.3.2); `*` holds any.
fn lists(request: &Request, name: &header::HeaderName, etag: &[u8], comparison: Comparison) -> bool {
    request.named(name.as_str()).any(|value| {
        value.trim_ascii() == b"*" || tags(value).any(|(weak, tag)| tag == etag && !(weak && comparison == Comparison::Strong))
    })
}

/// The entity tags of a list: whether each is weak, and its opaque part with the quotes (RFC 9110 section 8.8.3). A tag may hold
/// commas, so the list is read and not split; it ends at the first thing that is no tag.
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
        let is_apart = matches!(tail.trim_ascii_start(), [] | [b',', ..]);
        is_apart.then_some((weak, tag))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::tests::request;

    const CURRENT: Validators = Validators { etag: b"\"abc\"", modified_s: 784_111_777 };
    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    /// In 2026.
    const NOW_S: u64 = 1_792_281_600;
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    #[track_caller]
    fn assert_verdicts(cases: &[(&str, &str, Verdict)]) {
        for (method, fields, expected) in cases {
            let fields = fields.replace("AT", AT).replace("BEFORE", BEFORE).replace("AFTER", AFTER);
            assert_eq!(evaluate(&request(method, "/", &fields), CURRENT, NOW_S), *expected, "{method} {fields}");
        }
    }

    #[test]
    fn lists_of_tags() {
        use Verdict::{Failed, NotModified, Proceed};
        assert_verdicts(&[
            ("GET", "", Proceed),
            ("GET", "If-None-Match: \"abc\"", NotModified),
            ("HEAD", "If-None-Match: \"abc\"", NotModified),
            ("POST", "If-None-Match: \"abc\"", Failed),
            ("GET", "If-None-Match: W/\"abc\"", NotModified),
            ("GET", "If-None-Match: w/\"abc\"", Proceed),
            ("GET", "If-None-Match: W/ \"abc\"", Proceed),
            ("GET", "If-None-Match: *", NotModified),
            ("POST", "If-None-Match: *", Failed),
            ("GET", "If-None-Match: \"*\"", Proceed),
            ("GET", "If-None-Match: \"x\", \"a,b\" ,, \"abc\"", NotModified),
            ("GET", "If-None-Match: ,\t,\"abc\",", NotModified),
            ("GET", "If-None-Match: \"x\"\r\nIf-None-Match: \"abc\"", NotModified),
            ("GET", "If-None-Match: \"\u{e9}\", \"\", \"abc\"", NotModified),
            ("GET", "If-None-Match: \"x\"", Proceed),
            ("GET", "If-None-Match: \"ABC\"", Proceed),
            ("GET", "If-None-Match: abc", Proceed),
            ("GET", "If-None-Match: \"abc", Proceed),
            ("GET", "If-None-Match: \"x, \"abc\"", Proceed),
            ("GET", "If-None-Match: \"x\"\"abc\"", Proceed),
            ("GET", "If-None-Match: \"abc\"x", Proceed),
            ("GET", "If-None-Match: x, \"abc\"", Proceed),
            ("GET", "If-None-Match:", Proceed),
            ("GET", "If-Match: \"abc\"", Proceed),
            ("GET", "If-Match: \"x\"\r\nIf-Match: \"y\", \"abc\"", Proceed),
            ("GET", "If-Match: *", Proceed),
            ("GET", "If-Match: W/\"abc\"", Failed),
            ("GET", "If-Match: W/\"abc\", \"abc\"", Proceed),
            ("GET", "If-Match: \"x\"", Failed),
            ("GET", "If-Match: abc", Failed),
            ("GET", "If-Match:", Failed),
        ]);
    }

    #[test]
    fn dates() {
        use Verdict::{Failed, NotModified, Proceed};
        assert_verdicts(&[
            ("GET", "If-Modified-Since: AT", NotModified),
            ("GET", "If-Modified-Since: AFTER", NotModified),
            ("GET", "If-Modified-Since: BEFORE", Proceed),
            ("HEAD", "If-Modified-Since: AT", NotModified),
            ("POST", "If-Modified-Since: AT", Proceed),
            ("GET", "If-Modified-Since: soon", Proceed),
            ("GET", "If-Modified-Since: AT, AT", Proceed),
            ("GET", "If-Modified-Since: AT\r\nIf-Modified-Since: AT", Proceed),
            ("GET", "If-Unmodified-Since: AT", Proceed),
            ("GET", "If-Unmodified-Since: AFTER", Proceed),
            ("GET", "If-Unmodified-Since: BEFORE", Failed),
            ("POST", "If-Unmodified-Since: BEFORE", Failed),
            ("GET", "If-Unmodified-Since: Wed, 31 Dec 1969 23:59:59 GMT", Failed),
            ("GET", "If-Modified-Since: Wed, 31 Dec 1969 23:59:59 GMT", Proceed),
            ("GET", "If-Unmodified-Since: Wednesday, 01-Jan-75 00:00:00 GMT", Proceed),
            ("GET", "If-Unmodified-Since: Saturday, 01-Jan-77 00:00:00 GMT", Failed),
            ("GET", "If-Unmodified-Since: soon", Proceed),
            ("GET", "If-Unmodified-Since: BEFORE\r\nIf-Unmodified-Since: BEFORE", Proceed),
        ]);
    }

    #[test]
    fn precedence() {
        use Verdict::{Failed, NotModified, Proceed};
        assert_verdicts(&[
            ("GET", "If-Modified-Since: AT\r\nIf-None-Match: \"x\"", Proceed),
            ("GET", "If-Modified-Since: BEFORE\r\nIf-None-Match: \"abc\"", NotModified),
            ("GET", "If-Modified-Since: AT\r\nIf-None-Match:", Proceed),
            ("GET", "If-Unmodified-Since: BEFORE\r\nIf-Match: \"abc\"", Proceed),
            ("GET", "If-Unmodified-Since: AT\r\nIf-Match: \"x\"", Failed),
            ("GET", "If-None-Match: \"abc\"\r\nIf-Match: \"abc\"", NotModified),
            ("GET", "If-None-Match: \"abc\"\r\nIf-Match: \"x\"", Failed),
            ("GET", "If-None-Match: \"abc\"\r\nIf-Unmodified-Since: BEFORE", Failed),
            ("GET", "If-None-Match: \"abc\"\r\nIf-Unmodified-Since: AT", NotModified),
            ("GET", "If-Modified-Since: AT\r\nIf-Match: \"abc\"", NotModified),
            ("GET", "If-Modified-Since: AT\r\nIf-Match: \"x\"", Failed),
            ("GET", "If-Modified-Since: AT\r\nIf-Unmodified-Since: BEFORE", Failed),
        ]);
    }

    #[test]
    fn if_range_compares_strongly() {
        let cases = [
            ("", true),
            ("If-Range: \"abc\"", true),
            ("If-Range: W/\"abc\"", false),
            ("If-Range: \"x\"", false),
            ("If-Range: abc", false),
            ("If-Range: *", false),
            ("If-Range:", false),
            ("If-Range: \"abc\", \"x\"", false),
            ("If-Range: \"abc\"\r\nIf-Range: \"abc\"", false),
            ("If-Range: AT", true),
            ("If-Range: Sunday, 06-Nov-94 08:49:37 GMT", true),
            ("If-Range: BEFORE", false),
            ("If-Range: AFTER", false),
            ("If-Range: soon", false),
        ];
        for (field, holds) in cases {
            let field = field.replace("AT", AT).replace("BEFORE", BEFORE).replace("AFTER", AFTER);
            assert_eq!(range_holds(&request("GET", "/", &field), CURRENT, NOW_S), holds, "{field}");
        }
    }

    #[test]
    fn a_date_is_strong_once_its_second_is_over() {
        let asked = request("GET", "/", &format!("If-Range: {AT}"));
        for (now_s, holds) in [(0, false), (784_111_777, false), (784_111_778, false), (784_111_779, true), (u64::MAX, true)] {
            assert_eq!(range_holds(&asked, CURRENT, now_s), holds, "{now_s}");
        }
        // a tag always is
        assert!(range_holds(&request("GET", "/", "If-Range: \"abc\""), CURRENT, 0));
    }
}
