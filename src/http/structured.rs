//! Structured field values (RFC 8941): as much of dictionaries as is asked for here.
//!
//! A field that is not of the grammar to its end says nothing at all (section 4.2).

use super::fields::is_token_byte;

/// The value of a member of a dictionary, if that is an integer; `None` too if the field is no dictionary. Of members of one name the
/// last counts (section 3.2).
pub fn integer(dictionary: &[u8], name: &[u8]) -> Option<i64> {
    let mut input = Input(dictionary.trim_ascii());
    let mut found = None;
    while !input.0.is_empty() {
        let key = input.key()?;
        let value = if input.eats(b'=') { input.member()? } else { Value::Other };
        input.parameters()?;
        if key == name {
            found = Some(value);
        }
        input.skip(b" \t");
        if !input.0.is_empty() {
            input.eats(b',').then_some(())?;
            input.skip(b" \t");
            // a comma at the end is a mistake
            input.0.first()?;
        }
    }
    if let Some(Value::Integer(number)) = found { Some(number) } else { None }
}

/// A value, as far as it matters.
enum Value {
    Integer(i64),
    Other,
}

/// What is left to be read. Each part that is read is taken off; `None` is a mistake.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn eats(&mut self, wanted: u8) -> bool {
        let is_there = self.0.first() == Some(&wanted);
        self.0 = &self.0[usize::from(is_there)..];
        is_there
    }

    fn take(&mut self, is_part: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|&b| !is_part(b)).unwrap_or(self.0.len());
        let (part, rest) = self.0.split_at(end);
        self.0 = rest;
        part
    }

    fn skip(&mut self, blanks: &[u8]) {
        self.take(|b| blanks.contains(&b));
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        self.0.first().filter(|b| b.is_ascii_lowercase() || **b == b'*')?;
        Some(self.take(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b)))
    }

    /// An item or an inner list, without its parameters.
    fn member(&mut self) -> Option<Value> {
        if !self.eats(b'(') {
            return self.bare();
        }
        loop {
            self.skip(b" ");
            if self.eats(b')') {
                return Some(Value::Other);
            }
            self.bare()?;
            self.parameters()?;
            // items stand apart
            self.0.first().filter(|b| b" )".contains(b))?;
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.eats(b';') {
            self.skip(b" ");
            self.key()?;
            if self.eats(b'=') {
                self.bare()?;
            }
        }
        Some(())
    }

    fn bare(&mut self) -> Option<Value> {
        match self.0.first()? {
            b'-' | b'0'..=b'9' => return self.number(),
            b'"' => self.string()?,
            b':' => {
                self.0 = &self.0[1..];
                self.take(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
                self.eats(b':').then_some(())?;
            }
            b'?' => {
                self.0 = &self.0[1..];
                (self.eats(b'0') || self.eats(b'1')).then_some(())?;
            }
            b'*' | b'A'..=b'Z' | b'a'..=b'z' => _ = self.take(|b| is_token_byte(b) || b":/".contains(&b)),
            _ => return None,
        }
        Some(Value::Other)
    }

    /// At most 15 digits, or 12 and up to three behind a point (section 4.2.4).
    fn number(&mut self) -> Option<Value> {
        let sign = if self.eats(b'-') { -1 } else { 1 };
        let whole = self.take(|b| b.is_ascii_digit());
        if self.eats(b'.') {
            let decimals = self.take(|b| b.is_ascii_digit());
            return ((1..=12).contains(&whole.len()) && (1..=3).contains(&decimals.len())).then_some(Value::Other);
        }
        let number = whole.iter().try_fold(0_i64, |number, digit| number.checked_mul(10)?.checked_add(i64::from(digit - b'0')))?;
        (1..=15).contains(&whole.len()).then_some(Value::Integer(sign * number))
    }

    fn string(&mut self) -> Option<()> {
        self.0 = &self.0[1..];
        loop {
            self.take(|b| (b' '..=b'~').contains(&b) && !b"\"\\".contains(&b));
            match self.0 {
                [b'"', rest @ ..] => {
                    self.0 = rest;
                    return Some(());
                }
                [b'\\', b'"' | b'\\', rest @ ..] => self.0 = rest,
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_member_is_found_and_a_mistake_spoils_all() {
        let cases = [
            ("a=1", Some(1)),
            ("a=05", Some(5)),
            ("a=-7", Some(-7)),
            ("a=999999999999999", Some(999_999_999_999_999)),
            ("  a=1 \t,\t b=2  ", Some(1)),
            ("b, a=1;x;y=2; z=\"3\", c;d", Some(1)),
            ("a=1, a=2", Some(2)),
            ("b=\"x, a=3\", a=1", Some(1)),
            ("b=\"\\\"\\\\, a=3\", a=1", Some(1)),
            ("b=(1 2;x \"a=3\" ), a=1", Some(1)),
            ("b=(), c=:aGk=:, d=?1, e=*t/o:k!, f=1.5, *g=A, a=1", Some(1)),
            ("", None),
            ("b=1", None),
            ("a", None),
            ("a=x", None),
            ("a=1.0", None),
            ("a=(1)", None),
            ("a=1, a=x", None),
            // not of the grammar
            ("a=1,", None),
            (",a=1", None),
            ("a=1,,b", None),
            ("a=1 b=2", None),
            ("a=1; ", None),
            ("a=1;=2", None),
            ("a =1", None),
            ("a= 1", None),
            ("A=1", None),
            ("a=1, b=", None),
            ("a=1, b=\"x", None),
            ("a=1, b=\"\\x\"", None),
            ("a=1, b=\"\u{e9}\"", None),
            ("a=1, b=(1", None),
            ("a=1, b=(1\"x\")", None),
            ("a=1, b=:aGk=", None),
            ("a=1, b=?2", None),
            ("a=1, b=-", None),
            ("a=1, b=1.", None),
            ("a=1, b=1.2345", None),
            ("a=1, b=1234567890123.5", None),
            ("a=1, b=1000000000000000", None),
            ("a=1, b=99999999999999999999999", None),
        ];
        for (field, expected) in cases {
            assert_eq!(integer(field.as_bytes(), b"a"), expected, "{field}");
        }
    }

    proptest! {
        #[test]
        fn what_stands_around_a_member_changes_nothing(
            before in "([b-z]=(-?[0-9]{1,9}|[A-Z]{1,4}|\"[a-z=, ]{0,9}\"|\\?[01])(;[a-z]=1)?, ?){0,3}",
            number in -1000_i64..1000,
            behind in "(,[\t ]*[b-z](;[a-z])?){0,3}",
        ) {
            prop_assert_eq!(integer(format!("{before}a={number}{behind}").as_bytes(), b"a"), Some(number));
        }

        #[test]
        fn no_field_breaks_it(field in "[a*][-a-z0-9=,;:?()\" .\\\\*]{0,40}") {
            let _ = integer(field.as_bytes(), b"a");
        }
    }
}
