//! Listings: what is in a folder that has no index, as a page for people or as JSON for programs.
//!
//! Invariant: what may not be fetched is not told. A folder is read and its entries are looked at beneath the root, by the rules
//! by which they would be served. All of it is done on the blocking pool.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::RangeInclusive;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::archive::{Archives, Format};
use super::blocking::Blocking;
use super::compress::{self, Effort};
use super::page::{escaped, fill, query_values, shown, shown_text, size};
use super::root::{Contents, Found, How, Item, Root};
use super::{Store, failure, page, refused, unix_now_s, with_vary};
use crate::config::limits::Limits;
use crate::config::plan::Plan;
use crate::config::rules::Dotfiles;
use crate::http::coding::{Accepted, Coding};
use crate::http::conditional::{self, Validators, Verdict};
use crate::http::fields::Fields;
use crate::http::path::{CleanPath, encoded, encoded_value};
use crate::http::refuse::Refuse;
use crate::http::{Request, Response, StatusCode, accept, date, header, mime};

/// Listings that are made at the same time: each may hold the entries of a large folder and keep a processor busy, and none of the
/// others waits for long.
pub const AT_ONCE: usize = 4;
/// About what an entry takes while a listing is made: a name, a record, and its row of the page.
const ITEM_BYTES: usize = 1024;

/// Folders above that are shown of a long way: as many as fit on a small screen. Those between the first and the last are folded up.
const FOLDERS_ABOVE: usize = 5;
/// Characters of a search: more than any name has.
const SEARCH_CHARS: usize = 255;
/// Files whose text is shown below the listing of their folder, whatever the case of their letters; the first that is there.
const READMES: [&str; 3] = ["README.md", "README.txt", "README"];

/// What a listing depends on beside its address.
const VARY: &str = "Accept, Accept-Encoding";

const PAGE: &str = include_str!("listing.html");

/// About what making a listing takes at most.
pub fn making_bytes(limits: &Limits) -> u64 {
    (limits.listing_limit * ITEM_BYTES + limits.readme_limit) as u64
}

/// How folders are listed.
#[derive(Debug)]
pub struct Listing {
    rules: Arc<Rules>,
    /// How folders are downloaded, if they are.
    archives: Option<Archives>,
    /// Sizes of listings that are compressed, if any are.
    compressed: Option<RangeInclusive<u64>>,
    page_policy: String,
    making: Arc<Semaphore>,
}

/// What is told of a folder.
#[derive(Debug)]
pub struct Rules {
    /// Paths below the root that something else answers.
    elsewhere: Vec<Vec<u8>>,
    dotfiles: Dotfiles,
    /// Entries that are read of one folder.
    limit: usize,
    page_items: usize,
    readme_bytes: usize,
    /// Whether folders can be downloaded.
    has_archives: bool,
}

