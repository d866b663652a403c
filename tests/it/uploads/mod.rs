//! Uploads: what a POST to /uploads/ stores and what it refuses, what it answers, and what is left of it when something goes wrong.
//!
//! What all of these tests share is here: how a POST is put together, how an answer is read strictly, and what is looked at in the folder.

mod answers;
mod auth;
mod bounds;
mod calls;
mod crash;
mod curl;
mod cut;
mod full;
mod load;
mod multipart;
mod names;
mod origin;
mod page;
mod place;
mod raw;
mod serving;
mod write_only;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::client::{Client, Response};
use crate::harness::{Server, assert_same_bytes, until};

const BOUNDARY: &str = "----pond7MA4YWxkTrZu0gW";

/// The type of a body made by [`form`].
const FORM: &str = "Content-Type: multipart/form-data; boundary=----pond7MA4YWxkTrZu0gW\r\n";

/// What a browser sends as Accept when a form is sent.
const BROWSER: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";

/// One file of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    path: String,
    name: String,
    bytes: u64,
    sha256: String,
}

/// The answer to a POST that stored something.
#[derive(Debug)]
struct Receipt {
    files: Vec<Stored>,
    ignored: Vec<String>,
}

impl Receipt {
    fn names(&self) -> Vec<&str> {
        self.files.iter().map(|file| file.name.as_str()).collect()
    }
}

fn has_field(fields: &str, name: &str) -> bool {
    fields.split("\r\n").any(|line| line.split(':').next().is_some_and(|known| known.eq_ignore_ascii_case(name)))
}

/// The head of a POST. Host is the server's own address and Accept is JSON, unless `fields` says otherwise.
fn head(server: &Server, target: &str, fields: &str) -> String {
    let host = if has_field(fields, "host") { String::new() } else { format!("Host: {}\r\n", server.address()) };
    let accept = if has_field(fields, "accept") { "" } else { "Accept: application/json\r\n" };
    format!("POST {target} HTTP/1.1\r\n{host}{accept}{fields}\r\n")
}

/// A whole POST with its length.
fn request(server: &Server, target: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    [head(server, target, &format!("{fields}Content-Length: {}\r\n", body.len())).as_bytes(), body].concat()
}

/// A POST on a connection of its own. It may be refused before its body was read.
#[track_caller]
fn post(server: &Server, target: &str, fields: &str, body: impl AsRef<[u8]>) -> Response {
    let mut client = server.connect();
    _ = client.send_what_it_takes(request(server, target, fields, body.as_ref()));
    client.answer()
}

/// The same with the body in chunks of this size.
#[track_caller]
fn post_chunked(server: &Server, target: &str, fields: &str, body: impl AsRef<[u8]>, size: usize) -> Response {
    let mut client = server.connect();
    let head = head(server, target, &format!("{fields}Transfer-Encoding: chunked\r\n"));
    _ = client.send_what_it_takes([head.into_bytes(), chunks(body.as_ref(), size)].concat());
    client.answer()
}

/// A form of these parts.
#[track_caller]
fn post_form(server: &Server, parts: &[(&str, &[u8])]) -> Response {
    post(server, "/uploads/", FORM, form(parts))
}

/// A raw body under a name.
#[track_caller]
fn post_named(server: &Server, name: &str, body: impl AsRef<[u8]>) -> Response {
    post(server, &format!("/uploads/?name={}", escaped(name.as_bytes())), "", body)
}

fn chunks(body: &[u8], size: usize) -> Vec<u8> {
    let mut coded = Vec::new();
    for chunk in body.chunks(size) {
        coded.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        coded.extend(chunk);
        coded.extend(b"\r\n");
    }
    coded.extend(b"0\r\n\r\n");
    coded
}

/// A multipart body: for each part the parameters of its Content-Disposition, and its content.
fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (parameters, content) in parts {
        let type_line = if parameters.contains("filename") { "Content-Type: application/octet-stream\r\n" } else { "" };
        body.extend(format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {parameters}\r\n{type_line}\r\n").into_bytes());
        body.extend(*content);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
    body
}

/// Every byte but letters, digits and `-._~` as %XX.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, &byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").unwrap();
        }
        text
    })
}

/// The bytes that a path segment or a query value stands for; `None` if it has characters that have to be escaped there.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let (mut rest, mut bytes) = (text.as_bytes(), Vec::new());
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else if first.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&first) {
            bytes.push(first);
        } else {
            return None;
        }
    }
    Some(bytes)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The folder that uploads go to by default.
fn folder(server: &Server) -> PathBuf {
    server.tree().path("uploads")
}

/// Every name in a folder, hidden ones too, in order.
fn listing(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let names: BTreeSet<String> = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.into_iter().collect()
}

