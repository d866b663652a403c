//! Response fields, kept as the lines they become.
//!
//! A file's fields are rendered once and shared by all its responses; what one response adds comes behind them. No value can end
//! its line: control characters become spaces.

use bytes::Bytes;

use super::header::HeaderName;

/// Field lines: `Name: value`, each with its line end.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    shared: Bytes,
    own: Vec<u8>,
}

impl Fields {
    /// Fields that were rendered before.
    pub fn shared(lines: Bytes) -> Fields {
        Fields { shared: lines, own: Vec::new() }
    }

    /// Adds a field.
    pub fn push(&mut self, name: &HeaderName, value: impl AsRef<[u8]>) {
        self.own.extend_from_slice(name.as_str().as_bytes());
        self.own.extend_from_slice(b": ");
        self.own.extend(value.as_ref().iter().map(|&b| if is_text_byte(b) { b } else { b' ' }));
        self.own.extend_from_slice(b"\r\n");
    }

    /// The same, for building a set at once.
    #[must_use]
    pub fn with(mut self, name: &HeaderName, value: impl AsRef<[u8]>) -> Fields {
        self.push(name, value);
        self
    }

    /// Adds a field in the place of those that have its name.
    pub fn replace(&mut self, name: &HeaderName, value: impl AsRef<[u8]>) {
        let lines = std::mem::take(self).into_shared();
        for line in lines.split_inclusive(|&b| b == b'\n').filter(|line| !is_of(line, name)) {
            self.own.extend_from_slice(line);
        }
        self.push(name, value);
    }

    /// The value of the first field of a name.
    pub fn value(&self, name: &HeaderName) -> Option<&[u8]> {
        self.iter().find(|(n, _)| *n == name.as_str().as_bytes()).map(|(_, value)| value)
    }

    /// All lines in one piece, to be shared.
    pub fn into_shared(self) -> Bytes {
        if self.own.is_empty() {
            return self.shared;
        }
        [&self.shared[..], &self.own].concat().into()
    }

    /// Bytes of all lines.
    pub fn size(&self) -> usize {
        self.shared.len() + self.own.len()
    }

    /// The rendered lines, in two pieces.
    pub fn lines(&self) -> [&[u8]; 2] {
        [&self.shared, &self.own]
    }

    /// Name and value of each field.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines().into_iter().flat_map(|lines| lines.split_inclusive(|&b| b == b'\n')).filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
    }
}

/// Whether this is a token (RFC 9110 section 5.6.2).
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// Whether this may be part of a token.
pub fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// Whether this may stand in a value: no control character but the tab (RFC 9110 section 5.5).
pub fn is_text_byte(b: u8) -> bool {
    b == b'\t' || (b >= b' ' && b != 0x7F)
}

/// The parts of a value between separators; one within a quoted string is none (RFC 9110 section 5.6.4).
pub fn split_unquoted(value: &[u8], at: u8) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    value.split(move |&b| {
        let is_end = b == at && !is_quoted;
        is_quoted ^= b == b'"' && !is_escaped;
        is_escaped = is_quoted && b == b'\\' && !is_escaped;
        is_end
    })
}

fn is_of(line: &[u8], name: &HeaderName) -> bool {
    line.strip_prefix(name.as_str().as_bytes()).is_some_and(|rest| rest.starts_with(b":"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::header;

    #[test]
    fn a_value_can_not_end_its_line() {
        let fields = Fields::default().with(&header::LOCATION, b"/a\r\nSet-Cookie: x=1\0\x7F");
        assert_eq!(fields.lines()[1], b"location: /a  Set-Cookie: x=1  \r\n");
    }

    #[test]
    fn shared_and_own_fields_read_as_one_set() {
        let shared = Fields::default().with(&header::ETAG, "\"a:b\"").into_shared();
        let fields = Fields::shared(shared).with(&header::ALLOW, "GET");
        let seen: Vec<_> = fields.iter().collect();
        assert_eq!(seen, [(&b"etag"[..], &b"\"a:b\""[..]), (b"allow", b"GET")]);
        assert_eq!(fields.into_shared(), "etag: \"a:b\"\r\nallow: GET\r\n");
    }

    #[test]
    fn quoted_separators_end_nothing() {
        let cases = [
            ("", "<>"),
            ("a,b", "<a><b>"),
            (",a,", "<><a><>"),
            ("a;x=\"b,c\",d", "<a;x=\"b,c\"><d>"),
            ("\"a\\\",b\",c", "<\"a\\\",b\"><c>"),
            ("\"a\\\\\",b", "<\"a\\\\\"><b>"),
            ("a\\,b", "<a\\><b>"),
            ("a\\\",b\",c", "<a\\\",b\"><c>"),
            ("\"a,b", "<\"a,b>"),
        ];
        for (value, parts) in cases {
            let split: String = split_unquoted(value.as_bytes(), b',').map(|part| format!("<{}>", str::from_utf8(part).unwrap())).collect();
            assert_eq!(split, parts, "{value}");
        }
    }

    #[test]
    fn a_field_takes_the_place_of_those_of_its_name() {
        let shared = Fields::default().with(&header::CONTENT_TYPE, "a").with(&header::ETAG, "content-type: b").into_shared();
        let mut fields = Fields::shared(shared).with(&header::CONTENT_TYPE, "c");
        fields.replace(&header::CONTENT_TYPE, "d");
        assert_eq!(fields.into_shared(), "etag: content-type: b\r\ncontent-type: d\r\n");
    }
}