impl Listing {
    /// Listings as planned. Below the paths `elsewhere`, given without a slash at their end, something else answers.
    pub fn new(plan: &Plan, elsewhere: Vec<Vec<u8>>) -> Listing {
        let limits = &plan.limits;
        let rules = Rules {
            elsewhere,
            dotfiles: plan.rules.dotfiles,
            limit: limits.listing_limit,
            page_items: limits.listing_page,
            readme_bytes: limits.readme_limit,
            has_archives: plan.archive,
        };
        Listing {
            rules: Arc::new(rules),
            archives: plan.archive.then(|| Archives::new(limits)),
            compressed: plan.compress.then_some(limits.compress_min..=limits.compress_max),
            page_policy: page::policy(PAGE, "img-src data:"),
            making: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Answers GET and HEAD for a folder.
    pub(super) async fn serve(&self, store: &Arc<Store>, blocking: &Arc<Blocking>, path: CleanPath, request: &Request) -> Response {
        let answered = match Ask::read(request) {
            Ok(Ask { download: Some(format), .. }) => match &self.archives {
                Some(archives) => archives.serve(store, blocking, &self.rules, path, format).await,
                None => Err(Refuse::new(StatusCode::FORBIDDEN, "Folders can not be downloaded here.")),
            },
            Ok(ask) => self.list(store, blocking, path, ask, request).await,
            Err(refuse) => Err(refuse),
        };
        answered.unwrap_or_else(|refuse| with_vary(refused(refuse, request), Some(VARY)))
    }

    async fn list(
        &self,
        store: &Arc<Store>,
        blocking: &Blocking,
        path: CleanPath,
        ask: Ask,
        request: &Request,
    ) -> Result<Response, Refuse> {
        let is_json = ask.is_json;
        let up = steps_up(request.sent_path(), path.segments().count());
        let address = Address { up, host: shown(request.authority()) };
        let (store, rules) = (Arc::clone(store), Arc::clone(&self.rules));
        // the semaphore is never closed; the leave goes along, so that a client that is gone frees it no earlier than the work ends
        let leave = Arc::clone(&self.making).acquire_owned().await;
        let made = blocking.run(move || (make(&store, &rules, &path, &address, &ask), leave));
        let (text, leave) = made.await;
        let text = text?;
        let mut response = self.answer(&text, is_json, request);
        if response.status != StatusCode::OK {
            return Ok(response);
        }
        let accepted = super::accepted(request);
        let coding = self.coding(text.len() as u64, accepted).ok_or_else(not_acceptable)?;
        if coding == Coding::Identity {
            response.body = text.into();
            return Ok(response);
        }
        let coded = blocking.run(move || {
            let _leave = leave;
            compress::encode(coding, Effort::Quick, text.as_bytes()).ok_or(text)
        });
        response.body = match coded.await {
            Ok(coded) => {
                response.fields.push(&header::CONTENT_ENCODING, coding.name());
                coded.into()
            }
            Err(text) if accepted.allows(Coding::Identity) => text.into(),
            Err(_) => return Err(not_acceptable()),
        };
        Ok(response)
    }

    /// The coding to answer with; none if nothing that there is is accepted.
    fn coding(&self, bytes: u64, accepted: Accepted) -> Option<Coding> {
        let is_coded = self.compressed.as_ref().is_some_and(|sizes| sizes.contains(&bytes));
        accepted.best(Coding::FASTEST_FIRST).find(|&coding| is_coded || coding == Coding::Identity)
    }

    /// The answer without its body.
    fn answer(&self, text: &str, is_json: bool, request: &Request) -> Response {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        // a weak one: a folder may change and come to the same page, which is the same in every coding
        let etag = format!("W/\"{:016x}\"", hasher.finish());
        let (content_type, policy) = match is_json {
            true => ("application/json", "default-src 'none'; frame-ancestors 'none'"),
            false => ("text/html; charset=utf-8", &self.page_policy[..]),
        };
        let fields = Fields::default()
            .with(&header::ETAG, &etag)
            .with(&header::CACHE_CONTROL, "no-cache")
            .with(&header::VARY, VARY)
            .with(&header::X_CONTENT_TYPE_OPTIONS, "nosniff")
            .with(&header::CONTENT_SECURITY_POLICY, policy);
        // there is no date of a last change: none is ever old enough, and a condition on it is left aside
        let validators = Validators { etag: etag.as_bytes().strip_prefix(b"W/").unwrap_or_default(), modified_s: u64::MAX };
        match conditional::evaluate(request, validators, unix_now_s()) {
            Verdict::NotModified => Response { fields, ..Response::new(StatusCode::NOT_MODIFIED) },
            Verdict::Failed if request.field(&header::IF_MATCH).is_some() => {
                let refuse = Refuse::new(StatusCode::PRECONDITION_FAILED, "The listing is not the one that the request speaks of.");
                with_vary(refused(refuse, request), Some(VARY))
            }
            _ => {
                let fields = fields.with(&header::CONTENT_TYPE, content_type);
                Response { fields, ..Response::new(StatusCode::OK) }
            }
        }
    }
}

impl Rules {
    /// Whether a name in a folder, given as a path with its slash, may be told of.
    pub fn tells(&self, folder: &[u8], name: &[u8]) -> bool {
        let is_elsewhere = || self.elsewhere.iter().any(|path| path.strip_prefix(folder) == Some(name));
        // no address can have a backslash in it
        !self.dotfiles.hide(name, folder.is_empty()) && !name.contains(&b'\\') && !is_elsewhere()
    }
}

/// What entries are put in order by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Name,
    Size,
    Time,
}

impl Sort {
    fn word(self) -> &'static str {
        match self {
            Sort::Name => "name",
            Sort::Size => "size",
            Sort::Time => "time",
        }
    }
}

/// What is asked of a listing, in the query.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ask {
    sort: Sort,
    descending: bool,
    /// From 1.
    page: usize,
    /// What a name has to hold.
    search: String,
    is_json: bool,
    /// The folder as a whole, in this form.
    download: Option<Format>,
}

