//! Answers with a part of a file: 206 with one range or with several, and 416 (RFC 9110 sections 14.2 and 15.3.7).

use smallvec::SmallVec;

use super::body::{Body, Chunk};
use super::range::{Asked, Span};
use super::refuse::Refuse;
use super::{Response, StatusCode, header};

/// What separates several parts. It is made up by chance for each response, so that no file can hold it.
#[derive(Clone, Copy, Debug)]
pub struct Boundary(pub u128);

impl std::fmt::Display for Boundary {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Narrows the answer with the whole of a file of `len` bytes down to what is asked for; `part` gives the bytes of a span.
///
/// # Errors
///
/// 416 where there is nothing of it.
pub fn narrow(
    mut whole: Response,
    asked: Asked,
    len: u64,
    part: impl Fn(Span) -> Chunk,
    boundary: impl FnOnce() -> Boundary,
) -> Result<Response, Refuse> {
    match asked {
        Asked::Whole => {}
        Asked::Unsatisfiable => {
            let field = Some((header::CONTENT_RANGE, format!("bytes */{len}").into()));
            return Err(Refuse { field, ..Refuse::new(StatusCode::RANGE_NOT_SATISFIABLE, "The file has no such range of bytes.") });
        }
        Asked::Part(span) => {
            whole.status = StatusCode::PARTIAL_CONTENT;
            whole.fields.push(&header::CONTENT_RANGE, content_range(span, len));
            whole.body = part(span).into();
        }
        // the coding would be taken for that of the body with all its parts
        Asked::Parts(_) if whole.fields.value(&header::CONTENT_ENCODING).is_some() => {}
        Asked::Parts(spans) => {
            let boundary = boundary();
            whole.status = StatusCode::PARTIAL_CONTENT;
            whole.body = multipart(&spans, len, whole.fields.value(&header::CONTENT_TYPE), boundary, part);
            whole.fields.replace(&header::CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}"));
        }
    }
    Ok(whole)
}

/// A body of several parts, each with a head that gives its type and its place (RFC 9110 section 14.6).
fn multipart(spans: &[Span], len: u64, content_type: Option<&[u8]>, boundary: Boundary, part: impl Fn(Span) -> Chunk) -> Body {
    let mut chunks = SmallVec::with_capacity(2 * spans.len() + 1);
    let mut before = "";
    for &span in spans {
        let mut head = format!("{before}--{boundary}\r\n").into_bytes();
        if let Some(content_type) = content_type {
            head.extend_from_slice(&[b"content-type: ", content_type, b"\r\n"].concat());
        }
        head.extend_from_slice(format!("content-range: {}\r\n\r\n", content_range(span, len)).as_bytes());
        chunks.push(Chunk::Mem(head.into()));
        chunks.push(part(span));
        before = "\r\n";
    }
    chunks.push(Chunk::Mem(format!("\r\n--{boundary}--\r\n").into()));
    Body::Chunks(chunks)
}

/// RFC 9110 section 14.4.
fn content_range(span: Span, len: u64) -> String {
    format!("bytes {}-{}/{len}", span.first, span.last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fields::Fields;
    use crate::http::range::{self, PART_HEAD_BYTES};
    use bytes::Bytes;

    const LEN: u64 = 1000;

    fn whole() -> Response {
        let fields = Fields::default().with(&header::CONTENT_TYPE, "text/plain").with(&header::ETAG, "\"x\"");
        Response { fields, body: vec![b'.'; LEN as usize].into(), ..Response::new(StatusCode::OK) }
    }

    /// The answer to a Range field; each byte of the file is the last digit of its place.
    fn asked(set: &str, whole: Response) -> Result<Response, Refuse> {
        let part = |span: Span| Chunk::Mem((span.first..=span.last).map(|at| b'0' + (at % 10) as u8).collect::<Vec<_>>().into());
        narrow(whole, range::parse(format!("bytes={set}").as_bytes(), LEN), LEN, part, || Boundary(0xabc))
    }

    fn text(response: &Response) -> String {
        let Body::Chunks(chunks) = &response.body else { panic!("its length is known") };
        let bytes = chunks.iter().flat_map(|chunk| if let Chunk::Mem(bytes) = chunk { bytes.to_vec() } else { Vec::new() });
        String::from_utf8(bytes.collect()).unwrap()
    }

    #[test]
    fn one_part() {
        let response = asked("7-9", whole()).unwrap();
        assert_eq!((response.status, text(&response).as_str()), (StatusCode::PARTIAL_CONTENT, "789"));
        assert_eq!(response.fields.lines()[1], b"content-type: text/plain\r\netag: \"x\"\r\ncontent-range: bytes 7-9/1000\r\n");
    }

    #[test]
    fn two_parts() {
        let response = asked("507-509,0-0", whole()).unwrap();
        let expected = "--00000000000000000000000000000abc\r\n\
            content-type: text/plain\r\n\
            content-range: bytes 507-509/1000\r\n\
            \r\n\
            789\r\n\
            --00000000000000000000000000000abc\r\n\
            content-type: text/plain\r\n\
            content-range: bytes 0-0/1000\r\n\
            \r\n\
            0\r\n\
            --00000000000000000000000000000abc--\r\n";
        assert_eq!(text(&response), expected);
        assert_eq!((response.status, response.body.len()), (StatusCode::PARTIAL_CONTENT, Some(expected.len() as u64)));
        // Content-Range stands in the parts alone
        let fields: &[u8] = b"etag: \"x\"\r\ncontent-type: multipart/byteranges; boundary=00000000000000000000000000000abc\r\n";
        assert_eq!(response.fields.lines()[1], fields);
    }

    #[test]
    fn a_part_without_a_type_has_none() {
        let response = asked("507-509,0-0", Response::new(StatusCode::OK)).unwrap();
        assert!(!text(&response).contains("content-type"), "{}", text(&response));
    }

    #[test]
    fn the_whole() {
        let coded = Response { fields: whole().fields.with(&header::CONTENT_ENCODING, "gzip"), ..whole() };
        for (set, whole) in [("9-0", whole()), ("0-,0-", whole()), ("0-0,507-509", coded)] {
            let response = asked(set, whole).unwrap();
            assert_eq!((response.status, response.body.len()), (StatusCode::OK, Some(LEN)), "{set}");
            assert_eq!(response.fields.value(&header::CONTENT_RANGE), None, "{set}");
        }
    }

    #[test]
    fn nothing() {
        let refuse = asked("1000-", whole()).unwrap_err();
        assert_eq!(
            (refuse.status, refuse.field),
            (StatusCode::RANGE_NOT_SATISFIABLE, Some((header::CONTENT_RANGE, "bytes */1000".into())))
        );
    }

    #[test]
    fn joining_near_ranges_never_costs_more() {
        let bytes = |spans: &[Span]| multipart(spans, 1, Some(b"a/b"), Boundary(0), |_| Chunk::Mem(Bytes::new())).len().unwrap();
        let span = Span { first: 0, last: 0 };
        assert!(bytes(&[span, span]) - bytes(&[span]) >= PART_HEAD_BYTES);
    }
}
