//! The body of a request: decoders for a known length and for chunks (RFC 9112 sections 6 and 7).
//!
//! A decoder consumes no byte past the end of the body. Extensions and trailers are checked, bounded and dropped.

use crate::http::fields::{is_text_byte, is_token_byte};
use crate::http::refuse::Refuse;
use crate::http::{Bounds, Framing};
use std::ops::Range;

/// Decodes one body.
#[derive(Clone, Debug)]
pub enum Decoder {
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
}

/// What a decoder found in its input.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// All input was consumed, and the body goes on.
    More,
    /// Bytes of the body, as a place in the input.
    Data(Range<usize>),
    /// The body is over.
    End,
}

impl Decoder {
    /// The decoder for a framing; `None` if there is no body.
    pub fn new(framing: Framing) -> Option<Decoder> {
        match framing {
            Framing::None => None,
            Framing::Length(bytes) => Some(Decoder::Length(bytes)),
            Framing::Chunked => Some(Decoder::Chunked(Chunked { state: State::Size, left: 0, counted: 0 })),
        }
    }

    /// How many bytes are still to come, if that is known.
    pub fn known_left(&self) -> Option<u64> {
        if let Decoder::Length(left) = self { Some(*left) } else { None }
    }

    /// Decodes the next piece: how many bytes of the input it took, and what it is.
    ///
    /// # Errors
    ///
    /// 400 for what is no chunk, and for an extension or a trailer past its bound.
    pub fn decode(&mut self, input: &[u8], bounds: &Bounds) -> Result<(usize, Piece), Refuse> {
        match self {
            Decoder::Length(0) => Ok((0, Piece::End)),
            Decoder::Length(left) => {
                let taken = fitting(input.len(), *left);
                *left -= taken as u64;
                Ok((taken, if taken == 0 { Piece::More } else { Piece::Data(0..taken) }))
            }
            Decoder::Chunked(chunked) => chunked.decode(input, bounds),
        }
    }
}

/// How many of `available` bytes belong to something with `left` bytes to come.
fn fitting(available: usize, left: u64) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

/// The chunked coding: one byte at a time, but for the data.
#[derive(Clone, Debug)]
pub struct Chunked {
    state: State,
    /// Bytes of the chunk still to come; while the size is read, the size so far.
    left: u64,
    /// Bytes of the size line, or of the trailer section, so far.
    counted: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Digits,
    Blank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
}

impl Chunked {
    fn decode(&mut self, input: &[u8], bounds: &Bounds) -> Result<(usize, Piece), Refuse> {
        const BAD: Refuse = Refuse::bad("The chunked body is malformed.");
        let mut at = 0;
        while at < input.len() || self.state == State::End {
            if self.state == State::End {
                return Ok((at, Piece::End));
            }
            if self.state == State::Data {
                let taken = fitting(input.len() - at, self.left);
                self.left -= taken as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                return Ok((at + taken, Piece::Data(at..at + taken)));
            }
            let byte = input[at];
            at += 1;
            self.state = match (self.state, byte) {
                (State::Size | State::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                    let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                    self.left = self.left.checked_mul(16).ok_or(BAD)? | digit;
                    State::Digits
                }
                (State::Digits | State::Extension, b'\r') => State::SizeLf,
                (State::Digits | State::Blank, b';') => State::Extension,
                (State::Digits | State::Blank, b' ' | b'\t') => State::Blank,
                (State::Extension, _) if is_text_byte(byte) => State::Extension,
                (State::SizeLf, b'\n') => {
                    self.counted = 0;
                    if self.left == 0 { State::Trailer } else { State::Data }
                }
                (State::DataCr, b'\r') => State::DataLf,
                (State::DataLf, b'\n') => State::Size,
                (State::Trailer, b'\r') => State::EndLf,
                (State::Trailer | State::TrailerName, _) if is_token_byte(byte) => State::TrailerName,
                (State::TrailerName, b':') => State::TrailerValue,
                (State::TrailerValue, b'\r') => State::TrailerLf,
                (State::TrailerValue, _) if is_text_byte(byte) => State::TrailerValue,
                (State::TrailerLf, b'\n') => State::Trailer,
                (State::EndLf, b'\n') => State::End,
                _ => return Err(BAD),
            };
            match self.state {
                State::Digits | State::Blank | State::Extension => self.count(bounds.chunk_line_bytes)?,
                State::TrailerName | State::TrailerValue | State::TrailerLf => self.count(bounds.trailer_bytes)?,
                // the line feed that ends a trailer line
                State::Trailer if byte == b'\n' && self.counted > 0 => self.count(bounds.trailer_bytes)?,
                _ => {}
            }
        }
        Ok((at, Piece::More))
    }