impl Ask {
    /// Reads the query, and Accept. Parameters that are not known are left aside.
    fn read(request: &Request) -> Result<Ask, Refuse> {
        let one = |name: &str| query_values(request, name.as_bytes()).next().filter(|value| !value.is_empty());
        let bad = |detail| Refuse::new(StatusCode::BAD_REQUEST, detail);
        Ok(Ask {
            sort: match one("sort").as_deref() {
                None | Some("name") => Sort::Name,
                Some("size") => Sort::Size,
                Some("time") => Sort::Time,
                Some(_) => return Err(bad("A listing can be sorted by name, size or time.")),
            },
            descending: match one("order").as_deref() {
                None | Some("asc") => false,
                Some("desc") => true,
                Some(_) => return Err(bad("The order of a listing is asc or desc.")),
            },
            page: match one("page").map(|n| n.parse()) {
                None => 1,
                Some(Ok(n @ 1..)) => n,
                Some(_) => return Err(bad("The pages of a listing are numbered from 1.")),
            },
            search: one("q").unwrap_or_default().trim().chars().take(SEARCH_CHARS).collect(),
            is_json: match one("format").as_deref() {
                None => accept::prefers_json(request.named(header::ACCEPT.as_str())),
                Some("json") => true,
                Some("html") => false,
                Some(_) => return Err(bad("A listing comes as html or json.")),
            },
            download: match one("download").map(|name| Format::named(&name)) {
                None => None,
                Some(Some(format)) => Some(format),
                Some(None) => return Err(bad("A folder can be downloaded as tar, tar.gz or zip.")),
            },
        })
    }

    /// The query that asks for this; what goes without saying is left out.
    fn query(&self) -> String {
        let mut query = String::new();
        let mut add = |name: &str, value: &str| {
            query.push(if query.is_empty() { '?' } else { '&' });
            query.push_str(name);
            query.push('=');
            query.push_str(&encoded_value(value));
        };
        if self.sort != Sort::Name || self.descending {
            add("sort", self.sort.word());
            add("order", if self.descending { "desc" } else { "asc" });
        }
        if !self.search.is_empty() {
            add("q", &self.search);
        }
        if self.page > 1 {
            add("page", &self.page.to_string());
        }
        if query.is_empty() { "?".into() } else { query }
    }
}

/// What a page looks like from outside.
struct Address {
    /// How many steps up lead to the root and to each folder on the way from there.
    up: Vec<usize>,
    /// The host that was asked, as people may see it; empty if that is not known.
    host: String,
}

/// A part of a folder, in order.
struct View<'a> {
    ask: &'a Ask,
    path: &'a CleanPath,
    address: &'a Address,
    items: &'a [Item],
    /// How many there are in the folder, whatever is searched for.
    total: usize,
    /// How many of them there are on all pages.
    found: usize,
    folders: usize,
    /// What the files on all pages hold together.
    bytes: u64,
    pages: usize,
    /// Entries of the folder that were read, if there are more.
    limit: Option<usize>,
    has_archives: bool,
    readme: Option<Readme>,
}

/// The text of a README.
struct Readme {
    name: String,
    text: String,
    is_whole: bool,
}

/// Makes a listing; it waits for the disk.
fn make(store: &Store, rules: &Rules, path: &CleanPath, address: &Address, ask: &Ask) -> Result<String, Refuse> {
    let folder = path.as_bytes();
    let Contents { mut items, is_whole, .. } = match store.read_folder(folder, rules.limit, |name| rules.tells(folder, name)) {
        Ok(Ok(contents)) => contents,
        Ok(Err(Found::Denied)) => return Err(Refuse::new(StatusCode::FORBIDDEN, "The server may not read what is at this address.")),
        Ok(Err(_)) => return Err(Refuse::not_found()),
        Err(e) => return Err(failure(e)),
    };
    let readme = (ask.page == 1 && ask.search.is_empty()).then(|| readme(&store.root, folder, &items, rules.readme_bytes)).flatten();
    let total = items.len();
    if !ask.search.is_empty() {
        let wanted = ask.search.to_lowercase();
        items.retain(|item| String::from_utf8_lossy(&item.name).to_lowercase().contains(&wanted));
    }
    sort(&mut items, ask);
    let pages = items.len().div_ceil(rules.page_items).max(1);
    if ask.page > pages {
        return Err(Refuse::new(StatusCode::NOT_FOUND, "The listing has no such page."));
    }
    let from = (ask.page - 1) * rules.page_items;
    let view = View {
        ask,
        path,
        address,
        items: &items[from..items.len().min(from + rules.page_items)],
        total,
        found: items.len(),
        folders: items.iter().filter(|item| item.len.is_none()).count(),
        bytes: items.iter().filter_map(|item| item.len).fold(0, u64::saturating_add),
        pages,
        limit: (!is_whole).then_some(rules.limit),
        has_archives: rules.has_archives,
        readme,
    };
    Ok(if ask.is_json { view.json() } else { view.html() })
}

/// How many steps up from a page lead to the root and to each folder on the way to it, which is `depth` folders deep. A browser counts
/// them by the slashes of the address as it was sent, which may have more than one between two names.
fn steps_up(sent: &[u8], depth: usize) -> Vec<usize> {
    let slashes = sent.iter().filter(|&&b| b == b'/').count().saturating_sub(1);
    let mut steps = vec![slashes];
    let folders = sent.split(|&b| b == b'/').skip(1).take(slashes).enumerate();
    steps.extend(folders.filter(|(_, name)| !name.is_empty()).map(|(before, _)| slashes - before - 1));
    // who sends steps of its own follows no links
    if steps.len() == depth + 1 { steps } else { (0..=depth).rev().collect() }
}

