//! What the pages that are made here have in common: their templates, text made safe for HTML and for the eye, sizes for people, values
//! from the query, and the policy that lets a page run its own style and script and nothing else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

use crate::http::{Request, disposition, path};

/// Content-Security-Policy of a page: its one style and its one script, known by their hashes, and what else it needs.
pub fn policy(page: &str, more: &str) -> String {
    let hash = |open: &str, close: &str| {
        let inner = page.split_once(open).and_then(|(_, rest)| rest.split_once(close)).map_or("", |(inner, _)| inner);
        BASE64.encode(Sha256::digest(inner))
    };
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; {more}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        hash("<style>", "</style>"),
        hash("<script>", "</script>"),
    )
}

/// Fills the places of a template, `{{key}}`, in one go: what is filled in is never looked at again.
pub fn fill(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(template.len() + 4096);
    let mut rest = template;
    while let Some((before, tail)) = rest.split_once("{{") {
        let (key, tail) = tail.split_once("}}").unwrap_or((tail, ""));
        out.push_str(before);
        out.push_str(&value(key));
        rest = tail;
    }
    out + rest
}

/// Text as it may stand in HTML, between tags and in a quoted attribute.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// A name as people may see it: what can not be seen, or would turn the text around, has a sign in its place, and so have blanks
/// where there is nothing else.
pub fn shown(name: &[u8]) -> String {
    let shown: String = String::from_utf8_lossy(name).chars().map(sign).collect();
    let is_blank = |c: char| c.is_whitespace() || c == '\u{2800}';
    if shown.chars().all(is_blank) { shown.chars().map(|_| '\u{2423}').collect() } else { shown }
}

/// A text as people may see it: as a name, but with its lines and tabs.
pub fn shown_text(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(text)).replace("\r\n", "\n");
    text.chars().map(|c| if matches!(c, '\n' | '\t') { c } else { sign(c) }).collect()
}

/// A character, or the sign for one that can not be seen or would turn the text around.
fn sign(c: char) -> char {
    match c {
        '\0'..='\x1F' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{FFFD}'),
        '\x7F' => '\u{2421}',
        c if c.is_control() || disposition::is_invisible(c) => '\u{FFFD}',
        c => c,
    }
}

/// A size for people: `5 bytes`, `195 KiB`, `8.6 MiB`.
pub fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} {}", if bytes == 1 { "byte" } else { "bytes" });
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, "KiB");
    for larger in ["MiB", "GiB", "TiB", "PiB", "EiB"] {
        // what would be rounded to 1024 is one of the next
        if value < 1023.5 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    // and what would be rounded to three digits has them without a decimal
    if value >= 99.95 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// The values of a parameter of the query.
pub fn query_values(request: &Request, name: &[u8]) -> impl Iterator<Item = String> {
    request.query().unwrap_or_default().split(|&b| b == b'&').filter_map(move |pair| {
        let value = pair.strip_prefix(name)?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(&path::decode_value(value)).into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::tests::request;

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (102_348, "99.9 KiB"),
            (102_349, "100 KiB"),
            (102_399, "100 KiB"),
            (102_400, "100 KiB"),
            (200_000, "195 KiB"),
            (1_048_063, "1023 KiB"),
            (1_048_064, "1.0 MiB"),
            (1_048_575, "1.0 MiB"),
            (1_048_576, "1.0 MiB"),
            ((1 << 30) - 1, "1.0 GiB"),
            (9_000_000, "8.6 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn what_is_filled_in_is_not_looked_at_again() {
        assert_eq!(fill("a{{x}}b{{y}}c", |key| format!("<{key}{{{{x}}}}>")), "a<x{{x}}>b<y{{x}}>c");
        assert_eq!(fill("{{x", |_| "1".into()), "1");
    }

    #[test]
    fn names_are_seen_as_they_are() {
        for (name, expected) in [
            (&b"a b.txt"[..], "a b.txt"),
            (b"a\nb\x7F\t", "a\u{240A}b\u{2421}\u{2409}"),
            ("\u{202E}gpj.exe\u{200B}\u{85}".as_bytes(), "\u{FFFD}gpj.exe\u{FFFD}\u{FFFD}"),
            (b"\xFF\xFE", "\u{FFFD}\u{FFFD}"),
            (b" ", "\u{2423}"),
            (" \u{A0}\u{3000}\u{2800}".as_bytes(), "\u{2423}\u{2423}\u{2423}\u{2423}"),
            (b" a", " a"),
            ("\u{3164}\u{2029}\u{E0041}".as_bytes(), "\u{FFFD}\u{FFFD}\u{FFFD}"),
        ] {
            assert_eq!(shown(name), expected);
        }
    }

    #[test]
    fn texts_are_seen_as_they_are() {
        for (text, expected) in [
            (&b"a\n\tb\r\nc \n"[..], "a\n\tb\nc \n"),
            (b"\x1B[31m\0\r", "\u{241B}[31m\u{2400}\u{240D}"),
            ("\u{FEFF}a\u{202E}b\u{FEFF}".as_bytes(), "a\u{FFFD}b\u{FFFD}"),
            (b"\xFF", "\u{FFFD}"),
            (b"", ""),
        ] {
            assert_eq!(shown_text(text), expected);
        }
    }

    #[test]
    fn text_is_safe_in_html() {
        assert_eq!(escaped("<a b=\"c\" d='e'>&amp;"), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;amp;");
    }

    #[test]
    fn values_of_the_query() {
        let request = request("GET", "/?a=1&b=%26+x&aa=3&a=%ff&a", "");
        assert_eq!(query_values(&request, b"a").collect::<Vec<_>>(), ["1", "\u{FFFD}"]);
        assert_eq!(query_values(&request, b"b").collect::<Vec<_>>(), ["& x"]);
        assert_eq!(query_values(&request, b"c").count(), 0);
    }
}
