//! Decoders of bodies: what they find does not depend on how the bytes arrive, is what the reference says, and ends where the body
//! ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::http::h1::body::{Decoder, Piece};
use millpond::http::{Bounds, Framing};
use millpond_fuzz::Control;

/// What a decoder made of an input: the data, and how it went.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    data: Vec<u8>,
    end: End,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The input was over before the body.
    More,
    /// The body was over after so many bytes.
    At(usize),
    /// It was no body.
    Bad,
}

// control: bit 2 makes it a body of a known length
fuzz_target!(|data: &[u8]| {
    let Some((control, input)) = Control::split(data) else { return };
    let bounds = control.bounds();
    let (framing, expected) = if control.flag(2) {
        let length = control.number().max(1);
        let fits = usize::try_from(length).unwrap_or(usize::MAX);
        let end = if fits <= input.len() { End::At(fits) } else { End::More };
        (Framing::Length(length), Outcome { data: input[..fits.min(input.len())].to_vec(), end })
    } else {
        (Framing::Chunked, reference(input, &bounds))
    };
    assert_eq!(decode(framing, input, &[input.len()], &bounds), expected, "in one piece");
    assert_eq!(decode(framing, input, &control.ends(input.len()), &bounds), expected, "in pieces");
});

fn decode(framing: Framing, input: &[u8], ends: &[usize], bounds: &Bounds) -> Outcome {
    let mut decoder = Decoder::new(framing).expect("there is a body");
    let mut data = Vec::new();
    let mut at = 0;
    for &end in ends {
        loop {
            let piece = &input[at..end];
            let known = decoder.known_left();
            let Ok((taken, found)) = decoder.decode(piece, bounds) else { return Outcome { data, end: End::Bad } };
            assert!(taken <= piece.len(), "took {taken} of {}", piece.len());
            assert_eq!(decoder.known_left(), known.map(|left| left - taken as u64));
            at += taken;
            match found {
                Piece::Data(place) => {
                    assert!(!place.is_empty() && place.end == taken, "{place:?} of {taken}");
                    data.extend_from_slice(&piece[place]);
                }
                Piece::More => {
                    assert_eq!(at, end, "More, with bytes left over");
                    break;
                }
                Piece::End => {
                    // it stays at its end, whatever follows
                    assert_eq!(decoder.decode(&input[at..], bounds), Ok((0, Piece::End)));
                    return Outcome { data, end: End::At(at) };
                }
            }
        }
    }
    Outcome { data, end: End::More }
}

/// The chunked coding as RFC 9112 section 7.1 has it, read from top to bottom.
fn reference(input: &[u8], bounds: &Bounds) -> Outcome {
    let mut reader = Reader { input, at: 0, data: Vec::new() };
    let end = match reader.body(bounds) {
        Ok(()) => End::At(reader.at),
        Err(end) => end,
    };
    Outcome { data: reader.data, end }
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    data: Vec<u8>,
}

impl Reader<'_> {
    fn body(&mut self, bounds: &Bounds) -> Result<(), End> {
        loop {
            let size = self.size_line(bounds.chunk_line_bytes)?;
            if size == 0 {
                break;
            }
            for _ in 0..size {
                let byte = self.peek()?;
                self.data.push(byte);
                self.at += 1;
            }
            self.literal(b"\r\n")?;
        }
        let trailer = self.at;
        while self.peek()? != b'\r' {
            self.trailer_line(trailer + bounds.trailer_bytes)?;
        }
        self.literal(b"\r\n")
    }

    /// `1*HEXDIG [ BWS ";" text ] CRLF`
    fn size_line(&mut self, bound: usize) -> Result<u64, End> {
        let limit = self.at + bound;
        let mut digits = String::new();
        while self.peek()?.is_ascii_hexdigit() {
            digits.push(char::from(self.next(limit)?));
            if u64::from_str_radix(&digits, 16).is_err() {
                return Err(End::Bad);
            }
        }
        let size = u64::from_str_radix(&digits, 16).map_err(|_| End::Bad)?;
        let mut has_blank = false;
        while matches!(self.peek()?, b' ' | b'\t') {
            self.next(limit)?;
            has_blank = true;
        }
        if self.peek()? == b';' {
            while self.peek()? != b'\r' {
                if !is_text(self.next(limit)?) {
                    return Err(End::Bad);
                }
            }
        } else if has_blank {
            return Err(End::Bad);
        }
        self.literal(b"\r\n")?;
        Ok(size)
    }

    /// `token ":" text CRLF`
    fn trailer_line(&mut self, limit: usize) -> Result<(), End> {
        let start = self.at;
        loop {
            match self.next(limit)? {
                b':' if self.at - start > 1 => break,
                byte if byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte) => {}
                _ => return Err(End::Bad),
            }
        }
        loop {
            match self.next(limit)? {
                b'\r' => break,
                byte if is_text(byte) => {}
                _ => return Err(End::Bad),
            }
        }
        if self.next(limit)? == b'\n' { Ok(()) } else { Err(End::Bad) }
    }

    fn peek(&self) -> Result<u8, End> {
        self.input.get(self.at).copied().ok_or(End::More)
    }

    /// The next byte, which has to stand before the limit.
    fn next(&mut self, limit: usize) -> Result<u8, End> {
        let byte = self.peek()?;
        self.at += 1;
        if self.at > limit { Err(End::Bad) } else { Ok(byte) }
    }

    fn literal(&mut self, text: &[u8]) -> Result<(), End> {
        for &expected in text {
            if self.peek()? != expected {
                return Err(End::Bad);
            }
            self.at += 1;
        }
        Ok(())
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}
