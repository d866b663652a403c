//! What the pages that are made here have in common: text made safe for HTML, sizes for people, values from the query, and the
//! policy that lets a page run its own style and script and nothing else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

use crate::http::Request;
use crate::http::path;

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

/// Text as it may stand in HTML, between tags and in a quoted attribute.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// A size for people: `5 bytes`, `195 KiB`, `8.6 MiB`.
pub fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = if bytes == 1 { "byte" } else { "bytes" };
    for larger in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    if bytes < 1024 || value >= 100.0 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
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
            (200_000, "195 KiB"),
            (9_000_000, "8.6 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
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
