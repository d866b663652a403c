//! HTTP dates (RFC 9110 section 5.6.7), and the Date field rendered once a second.

/// Bytes of a date in the preferred form: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub const DATE_BYTES: usize = 29;
/// The end of 9999-12-31, the last day the formats can tell; a file may claim a later one.
const LAST_S: u64 = 253_402_300_799;
const DAY_S: i64 = 86_400;
/// How far in the future a year of two digits may be; later ones are of the century before.
const AHEAD_YEARS: i64 = 50;
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The date of a second since 1970, in the preferred form.
pub fn format(unix_s: u64) -> String {
    let unix_s = unix_s.min(LAST_S) as i64;
    let [year, month, day, hour, minute, second] = parts(unix_s);
    // the first of January 1970 was a Thursday
    let (name, month) = (&DAYS[(unix_s / DAY_S + 4) as usize % 7][..3], MONTHS[usize::from(month) - 1]);
    format!("{name}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Year, month, day, hour, minute and second of a second since 1970, in UTC; from 1970 to 9999.
pub fn parts(unix_s: i64) -> [u16; 6] {
    let unix_s = unix_s.clamp(0, LAST_S as i64);
    let (day, second) = (unix_s / DAY_S, unix_s % DAY_S);
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

/// Reads a date in any of the three forms, of which two are out of use; as seconds since 1970, less than 0 before.
///
/// A year of two digits is the last one with these digits that is not more than 50 years after `now_s`, the present time in seconds
/// since 1970. The name of the day has to be one, and is not held against the date.
pub fn parse(value: &[u8], now_s: u64) -> Option<i64> {
    let (name, rest) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    let is_short = |name: &str| DAYS.iter().any(|day| day[..3] == *name);
    let Some(name) = name.strip_suffix(',') else {
        // the day is filled up with a space: `Sun Nov  6 08:49:37 1994`
        let (month, rest) = rest.split_once(' ')?;
        let rest = rest.strip_prefix(' ').map_or_else(|| rest.to_owned(), |rest| format!("0{rest}"));
        let [day, time, year] = split(&rest, ' ')?;
        return is_short(name).then(|| seconds(number(year, 4)?, month, day, time))?;
    };
    if is_short(name) {
        let [day, month, year, time, "GMT"] = split(rest, ' ')? else { return None };
        return seconds(number(year, 4)?, month, day, time);
    }
    let [date, time, "GMT"] = split(rest, ' ')? else { return None };
    let [day, month, year] = split(date, '-')?;
    let (year, now_s) = (number(year, 2)?, now_s.min(LAST_S) as i64);
    let in_century_of = |last: i64| seconds(last / 100 * 100 + year, month, day, time);
    let [this_year, rest @ ..] = parts(now_s);
    let last_year = i64::from(this_year) + AHEAD_YEARS;
    let last_s = days(last_year, i64::from(rest[0]), i64::from(rest[1])) * DAY_S + now_s % DAY_S;
    let is_ahead = |date_s: &i64| *date_s > last_s;
    DAYS.contains(&name).then(|| in_century_of(last_year).filter(|date_s| !is_ahead(date_s)).or_else(|| in_century_of(last_year - 100)))?
}

/// The parts of a text, if they are so many.
fn split<const N: usize>(text: &str, at: char) -> Option<[&str; N]> {
    let (mut found, mut parts) = ([""; N], text.split(at));
    for part in &mut found {
        *part = parts.next()?;
    }
    parts.next().is_none().then_some(found)
}

/// A number of so many digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    let is_number = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

/// Seconds since 1970 of a date and a time, if there is such a one. A leap second is the first one of the next day, as clocks have it
/// that know of none.
fn seconds(year: i64, month: &str, day: &str, time: &str) -> Option<i64> {
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let [hour, minute, second] = split(time, ':')?;
    let (day, hour, minute, second) = (number(day, 2)?, number(hour, 2)?, number(minute, 2)?, number(second, 2)?);
    let is_leap_year = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last_day = match month {
        2 => 28 + i64::from(is_leap_year),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let is_time = hour < 24 && minute < 60 && second < 60 || (hour, minute, second) == (23, 59, 60);
    ((1..=last_day).contains(&day) && is_time).then(|| days(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second)
}

/// Days from 1970 to a date.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // the way back of `parts`
    let year = if month <= 2 { year - 1 } else { year };
    let (cycle, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    cycle * 146_097 + 365 * year + year / 4 - year / 100 + day_of_year - 719_468
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
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    const NOW_S: u64 = 1_792_281_600;

    #[test]
    fn dates_are_told_and_read_as_others_do() {
        // over leap years, centuries and the ends of months
        for unix_s in (0..4_200_000_000_u64).step_by(40_003).chain([951_782_400, 4_107_542_400, LAST_S, u64::MAX >> 1]) {
            let told = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_s.min(LAST_S)));
            assert_eq!(format(unix_s), told);
            assert_eq!(parse(told.as_bytes(), NOW_S), Some(unix_s.min(LAST_S) as i64), "{told}");
        }
        assert_eq!(parts(-1), [1970, 1, 1, 0, 0, 0]);
    }

    #[test]
    fn dates_are_read_in_all_three_forms() {
        let cases = [
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777),
            ("Sun Nov  6 08:49:37 1994", 784_111_777),
            ("Wed Nov 16 08:49:37 1994", 784_975_777),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Wed, 31 Dec 1969 23:59:59 GMT", -1),
            ("Wed Dec 31 23:59:59 1969", -1),
            ("Mon, 01 Jan 1900 00:00:00 GMT", -2_208_988_800),
            ("Sat, 01 Jan 0000 00:00:00 GMT", -62_167_219_200),
            ("Tue, 29 Feb 2000 00:00:00 GMT", 951_782_400),
            ("Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_800),
            ("Saturday, 31-Dec-16 23:59:60 GMT", 1_483_228_800),
            ("Sat Dec 31 23:59:60 2016", 1_483_228_800),
            ("Fri, 31 Dec 9999 23:59:59 GMT", LAST_S as i64),
        ];
        for (text, unix_s) in cases {
            assert_eq!(parse(text.as_bytes(), NOW_S), Some(unix_s), "{text}");
        }
    }

    #[test]
    fn what_is_not_of_a_form_is_no_date() {
        let cases = "|yesterday|784111777|Sun, 06 Nov 1994 08:49:37|Sun, 06 Nov 1994 25:49:37 GMT|Sun, 06 Nov 1994 08:60:37 GMT\
            |Sun, 06 Nov 1994 08:49:60 GMT|Sun, 06 Nov 1994 23:59:61 GMT|Sun, 06 Nov 1994 24:00:00 GMT|Sun, 00 Nov 1994 08:49:37 GMT\
            |Sun, 31 Nov 1994 08:49:37 GMT|Sun, 29 Feb 1900 08:49:37 GMT|Sun, 6 Nov 1994 08:49:37 GMT|Sun,  6 Nov 1994 08:49:37 GMT\
            |Sun, 06 nov 1994 08:49:37 GMT|sun, 06 Nov 1994 08:49:37 GMT|Son, 06 Nov 1994 08:49:37 GMT|Sun, 06 Nov 1994 08:49:37 UTC\
            |Sun, 06 Nov 94 08:49:37 GMT|Sun, 06 Nov +994 08:49:37 GMT|Sun, 06 Nov 1994 8:49:37 GMT|Sun, 06 Nov 1994 08:49 GMT\
            | Sun, 06 Nov 1994 08:49:37 GMT|Sun, 06 Nov 1994 08:49:37 GMT |Sun,06 Nov 1994 08:49:37 GMT|Sunday, 06 Nov 1994 08:49:37 GMT\
            |Sun, 06-Nov-94 08:49:37 GMT|Sunday, 06-Nov-1994 08:49:37 GMT|Sunday, 06-Nov-94 08:49:37|Sunday 06-Nov-94 08:49:37 GMT\
            |Sun Nov 6 08:49:37 1994|Sun Nov  06 08:49:37 1994|Sun Nov  6 08:49:37 94|Sun Nov  6 08:49:37 1994 GMT|Sunday Nov  6 08:49:37 1994\
            |Sun  Nov 6 08:49:37 1994|Sun Nov 16  8:49:37 1994|\u{e9}";
        for text in cases.split('|') {
            assert_eq!(parse(text.as_bytes(), NOW_S), None, "{text:?}");
        }
        assert_eq!(parse(b"\xFF, 06 Nov 1994 08:49:37 GMT", NOW_S), None);
    }

    #[test]
    fn a_year_of_two_digits_is_at_most_fifty_years_ahead() {
        let of = |text: &str| parse(text.as_bytes(), 0).unwrap() as u64;
        let now_s = of("Sat, 17 Oct 2026 12:00:00 GMT");
        let cases = [
            (now_s, "17-Oct-26 12:00:00", 2026),
            (now_s, "31-Dec-69 00:00:00", 2069),
            (now_s, "01-Jan-70 00:00:00", 2070),
            (now_s, "17-Oct-76 12:00:00", 2076),
            (now_s, "17-Oct-76 12:00:01", 1976),
            (now_s, "01-Jan-77 00:00:00", 1977),
            (now_s, "31-Dec-99 00:00:00", 1999),
            (now_s, "29-Feb-00 00:00:00", 2000),
            (of("Fri, 01 Jan 2060 00:00:00 GMT"), "01-Jan-05 00:00:00", 2105),
            (of("Fri, 01 Jan 2060 00:00:00 GMT"), "01-Jan-20 00:00:00", 2020),
            // the one that is ahead would be in a year that has no such day
            (of("Fri, 01 Jan 2060 00:00:00 GMT"), "29-Feb-00 00:00:00", 2000),
            (0, "01-Jan-20 00:00:00", 2020),
            (0, "01-Jan-21 00:00:00", 1921),
        ];
        for (now_s, text, year) in cases {
            let (day, time) = text.split_at(7);
            let long = format!("Monday, {text} GMT");
            let plain = format!("Mon, {}{year}{} GMT", day.replace('-', " "), &time[2..]);
            assert_eq!(parse(long.as_bytes(), now_s), parse(plain.as_bytes(), 0), "{long} at {now_s}: {plain}");
            assert!(parse(plain.as_bytes(), 0).is_some(), "{plain}");
        }
    }

    proptest! {
        #[test]
        fn every_form_of_a_date_tells_the_same(unix_s in -2_000_000_000_i64..LAST_S as i64, now_s in 0..LAST_S) {
            let (day, second) = (unix_s.div_euclid(DAY_S), unix_s.rem_euclid(DAY_S));
            // four hundred years have the same days
            let [year, month, of_month, ..] = parts((day + 4 * 146_097) * DAY_S).map(i64::from);
            let (year, name, month) = (year - 1600, DAYS[(day + 4).rem_euclid(7) as usize], MONTHS[month as usize - 1]);
            let time = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
            prop_assume!(year < 8000);
            let short = &name[..3];
            prop_assert_eq!(parse(format!("{short}, {of_month:02} {month} {year} {time} GMT").as_bytes(), now_s), Some(unix_s));
            prop_assert_eq!(parse(format!("{short} {month} {of_month:2} {time} {year}").as_bytes(), now_s), Some(unix_s));
            let long = format!("{name}, {of_month:02}-{month}-{:02} {time} GMT", year % 100);
            if let Some(read) = parse(long.as_bytes(), now_s) {
                let (read, now) = (read / DAY_S, (now_s as i64) / DAY_S);
                prop_assert!((now - 51 * 366..now + 51 * 366).contains(&read), "{long} at {now_s}: {read}");
            }
        }

        #[test]
        fn no_field_breaks_it(text in "[A-Z][a-z]{2,8},? {1,2}[0-9A-Za-z: -]{0,30}", now_s in any::<u64>()) {
            let _ = parse(text.as_bytes(), now_s);
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