    fn count(&mut self, bound: usize) -> Result<(), Refuse> {
        self.counted += 1;
        if self.counted > bound { Err(Refuse::bad("A chunk extension or the trailer section is too long.")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::tests::bounds;
    use proptest::prelude::*;

    /// Decodes all input, given in pieces that end at the cuts: the data, and how many bytes were taken.
    fn decode(framing: Framing, input: &[u8], cuts: &[usize]) -> Result<Option<(Vec<u8>, usize)>, Refuse> {
        let bounds = bounds();
        let mut decoder = Decoder::new(framing).unwrap();
        let (mut data, mut at) = (Vec::new(), 0);
        let mut ends: Vec<usize> = cuts.iter().map(|c| c % (input.len() + 1)).chain([input.len()]).collect();
        ends.sort_unstable();
        for end in ends {
            loop {
                let (taken, piece) = decoder.decode(&input[at..end], &bounds)?;
                if let Piece::Data(place) = &piece {
                    data.extend_from_slice(&input[at..end][place.clone()]);
                }
                at += taken;
                match piece {
                    Piece::End => return Ok(Some((data, at))),
                    Piece::More => break,
                    Piece::Data(_) => {}
                }
            }
        }
        Ok(None)
    }

    #[test]
    fn chunks() {
        let line = |n: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(n - 2));
        let trailer = |n: usize| format!("0\r\nT:{}\r\n\r\n", "x".repeat(n - 4));
        let (at_line, over_line) = (line(bounds().chunk_line_bytes), line(bounds().chunk_line_bytes + 1));
        let (at_trailer, over_trailer) = (trailer(bounds().trailer_bytes), trailer(bounds().trailer_bytes + 1));
        let cases: [(&str, Option<Option<&str>>); 36] = [
            ("0\r\n\r\n", Some(Some(""))),
            ("00000000000000000000\r\n\r\n", Some(Some(""))),
            ("3\r\nabc\r\n0\r\n\r\n", Some(Some("abc"))),
            ("3\r\nabc\r\n002\r\nde\r\n0\r\n\r\nGET /", Some(Some("abcde"))),
            ("A\r\n0123456789\r\n0\r\n\r\n", Some(Some("0123456789"))),
            ("a;x=y\r\n0123456789\r\n0;z\r\n\r\n", Some(Some("0123456789"))),
            ("1 ;x\r\na\r\n0\r\n\r\n", Some(Some("a"))),
            ("1;x=\"\u{e9}\t\"\r\na\r\n0\r\n\r\n", Some(Some("a"))),
            ("0\r\nX-T: 1\r\nY:\r\n\r\n", Some(Some(""))),
            (&at_line, Some(Some("a"))),
            (&at_trailer, Some(Some(""))),
            ("", Some(None)),
            ("3\r\nab", Some(None)),
            ("0\r\n", Some(None)),
            ("0\r\n\r", Some(None)),
            (&over_line, None),
            (&over_trailer, None),
            ("\r\n", None),
            (";x\r\n", None),
            (" 1\r\n", None),
            ("1 \r\na\r\n", None),
            ("1\na\r\n", None),
            ("1\r\na\n", None),
            ("1\r\nab\r\n", None),
            ("1\r\na0\r\n\r\n", None),
            ("+1\r\na\r\n", None),
            ("-1\r\na\r\n", None),
            ("0x1\r\na\r\n", None),
            ("g\r\n", None),
            ("1;a\nb\r\n", None),
            ("1;a\rb\r\n", None),
            ("1;\0\r\n", None),
            ("10000000000000000\r\n", None),
            ("0\r\n folded\r\n\r\n", None),
            ("0\r\nX : 1\r\n\r\n", None),
            ("0\r\n: 1\r\n\r\n", None),
        ];
        for (input, expected) in cases {
            let got = decode(Framing::Chunked, input.as_bytes(), &[]).ok().map(|r| r.map(|(data, _)| data));
            assert_eq!(got, expected.map(|e| e.map(|e| e.as_bytes().to_vec())), "{input:?}");
        }
    }

    #[test]
    fn the_largest_size_is_read_and_its_data_bounded_by_what_is_there() {
        assert_eq!(decode(Framing::Chunked, b"ffffffffffffffff\r\nabc", &[]), Ok(None));
    }

    proptest! {
        #[test]
        fn every_split_decodes_the_same(input in prop::collection::vec(prop::sample::select(b"0123aF;x:= \t\r\n".to_vec()), 0..60), valid in any::<bool>(), cuts in prop::collection::vec(any::<usize>(), 0..6)) {
            let input = if valid { [b"5;e\r\nhello\r\n1\r\n!\r\n0\r\nT: x\r\n\r\n", &input[..]].concat() } else { input };
            let whole = decode(Framing::Chunked, &input, &[]);
            prop_assert_eq!(&decode(Framing::Chunked, &input, &cuts), &whole);
            if valid {
                prop_assert_eq!(whole, Ok(Some((b"hello!".to_vec(), 29))));
            }
        }

        #[test]
        fn a_length_is_never_passed(length in 1u64..100, input in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(any::<usize>(), 0..6)) {
            let expected = (input.len() as u64 >= length).then(|| (input[..length.min(input.len() as u64) as usize].to_vec(), length as usize));
            prop_assert_eq!(decode(Framing::Length(length), &input, &cuts), Ok(expected));
        }
    }
}
