//! How a folder is served as a site: indexes, clean addresses, types, caching, and fields of the operator's own.
//!
//! Each value is checked and compiled when it is read, so what stands here can be used as it is. Patterns are compared with paths below
//! the root as they were decoded, in time that grows with the path alone.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};

use super::units::Switch;
use crate::http::fields::is_token;
use crate::http::header::HeaderName;
use crate::http::path::{self, CleanPath};
use crate::http::{StatusCode, mime};

/// The file that a folder is served by, and that unknown addresses get, when none is named.
const INDEX: &str = "index.html";

/// The rules of a site.
#[derive(Clone, Debug, clap::Args)]
pub struct Rules {
    /// Name of the file that a folder is served by; may be given several times, and the first that is there counts
    #[arg(long, value_name = "NAME", default_value = INDEX, value_delimiter = ',', env = "MILLPOND_INDEX", help_heading = "Sites")]
    pub index: Vec<IndexName>,

    /// Answer addresses where nothing is with this page, for an app that has its routes in the browser [FILE: index.html]
    ///
    /// Only where a page is asked for: a script or an image that is missing stays 404. Written as --spa or --spa=FILE.
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = INDEX,
        env = "MILLPOND_SPA",
        help_heading = "Sites"
    )]
    pub spa: Option<PageFile>,

    /// Serve about.html at /about, and redirect /about.html there
    #[arg(long, env = "MILLPOND_CLEAN_URLS", value_parser = clap::builder::BoolishValueParser::new(), help_heading = "Sites")]
    pub clean_urls: bool,

    /// Content-Type of the files with an extension; may be given several times
    #[arg(long, value_name = "EXT=TYPE", value_delimiter = '\n', env = "MILLPOND_MIME", help_heading = "Files")]
    pub mime: Vec<TypeRule>,

    /// Cache-Control of the files that a pattern matches; may be given several times, and the last that matches counts
    ///
    /// A pattern without a slash is compared with the name of a file, such as *.html. One that begins with a slash is compared with
    /// its whole path, such as /assets/**.
    #[arg(long, value_name = "PATTERN=VALUE", value_delimiter = '\n', env = "MILLPOND_CACHE_CONTROL", help_heading = "Files")]
    pub cache_control: Vec<CacheRule>,

    /// A field for all answers, or for those that a pattern in front of it matches; may be given several times
    ///
    /// Such as "X-Frame-Options: DENY", or "/embed/** Access-Control-Allow-Origin: *". Of several with one name the last that matches
    /// counts.
    #[arg(long, value_name = "[PATTERN ]NAME: VALUE", value_delimiter = '\n', env = "MILLPOND_HEADER", help_heading = "Files")]
    pub header: Vec<FieldRule>,

    /// Symbolic links: follow those that stay inside the folder, none at all, or also those that lead out of it
    #[arg(long, value_name = "inside|deny|follow", default_value = "inside", env = "MILLPOND_SYMLINKS", help_heading = "Files")]
    pub symlinks: Symlinks,

    /// Names that begin with a dot: not served, but for .well-known, or served like any other
    #[arg(long, value_name = "deny|allow", default_value = "deny", env = "MILLPOND_DOTFILES", help_heading = "Files")]
    pub dotfiles: Dotfiles,

    /// Let scripts, styles, fonts and images with a content hash in their name (app.3f9c2b1a.js) be cached for a year
    #[arg(long, value_name = "on|off", default_value = "on", env = "MILLPOND_IMMUTABLE", help_heading = "Files")]
    pub immutable: Switch,
}

impl Rules {
    /// A folder of files that are no site: no index, no links out of it, no dotfiles, and no fields of its own.
    pub fn bare(symlinks: Symlinks) -> Rules {
        let symlinks = if symlinks == Symlinks::Follow { Symlinks::Inside } else { symlinks };
        Rules {
            index: Vec::new(),
            spa: None,
            clean_urls: false,
            mime: Vec::new(),
            cache_control: Vec::new(),
            header: Vec::new(),
            symlinks,
            dotfiles: Dotfiles::Deny,
            immutable: Switch(false),
        }
    }

    /// Content-Type of a file of this name.
    pub fn content_type(&self, name: &[u8]) -> String {
        let rule = self.mime.iter().rev().find(|rule| rule.applies(name));
        rule.map_or_else(|| mime::content_type(name), |rule| rule.content_type.clone())
    }

