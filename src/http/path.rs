//! The path of a request, made safe to open.
//!
//! Invariant of `CleanPath`: segments joined by single slashes, decoded exactly once, none of them empty, `.` or `..`, none with
//! a NUL, a slash or a backslash of its own. There is no other way to make one than `CleanPath::set`, so whoever opens a file or
//! applies a rule sees the same, final path.

use super::refuse::Refuse;

/// A decoded and normalised path, relative to the root: bytes, not necessarily UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanPath(Vec<u8>);

impl CleanPath {
    /// Reads the path of a request target (RFC 3986 section 3.3), without its query.
    ///
    /// # Errors
    ///
    /// 400 if it does not begin with a slash, has a bad escape, an encoded slash, a backslash or a NUL, or leads above the root.
    pub fn set(&mut self, raw: &[u8]) -> Result<(), Refuse> {
        self.0.clear();
        let rest = raw.strip_prefix(b"/").ok_or(Refuse::bad("The path has to begin with a slash."))?;
        if is_clean(rest) {
            self.0.extend_from_slice(rest);
            return Ok(());
        }
        let result = self.append(rest);
        if result.is_err() {
            self.0.clear();
        }
        result
    }

    fn append(&mut self, rest: &[u8]) -> Result<(), Refuse> {
        let mut segments = rest.split(|&b| b == b'/').peekable();
        while let Some(raw) = segments.next() {
            let start = self.0.len();
            decode(raw, &mut self.0)?;
            let last = segments.peek().is_none();
            match &self.0[start..] {
                b"" | b"." => self.0.truncate(start),
                b".." => {
                    self.0.truncate(start);
                    self.0.pop().ok_or(Refuse::bad("The path leads above the root."))?;
                    let parent = self.0.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
                    self.0.truncate(parent);
                }
                _ if last => {}
                _ => self.0.push(b'/'),
            }
        }
        Ok(())
    }

    /// The path relative to the root: no slash in front, one at the end if a folder was asked for; empty for the root itself.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether a folder was asked for: the root, or a path with a slash at its end.
    pub fn is_folder(&self) -> bool {
        self.0.last().is_none_or(|&b| b == b'/')
    }

    /// The segments, in their order.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|s| !s.is_empty())
    }

    /// The last segment; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.segments().last().unwrap_or_default()
    }

    /// The rest of the path below its first segment, if that is this one.
    pub fn below(&self, first: &[u8]) -> Option<CleanPath> {
        let rest = self.0.strip_prefix(first)?;
        if rest.is_empty() {
            return Some(CleanPath::default());
        }
        Some(CleanPath(rest.strip_prefix(b"/")?.to_vec()))
    }

    /// The path of something in this folder; `None` if nothing of that name can be asked for.
    pub fn child(&self, name: &[u8], is_folder: bool) -> Option<CleanPath> {
        let mut raw = self.to_location();
        encode(name, b"", &mut raw);
        if is_folder {
            raw.push('/');
        }
        let mut path = CleanPath::default();
        path.set(raw.as_bytes()).ok()?;
        // `.` and `..` lead elsewhere
        (path.name() == name).then_some(path)
    }

    /// The folder that it is in.
    #[must_use]
    pub fn folder(&self) -> CleanPath {
        let end = self.0[..self.0.len().saturating_sub(1)].iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
        CleanPath(self.0[..end].to_vec())
    }

    /// The same path with the slash of a folder.
    #[must_use]
    pub fn to_folder(&self) -> CleanPath {
        let slash: &[u8] = if self.is_folder() { b"" } else { b"/" };
        CleanPath([&self.0, slash].concat())
    }

    /// The path without this at the end of its last name, if that leaves a name.
    pub fn without(&self, ending: &[u8]) -> Option<CleanPath> {
        let short = self.0.strip_suffix(ending)?;
        let name = short.rsplit(|&b| b == b'/').next().unwrap_or_default();
        (!matches!(name, b"" | b"." | b"..")).then(|| CleanPath(short.to_vec()))
    }

    /// The path with this behind it: in a folder a file of this name, otherwise a longer name.
    #[must_use]
    pub fn with(&self, ending: &str) -> CleanPath {
        debug_assert!(!matches!(ending, "" | "." | "..") && !ending.bytes().any(|b| b"/\\\0".contains(&b)), "{ending:?} is no name");
        CleanPath([&self.0, ending.as_bytes()].concat())
    }

    /// Whether the path is that of a folder, given relative to the root and without a slash at its end, or of something in it.
    pub fn is_within(&self, folder: &[u8]) -> bool {
        self.0.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || folder.is_empty() || rest[0] == b'/')
    }

    /// Forgets the path; the buffer keeps its room.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The path as it may stand in a Location field: percent-encoded, and always with exactly one slash in front, so that it can
    /// never name another host.
    pub fn to_location(&self) -> String {
        let mut out = String::with_capacity(self.0.len() + 1);
        out.push('/');
        encode(&self.0, b"/", &mut out);
        out
    }
}

