//! File names that clients give (RFC 6266), made into one plain segment of a path.

/// Bytes of a file name that file systems take.
pub const NAME_BYTES: usize = 255;

/// The file name in a Content-Disposition value: `filename*` before `filename`. It is empty where there is one that can not be read.
pub fn file_name(value: &[u8]) -> Option<String> {
    let (mut plain, mut extended, mut is_file) = (None, None, false);
    for (name, value) in parameters(value) {
        if name.eq_ignore_ascii_case(b"filename") {
            is_file = true;
            plain.get_or_insert(String::from_utf8_lossy(&value).into_owned());
        } else if name.eq_ignore_ascii_case(b"filename*") {
            is_file = true;
            extended = extended.or_else(|| decode_extended(&value));
        }
    }
    extended.or(plain).or(is_file.then(String::new))
}

/// The value of a parameter, as of `name` in a part of a form, or `boundary` in a Content-Type.
pub fn parameter(value: &[u8], wanted: &str) -> Option<String> {
    let mut found = parameters(value).filter(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()));
    found.next().map(|(_, value)| String::from_utf8_lossy(&value).into_owned())
}

/// The parameters behind the first semicolon; quoted values without their quotes and escapes.
fn parameters(value: &[u8]) -> impl Iterator<Item = (&[u8], Vec<u8>)> {
    let mut rest = memchr::memchr(b';', value).map_or(&b""[..], |at| &value[at..]);
    std::iter::from_fn(move || {
        while let [b' ' | b'\t' | b';', tail @ ..] = rest {
            rest = tail;
        }
        let (name, tail) = rest.split_at(memchr::memchr(b'=', rest)?);
        let tail = tail[1..].trim_ascii_start();
        let (value, tail) = match tail.strip_prefix(b"\"") {
            Some(quoted) => unquote(quoted),
            None => {
                let (value, tail) = tail.split_at(memchr::memchr(b';', tail).unwrap_or(tail.len()));
                (value.trim_ascii_end().to_vec(), tail)
            }
        };
        rest = tail;
        Some((name.trim_ascii(), value))
    })
}

/// Reads up to the closing quote. Browsers escape a quote as `%22` and leave backslashes alone; only `\\"` and `\\\\` are escapes.
fn unquote(quoted: &[u8]) -> (Vec<u8>, &[u8]) {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < quoted.len() {
        match &quoted[at..] {
            [b'\\', b @ (b'"' | b'\\'), ..] => {
                out.push(*b);
                at += 2;
            }
            [b'"', tail @ ..] => return (out, tail),
            [b, ..] => {
                out.push(*b);
                at += 1;
            }
            [] => break,
        }
    }
    (out, b"")
}