/// 406 (RFC 9110 section 15.5.7).
fn not_acceptable() -> Refuse {
    Refuse::new(StatusCode::NOT_ACCEPTABLE, "There is no form of this listing that the request accepts.")
}

/// Folders come first, in either direction.
fn sort(items: &mut [Item], ask: &Ask) {
    items.sort_by_cached_key(|item| (item.len.is_some(), natural(&item.name), item.name.clone()));
    let files = items.partition_point(|item| item.len.is_none());
    let (folders, files) = items.split_at_mut(files);
    match (ask.sort, ask.descending) {
        (Sort::Name, false) => {}
        (Sort::Name, true) => [folders, files].into_iter().for_each(<[Item]>::reverse),
        // the length of a folder says nothing
        (Sort::Size, false) => files.sort_by_key(|item| item.len),
        (Sort::Size, true) => files.sort_by_key(|item| Reverse(item.len)),
        (Sort::Time, false) => [folders, files].into_iter().for_each(|part| part.sort_by_key(|item| item.modified_s)),
        (Sort::Time, true) => [folders, files].into_iter().for_each(|part| part.sort_by_key(|item| Reverse(item.modified_s))),
    }
}

/// A key by which names are in the order that people expect: numbers by their value, letters whatever their case.
fn natural(name: &[u8]) -> Vec<u8> {
    let lower = String::from_utf8_lossy(name).to_lowercase();
    let mut rest = lower.as_bytes();
    let mut key = Vec::with_capacity(rest.len() + 4);
    while let Some((&first, tail)) = rest.split_first() {
        if !first.is_ascii_digit() {
            key.push(first);
            rest = tail;
            continue;
        }
        let end = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
        let digits = &rest[..end];
        let digits = &digits[digits.iter().position(|&b| b != b'0').unwrap_or(digits.len())..];
        // of two numbers, the one with more digits is the larger; a name has at most 255 of them
        key.extend([b'0', digits.len() as u8]);
        key.extend_from_slice(digits);
        rest = &rest[end..];
    }
    key
}

fn readme(root: &Root, folder: &[u8], items: &[Item], most: usize) -> Option<Readme> {
    let is_called = |item: &&Item, name: &str| item.len.is_some() && item.name.eq_ignore_ascii_case(name.as_bytes());
    let item = READMES.iter().find_map(|name| items.iter().find(|item| is_called(item, name)))?;
    let Ok(Ok((file, stamp))) = root.open_file(&[folder, &item.name].concat(), How::Any) else { return None };
    let bytes = super::read_whole(&file, stamp.len.min(most as u64), How::Any).ok()?;
    let is_whole = stamp.len <= most as u64;
    // a character that was cut in two is left out
    let end = match std::str::from_utf8(&bytes) {
        Err(e) if !is_whole && e.error_len().is_none() => e.valid_up_to(),
        _ => bytes.len(),
    };
    Some(Readme { name: shown(&item.name), text: shown_text(&bytes[..end]), is_whole })
}

/// `2026-11-22T17:00:00Z`
pub(super) fn timestamp(unix_s: i64) -> String {
    let [year, month, day, hour, minute, second] = date::parts(unix_s);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A number of things, with a comma before every three digits: `50,000 files`.
pub(super) fn count(n: usize, one: &str, many: &str) -> String {
    format!("{} {}", grouped(n), if n == 1 { one } else { many })
}

fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or_default()).collect();
    groups.join(",")
}

/// What a file is, for the mark in front of its name.
fn kind(name: &[u8]) -> &'static str {
    let kind = mime::content_type(name);
    let essence = kind.split(';').next().unwrap_or_default();
    match essence.split('/').next().unwrap_or_default() {
        _ if ["zip", "tar", "gzip", "x-7z", "x-rar", "x-bzip", "x-xz", "zstd", "x-gzip"].iter().any(|a| essence.contains(a)) => "packed",
        "image" => "image",
        "audio" => "audio",
        "video" => "video",
        "text" => "text",
        _ if ["json", "xml", "pdf", "javascript", "yaml", "toml", "document"].iter().any(|a| essence.contains(a)) => "text",
        _ => "file",
    }
}