/// Percent-encodes all but the characters of a path segment (RFC 3986 section 3.3) and those in `also`.
pub fn encode(bytes: &[u8], also: &[u8], out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &b in bytes {
        if b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b) || also.contains(&b) {
            out.push(char::from(b));
        } else {
            out.extend(['%', char::from(HEX[usize::from(b >> 4)]), char::from(HEX[usize::from(b & 15)])]);
        }
    }
}

/// A name as a segment of an address.
pub fn encoded(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    encode(name, b"", &mut out);
    out
}

/// A text as a value of a query.
pub fn encoded_value(text: &str) -> String {
    encoded(text.as_bytes()).replace('&', "%26").replace('+', "%2B")
}

/// Decodes the percent escapes of a value from a query; what is no escape stays.
pub fn decode_value(raw: &[u8]) -> Vec<u8> {
    let hex = |at: usize| raw.get(at).and_then(|&b| char::from(b).to_digit(16));
    let (mut out, mut at) = (Vec::with_capacity(raw.len()), 0);
    while at < raw.len() {
        match (raw[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    out
}

/// Whether a path, without its first slash, is decoded and normalised as it came, like nearly all: nothing is encoded, no segment
/// begins with a dot, and none but the last is empty.
fn is_clean(path: &[u8]) -> bool {
    let mut rest = path;
    loop {
        if let [b'/' | b'.', ..] = rest {
            return false;
        }
        match rest.iter().position(|&b| TELLS[usize::from(b)]) {
            None => return true,
            Some(end) if rest[end] == b'/' => rest = &rest[end + 1..],
            Some(_) => return false,
        }
    }
}

/// The bytes that end a segment, or that do not stand for themselves.
const TELLS: [bool; 256] = {
    let mut set = [false; 256];
    (set[b'/' as usize], set[b'%' as usize], set[b'\\' as usize], set[0]) = (true, true, true, true);
    set
};

/// Decodes one segment.
fn decode(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Refuse> {
    let mut rest = raw;
    while let Some(at) = memchr::memchr3(b'%', b'\\', 0, rest) {
        if rest[at] != b'%' {
            return Err(Refuse::bad("The path has a backslash or a NUL in it."));
        }
        out.extend_from_slice(&rest[..at]);
        let hex = |i: usize| rest.get(i).and_then(|&b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (hex(at + 1), hex(at + 2)) else {
            return Err(Refuse::bad("The path has a percent sign that is not followed by two hexadecimal digits."));
        };
        let byte = (high * 16 + low) as u8;
        if matches!(byte, 0 | b'/' | b'\\') {
            return Err(Refuse::bad("The path has an encoded slash, backslash or NUL in it."));
        }
        out.push(byte);
        rest = &rest[at + 3..];
    }
    out.extend_from_slice(rest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clean(raw: &[u8]) -> Option<Vec<u8>> {
        let mut path = CleanPath(b"left over".to_vec());
        path.set(raw).ok().map(|()| path.as_bytes().to_vec())
    }

    #[test]
    fn paths() {
        let cases: [(&str, Option<&[u8]>); 40] = [
            ("/", Some(b"")),
            ("//", Some(b"")),
            ("/.", Some(b"")),
            ("/./", Some(b"")),
            ("/a", Some(b"a")),
            ("/a/", Some(b"a/")),
            ("/a/b.html", Some(b"a/b.html")),
            ("//a///b//", Some(b"a/b/")),
            ("/a/./b", Some(b"a/b")),
            ("/a/../b", Some(b"b")),
            ("/a/..", Some(b"")),
            ("/a/b/..", Some(b"a/")),
            ("/a/b/../", Some(b"a/")),
            ("/a/b/.", Some(b"a/b/")),
            ("/a/%2e%2E/b", Some(b"b")),
            ("/a//../b", Some(b"b")),
            ("/%61", Some(b"a")),
            ("/%ff%FE", Some(b"\xFF\xFE")),
            ("/a%20b", Some(b"a b")),
            ("/a+b", Some(b"a+b")),
            ("/%252e%252e/x", Some(b"%2e%2e/x")),
            ("/...", Some(b"...")),
            ("/..a", Some(b"..a")),
            ("/a;v=1", Some(b"a;v=1")),
            ("/..;/x", Some(b"..;/x")),
            ("/..", None),
            ("/../", None),
            ("/a/../..", None),
            ("/%2e%2e/etc/passwd", None),
            ("/.%2e/etc/passwd", None),
            ("/a%2Fb", None),
            ("/a%5cb", None),
            ("/a\\b", None),
            ("/a%00", None),
            ("/a\0", None),
            ("/%", None),
            ("/%4", None),
            ("/%zz", None),
            ("", None),
            ("a", None),
        ];
        for (raw, expected) in cases {
            assert_eq!(clean(raw.as_bytes()).as_deref(), expected, "{raw:?}");
        }
    }

    #[test]
    fn what_is_in_a_folder_has_a_path_unless_nobody_can_ask_for_it() {
        let mut folder = CleanPath::default();
        folder.set(b"/a/").unwrap();
        let child = |name: &[u8], is_folder| folder.child(name, is_folder).map(|path| path.as_bytes().to_vec());
        assert_eq!(child(b"b c", false), Some(b"a/b c".to_vec()));
        assert_eq!(child(b"%\xFF", true), Some(b"a/%\xFF/".to_vec()));
        for name in [&b""[..], b".", b"..", b"b/c", b"b\\c", b"b\0"] {
            assert_eq!(child(name, false), None, "{name:?}");
        }
    }

    #[test]
    fn below_a_first_segment() {
        for (raw, expected) in [
            ("/uploads", Some("")),
            ("/uploads/", Some("")),
            ("/uploads/a/b", Some("a/b")),
            ("/uploads2", None),
            ("/", None),
            ("/a/uploads", None),
        ] {
            let mut path = CleanPath::default();
            path.set(raw.as_bytes()).unwrap();
            assert_eq!(path.below(b"uploads").as_ref().map(CleanPath::as_bytes), expected.map(str::as_bytes), "{raw}");
        }
    }

    #[test]
    fn names_with_and_without_their_ending() {
        let at = |raw: &str| {
            let mut path = CleanPath::default();
            path.set(raw.as_bytes()).unwrap();
            path
        };
        for (raw, expected) in [
            ("/about.html", Some("about")),
            ("/a/b.html", Some("a/b")),
            ("/a.html.html", Some("a.html")),
            ("/.html", None),
            ("/a/.html", None),
            ("/..html", None),
            ("/...html", None),
            ("/a/...html", None),
            ("/....html", Some("...")),
            ("/about", None),
            ("/about.html/", None),
            ("/", None),
        ] {
            let short = at(raw).without(b".html");
            assert_eq!(short.as_ref().map(CleanPath::as_bytes), expected.map(str::as_bytes), "{raw}");
            if let Some(short) = short {
                assert_eq!(short.with(".html"), at(raw));
                assert_eq!(at(&short.to_location()), short, "it reads back as itself");
            }
        }
        for (raw, expected) in [("/a", ""), ("/a/", ""), ("/a/b", "a/"), ("/a/b/", "a/"), ("/a/b/c", "a/b/"), ("/", "")] {
            assert_eq!(at(raw).folder().as_bytes(), expected.as_bytes(), "{raw}");
        }
    }

    #[test]
    fn a_location_never_names_another_host() {
        for (raw, expected) in
            [("/", "/"), ("//evil.example/", "/evil.example/"), ("/a b/\u{e9}?", "/a%20b/%C3%A9%3F"), ("/%0d%0aX:%20y", "/%0D%0AX:%20y")]
        {
            let mut path = CleanPath::default();
            path.set(raw.as_bytes()).unwrap();
            assert_eq!(path.to_location(), expected, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn what_is_clean_as_it_came_is_what_decoding_makes_of_it(rest in "[a-c./%\\\\\\x00 \u{e9}]{0,8}") {
            let mut decoded = CleanPath::default();
            let result = decoded.append(rest.as_bytes());
            if is_clean(rest.as_bytes()) {
                prop_assert_eq!((result, decoded.as_bytes()), (Ok(()), rest.as_bytes()));
            }
        }

        #[test]
        fn no_clean_path_leaves_the_root(raw in prop::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), Just(b'%'), Just(b'2'), Just(b'e'), Just(b'f'), Just(b'5'), Just(b'c'), Just(b'\\'), Just(0u8), any::<u8>()], 0..40)) {
            let raw = [b"/", &raw[..]].concat();
            let mut path = CleanPath::default();
            if path.set(&raw).is_ok() {
                let bytes = path.as_bytes();
                prop_assert!(!bytes.starts_with(b"/") && !bytes.windows(2).any(|w| w == b"//"));
                for segment in path.segments() {
                    prop_assert!(segment != b"." && segment != b"..");
                    prop_assert!(!segment.iter().any(|b| b"\0/\\".contains(b)));
                }
                // what it renders reads back as itself
                let mut again = CleanPath::default();
                prop_assert!(again.set(path.to_location().as_bytes()).is_ok());
                prop_assert_eq!(&again, &path);
            } else {
                prop_assert!(path.as_bytes().is_empty());
            }
        }
    }
}
