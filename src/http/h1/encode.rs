//! Heads of responses.

use crate::http::date::DATE_BYTES;
use crate::http::{Response, StatusCode};

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

/// Writes the head of a response. Content-Length is left out where the status has no body (RFC 9110 section 8.6).
pub fn head(response: &Response, connection: Connection, date: &[u8; DATE_BYTES], out: &mut Vec<u8>) {
    let status = response.status;
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
    for lines in response.fields.lines() {
        out.extend_from_slice(lines);
    }
    if has_body(status) {
        out.extend_from_slice(b"content-length: ");
        decimal(response.body.len(), out);
        out.extend_from_slice(b"\r\n");
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
    use crate::http::header;

    fn rendered(response: &Response, connection: Connection) -> String {
        let mut out = Vec::new();
        head(response, connection, b"Sun, 06 Nov 1994 08:49:37 GMT", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn heads() {
        let mut response = Response::new(StatusCode::OK);
        response.fields.push(&header::ALLOW, "GET");
        response.body = "hello".into();
        assert_eq!(
            rendered(&response, Connection::Implied),
            "HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nallow: GET\r\ncontent-length: 5\r\n\r\n"
        );
        let response = Response::new(StatusCode::NOT_FOUND);
        assert!(rendered(&response, Connection::Close).ends_with("\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
        assert!(rendered(&response, Connection::KeepAlive).starts_with("HTTP/1.1 404 Not Found\r\n"));
        for status in [StatusCode::NOT_MODIFIED, StatusCode::NO_CONTENT] {
            assert!(!rendered(&Response::new(status), Connection::Implied).contains("content-length"), "{status}");
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
}