/// Nothing is left: no file, no temporary file, and no open file without a name that would still take room.
#[track_caller]
fn assert_nothing_left(server: &Server, folder: &Path, name: &str) {
    assert_eq!(listing(folder), Vec::<String>::new(), "{name}: something was left behind");
    until(&format!("{name}: what was begun is given up"), || open_files(server, folder) == 0);
    assert_eq!(listing(folder), Vec::<String>::new(), "{name}: something was left behind");
}

/// How many files below the folder the server has open.
fn open_files(server: &Server, folder: &Path) -> usize {
    let below = format!("{}/", fs::canonicalize(folder).unwrap().display());
    let entries = fs::read_dir(format!("/proc/{}/fd", server.pid().as_raw_nonzero())).expect("the process lives");
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with(&below)).count()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// Reads a 201 strictly.
#[track_caller]
fn receipt(answer: &Response, name: &str) -> Receipt {
    assert_eq!(answer.status, 201, "{name}: {}", answer.text());
    assert_eq!(answer.need("content-type"), "application/json", "{name}");
    assert_eq!(answer.need("cache-control"), "no-store", "{name}");
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{name}: {error}: {}", answer.text()));
    assert_eq!(keys(&value), ["files", "ignored"], "{name}");
    let mut files = Vec::new();
    for file in value["files"].as_array().expect("a list of files") {
        assert_eq!(keys(file), ["bytes", "name", "path", "sha256"], "{name}");
        let text = |key: &str| file[key].as_str().unwrap_or_else(|| panic!("{name}: {key} in {file}")).to_owned();
        let stored = Stored {
            path: text("path"),
            name: text("name"),
            bytes: file["bytes"].as_u64().unwrap_or_else(|| panic!("{name}: bytes in {file}")),
            sha256: text("sha256"),
        };
        let segment = stored.path.strip_prefix("/uploads/").unwrap_or_else(|| panic!("{name}: {stored:?}"));
        let decoded = unescaped(segment).unwrap_or_else(|| panic!("{name}: not escaped: {stored:?}"));
        assert_eq!(String::from_utf8_lossy(&decoded), stored.name, "{name}: path and name differ");
        assert!(stored.sha256.len() == 64 && stored.sha256.bytes().all(|b| b"0123456789abcdef".contains(&b)), "{name}: {stored:?}");
        files.push(stored);
    }
    assert!(!files.is_empty(), "{name}: 201 without a file");
    assert_eq!(answer.need("location"), files[0].path, "{name}");
    let ignored = value["ignored"].as_array().expect("a list of names");
    Receipt { files, ignored: ignored.iter().map(|name| name.as_str().expect("a name").to_owned()).collect() }
}

/// A 201 for exactly these contents, which are on the disk, in the digests and in the answers to GET.
#[track_caller]
fn assert_stored(server: &Server, folder: &Path, answer: &Response, contents: &[&[u8]], name: &str) -> Receipt {
    let receipt = receipt(answer, name);
    assert_eq!(receipt.files.len(), contents.len(), "{name}: {receipt:?}");
    for (file, &content) in receipt.files.iter().zip(contents) {
        let on_disk = fs::read(folder.join(&file.name)).unwrap_or_else(|error| panic!("{name}: {file:?}: {error}"));
        assert_same_bytes(&on_disk, content, &format!("{name}: {} on the disk", file.name));
        assert_eq!(file.bytes, content.len() as u64, "{name}: {file:?}");
        assert_eq!(file.sha256, sha256(content), "{name}: {file:?}");
        let got = server.get(&file.path);
        assert_eq!(got.status, 200, "{name}: GET {}", file.path);
        assert_same_bytes(&got.body, content, &format!("{name}: GET {}", file.path));
    }
    receipt
}

/// A refusal in JSON: its status, and what its sentence has to say.
#[track_caller]
fn assert_refused(answer: &Response, status: u16, says: &str, name: &str) {
    assert_eq!(answer.status, status, "{name}: {}", answer.text());
    assert_eq!(answer.need("content-type"), "application/problem+json", "{name}");
    assert_eq!(answer.need("cache-control"), "no-store", "{name}");
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{name}: {error}: {}", answer.text()));
    assert_eq!(value["status"], status, "{name}: {value}");
    let detail = value["detail"].as_str().unwrap_or_else(|| panic!("{name}: no detail in {value}"));
    assert!(detail.len() > 10 && detail.contains(says), "{name}: {detail:?} does not say {says:?}");
}

/// The next answer where a 405 under /uploads/ is expected: it allows more methods than one elsewhere.
#[track_caller]
fn any(client: &mut Client) -> Response {
    client.any_answer(false).unwrap_or_else(|cut| panic!("no whole answer: {cut:?}"))
}