/// `UTF-8\'\'percent-encoded` (RFC 8187).
fn decode_extended(value: &[u8]) -> Option<String> {
    let mut parts = value.splitn(3, |&b| b == b'\'');
    let (charset, _, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    if !charset.eq_ignore_ascii_case(b"utf-8") {
        return None;
    }
    let plus_is_itself: Vec<u8> = encoded.iter().flat_map(|&b| if b == b'+' { b"%2B".to_vec() } else { vec![b] }).collect();
    String::from_utf8(super::path::decode_value(&plus_is_itself)).ok()
}

/// The value of Content-Disposition that has what follows stored as a file of this name (RFC 6266): for old clients with only the
/// plainest characters, for others encoded (RFC 8187).
pub fn attachment(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || " ._-".contains(c) { c } else { '_' }).collect();
    let mut encoded = String::new();
    super::path::encode(name.as_bytes(), b"", &mut encoded);
    // an address may hold these, an extended value may not
    for (c, escape) in [
        ('\'', "%27"),
        ('(', "%28"),
        (')', "%29"),
        ('*', "%2A"),
        (',', "%2C"),
        ('/', "%2F"),
        (':', "%3A"),
        (';', "%3B"),
        ('=', "%3D"),
        ('@', "%40"),
    ] {
        encoded = encoded.replace(c, escape);
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

/// A name as one plain segment: what follows the last separator, without control characters, without dots and white space at its
/// ends, and short enough. `None` if nothing is left of it.
pub fn plain_segment(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean: String = last.chars().filter(|c| !c.is_control() && !is_invisible(*c)).collect();
    let clean = clean.trim_matches(is_edge);
    if clean.is_empty() { None } else { Some(numbered(clean, 0)) }
}

/// Characters that are not seen, or that turn the direction of the text: a name is what it looks like.
pub fn is_invisible(c: char) -> bool {
    matches!(c,
        // joiners, fillers and hyphens that take no room, and marks of direction
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180E}' | '\u{200B}'..='\u{200F}'
        // separators of lines, embeddings, overrides, isolates, and operators that are not seen
        | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}'
        // what stands for what could not be read
        | '\u{FFFD}'
        // the beginnings and ends of musical notation, tags and further selectors
        | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

/// What a name neither begins nor ends with.
fn is_edge(c: char) -> bool {
    c == '.' || c.is_whitespace()
}

/// The name with a number before its extension, cut so that it fits; 0 is the name itself.
pub fn numbered(name: &str, number: u32) -> String {
    let (stem, extension) = match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= 32 => name.split_at(dot),
        _ => (name, ""),
    };
    let suffix = if number == 0 { String::new() } else { format!("-{number}") };
    let mut end = stem.len().min(NAME_BYTES - extension.len() - suffix.len());
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    let stem = if end < stem.len() { stem[..end].trim_end_matches(is_edge) } else { stem };
    format!("{stem}{suffix}{extension}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_in_dispositions() {
        let cases: [(&str, Option<&str>); 14] = [
            ("attachment; filename=a.txt", Some("a.txt")),
            ("form-data; name=\"f\"; filename=\"a b.txt\"", Some("a b.txt")),
            ("form-data; filename=\"a;b=c.txt\"; name=x", Some("a;b=c.txt")),
            ("form-data; filename=\"say \\\"hi\\\".txt\"", Some("say \"hi\".txt")),
            ("form-data; filename=\"C:\\dir\\a.txt\"", Some("C:\\dir\\a.txt")),
            ("attachment; filename=plain; filename*=UTF-8\'\'%e2%82%ac%20x+y", Some("\u{20ac} x+y")),
            ("attachment; filename*=utf-8\'en\'a", Some("a")),
            ("attachment; filename*=latin1\'\'a; filename=b", Some("b")),
            ("attachment; FILENAME = a ; x", Some("a")),
            ("form-data; name=\"f\"; filename=\"\"", Some("")),
            ("form-data; filename*=utf-16''a", Some("")),
            ("form-data; filename*=utf-8''%ff", Some("")),
            ("form-data; name=\"f\"", None),
            ("", None),
        ];
        for (value, expected) in cases {
            assert_eq!(file_name(value.as_bytes()).as_deref(), expected, "{value}");
        }
        assert_eq!(parameter(b"form-data; name=\"a b\"", "name").as_deref(), Some("a b"));
    }

    #[test]
    fn attachments() {
        for (name, expected) in [
            ("docs.zip", "attachment; filename=\"docs.zip\"; filename*=UTF-8''docs.zip"),
            ("a \"b\"\r\nX: y.tar", "attachment; filename=\"a _b___X_ y.tar\"; filename*=UTF-8''a%20%22b%22%0D%0AX%3A%20y.tar"),
            ("\u{e9}'(*);=@,", "attachment; filename=\"_________\"; filename*=UTF-8''%C3%A9%27%28%2A%29%3B%3D%40%2C"),
        ] {
            assert_eq!(attachment(name), expected);
            assert_eq!(file_name(attachment(name).as_bytes()).as_deref(), Some(name));
        }
    }

    #[test]
    fn plain_segments() {
        let long = "x".repeat(300) + ".txt";
        let cut = "x".repeat(251) + ".txt";
        let cut_at_edge = "x".repeat(252) + " . " + &"y".repeat(40);
        let cases: [(&str, Option<&str>); 22] = [
            ("a.txt", Some("a.txt")),
            (". \u{3000}.a \u{2003}. ", Some("a")),
            (&cut_at_edge, Some(&cut_at_edge[..252])),
            ("../../etc/passwd", Some("passwd")),
            ("..\\x", Some("x")),
            ("/abs/name", Some("name")),
            ("C:\\dir\\a.txt", Some("a.txt")),
            (".hidden", Some("hidden")),
            ("...a", Some("a")),
            ("a.txt. ", Some("a.txt")),
            (" a b ", Some("a b")),
            ("a\0b\nc\x7f", Some("abc")),
            ("a\u{202E}gpj.exe", Some("agpj.exe")),
            ("\u{3164}\u{E0041}\u{2066}", None),
            ("CON", Some("CON")),
            (&long, Some(&cut)),
            ("", None),
            (".", None),
            ("..", None),
            ("a/", None),
            ("\n", None),
            (". .", None),
        ];
        for (name, expected) in cases {
            assert_eq!(plain_segment(name).as_deref(), expected, "{name:?}");
        }
        assert_eq!(numbered("a.txt", 1), "a-1.txt");
        assert_eq!(numbered("a", 12), "a-12");
        assert_eq!(numbered(&cut, 7).len(), NAME_BYTES);
    }

    #[test]
    fn what_is_not_seen() {
        for (first, last) in [
            ('\u{AD}', '\u{AD}'),
            ('\u{34F}', '\u{34F}'),
            ('\u{61C}', '\u{61C}'),
            ('\u{115F}', '\u{1160}'),
            ('\u{17B4}', '\u{17B5}'),
            ('\u{180E}', '\u{180E}'),
            ('\u{200B}', '\u{200F}'),
            ('\u{2028}', '\u{202E}'),
            ('\u{2060}', '\u{206F}'),
            ('\u{3164}', '\u{3164}'),
            ('\u{FEFF}', '\u{FEFF}'),
            ('\u{FFA0}', '\u{FFA0}'),
            ('\u{FFFD}', '\u{FFFD}'),
            ('\u{1D173}', '\u{1D17A}'),
            ('\u{E0000}', '\u{E0FFF}'),
        ] {
            assert!((first..=last).all(is_invisible), "{first:?} to {last:?}");
            let (before, after) = (char::from_u32(u32::from(first) - 1).unwrap(), char::from_u32(u32::from(last) + 1).unwrap());
            assert!(!is_invisible(before) && !is_invisible(after), "beside {first:?} to {last:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_name_it_becomes_one_segment(name in any::<String>(), number in any::<u32>()) {
            if let Some(name) = plain_segment(&name) {
                for name in [numbered(&name, number), name] {
                    prop_assert!(!name.is_empty() && name.len() <= NAME_BYTES && !name.starts_with('.'));
                    prop_assert!(!name.contains(['/', '\\', '\0']) && !name.chars().any(char::is_control));
                }
            }
        }
    }
}
