//! Byte ranges (RFC 9110 section 14).

/// What a Range field comes to, for a file of a certain length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The whole file: the field is of another unit, not of the grammar, or asks for several ranges.
    Whole,
    /// These bytes: 206.
    Part {
        /// Position of the first byte.
        first: u64,
        /// Position of the last byte, within the file.
        last: u64,
    },
    /// Nothing of the file: 416.
    Unsatisfiable,
}

/// Reads a Range field. Positions past the end count as the end; numbers past 64 bits as the largest.
pub fn parse(value: &[u8], len: u64) -> Asked {
    let Some((unit, set)) = value.iter().position(|&b| b == b'=').map(|at| (&value[..at], value[at + 1..].trim_ascii())) else {
        return Asked::Whole;
    };
    let Some(dash) = memchr::memchr(b'-', set) else { return Asked::Whole };
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return Asked::Whole;
    }
    let end = len.saturating_sub(1);
    let part = match (number(&set[..dash]), number(&set[dash + 1..])) {
        (Number::Absent, Number::Is(suffix)) => (len.saturating_sub(suffix), if suffix == 0 { None } else { Some(end) }),
        (Number::Is(first), Number::Absent) => (first, Some(end)),
        (Number::Is(first), Number::Is(last)) if first <= last => (first, Some(last.min(end))),
        _ => return Asked::Whole,
    };
    match part {
        (first, Some(last)) if first < len => Asked::Part { first, last },
        _ => Asked::Unsatisfiable,
    }
}

enum Number {
    Absent,
    Is(u64),
    Bad,
}

fn number(digits: &[u8]) -> Number {
    if digits.is_empty() {
        return Number::Absent;
    }
    if !digits.iter().all(u8::is_ascii_digit) {
        return Number::Bad;
    }
    Number::Is(digits.iter().fold(0, |n: u64, d| n.saturating_mul(10).saturating_add(u64::from(d - b'0'))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges() {
        use Asked::{Unsatisfiable, Whole};
        let part = |first, last| Asked::Part { first, last };
        let cases = [
            ("bytes=0-0", 10, part(0, 0)),
            ("bytes=0-9", 10, part(0, 9)),
            ("bytes=0-10", 10, part(0, 9)),
            ("bytes=9-9", 10, part(9, 9)),
            ("bytes=10-10", 10, Unsatisfiable),
            ("bytes=3-", 10, part(3, 9)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=-3", 10, part(7, 9)),
            ("bytes=-10", 10, part(0, 9)),
            ("bytes=-11", 10, part(0, 9)),
            ("bytes=-0", 10, Unsatisfiable),
            ("BYTES=1-2", 10, part(1, 2)),
            ("bytes= 1-2 ", 10, part(1, 2)),
            ("bytes=2-1", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=", 10, Whole),
            ("bytes", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=1-2-3", 10, Whole),
            ("lines=1-2", 10, Whole),
            ("bytes=0-1,3-4", 10, Whole),
            ("bytes=0-0", 0, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-1", 0, Unsatisfiable),
            ("bytes=0-18446744073709551615", 10, part(0, 9)),
            ("bytes=0-99999999999999999999999", 10, part(0, 9)),
            ("bytes=99999999999999999999999-", 10, Unsatisfiable),
            ("bytes=-99999999999999999999999", 10, part(0, 9)),
            ("bytes=18446744073709551614-18446744073709551615", u64::MAX, part(u64::MAX - 1, u64::MAX - 1)),
        ];
        for (value, len, expected) in cases {
            assert_eq!(parse(value.as_bytes(), len), expected, "{value} of {len}");
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_file(value in "bytes=[0-9,-]{0,24}", len in prop_oneof![Just(0), Just(1), Just(u64::MAX), any::<u64>()]) {
            if let Asked::Part { first, last } = parse(value.as_bytes(), len) {
                prop_assert!(first <= last && last < len);
            }
        }
    }
}