    /// Cache-Control of the file at a path, if a rule says one.
    pub fn cache_control(&self, path: &[u8]) -> Option<&str> {
        self.cache_control.iter().rev().find(|rule| rule.pattern.matches(path)).map(|rule| &rule.value[..])
    }

    /// The fields that an answer for a path gets: of each name the last that applies.
    pub fn fields(&self, path: &[u8]) -> Vec<&FieldRule> {
        let mut fields: Vec<&FieldRule> = Vec::new();
        for rule in self.header.iter().filter(|rule| rule.pattern.as_ref().is_none_or(|pattern| pattern.matches(path))) {
            fields.retain(|earlier| earlier.name != rule.name);
            fields.push(rule);
        }
        fields
    }

    /// Whether a path has a segment that begins with a dot and is not served for it.
    pub fn hides(&self, path: &CleanPath) -> bool {
        path.segments().enumerate().any(|(i, segment)| self.dotfiles.hide(segment, i == 0))
    }

    /// What is served at a path where nothing is, for those who ask for a page.
    pub fn fallback(&self, path: &CleanPath) -> Option<&CleanPath> {
        let PageFile(page) = self.spa.as_ref()?;
        // what is looked for under such a name is no route of an app
        let is_dotted = path.segments().any(|segment| segment[0] == b'.');
        (page != path && !is_dotted).then_some(page)
    }

    /// Whether a file is what is served where nothing is.
    pub fn is_fallback(&self, path: &CleanPath) -> bool {
        self.spa.as_ref().is_some_and(|PageFile(page)| page == path)
    }

    /// Whether a file is served under the name that it has, whatever addresses look like otherwise: the page of an app, and those of
    /// errors.
    pub fn is_page(&self, path: &CleanPath) -> bool {
        let is_of_error = || {
            let name = path.as_bytes().strip_suffix(b".html").unwrap_or_default();
            name == b"50x" || StatusCode::from_bytes(name).is_ok_and(|status| status.is_client_error() || status.is_server_error())
        };
        self.is_fallback(path) || is_of_error()
    }
}

/// The name of an index: one plain segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexName(String);

impl IndexName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IndexName {
    type Err = String;

    fn from_str(text: &str) -> Result<IndexName, String> {
        match plain(text) {
            Some(_) if !text.contains('/') => Ok(IndexName(text.into())),
            _ => Err("expected the name of a file, without a slash, and without a dot in front".into()),
        }
    }
}

/// A page below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageFile(pub CleanPath);

impl FromStr for PageFile {
    type Err = String;

    fn from_str(text: &str) -> Result<PageFile, String> {
        let form = "expected the path of a file below ROOT, such as app/index.html, without names that begin with a dot";
        plain(text).filter(|path| !path.is_folder()).map(PageFile).ok_or_else(|| form.into())
    }
}

/// A path below the root that reads as it is written, without dotfiles.
fn plain(text: &str) -> Option<CleanPath> {
    let mut encoded = String::from("/");
    path::encode(text.as_bytes(), b"/", &mut encoded);
    let mut path = CleanPath::default();
    path.set(encoded.as_bytes()).ok()?;
    let is_same = !text.is_empty() && path.as_bytes() == text.as_bytes();
    (is_same && path.segments().all(|segment| segment[0] != b'.')).then_some(path)
}

/// A pattern for paths: `*` is anything within a segment, `?` one byte of it, `[ab]` one of these, `{a,b}` either, and `**` any number
/// of segments.
#[derive(Clone, Debug)]
pub struct Pattern {
    matcher: GlobMatcher,
    /// Whether it is compared with the last segment alone.
    is_of_name: bool,
}

impl Pattern {
    /// Whether it matches a path, given relative to the root.
    pub fn matches(&self, path: &[u8]) -> bool {
        let matches = |text: &[u8]| self.matcher.is_match(Path::new(OsStr::from_bytes(text)));
        if self.is_of_name { matches(path.rsplit(|&b| b == b'/').next().unwrap_or_default()) } else { matches(&[b"/", path].concat()) }
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Pattern, String> {
        let is_of_name = !text.contains('/');
        if text.is_empty() || !is_of_name && !text.starts_with('/') {
            return Err("a pattern is a name such as *.html, or a whole path that begins with a slash, such as /assets/**".into());
        }
        let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
        Ok(Pattern { matcher: glob.map_err(|e| format!("not a pattern: {}", e.kind()))?.compile_matcher(), is_of_name })
    }
}

/// A Content-Type for an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeRule {
    /// With its dot.
    ending: String,
    content_type: String,
}

