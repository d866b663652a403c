//! Byte ranges (RFC 9110 section 14): what a Range field asks for, of a file of a certain length.
//!
//! Invariant: what is to be sent lies within the file, no byte of it twice, in at most `RANGES` parts.

use smallvec::SmallVec;

/// Ranges that one request may ask for. Players and readers of documents ask for a few; with more, the whole file is sent.
pub const RANGES: usize = 16;
/// Ranges with fewer bytes than this between them are sent as one: the head of another part costs more (RFC 9110 section 15.3.7.2).
pub const PART_HEAD_BYTES: u64 = 80;

/// What a Range field comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The whole file: the field is of another unit, not of the grammar, or asks for too much.
    Whole,
    /// These bytes: 206.
    Part(Span),
    /// At least two spans, apart from each other, in the order in which they were asked for: 206 with multipart/byteranges.
    Parts(Spans),
    /// Nothing of the file: 416.
    Unsatisfiable,
}

/// Spans of a file.
pub type Spans = SmallVec<[Span; 1]>;

/// Consecutive bytes of a file, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Position of the first byte.
    pub first: u64,
    /// Position of the last byte.
    pub last: u64,
}

impl Span {
    /// Length in bytes; at most that of the file.
    #[expect(clippy::len_without_is_empty, reason = "a span is never empty")]
    pub fn len(self) -> u64 {
        self.last - self.first + 1
    }

    fn is_near(self, other: Span) -> bool {
        let reach = |span: Span| span.last.saturating_add(PART_HEAD_BYTES);
        self.first <= reach(other) && other.first <= reach(self)
    }
}

/// Reads a Range field. Positions past the end count as the end; numbers past 64 bits as the largest.
///
/// The whole file is sent where ranges are malformed, more than `RANGES`, or together longer than the file: then they overlap, and
/// nobody needs that (RFC 9110 section 14.2).
pub fn parse(value: &[u8], len: u64) -> Asked {
    let Some((unit, set)) = memchr::memchr(b'=', value).map(|at| (&value[..at], &value[at + 1..])) else { return Asked::Whole };
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return Asked::Whole;
    }
    let mut spans = Spans::new();
    let (mut count, mut sum) = (0, 0u128);
    // empty elements do not count (RFC 9110 section 5.6.1.2)
    for spec in set.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|spec| !spec.is_empty()) {
        count += 1;
        match Spec::parse(spec).map(|spec| spec.of(len)) {
            _ if count > RANGES => return Asked::Whole,
            None | Some(Part::Whole) => return Asked::Whole,
            Some(Part::Nothing) => {}
            Some(Part::Span(span)) => {
                sum += u128::from(span.len());
                join(&mut spans, span);
            }
        }
    }
    match spans[..] {
        _ if count == 0 || sum > u128::from(len) => Asked::Whole,
        [] => Asked::Unsatisfiable,
        [span] => Asked::Part(span),
        _ => Asked::Parts(spans),
    }
}

/// Adds a span; those that it overlaps or comes near to become one with it, in the place of the first of them.
fn join(spans: &mut Spans, new: Span) {
    let (mut all, mut place) = (new, spans.len());
    // what has grown may come near to others
    while let Some(i) = spans.iter().position(|span| span.is_near(all)) {
        let old = spans.remove(i);
        all = Span { first: all.first.min(old.first), last: all.last.max(old.last) };
        place = place.min(i);
    }
    spans.insert(place.min(spans.len()), all);
}

/// One range, as it was asked for (RFC 9110 section 14.1.2).
enum Spec {
    From { first: u64, last: u64 },
    Last { bytes: u64 },
}

/// What a range comes to.
enum Part {
    Whole,
    Span(Span),
    Nothing,
}

impl Spec {
    fn parse(spec: &[u8]) -> Option<Spec> {
        let dash = memchr::memchr(b'-', spec)?;
        match (&spec[..dash], &spec[dash + 1..]) {
            (b"", suffix) => Some(Spec::Last { bytes: number(suffix)? }),
            (first, b"") => Some(Spec::From { first: number(first)?, last: u64::MAX }),
            (first, last) => {
                let is_in_order = size(first) <= size(last);
                let (first, last) = (number(first)?, number(last)?);
                is_in_order.then_some(Spec::From { first, last })
            }
        }
    }

    fn of(self, len: u64) -> Part {
        match self {
            Spec::From { first, last } if first < len => Part::Span(Span { first, last: last.min(len - 1) }),
            Spec::From { .. } | Spec::Last { bytes: 0 } => Part::Nothing,
            // it can be satisfied, but there is no Content-Range for no bytes
            Spec::Last { .. } if len == 0 => Part::Whole,
            Spec::Last { bytes } => Part::Span(Span { first: len.saturating_sub(bytes), last: len - 1 }),
        }
    }
}

/// A decimal number.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |n: u64, d| n.saturating_mul(10).saturating_add(u64::from(d - b'0'))))
}

