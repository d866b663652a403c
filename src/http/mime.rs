//! What a file is, told from its name, and what follows from that.

use super::fields::is_token;

/// Types by extension that are not those of `mime_guess`: where it is wrong, has a name that is out of use, or has none. What is
/// compressed by itself is told as that, since it is sent without a Content-Encoding.
const TYPES: [(&str, &str); 24] = [
    ("cjs", "text/javascript"),
    ("jsonl", "application/jsonl"),
    ("m2ts", "video/mp2t"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("map", "application/json"),
    ("mid", "audio/midi"),
    ("midi", "audio/midi"),
    // the one name for scripts since RFC 9239
    ("mjs", "text/javascript"),
    ("mts", "video/mp2t"),
    ("ndjson", "application/x-ndjson"),
    ("obj", "model/obj"),
    ("otf", "font/otf"),
    ("rpm", "application/x-rpm"),
    ("sql", "application/sql"),
    ("stl", "model/stl"),
    ("svgz", "application/gzip"),
    ("tgz", "application/gzip"),
    ("topojson", "application/json"),
    ("ts", "video/mp2t"),
    ("tzst", "application/zstd"),
    ("usdz", "model/vnd.usdz+zip"),
    ("woff", "font/woff"),
    ("zst", "application/zstd"),
];

/// Content-Type for a file of this name, with a charset where the type is text.
pub fn content_type(name: &[u8]) -> String {
    let extension = name.iter().rposition(|&b| b == b'.').and_then(|dot| std::str::from_utf8(&name[dot + 1..]).ok()).unwrap_or("");
    let ours = TYPES.iter().find(|(of, _)| extension.eq_ignore_ascii_case(of)).map(|(_, media_type)| *media_type);
    let media_type = ours.or_else(|| mime_guess::from_ext(extension).first_raw());
    with_charset(media_type.unwrap_or("application/octet-stream"))
}

/// A type as Content-Type says it: with a charset where it is text and has no parameter.
pub fn with_charset(media_type: &str) -> String {
    let is_bare_text = media_type.get(..5).is_some_and(|kind| kind.eq_ignore_ascii_case("text/")) && !media_type.contains(';');
    if is_bare_text { format!("{media_type}; charset=utf-8") } else { media_type.to_owned() }
}

/// Whether this is a media type, with or without parameters (RFC 9110 section 8.3.1).
pub fn is_media_type(text: &str) -> bool {
    let mut parts = text.split(';').map(|part| part.trim_matches([' ', '\t']));
    let is_type = parts.next().and_then(|essence| essence.split_once('/')).is_some_and(|(kind, sub)| is_token(kind) && is_token(sub));
    is_type && parts.all(|part| part.split_once('=').is_some_and(|(name, value)| is_token(name) && (is_token(value) || is_quoted(value))))
}

/// Whether this is a quoted string of printable ASCII (RFC 9110 section 5.6.4) without anything escaped.
pub fn is_quoted(text: &str) -> bool {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner.is_some_and(|inner| inner.bytes().all(|b| (b' '..=b'~').contains(&b) && !b"\"\\".contains(&b)))
}

/// Whether a browser can show a file of this type without it being able to do anything: pictures, sound, film, plain text.
pub fn is_plain(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence == "text/plain" || ["image/", "audio/", "video/"].iter().any(|kind| essence.starts_with(kind)) && essence != "image/svg+xml"
}

/// Whether files of this type become smaller by a coding: text in all its forms, and the few binary formats that are not compressed
/// by themselves. Where a type has several names, those that `--mime` may give it are here too.
pub fn is_compressible(content_type: &str) -> bool {
    const OTHERS: [&str; 43] = [
        "application/font-sfnt",
        "application/javascript",
        "application/json",
        "application/json5",
        "application/jsonl",
        "application/n-quads",
        "application/n-triples",
        "application/postscript",
        "application/rtf",
        "application/sql",
        "application/toml",
        "application/trig",
        "application/vnd.apple.mpegurl",
        "application/vnd.ms-fontobject",
        "application/wasm",
        "application/x-csh",
        "application/x-font-ttf",
        "application/x-httpd-php",
        "application/x-java-jnlp-file",
        "application/x-javascript",
        "application/x-latex",
        "application/x-ndjson",
        "application/x-ns-proxy-autoconfig",
        "application/x-perl",
        "application/x-sh",
        "application/x-sql",
        "application/x-subrip",
        "application/x-tcl",
        "application/x-tex",
        "application/x-yaml",
        "application/xml",
        "application/xml-dtd",
        "application/yaml",
        "audio/x-mpegurl",
        "font/collection",
        "font/otf",
        "font/sfnt",
        "font/ttf",
        "image/bmp",
        "image/vnd.microsoft.icon",
        "image/x-icon",
        "model/obj",
        "model/stl",
    ];
    let essence = content_type.split(';').next().unwrap_or_default().trim_end();
    essence.starts_with("text/") || essence.ends_with("+json") || essence.ends_with("+xml") || OTHERS.contains(&essence)
}

/// Whether bytes of this name never change: a script, style, font or image with a content hash in its name (`app.3f9c2b1a.js`).
///
/// A hash is a part of the name, between dots, dashes and underscores, of at least 8 letters and digits, with one of each. The
/// first part is the file's own name: there only lower-case hexadecimal digits count as a hash.
pub fn is_immutable(name: &[u8]) -> bool {
    const KINDS: [&str; 18] = [
        "js", "mjs", "css", "wasm", "map", "woff", "woff2", "ttf", "otf", "eot", "png", "jpg", "jpeg", "gif", "svg", "webp", "avif", "ico",
    ];
    let Some(dot) = name.iter().rposition(|&b| b == b'.') else { return false };
    let (stem, extension) = (&name[..dot], &name[dot + 1..]);
    KINDS.iter().any(|kind| extension.eq_ignore_ascii_case(kind.as_bytes()))
        && stem.split(|b| b".-_".contains(b)).enumerate().any(|(i, part)| is_hash(part, i == 0))
}

fn is_hash(part: &[u8], first: bool) -> bool {
    let allowed = if first { |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b) } else { u8::is_ascii_alphanumeric };
    part.len() >= 8 && part.iter().all(allowed) && part.iter().any(u8::is_ascii_digit) && part.iter().any(u8::is_ascii_alphabetic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_by_name() {
        let cases = [
            ("index.html", "text/html; charset=utf-8"),
            ("A.HTML", "text/html; charset=utf-8"),
            ("style.css", "text/css; charset=utf-8"),
            ("app.js", "text/javascript; charset=utf-8"),
            ("app.mjs", "text/javascript; charset=utf-8"),
            ("notes.txt", "text/plain; charset=utf-8"),
            ("a.png", "image/png"),
            ("a.jpg", "image/jpeg"),
            ("a.svg", "image/svg+xml"),
            ("a.json", "application/json"),
            ("a.wasm", "application/wasm"),
            ("a.webmanifest", "application/manifest+json"),
            ("a.avif", "image/avif"),
            ("a.ico", "image/x-icon"),
            ("a.woff", "font/woff"),
            ("a.woff2", "font/woff2"),
            ("a.ttf", "font/ttf"),
            ("a.otf", "font/otf"),
            ("A.OTF", "font/otf"),
            ("a.m3u8", "application/vnd.apple.mpegurl"),
            ("a.mpd", "application/dash+xml"),
            ("a.ts", "video/mp2t"),
            ("a.mp4", "video/mp4"),
            ("a.mp3", "audio/mpeg"),
            ("a.m4a", "audio/mp4"),
            ("a.mid", "audio/midi"),
            ("app.js.map", "application/json"),
            ("a.sql", "application/sql"),
            ("a.ndjson", "application/x-ndjson"),
            ("a.md", "text/markdown; charset=utf-8"),
            ("a.csv", "text/csv; charset=utf-8"),
            ("a.toml", "text/x-toml; charset=utf-8"),
            ("a.yaml", "text/x-yaml; charset=utf-8"),
            ("a.pdf", "application/pdf"),
            ("a.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
            ("a.zip", "application/zip"),
            ("a.gz", "application/gzip"),
            ("a.tgz", "application/gzip"),
            ("a.svgz", "application/gzip"),
            ("a.zst", "application/zstd"),
            ("a.rpm", "application/x-rpm"),
            ("a.unheard-of", "application/octet-stream"),
            ("README", "application/octet-stream"),
            ("", "application/octet-stream"),
        ];
        for (name, expected) in cases {
            assert_eq!(content_type(name.as_bytes()), expected, "{name}");
        }
        assert_eq!(content_type(b"\xFF.\xFF"), "application/octet-stream");
    }

    #[test]
    fn media_types() {
        for good in ["text/html", "application/vnd.x+json", "text/html; charset=utf-8", "text/html;charset=\"utf-8\"; a=b", "TEXT/HTML"] {
            assert!(is_media_type(good), "{good}");
        }
        for bad in
            ["", "text", "/", "text/", "/html", "text/html;", "text/html; a", "text/html; a=", "te xt/html", "text/html\r\n", "text/é"]
        {
            assert!(!is_media_type(bad), "{bad:?}");
        }
        for (bare, told) in
            [("text/x", "text/x; charset=utf-8"), ("Text/X", "Text/X; charset=utf-8"), ("text/x; a=b", "text/x; a=b"), ("a/b", "a/b")]
        {
            assert_eq!(with_charset(bare), told);
        }
    }

    #[test]
    fn text_gains_by_a_coding_and_what_is_compressed_does_not() {
        let text =
            "html css js mjs cjs json map ndjson jsonl json5 webmanifest svg xml atom txt md csv yaml toml sql sh pl tex srt vtt m3u8";
        let binary = "wasm ttf ttc otf eot ico bmp obj stl";
        for name in text.split(' ').chain(binary.split(' ')).map(|extension| format!("a.{extension}")) {
            assert!(is_compressible(&content_type(name.as_bytes())), "{name}: {}", content_type(name.as_bytes()));
        }
        for name in
            "png jpg webp avif mp4 ts mp3 zip gz tgz zst svgz rpm woff woff2 pdf bin".split(' ').map(|extension| format!("a.{extension}"))
        {
            assert!(!is_compressible(&content_type(name.as_bytes())), "{name}: {}", content_type(name.as_bytes()));
        }
        assert!(!is_compressible(&content_type(b"a")));
        for given in [
            "application/javascript",
            "application/x-javascript; charset=utf-8",
            "application/font-sfnt",
            "application/x-sql",
            "application/yaml",
        ] {
            assert!(is_compressible(given), "{given}");
        }
    }

    #[test]
    fn each_type_of_ours_is_needed() {
        for (extension, media_type) in TYPES {
            assert_ne!(mime_guess::from_ext(extension).first_raw(), Some(media_type), "{extension}");
            assert!(is_media_type(media_type), "{media_type}");
        }
        assert!(TYPES.is_sorted_by(|one, next| one.0 < next.0), "each extension once, in order");
    }

    #[test]
    fn only_hashed_assets_are_immutable() {
        for name in ["app.3f9c2b1a.js", "index-BXv3d9aZ.css", "3f9c2b1a2d.woff2", "logo_ab12cd34.SVG", "main.9f8e7d6c.chunk.js"] {
            assert!(is_immutable(name.as_bytes()), "{name}");
        }
        for name in [
            "app.js",
            "app.3f9c2b1.js",
            "app.abcdefgh.js",
            "app.20261122.js",
            "page.3f9c2b1a.html",
            "bootstrap5theme.css",
            "3f9c2b1a",
            ".3f9c2b1a",
        ] {
            assert!(!is_immutable(name.as_bytes()), "{name}");
        }
    }
}