impl TypeRule {
    fn applies(&self, name: &[u8]) -> bool {
        name.len().checked_sub(self.ending.len()).is_some_and(|at| name[at..].eq_ignore_ascii_case(self.ending.as_bytes()))
    }
}

impl FromStr for TypeRule {
    type Err = String;

    fn from_str(text: &str) -> Result<TypeRule, String> {
        let (extension, media_type) = text.split_once('=').ok_or("expected an extension, =, and a type, such as md=text/markdown")?;
        let extension = extension.strip_prefix('.').unwrap_or(extension);
        if extension.is_empty() || extension.contains('/') || extension.bytes().any(|b| b.is_ascii_control()) {
            return Err("expected an extension in front of the =, such as md".into());
        }
        if !mime::is_media_type(media_type) {
            return Err("expected a type behind the =, such as text/markdown or text/html; charset=utf-8".into());
        }
        Ok(TypeRule { ending: format!(".{extension}"), content_type: mime::with_charset(media_type) })
    }
}

/// Cache-Control for what a pattern matches.
#[derive(Clone, Debug)]
pub struct CacheRule {
    pattern: Pattern,
    value: String,
}

impl FromStr for CacheRule {
    type Err = String;

    fn from_str(text: &str) -> Result<CacheRule, String> {
        let (pattern, value) = text.split_once('=').ok_or("expected a pattern, =, and a value, such as *.html=no-cache")?;
        let is_directive = |directive: &str| {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, "1"));
            is_token(name) && (is_token(argument) || mime::is_quoted(argument))
        };
        if !value.split(',').all(|directive| is_directive(directive.trim_matches([' ', '\t']))) {
            return Err("expected directives with commas between them behind the =, such as public, max-age=3600".into());
        }
        Ok(CacheRule { pattern: pattern.parse()?, value: value.into() })
    }
}

/// A field for what a pattern matches, or for everything.
#[derive(Clone, Debug)]
pub struct FieldRule {
    pattern: Option<Pattern>,
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: String,
}

/// Fields that are never the operator's: they say how a message is framed and what it is about, and the server is held to them.
const OWNED: [&str; 24] = [
    "accept-ranges",
    "age",
    "allow",
    "connection",
    "content-digest",
    "content-disposition",
    "content-encoding",
    "content-length",
    "content-location",
    "content-range",
    "date",
    "etag",
    "keep-alive",
    "last-modified",
    "location",
    "proxy-connection",
    "repr-digest",
    "retry-after",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "x-content-type-options",
];

impl FromStr for FieldRule {
    type Err = String;

    fn from_str(text: &str) -> Result<FieldRule, String> {
        let (front, value) = text.split_once(':').ok_or("expected a name, a colon, and a value, such as X-Frame-Options: DENY")?;
        let (pattern, name) = match front.trim_start().rsplit_once(' ') {
            Some((pattern, name)) => (Some(pattern.trim_end().parse()?), name),
            None => (None, front.trim_start()),
        };
        let name: HeaderName = name.parse().map_err(|_| "the name in front of the colon has a character that no field name has")?;
        match name.as_str() {
            "content-type" => return Err("Content-Type follows from the extension; set it with --mime".into()),
            "cache-control" => return Err("Cache-Control is set with --cache-control".into()),
            owned if OWNED.contains(&owned) => return Err(format!("{owned} is set by the server itself; leave it out")),
            _ => {}
        }
        let value = value.trim_matches([' ', '\t']);
        if value.is_empty() || !value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)) {
            return Err("the value behind the colon has to be printable ASCII, in one line".into());
        }
        Ok(FieldRule { pattern, name, value: value.into() })
    }
}

/// Which symbolic links are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symlinks {
    /// Those that stay inside the root with every step.
    Inside,
    /// None.
    Deny,
    /// All, also out of the root.
    Follow,
}

impl FromStr for Symlinks {
    type Err = String;

    fn from_str(text: &str) -> Result<Symlinks, String> {
        match text {
            "inside" => Ok(Symlinks::Inside),
            "deny" => Ok(Symlinks::Deny),
            "follow" => Ok(Symlinks::Follow),
            _ => Err("expected inside, deny or follow".into()),
        }
    }
}