/// What puts decimal numbers in order, however large they are.
fn size(digits: &[u8]) -> (usize, &[u8]) {
    let zeros = digits.iter().take_while(|&&d| d == b'0').count();
    (digits.len() - zeros, &digits[zeros..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write;

    /// What a field comes to, in short: `0-4 7-9`, `whole` or `none`.
    fn parsed(value: &[u8], len: u64) -> String {
        let spans = match parse(value, len) {
            Asked::Whole => return "whole".into(),
            Asked::Unsatisfiable => return "none".into(),
            Asked::Part(span) => Spans::from_slice(&[span]),
            Asked::Parts(spans) => spans,
        };
        spans.iter().map(|Span { first, last }| format!("{first}-{last}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn single_ranges() {
        let cases = [
            ("bytes=0-0", 10, "0-0"),
            ("bytes=0-9", 10, "0-9"),
            ("bytes=0-10", 10, "0-9"),
            ("bytes=9-9", 10, "9-9"),
            ("bytes=10-10", 10, "none"),
            ("bytes=3-", 10, "3-9"),
            ("bytes=10-", 10, "none"),
            ("bytes=-3", 10, "7-9"),
            ("bytes=-10", 10, "0-9"),
            ("bytes=-11", 10, "0-9"),
            ("bytes=-0", 10, "none"),
            ("BYTES=1-2", 10, "1-2"),
            ("bytes= 1-2 ", 10, "1-2"),
            ("bytes=\t1-2\t", 10, "1-2"),
            ("bytes=0001-02", 10, "1-2"),
            ("bytes=2-1", 10, "whole"),
            ("bytes=-", 10, "whole"),
            ("bytes=", 10, "whole"),
            ("bytes=,", 10, "whole"),
            ("bytes", 10, "whole"),
            ("bytes=a-b", 10, "whole"),
            ("bytes=+1-2", 10, "whole"),
            ("bytes=1 -2", 10, "whole"),
            ("bytes=1-2-3", 10, "whole"),
            ("bytes=--1", 10, "whole"),
            ("bytes=1-2\u{b}", 10, "whole"),
            ("bytes =1-2", 10, "whole"),
            ("lines=1-2", 10, "whole"),
        ];
        for (value, len, expected) in cases {
            assert_eq!(parsed(value.as_bytes(), len), expected, "{value} of {len}");
        }
    }

    #[test]
    fn an_empty_file_has_no_first_byte_but_a_suffix() {
        for (value, expected) in
            [("bytes=0-0", "none"), ("bytes=0-", "none"), ("bytes=-0", "none"), ("bytes=-1", "whole"), ("bytes=0-,-1", "whole")]
        {
            assert_eq!(parsed(value.as_bytes(), 0), expected, "{value}");
        }
    }

    #[test]
    fn numbers_at_the_edge_of_64_bits() {
        const MAX: u64 = u64::MAX;
        let cases = [
            ("bytes=0-18446744073709551615", 10, "0-9"),
            ("bytes=0-99999999999999999999999", 10, "0-9"),
            ("bytes=99999999999999999999999-", 10, "none"),
            ("bytes=18446744073709551616-18446744073709551617", 10, "none"),
            ("bytes=18446744073709551616-18446744073709551615", 10, "whole"),
            ("bytes=1-9,18446744073709551616-18446744073709551615", 10, "whole"),
            ("bytes=18446744073709551617-18446744073709551616", 10, "whole"),
            ("bytes=0018446744073709551616-18446744073709551616", 10, "none"),
            ("bytes=0000000000000000000000002-3", 10, "2-3"),
            ("bytes=-99999999999999999999999", 10, "0-9"),
            ("bytes=18446744073709551614-18446744073709551615", MAX, "18446744073709551614-18446744073709551614"),
            ("bytes=18446744073709551615-", MAX, "none"),
            ("bytes=-18446744073709551615", MAX, "0-18446744073709551614"),
            ("bytes=0-18446744073709551613,1-", MAX, "whole"),
            ("bytes=0-0,18446744073709551614-", MAX, "0-0 18446744073709551614-18446744073709551614"),
            ("bytes=18446744073709551614-,18446744073709551600-18446744073709551601", MAX, "18446744073709551600-18446744073709551614"),
        ];
        for (value, len, expected) in cases {
            assert_eq!(parsed(value.as_bytes(), len), expected, "{value} of {len}");
        }
    }

    #[test]
    fn several_ranges() {
        let cases = [
            ("in the order asked", "500-509,0-9,-10", "500-509 0-9 990-999"),
            ("white space and empty elements", " ,, 0-9 ,\t200-209,, ", "0-9 200-209"),
            ("those past the end are left out", "0-9,1000-,2000-3000,-0,500-509", "0-9 500-509"),
            ("one that is left", "1000-,0-9", "0-9"),
            ("none that is left", "1000-,-0", "none"),
            ("one that is malformed spoils all", "0-9,200-x", "whole"),
            ("also behind those past the end", "1000-,9-0", "whole"),
            ("side by side", "0-9,10-19", "0-19"),
            ("overlapping", "5-14,0-9", "0-14"),
            ("one within the other", "0-99,10-19", "0-99"),
            ("79 bytes between", "0-9,89-99", "0-99"),
            ("80 bytes between", "0-9,90-99", "0-9 90-99"),
            ("79 bytes between, backwards", "89-99,0-9", "0-99"),
            ("80 bytes between, backwards", "90-99,0-9", "90-99 0-9"),
            ("joined in the place of the first", "400-409,0-9,600-609,20-29", "400-409 0-29 600-609"),
            ("one that joins two", "100-109,700-709,300-309,150-259", "100-309 700-709"),
            ("one that joins all", "800-809,400-409,100-109,90-899", "90-899"),
            ("as long as the file", "0-499,500-999", "0-999"),
            ("longer than the file by a byte", "0-500,500-999", "whole"),
            ("the whole file, many times", "0-,0-,0-,0-,0-,0-", "whole"),
        ];
        for (name, set, expected) in cases {
            assert_eq!(parsed(format!("bytes={set}").as_bytes(), 1000), expected, "{name}: {set}");
        }
    }

    #[test]
    fn the_number_of_ranges_is_bounded() {
        let set = |count: u64| {
            let mut value = String::from("bytes=");
            (0..count).for_each(|i| write!(value, "{}-{},", i * 1000, i * 1000).unwrap());
            value
        };
        for (count, parts) in [(RANGES - 1, RANGES - 1), (RANGES, RANGES)] {
            assert!(matches!(parse(set(count as u64).as_bytes(), 1 << 20), Asked::Parts(spans) if spans.len() == parts), "{count}");
        }
        assert_eq!(parse(set(RANGES as u64 + 1).as_bytes(), 1 << 20), Asked::Whole);
        // those that come to nothing count too
        assert_eq!(parse(set(RANGES as u64 + 1).as_bytes(), 1), Asked::Whole);
    }

    /// Sets of ranges as clients may send them, and worse.
    fn sets() -> impl Strategy<Value = String> {
        let spec = prop_oneof![
            (0..1200u64, 0..150u64).prop_map(|(first, more)| format!("{first}-{}", first + more)),
            (0..1200u64).prop_map(|first| format!("{first}-")),
            (0..1200u64).prop_map(|bytes| format!("-{bytes}")),
        ];
        prop::collection::vec(spec, 1..20).prop_map(|specs| specs.join(","))
    }

    /// The bytes that are asked for, each by itself; how many ranges there are; the bytes of all of them together.
    fn reference(set: &str, len: usize) -> (Vec<bool>, usize, usize) {
        let (mut wanted, mut sum) = (vec![false; len], 0);
        for spec in set.split(',') {
            let (first, last) = spec.split_once('-').unwrap();
            let range = match (first.parse::<usize>(), last.parse::<usize>()) {
                (Ok(first), Ok(last)) => first.min(len)..(last + 1).min(len),
                (Ok(first), Err(_)) => first.min(len)..len,
                (_, Ok(bytes)) => len.saturating_sub(bytes)..len,
                _ => unreachable!(),
            };
            sum += range.len();
            wanted[range].fill(true);
        }
        (wanted, set.split(',').count(), sum)
    }

    proptest! {
        #[test]
        fn joined_ranges_cover_what_was_asked_and_no_more(set in sets(), len in 1usize..1500) {
            let (wanted, count, sum) = reference(&set, len);
            let spans = match parse(format!("bytes={set}").as_bytes(), len as u64) {
                Asked::Whole => {
                    prop_assert!(count > RANGES || sum > len);
                    return Ok(());
                }
                Asked::Unsatisfiable => Spans::new(),
                Asked::Part(span) => Spans::from_slice(&[span]),
                Asked::Parts(spans) => spans,
            };
            prop_assert!(count <= RANGES && sum <= len && spans.len() <= count);
            let mut sent = vec![0; len];
            for span in &spans {
                prop_assert!(span.first <= span.last && span.last < len as u64);
                let (first, last) = (span.first as usize, span.last as usize);
                prop_assert!(wanted[first] && wanted[last], "it begins and ends with what was asked");
                let gaps = wanted[first..=last].split(|asked| *asked).map(<[bool]>::len);
                prop_assert!(gaps.max() < Some(PART_HEAD_BYTES as usize), "only small gaps are filled");
                sent[first..=last].iter_mut().for_each(|times| *times += 1);
            }
            for at in 0..len {
                prop_assert!(sent[at] <= 1 && (sent[at] == 1 || !wanted[at]), "byte {at}: {} times, asked: {}", sent[at], wanted[at]);
            }
        }

        #[test]
        fn no_field_breaks_it(value in "(bytes=)?[0-9, x-]{0,60}", len in prop_oneof![Just(0), Just(1), Just(u64::MAX), any::<u64>()]) {
            let spans = match parse(value.as_bytes(), len) {
                Asked::Whole | Asked::Unsatisfiable => Spans::new(),
                Asked::Part(span) => Spans::from_slice(&[span]),
                Asked::Parts(spans) => spans,
            };
            prop_assert!(spans.iter().all(|span| span.first <= span.last && span.last < len));
        }
    }
}
