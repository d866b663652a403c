//! Ranges: what is asked for is what a plain reference says, and what is sent lies within the file, apart and in order.
//!
//! An input is the length of the file, a line end, and the field.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::http::body::{Body, Chunk};
use millpond::http::partial::{self, Boundary};
use millpond::http::range::{self, Asked, PART_HEAD_BYTES, RANGES, Span};
use millpond::http::{Response, StatusCode};

#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Whole,
    Nothing,
    /// First and last byte of each part.
    Parts(Vec<(u128, u128)>),
}

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|&b| b == b'\n') else { return };
    let Some(len) = std::str::from_utf8(&data[..end]).ok().and_then(|text| text.parse::<u64>().ok()) else { return };
    let field = &data[end + 1..];
    let asked = range::parse(field, len);
    let spans = |spans: &[Span]| spans.iter().map(|span| (span.first.into(), span.last.into())).collect();
    let got = match &asked {
        Asked::Whole => Expected::Whole,
        Asked::Unsatisfiable => Expected::Nothing,
        Asked::Part(span) => Expected::Parts(spans(&[*span])),
        Asked::Parts(several) => {
            assert!(several.len() > 1);
            Expected::Parts(spans(several))
        }
    };
    assert_eq!(got, reference(field, len));
    answer(asked, len, &got);
});

/// The answer with what was asked for: its parts are those, and it is as long as it says.
fn answer(asked: Asked, len: u64, expected: &Expected) {
    let part = |span: Span| {
        assert!(span.first <= span.last && span.last < len);
        Chunk::Mem(vec![b'.'; span.len().min(10) as usize].into())
    };
    let whole = Response { body: Body::from("all"), ..Response::new(StatusCode::OK) };
    match (partial::narrow(whole, asked, len, part, || Boundary(7)), expected) {
        (Ok(response), Expected::Whole) => assert_eq!((response.status.as_u16(), response.body.len()), (200, Some(3))),
        (Ok(response), Expected::Parts(parts)) => {
            assert_eq!(response.status.as_u16(), 206);
            let Body::Chunks(chunks) = response.body else { panic!("its length is known") };
            assert_eq!(chunks.len(), if parts.len() == 1 { 1 } else { 2 * parts.len() + 1 });
        }
        (Err(refuse), Expected::Nothing) => assert_eq!(refuse.status.as_u16(), 416),
        (got, expected) => panic!("{got:?} for {expected:?}"),
    }
}

/// RFC 9110 section 14.1.2, with numbers that do not overflow, and all ranges sorted to join them.
fn reference(field: &[u8], len: u64) -> Expected {
    let Some(at) = field.iter().position(|&b| b == b'=') else { return Expected::Whole };
    if field[..at].to_ascii_lowercase() != b"bytes" {
        return Expected::Whole;
    }
    let len = u128::from(len);
    let blank = |b: &u8| b" \t\n\x0C\r".contains(b);
    let (mut asked, mut count) = (Vec::new(), 0);
    for element in field[at + 1..].split(|&b| b == b',') {
        let text: Vec<u8> = element.iter().copied().skip_while(blank).collect();
        let text: Vec<u8> = text.into_iter().rev().skip_while(blank).collect::<Vec<_>>().into_iter().rev().collect();
        if text.is_empty() {
            continue;
        }
        count += 1;
        let Ok(text) = String::from_utf8(text) else { return Expected::Whole };
        let Some((first, last)) = text.split_once('-') else { return Expected::Whole };
        let number = |digits: &str| -> Option<u128> {
            let is_number = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
            // whatever is past 64 bits is past the end of every file
            is_number.then(|| digits.parse().unwrap_or(u128::MAX).min(u64::MAX.into()))
        };
        match (first, number(first), last, number(last)) {
            ("", _, _, Some(bytes)) if bytes > 0 && len == 0 => return Expected::Whole,
            ("", _, _, Some(0)) => {}
            ("", _, _, Some(bytes)) => asked.push((len.saturating_sub(bytes), len - 1)),
            (_, Some(first), "", _) if first < len => asked.push((first, len - 1)),
            (_, Some(_), "", _) => {}
            (_, Some(first), _, Some(last)) if first > last => return Expected::Whole,
            (_, Some(first), _, Some(last)) if first < len => asked.push((first, last.min(len - 1))),
            (_, Some(_), _, Some(_)) => {}
            _ => return Expected::Whole,
        }
    }
    let sum: u128 = asked.iter().map(|(first, last)| last - first + 1).sum();
    if count == 0 || count > RANGES || sum > len {
        return Expected::Whole;
    }
    // each with its place in the list
    let mut sorted: Vec<_> = asked.into_iter().enumerate().collect();
    sorted.sort_by_key(|&(_, span)| span);
    let mut joined: Vec<(usize, (u128, u128))> = Vec::new();
    for (place, (first, last)) in sorted {
        match joined.last_mut() {
            Some((before, span)) if first < span.1 + 1 + u128::from(PART_HEAD_BYTES) => {
                *before = place.min(*before);
                span.1 = span.1.max(last);
            }
            _ => joined.push((place, (first, last))),
        }
    }
    joined.sort_by_key(|&(place, _)| place);
    if joined.is_empty() { Expected::Nothing } else { Expected::Parts(joined.into_iter().map(|(_, span)| span).collect()) }
}