/// Whether what has a dot in front of its name is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dotfiles {
    /// No.
    Deny,
    /// As everything else is.
    Allow,
}

impl Dotfiles {
    /// Whether a segment of a path, which may be the first, is not served for its name; `.well-known` (RFC 8615) at the root has a
    /// purpose.
    pub fn hide(self, name: &[u8], is_first: bool) -> bool {
        self == Dotfiles::Deny && name.first() == Some(&b'.') && !(is_first && name == b".well-known")
    }
}

impl FromStr for Dotfiles {
    type Err = String;

    fn from_str(text: &str) -> Result<Dotfiles, String> {
        match text {
            "deny" => Ok(Dotfiles::Deny),
            "allow" => Ok(Dotfiles::Allow),
            _ => Err("expected deny or allow".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules::bare(Symlinks::Inside)
    }

    fn path(text: &str) -> CleanPath {
        let mut path = CleanPath::default();
        path.set(text.as_bytes()).unwrap();
        path
    }

    #[test]
    fn patterns() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("*.html", &["a.html", "b/c.html", ".html"], &["a.htm", "a.HTML", "a.html/b", "a.html/"]),
            ("*", &["", "a", "a/b", "a/"], &[]),
            ("a?c", &["abc", "x/a-c"], &["ac", "abbc"]),
            ("[ab].txt", &["a.txt", "x/b.txt"], &["c.txt"]),
            ("*.{js,css}", &["a.js", "x/a.css"], &["a.map"]),
            (r"\*.txt", &["*.txt"], &["a.txt"]),
            ("/", &[""], &["a", "a/"]),
            ("/*", &["", "a", "a.html"], &["a/b", "a/"]),
            ("/a/*", &["a/b", "a/"], &["a", "a/b/c", "b/a/b"]),
            ("/**", &["", "a", "a/b/", "a/b/c"], &[]),
            ("/a/**", &["a/b", "a/b/c", "a/"], &["a", "ab/c", "b/a/c"]),
            ("/**/x.txt", &["x.txt", "a/x.txt", "a/b/x.txt"], &["a/yx.txt"]),
            ("/a/**/z", &["a/z", "a/b/z", "a/b/c/z"], &["a/bz"]),
        ];
        for (pattern, yes, no) in cases {
            let compiled: Pattern = pattern.parse().unwrap();
            for path in *yes {
                assert!(compiled.matches(path.as_bytes()), "{pattern} matches {path:?}");
            }
            for path in *no {
                assert!(!compiled.matches(path.as_bytes()), "{pattern} does not match {path:?}");
            }
        }
        assert!("/a/*".parse::<Pattern>().unwrap().matches(b"a/\xFF\xFE"), "paths need not be UTF-8");
        for wrong in ["", "a/b", "a/**", "**/a", "[a", "{a", "/a[z-a]"] {
            assert!(wrong.parse::<Pattern>().is_err(), "{wrong:?}");
        }
    }

    /// A pattern that is hard for engines that try again.
    #[test]
    fn a_hard_pattern_costs_no_more_than_its_length() {
        let pattern: Pattern = format!("/{}b", "*a".repeat(30)).parse().unwrap();
        assert!(!pattern.matches(&[b'a'; 8 << 10]));
    }

