//! The walls between the rooms of the house: who may import whom, and what the protocol must not know.
//!
//! `http <- config <- observe <- files <- site <- net <- control <- main`: each room may use those to its left. The command line stands
//! beside them: it fills in `config`, and only the program itself reads it.

use std::fs;
use std::path::{Path, PathBuf};

const ROOMS: [&str; 7] = ["http", "config", "observe", "files", "site", "net", "control"];

/// What has no place in a protocol that gets bytes and times as arguments.
const UNKNOWN_TO_HTTP: [&str; 11] = [
    "tokio",
    "std::fs",
    "std::thread",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "rustix",
    "socket2",
    "Instant::now",
    "SystemTime::now",
    "File::open",
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// A source file.
struct Source {
    /// Its path below `src`.
    name: String,
    room: String,
    /// Its lines of code with their numbers, comments left out.
    code: Vec<(usize, String)>,
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    files_below(&source(), &mut files);
    assert!(files.len() > 10, "the sources are where they were");
    files
        .iter()
        .map(|path| {
            let name = path.strip_prefix(source()).unwrap().to_str().unwrap().to_owned();
            let room = name.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(path).unwrap();
            // Unit tests may look at a clock: how else would they come by a time to pass in?
            let text = text.split("#[cfg(test)]\nmod ").flat_map(|text| text.split("#[cfg(test)]\npub mod ")).next().unwrap();
            let code = text.lines().enumerate().map(|(at, line)| (at + 1, without_comment(line).to_owned())).collect();
            Source { name, room, code }
        })
        .collect()
}

/// The line up to its comment. A `//` inside a string is no comment.
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '/' if !quoted && line[at..].starts_with("//") => return &line[..at],
            _ => {}
        }
    }
    line
}

/// The rooms that a line names as `crate::room` or within `crate::{…}`.
fn named_rooms(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, start) in line.match_indices("crate::") {
        let rest = &line[at + start.len()..];
        match rest.strip_prefix('{') {
            None => found.extend(rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()),
            Some(list) => {
                let list = list.split('}').next().unwrap_or(list);
                found.extend(list.split(',').filter_map(|item| item.trim().split("::").next()).filter(|item| !item.is_empty()));
            }
        }
    }
    found
}

#[test]
fn the_readers_of_source_read() {
    assert_eq!(without_comment("let a = \"http://b\"; // c"), "let a = \"http://b\"; ");
    assert_eq!(named_rooms("use crate::files::root::Root;"), ["files"]);
    assert_eq!(named_rooms("use crate::{config::Limits, net};"), ["config", "net"]);
    assert_eq!(named_rooms("let x = crate::http::date(crate::net::Now)"), ["http", "net"]);
}

#[test]
fn imports_run_one_way() {
    let rank = |room: &str| ROOMS.iter().position(|&known| known == room);
    for Source { name, room, code } in sources() {
        if room == "main" || room == "lib" {
            continue;
        }
        // The command line may use what it fills in.
        let own = if room == "cli" {
            rank("config").unwrap()
        } else {
            rank(&room).unwrap_or_else(|| panic!("{name}: a room that is not in the plan"))
        };
        for (number, line) in &code {
            for used in named_rooms(line) {
                let used_rank = rank(used).unwrap_or_else(|| panic!("{name}:{number}: what is {used}? {line}"));
                assert!(used_rank <= own, "{name}:{number}: {room} may not use {used}: {}", line.trim());
            }
        }
    }
}

#[test]
fn the_protocol_knows_no_sockets_files_or_clocks() {
    let mut seen = 0;
    for Source { name, room, code } in sources() {
        if room != "http" {
            continue;
        }
        seen += 1;
        for (number, line) in &code {
            for word in UNKNOWN_TO_HTTP {
                assert!(!line.contains(word), "{name}:{number}: {word} has no place in http: {}", line.trim());
            }
        }
    }
    assert!(seen > 3, "the protocol is in src/http");
}

#[test]
fn no_unsafe_code() {
    for file in ["lib.rs", "main.rs"] {
        let text = fs::read_to_string(source().join(file)).unwrap();
        let manifest = fs::read_to_string(source().join("../Cargo.toml")).unwrap();
        let forbidden = text.contains("#![forbid(unsafe_code)]") || manifest.contains("unsafe_code = \"forbid\"");
        assert!(forbidden, "{file} forbids unsafe code, or Cargo.toml does for all");
    }
    for Source { name, code, .. } in sources() {
        for (number, line) in code {
            let found = line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
            assert!(!found, "{name}:{number}: {}", line.trim());
        }
    }
}