impl View<'_> {
    fn json(&self) -> String {
        let folder = self.path.to_location();
        let entries: Vec<_> = self
            .items
            .iter()
            .map(|item| {
                let slash = if item.len.is_none() { "/" } else { "" };
                let mut entry = serde_json::json!({
                    "name": String::from_utf8_lossy(&item.name),
                    "path": format!("{folder}{}{slash}", encoded(&item.name)),
                    "type": if item.len.is_none() { "folder" } else { "file" },
                    "modified": timestamp(item.modified_s),
                });
                if let Some(bytes) = item.len {
                    entry["bytes"] = bytes.into();
                }
                entry
            })
            .collect();
        let listing = serde_json::json!({
            "path": folder,
            "entries": entries,
            "page": self.ask.page,
            "pages": self.pages,
            "total": self.found,
            "complete": self.limit.is_none(),
        });
        format!("{listing}\n")
    }

    fn html(&self) -> String {
        let name = if self.path.as_bytes().is_empty() { "Files".to_owned() } else { shown(self.path.name()) };
        // what is not in the rows only the server can look through
        let is_part = self.pages > 1 || !self.ask.search.is_empty();
        let all = if is_part { grouped(self.total) } else { String::new() };
        fill(PAGE, |key| match key {
            "title" => escaped(&self.title(&name)),
            "name" => escaped(&name),
            // there is nothing to filter and nothing to download
            "hidden" if self.total == 0 => " hidden".into(),
            "above" => self.above(),
            "sum" => self.sum(),
            "search" => escaped(&self.ask.search),
            "keep" => self.kept(),
            "all" => all.clone(),
            "get" if self.has_archives && self.total > 0 => downloads(),
            "head" => self.head(),
            "rows" => self.rows(),
            "pages" => self.page_links(),
            "readme" => self.readme(),
            _ => String::new(),
        })
    }

    /// What tells this page from others in a row of them: the host stands for the root, and of several pages each has its number.
    fn title(&self, name: &str) -> String {
        let name = if self.path.as_bytes().is_empty() && !self.address.host.is_empty() { &self.address.host } else { name };
        let search = if self.ask.search.is_empty() { String::new() } else { format!("\u{201c}{}\u{201d} in ", self.ask.search) };
        let page = if self.pages > 1 { format!(", page {} of {}", self.ask.page, self.pages) } else { String::new() };
        format!("{search}{name}{page}")
    }

    /// Links to the folders above.
    fn above(&self) -> String {
        let names: Vec<&[u8]> = self.path.segments().collect();
        let mut html = String::new();
        let folded = if names.len() > FOLDERS_ABOVE { 1..names.len() - (FOLDERS_ABOVE - 2) } else { 0..0 };
        // the last is the folder itself
        for (depth, &steps) in self.address.up[..names.len()].iter().enumerate() {
            let name = if depth == 0 { "Files".into() } else { shown(names[depth - 1]) };
            if depth == folded.start && !folded.is_empty() {
                // writing to memory does not fail
                let _ = write!(
                    html,
                    "<li><details><summary aria-label=\"{} folders between\">\u{2026}</summary><ol role=\"list\">",
                    folded.len()
                );
            }
            let _ = write!(html, "<li><a href=\"{}\"><bdi>{}</bdi></a></li>", "../".repeat(steps), escaped(&name));
            if depth + 1 == folded.end {
                html += "</ol></details></li>";
            }
        }
        if html.is_empty() { html } else { format!("<nav aria-label=\"Folders above\"><ol role=\"list\">{html}</ol></nav>") }
    }

    /// What there is, in words.
    fn sum(&self) -> String {
        let files = self.found - self.folders;
        let mut html = match (&self.ask.search[..], self.found) {
            ("", 0) => "This folder is empty.".to_owned(),
            (search, 0) => format!("No name here has \u{201c}{}\u{201d} in it.", escaped(search)),
            _ => {
                let mut parts = Vec::new();
                if self.folders > 0 {
                    parts.push(count(self.folders, "folder", "folders"));
                }
                if files > 0 {
                    parts.extend([count(files, "file", "files"), size(self.bytes)]);
                }
                parts.join(", ")
            }
        };
        if !self.ask.search.is_empty() {
            if self.found > 0 {
                let _ = write!(html, " with \u{201c}{}\u{201d} in the name.", escaped(&self.ask.search));
            }
            let all = Ask { search: String::new(), page: 1, ..self.ask.clone() }.query();
            let _ = write!(html, " <a href=\"{}\">Show all</a>", escaped(&all));
        }
        if let Some(limit) = self.limit {
            let _ = write!(html, " <strong>Only the first {} entries of this folder were read; it has more.</strong>", grouped(limit));
        }
        html
    }

    /// What the filter keeps of the query.
    fn kept(&self) -> String {
        if self.ask.sort == Sort::Name && !self.ask.descending {
            return String::new();
        }
        let order = if self.ask.descending { "desc" } else { "asc" };
        format!(
            "<input type=\"hidden\" name=\"sort\" value=\"{}\"><input type=\"hidden\" name=\"order\" value=\"{order}\">",
            self.ask.sort.word()
        )
    }

    /// The heads of the columns, each a link that sorts by it. What people look for by size or time is the largest or the latest.
    fn head(&self) -> String {
        let mut html = String::new();
        for (sort, label) in [(Sort::Name, "Name"), (Sort::Size, "Size"), (Sort::Time, "Changed <small>(UTC)</small>")] {
            let is_current = self.ask.sort == sort;
            let descending = if is_current { !self.ask.descending } else { sort != Sort::Name };
            let query = Ask { sort, descending, page: 1, ..self.ask.clone() }.query();
            let (state, arrow) = match (is_current, self.ask.descending) {
                (false, _) => ("", ""),
                (true, false) => (" aria-sort=\"ascending\"", "<i aria-hidden=\"true\">\u{2191}</i>"),
                (true, true) => (" aria-sort=\"descending\"", "<i aria-hidden=\"true\">\u{2193}</i>"),
            };
            let _ = write!(html, "<th scope=\"col\"{state}><a href=\"{}\">{label}{arrow}</a></th>", escaped(&query));
        }
        html
    }

    fn rows(&self) -> String {
        let mut html = String::with_capacity(self.items.len() * 256);
        for item in self.items {
            // a name may look like a scheme, so that an address begins with the folder it is in
            let (slash, kind, bytes) = match item.len {
                None => ("/", "folder", "\u{2013}".to_owned()),
                Some(bytes) => ("", kind(&item.name), size(bytes)),
            };
            let time = timestamp(item.modified_s);
            let (day, clock) = (&time[..10], &time[11..16]);
            let _ = writeln!(
                html,
                "<tr><th scope=\"row\"><a href=\"./{}{slash}\"><svg aria-hidden=\"true\"><use href=\"#{kind}\"/></svg><bdi>{}{slash}</bdi></a></th><td>{bytes}</td><td><time datetime=\"{time}\" title=\"{day} {clock} UTC\">{day} <span>{clock}</span></time></td></tr>",
                escaped(&encoded(&item.name)),
                escaped(&shown(&item.name)),
            );
        }
        html
    }

    /// Links to the first pages, those around this one, and the last.
    fn page_links(&self) -> String {
        if self.pages == 1 {
            return String::new();
        }
        let link = |page: usize, more: &str, label: &str| {
            let query = Ask { page, ..self.ask.clone() }.query();
            format!("<li><a href=\"{}\"{more}>{label}</a></li>", escaped(&query))
        };
        let now = self.ask.page;
        let mut html = String::new();
        if now > 1 {
            html += &link(now - 1, " rel=\"prev\"", "Previous");
        }
        let mut last = 0;
        for page in [1].into_iter().chain(now.saturating_sub(2)..=now + 2).chain([self.pages]).filter(|&page| page <= self.pages) {
            if page <= last {
                continue;
            }
            if page > last + 1 {
                html += "<li aria-hidden=\"true\">\u{2026}</li>";
            }
            let current = if page == now { " aria-current=\"page\"" } else { "" };
            html += &link(page, &format!(" aria-label=\"Page {page}\"{current}"), &grouped(page));
            last = page;
        }
        if now < self.pages {
            html += &link(now + 1, " rel=\"next\"", "Next");
        }
        format!("<nav aria-label=\"Pages\"><ul role=\"list\">{html}</ul></nav>")
    }

    fn readme(&self) -> String {
        let Some(Readme { name, text, is_whole }) = &self.readme else { return String::new() };
        let rest = if *is_whole { "" } else { "<p>This is only its beginning.</p>" };
        // the first line break behind the tag belongs to the tag
        format!(
            "<section aria-labelledby=\"readme\"><h2 id=\"readme\">{}</h2><pre>\n{}</pre>{rest}</section>",
            escaped(name),
            escaped(text)
        )
    }
}