    #[test]
    fn types_by_extension() {
        let mut rules = rules();
        rules.mime = ["md=text/markdown", ".foo=application/x-foo", "tar.gz=application/x-tgz", "foo=text/x-foo; charset=latin1"]
            .map(|t| t.parse().unwrap())
            .into();
        for (name, expected) in [
            ("a.md", "text/markdown; charset=utf-8"),
            ("a.MD", "text/markdown; charset=utf-8"),
            ("a.foo", "text/x-foo; charset=latin1"),
            ("a.tar.gz", "application/x-tgz"),
            ("md", "application/octet-stream"),
            ("a.html", "text/html; charset=utf-8"),
        ] {
            assert_eq!(rules.content_type(name.as_bytes()), expected, "{name}");
        }
        for wrong in [
            "",
            "md",
            "=text/plain",
            "md=",
            "md=text",
            "md=text/",
            "md=/plain",
            "md=text/a b",
            "md=text/a\r\nX: y",
            "md=text/a;",
            "a/b=text/plain",
        ] {
            assert!(wrong.parse::<TypeRule>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_last_rule_of_caching_that_matches_counts() {
        let mut rules = rules();
        rules.cache_control =
            ["*=public, max-age=60", "*.html=no-cache", "/assets/**=max-age=1, private=\"x\""].map(|t| t.parse().unwrap()).into();
        for (path, expected) in [("a.txt", "public, max-age=60"), ("a/b.html", "no-cache"), ("assets/b.html", "max-age=1, private=\"x\"")] {
            assert_eq!(rules.cache_control(path.as_bytes()), Some(expected), "{path}");
        }
        for wrong in
            ["", "*.html", "*.html=", "=no-cache", "*=max-age:60", "*=no-cache,", "*=no cache", "*=a\r\nb: c", "*=é", "a/b=no-cache"]
        {
            assert!(wrong.parse::<CacheRule>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn of_each_field_the_last_that_matches_counts() {
        let mut rules = rules();
        rules.header = ["X-A: one", "/sub/** x-a:two", "*.html X-B: b: c", "X-C:\td "].map(|t| t.parse().unwrap()).into();
        let told =
            |path: &str| rules.fields(path.as_bytes()).iter().map(|f| format!("{}: {}", f.name, f.value)).collect::<Vec<_>>().join(", ");
        assert_eq!(told("a.txt"), "x-a: one, x-c: d");
        assert_eq!(told("sub/a.html"), "x-a: two, x-b: b: c, x-c: d");
        for wrong in [
            "",
            "X-A",
            "X-A:",
            "X-A:  ",
            ": b",
            "X(A): b",
            "X-A : b",
            "X-A: a\r\nX-B: b",
            "X-A: a\nb",
            "X-A: a\0b",
            "X-A: a\x7Fb",
            "X-A: é",
            "é: b",
            "a/b X-A: b",
            "[a X-A: b",
            "Content-Length: 0",
            "content-length: 0",
            "* Transfer-Encoding: chunked",
            "Connection: close",
            "Date: today",
            "Content-Range: bytes 0-1/2",
            "Content-Type: text/html",
            "Cache-Control: no-store",
            "ETag: \"1\"",
            "Vary: *",
        ] {
            assert!(wrong.parse::<FieldRule>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn names_of_indexes_and_pages() {
        for (text, index, page) in [
            ("index.html", true, true),
            ("with space.html", true, true),
            ("50%.html", true, true),
            ("app/index.html", false, true),
            ("", false, false),
            ("/", false, false),
            ("/index.html", false, false),
            ("a/", false, false),
            (".", false, false),
            ("..", false, false),
            ("../index.html", false, false),
            ("a/../b", false, false),
            ("a//b", false, false),
            (".index.html", false, false),
            (".well-known/a", false, false),
            ("a\\b", false, false),
            ("a\0b", false, false),
        ] {
            assert_eq!(text.parse::<IndexName>().is_ok(), index, "{text:?} as an index");
            assert_eq!(text.parse::<PageFile>().is_ok(), page, "{text:?} as a page");
        }
    }

    #[test]
    fn dotted_addresses_have_no_fallback() {
        let mut rules = rules();
        rules.spa = Some("app.html".parse().unwrap());
        for (text, falls_back) in [
            ("/a", true),
            ("/a/b.js", true),
            ("/a/", true),
            ("/app.html", false),
            ("/.env", false),
            ("/a/.b/c", false),
            ("/.well-known/x", false),
        ] {
            assert_eq!(rules.fallback(&path(text)).is_some(), falls_back, "{text}");
        }
    }

    #[test]
    fn pages_that_keep_their_name() {
        let mut rules = rules();
        for (text, is_page) in [
            ("/404.html", true),
            ("/400.html", true),
            ("/599.html", true),
            ("/50x.html", true),
            ("/399.html", false),
            ("/600.html", false),
            ("/40x.html", false),
            ("/404.htm", false),
            ("/404", false),
            ("/sub/404.html", false),
            ("/0404.html", false),
            ("/index.html", false),
        ] {
            assert_eq!(rules.is_page(&path(text)), is_page, "{text}");
        }
        rules.spa = Some("index.html".parse().unwrap());
        assert!(rules.is_page(&path("/index.html")));
    }

    #[test]
    fn uploads_never_follow_links_out() {
        for (asked, given) in [(Symlinks::Inside, Symlinks::Inside), (Symlinks::Deny, Symlinks::Deny), (Symlinks::Follow, Symlinks::Inside)]
        {
            assert_eq!(Rules::bare(asked).symlinks, given);
        }
    }
}
