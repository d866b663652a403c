//! Heads of responses, and the chunked coding of bodies whose length is not known.

use std::io::Write;

use crate::http::date::DATE_BYTES;
use crate::http::{Head, StatusCode};

/// What `100 Continue` looks like on the wire.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The Connection field of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// HTTP/1.1 that goes on: no field.
    Implied,
    /// HTTP/1.0 that goes on.
    KeepAlive,
    /// The connection ends after the response.
    Close,
}

/// How the end of a response's body is told (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The status has no body (RFC 9110 section 8.6).
    None,
    /// Content-Length.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// The end of the connection: all that HTTP/1.0 has for a length that is not known.
    Close,
}

/// Writes a piece of a body as a chunk. An empty piece writes nothing: it would be the end.
pub fn chunk(piece: &[u8], out: &mut Vec<u8>) {
    if !piece.is_empty() {
        // writing to memory does not fail
        let _ = write!(out, "{:x}\r\n", piece.len());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
}

/// The end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Writes the head of a response.
pub fn head(head: &Head, framing: Framing, connection: Connection, date: &[u8; DATE_BYTES], out: &mut Vec<u8>) {
    let status = head.status;
    if status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\ndate: ");
    } else {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
        out.extend_from_slice(b"\r\ndate: ");
    }
    out.extend_from_slice(date);
    out.extend_from_slice(b"\r\n");
    for lines in head.lines {
        out.extend_from_slice(lines);
    }
    match framing {
        Framing::Length(bytes) => {
            out.extend_from_slice(b"content-length: ");
            decimal(bytes, out);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::None | Framing::Close => {}
    }
    out.extend_from_slice(match connection {
        Connection::Implied => b"\r\n",
        Connection::KeepAlive => b"connection: keep-alive\r\n\r\n",
        Connection::Close => b"connection: close\r\n\r\n",
    });
}

/// Whether a response of this status has a body (RFC 9112 section 6.3).
pub fn has_body(status: StatusCode) -> bool {
    !status.is_informational() && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn decimal(mut n: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::body::{Decoder, Piece};
    use crate::http::h1::tests::bounds;
    use crate::http::{Response, header};
    use proptest::prelude::*;

    fn rendered(status: StatusCode, framing: Framing, connection: Connection) -> String {
        let mut response = Response::new(status);
        response.fields.push(&header::ALLOW, "GET");
        let mut out = Vec::new();
        head(&Head::from(&response), framing, connection, b"Sun, 06 Nov 1994 08:49:37 GMT", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn heads() {
        assert_eq!(
            rendered(StatusCode::OK, Framing::Length(5), Connection::Implied),
            "HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nallow: GET\r\ncontent-length: 5\r\n\r\n"
        );
        assert!(
            rendered(StatusCode::NOT_FOUND, Framing::Length(0), Connection::Close)
                .ends_with("\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        );
        assert!(rendered(StatusCode::NOT_FOUND, Framing::Length(0), Connection::KeepAlive).starts_with("HTTP/1.1 404 Not Found\r\n"));
        assert!(rendered(StatusCode::OK, Framing::Chunked, Connection::Implied).ends_with("\r\ntransfer-encoding: chunked\r\n\r\n"));
        for framing in [Framing::None, Framing::Close] {
            assert!(rendered(StatusCode::OK, framing, Connection::Close).ends_with("allow: GET\r\nconnection: close\r\n\r\n"));
        }
    }

    #[test]
    fn numbers() {
        for n in [0, 9, 10, 1234, u64::MAX] {
            let mut out = Vec::new();
            decimal(n, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), n.to_string());
        }
    }

    proptest! {
        #[test]
        fn chunks_decode_to_what_they_were_made_of(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6)) {
            let mut wire = Vec::new();
            for piece in &pieces {
                chunk(piece, &mut wire);
            }
            wire.extend_from_slice(LAST_CHUNK);
            let mut decoder = Decoder::new(crate::http::Framing::Chunked).unwrap();
            let (mut at, mut data) = (0, Vec::new());
            loop {
                let (taken, piece) = decoder.decode(&wire[at..], &bounds()).unwrap();
                if let Piece::Data(place) = &piece {
                    data.extend_from_slice(&wire[at..][place.clone()]);
                }
                at += taken;
                if piece == Piece::End {
                    break;
                }
            }
            prop_assert_eq!((data, at), (pieces.concat(), wire.len()));
        }
    }
}
