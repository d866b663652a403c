//! Dates of HTTP, written and read without the code under test.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

struct Civil {
    year: i64,
    month: usize,
    day: i64,
    weekday: usize,
    clock: String,
}

/// Days since 1970 to the calendar, by counting in eras of 400 years that begin on the first of March.
fn civil(seconds: i64) -> Civil {
    let days = seconds.div_euclid(86_400);
    let rest = seconds.rem_euclid(86_400);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 2 } else { from_march - 10 };
    Civil {
        year: year_of_era + era * 400 + i64::from(month < 2),
        month: usize::try_from(month).unwrap(),
        day: day_of_year - (153 * from_march + 2) / 5 + 1,
        weekday: usize::try_from((days + 4).rem_euclid(7)).unwrap(),
        clock: format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60),
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
pub fn imf(seconds: i64) -> String {
    let Civil { year, month, day, weekday, clock } = civil(seconds);
    format!("{}, {day:02} {} {year} {clock} GMT", &DAYS[weekday][..3], MONTHS[month])
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
pub fn rfc850(seconds: i64) -> String {
    let Civil { year, month, day, weekday, clock } = civil(seconds);
    format!("{}, {day:02}-{}-{:02} {clock} GMT", DAYS[weekday], MONTHS[month], year % 100)
}

/// `Sun Nov  6 08:49:37 1994`
pub fn asctime(seconds: i64) -> String {
    let Civil { year, month, day, weekday, clock } = civil(seconds);
    format!("{} {} {day:2} {clock} {year}", &DAYS[weekday][..3], MONTHS[month])
}

/// Reads the preferred form, strictly: writing it again must give the same text.
pub fn parse_imf(text: &str) -> Option<i64> {
    let mut words = text.split(' ').skip(1);
    let day: i64 = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = i64::try_from(MONTHS.iter().position(|&month| month == name)?).ok()? + 1;
    let year: i64 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let seconds = (era * 146_097 + day_of_era - 719_468) * 86_400 + hour * 3600 + minute * 60 + second;
    (imf(seconds) == text).then_some(seconds)
}

pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

#[test]
fn dates_are_written_as_the_standard_writes_its_example() {
    assert_eq!(imf(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(rfc850(784_111_777), "Sunday, 06-Nov-94 08:49:37 GMT");
    assert_eq!(asctime(784_111_777), "Sun Nov  6 08:49:37 1994");
    for seconds in [0, 784_111_777, 951_782_400, 951_868_800, 1_709_164_799, 4_107_542_400] {
        assert_eq!(parse_imf(&imf(seconds)), Some(seconds));
    }
    assert_eq!(parse_imf("Mon, 06 Nov 1994 08:49:37 GMT"), None, "it was a Sunday");
}
