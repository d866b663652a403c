//! HTTP dates (RFC 9110 section 5.6.7), and the Date field rendered once a second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of a date in the preferred form: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub const DATE_BYTES: usize = 29;

/// The date of a second since 1970, in the preferred form.
pub fn format(unix_s: u64) -> String {
    // 9999-12-31, the last day the format can tell; a file may claim a later one
    const LAST: u64 = 253_402_300_799;
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_s.min(LAST)))
}

/// Reads a date in any of the three forms; as seconds since 1970.
pub fn parse(value: &[u8]) -> Option<u64> {
    let date: SystemTime = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    date.duration_since(UNIX_EPOCH).ok().map(|d| d.as_secs())
}

/// The value of Date, rendered when the second changes.
#[derive(Debug)]
pub struct Rendered {
    unix_s: u64,
    text: [u8; DATE_BYTES],
}

impl Default for Rendered {
    fn default() -> Rendered {
        Rendered { unix_s: 0, text: *b"Thu, 01 Jan 1970 00:00:00 GMT" }
    }
}

impl Rendered {
    /// The value for this second.
    pub fn at(&mut self, unix_s: u64) -> &[u8; DATE_BYTES] {
        if self.unix_s != unix_s {
            self.unix_s = unix_s;
            self.text.copy_from_slice(&format(unix_s).as_bytes()[..DATE_BYTES]);
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_in_all_three_forms() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse(text.as_bytes()), Some(784_111_777), "{text}");
        }
        for text in ["", "yesterday", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 25:49:37 GMT", "\u{e9}"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_rendered_date_follows_the_second() {
        let mut date = Rendered::default();
        assert_eq!(date.at(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date.at(784_111_778), b"Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(date.at(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date.at(u64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