/// Links to the folder as an archive, what most people can open first.
fn downloads() -> String {
    let links = [Format::Zip, Format::TarGz, Format::Tar].map(|format| {
        let name = format.name();
        format!("<a href=\"?download={name}\" aria-label=\"Download this folder as {name}\">{name}</a>")
    });
    format!("<p class=\"get\">Download all: {}</p>", links.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::tests::request;
    use proptest::prelude::*;

    fn item(name: &str, len: Option<u64>, modified_s: i64) -> Item {
        Item { name: name.as_bytes().into(), len, modified_s, is_link: false }
    }

    fn ask(query: &str) -> Result<Ask, Refuse> {
        Ask::read(&request("GET", &format!("/{query}"), ""))
    }

    #[test]
    fn names_in_the_order_that_people_expect() {
        // of names that are equal but for their case, capitals come first; a space before digits, digits before letters
        let expected = "0|007|8|10|A|a 1|a1|A2|a2b|a10|a10b|a010c|aa|B|b|img9.png|IMG10.png|\u{e4}|\u{c9}";
        let mut items: Vec<Item> = expected.rsplit('|').map(|name| item(name, Some(0), 0)).collect();
        sort(&mut items, &ask("").unwrap());
        let sorted: Vec<_> = items.iter().map(|i| String::from_utf8_lossy(&i.name)).collect();
        assert_eq!(sorted.join("|"), expected);
        let long = |digit: &str| natural(digit.repeat(255).as_bytes());
        assert!(long("1") < long("2") && natural(&b"9".repeat(254)) < long("1"));
    }

    #[test]
    fn folders_come_first_in_every_order() {
        let items = [item("b", Some(2), 30), item("a", Some(9), 10), item("d", None, 20), item("c", None, 40), item("e", Some(2), 50)];
        for (query, expected) in [
            ("", "c d a b e"),
            ("?sort=name&order=desc", "d c e b a"),
            ("?order=desc", "d c e b a"),
            ("?sort=size", "c d b e a"),
            ("?sort=size&order=desc", "c d a b e"),
            ("?sort=time", "d c a b e"),
            ("?sort=time&order=desc", "c d e b a"),
        ] {
            let mut items = items.to_vec();
            sort(&mut items, &ask(query).unwrap());
            let sorted: Vec<_> = items.iter().map(|i| String::from_utf8_lossy(&i.name)).collect();
            assert_eq!(sorted.join(" "), expected, "{query}");
        }
    }

    #[test]
    fn queries() {
        for (query, told) in [
            ("", "?"),
            ("?sort=&order=&page=&q=&format=", "?"),
            ("?utm_source=x&sort", "?"),
            ("?page=1&sort=name&order=asc", "?"),
            ("?order=desc", "?sort=name&order=desc"),
            ("?page=3&sort=size", "?sort=size&order=asc&page=3"),
            ("?q=a%26b%3D%23+c%2B", "?q=a%26b=%23%20c%2B"),
            ("?q=%20x%20", "?q=x"),
            ("?sort=time&sort=size", "?sort=time&order=asc"),
        ] {
            let asked = ask(query).unwrap_or_else(|e| panic!("{query}: {e:?}"));
            assert_eq!(asked.query(), told, "{query}");
            assert_eq!(ask(&asked.query()).unwrap(), asked, "{query}");
        }
        for query in [
            "?sort=x",
            "?sort=NAME",
            "?order=up",
            "?page=0",
            "?page=-1",
            "?page=x",
            "?page=99999999999999999999",
            "?format=xml",
            "?download=rar",
        ] {
            assert_eq!(ask(query).unwrap_err().status, StatusCode::BAD_REQUEST, "{query}");
        }
        assert_eq!(ask(&format!("?q={}", "x".repeat(300))).unwrap().search.len(), SEARCH_CHARS);
        let json = |target: &str, accept: &str| Ask::read(&request("GET", target, accept)).unwrap().is_json;
        assert!(json("/", "Accept: application/json") && json("/?format=json", "Accept: text/html"));
        assert!(!json("/", "Accept: */*") && !json("/?format=html", "Accept: application/json"));
    }

    #[test]
    fn a_long_way_is_folded_up_and_leads_to_every_folder() {
        for (depth, folded) in [(0, None), (1, None), (5, None), (6, Some(2)), (29, Some(25))] {
            let mut path = CleanPath::default();
            path.set((0..depth).map(|i| format!("/f{i}")).chain(["/".into()]).collect::<String>().as_bytes()).unwrap();
            let address = Address { up: (0..=depth).rev().collect(), host: String::new() };
            let (ask, items) = (ask("").unwrap(), []);
            let view = View {
                ask: &ask,
                path: &path,
                address: &address,
                items: &items,
                total: 0,
                found: 0,
                folders: 0,
                bytes: 0,
                pages: 1,
                limit: None,
                has_archives: false,
                readme: None,
            };
            let above = view.above();
            let links: Vec<_> = above.split("<a href=\"").skip(1).map(|rest| rest.split('"').next().unwrap().len() / 3).collect();
            assert_eq!(links, (1..=depth).rev().collect::<Vec<_>>(), "{depth}");
            let inside = above.split_once("<details>").map(|(_, rest)| rest.split_once("</details>").unwrap().0.matches("<a ").count());
            assert_eq!(inside, folded, "{depth}");
        }
    }

    #[test]
    fn steps_to_the_folders_above() {
        for (sent, depth, steps) in [
            ("/", 0, &[0][..]),
            ("/a/", 1, &[1, 0]),
            ("/a/b/", 2, &[2, 1, 0]),
            ("/a//", 1, &[2, 1]),
            ("//a/b/", 2, &[3, 1, 0]),
            ("/a//b///", 2, &[5, 4, 2]),
            ("//", 0, &[1]),
            ("/a/../b/", 1, &[1, 0]),
            ("", 1, &[1, 0]),
        ] {
            assert_eq!(steps_up(sent.as_bytes(), depth), steps, "{sent}");
        }
    }

    #[test]
    fn the_places_of_the_page_are_known() {
        let mut keys: Vec<&str> = PAGE.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap()).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["above", "all", "get", "head", "hidden", "keep", "name", "pages", "readme", "rows", "search", "sum", "title"]);
    }

    #[test]
    fn what_is_not_served_as_a_file_is_not_told() {
        let rules = Rules {
            elsewhere: vec![b"uploads".to_vec(), b"data/in".to_vec()],
            dotfiles: Dotfiles::Deny,
            limit: 1,
            page_items: 1,
            readme_bytes: 1,
            has_archives: false,
        };
        for (folder, name, told) in [
            ("", "a", true),
            ("", ".git", false),
            ("", ".well-known", true),
            ("a/", ".well-known", false),
            ("", "a\\b", false),
            ("", "uploads", false),
            ("a/", "uploads", true),
            ("", "data", true),
            ("data/", "in", false),
            ("data/", "inn", true),
            ("data/in/", "x", true),
        ] {
            assert_eq!(rules.tells(folder.as_bytes(), name.as_bytes()), told, "{folder}{name}");
        }
    }

    #[test]
    fn numbers_for_people() {
        for (n, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (50_000, "50,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(n), expected);
        }
        assert_eq!((count(1, "file", "files"), count(2, "file", "files")), ("1 file".into(), "2 files".into()));
        assert_eq!(timestamp(784_111_777), "1994-11-06T08:49:37Z");
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_place_in_the_page(name in prop::collection::vec(prop_oneof![Just(b'<'), Just(b'"'), Just(b'\''), Just(b'&'), Just(b'{'), Just(b'>'), any::<u8>()], 1..40), len in prop::option::of(any::<u64>())) {
            let name: Vec<u8> = name.into_iter().map(|b| if matches!(b, 0 | b'/') { b'x' } else { b }).collect();
            let items = [Item { name: name.clone().into(), len, modified_s: 0, is_link: false }];
            let ask = Ask { search: String::from_utf8_lossy(&name).into_owned(), ..ask("").unwrap() };
            let mut path = CleanPath::default();
            let inside = path.set(format!("/{}/", encoded(&name)).as_bytes());
            prop_assume!(inside.is_ok());
            let address = Address { up: vec![1, 0], host: "host".into() };
            let readme = Some(Readme { name: shown(&name), text: String::from_utf8_lossy(&name).into_owned(), is_whole: true });
            let view = View { ask: &ask, path: &path, address: &address, items: &items, total: 1, found: 1, folders: 0, bytes: 0, pages: 2, limit: None, has_archives: true, readme };
            let plain_ask = Ask { search: "x".into(), ..ask.clone() };
            let plain_items = [Item { name: b"x".as_slice().into(), ..items[0].clone() }];
            let mut plain_path = CleanPath::default();
            plain_path.set(b"/x/").unwrap();
            let readme = Some(Readme { name: "x".into(), text: "x".into(), is_whole: true });
            let plain = View { ask: &plain_ask, path: &plain_path, address: &address, items: &plain_items, total: 1, found: 1, folders: 0, bytes: 0, pages: 2, limit: None, has_archives: true, readme };
            // the same tags and attributes, whatever the name is
            let count = |html: &str| [b'<', b'>', b'"'].map(|c| html.bytes().filter(|&b| b == c).count());
            prop_assert_eq!(count(&view.html()), count(&plain.html()));
            let json: serde_json::Value = serde_json::from_str(&view.json()).unwrap();
            prop_assert_eq!(json["entries"][0]["name"].as_str().unwrap(), String::from_utf8_lossy(&name));
            // the address leads back to the name
            let mut back = CleanPath::default();
            let address = json["entries"][0]["path"].as_str().unwrap().to_owned();
            prop_assert!(back.set(address.as_bytes()).is_ok());
            prop_assert_eq!(back.name(), &name[..]);
        }

        #[test]
        fn the_order_does_not_depend_on_where_it_starts(mut names in prop::collection::hash_set("[aA0-2]{0,6}", 0..12)) {
            let mut forth: Vec<Item> = names.drain().map(|name| item(&name, Some(0), 0)).collect();
            let mut back: Vec<Item> = forth.iter().rev().cloned().collect();
            let by_name = ask("").unwrap();
            sort(&mut forth, &by_name);
            sort(&mut back, &by_name);
            prop_assert_eq!(forth, back);
        }
    }
}
