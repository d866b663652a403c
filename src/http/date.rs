//! HTTP dates (RFC 9110 section 5.6.7), and the Date field rendered once a second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of a date in the preferred form: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub const DATE_BYTES: usize = 29;
/// The end of 9999-12-31, the last day the formats can tell; a file may claim a later one.
const LAST_S: u64 = 253_402_300_799;

/// The date of a second since 1970, in the preferred form.
pub fn format(unix_s: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_s.min(LAST_S)))
}

/// Year, month, day, hour, minute and second of a second since 1970, in UTC; from 1970 to 9999.
pub fn parts(unix_s: i64) -> [u16; 6] {
    let unix_s = unix_s.clamp(0, LAST_S as i64);
    let (day, second) = (unix_s / 86_400, unix_s % 86_400);
    // days since 0000-03-01, so that a leap day is the last of its year; then the Gregorian cycle of 400 years
    let day = day + 719_468;
    let (cycle, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = cycle * 400 + year + i64::from(month <= 2);
    [year, month, day, second / 3600, second / 60 % 60, second % 60].map(|n| n as u16)
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
    fn parts_of_a_date() {
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        // the same as the other way to tell it, over leap years, centuries and the ends of months
        for unix_s in (0..4_200_000_000_u64).step_by(40_003).chain([951_782_400, 4_107_542_400, LAST_S, u64::MAX >> 1]) {
            let [year, month, day, hour, minute, second] = parts(unix_s as i64);
            let told = format!("{day:02} {} {year:04} {hour:02}:{minute:02}:{second:02} GMT", months[usize::from(month) - 1]);
            assert_eq!(format(unix_s)[5..], told, "{unix_s}");
        }
        assert_eq!(parts(-1), [1970, 1, 1, 0, 0, 0]);
    }

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
