//! Codings: those that lie beside a file, those that are made here, which of them is sent to whom, and what their tags are worth.
//!
//! Classes of failure covered: a coding sent to who does not accept it, a coded body of another state than its tag, a resource that
//! varies without saying so, a coding that is never made again after a mishap, a cache that grows with what is made. Every coded body is
//! decoded by another program or crate than the one that made it.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{CWD, FileType, Mode};

use crate::client::{Client, Response, request};
use crate::harness::{Builder, PATIENCE, Server, Tree, assert_same_bytes, noise, pause};

/// The codings, and what a file that holds one ends with.
const CODINGS: [(&str, &str); 3] = [("br", "br"), ("zstd", "zst"), ("gzip", "gz")];
/// How long a change may take to show, on a busy machine.
const STALE_MAX: Duration = Duration::from_secs(3);
/// Files smaller than this are not coded, and larger ones than the second are not coded here.
const LEAST: usize = 1024;
const MOST: usize = 8 << 20;

/// Text that becomes smaller by a coding, but not to nothing.
pub fn text(seed: u64, length: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "pond", "water", "lily", "stone", "frog", "reed", "heron", "ripple", "wind", "mill", "wheel", "dam", "sluice", "carp", "duck",
        "rain",
    ];
    let mut text = Vec::with_capacity(length + 16);
    for byte in noise(seed + 1, length / 2 + 1) {
        text.extend_from_slice(WORDS[usize::from(byte % 16)].as_bytes());
        text.push(if byte < 16 { b'\n' } else { b' ' });
        if text.len() >= length {
            break;
        }
    }
    text.truncate(length);
    text
}

pub fn decoded(coding: Option<&str>, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match coding {
        None => bytes.extend_from_slice(body),
        Some("br") => _ = brotli_decompressor::Decompressor::new(body, 4096).read_to_end(&mut bytes).expect("Brotli"),
        Some("zstd") => {
            let mut decoder = ruzstd::decoding::StreamingDecoder::new(body).expect("Zstandard");
            decoder.read_to_end(&mut bytes).expect("Zstandard");
        }
        Some("gzip") => bytes = piped("gzip", &["-dc"], body),
        Some(other) => panic!("nobody asked for {other}"),
    }
    bytes
}

/// What a program makes of these bytes.
fn piped(program: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program);
    let mut child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect(program);
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    let writer = thread::spawn(move || _ = stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {:?}", output.status);
    output.stdout
}

fn get(client: &mut Client, target: &str, accept: &str) -> Response {
    client.get_with(target, &format!("Accept-Encoding: {accept}\r\n"))
}

/// Holds a whole answer against the file: decoded, it is the file, and it says what it is.
#[track_caller]
fn assert_is(answer: &Response, file: &[u8], name: &str) {
    assert_eq!(answer.status, 200, "{name}");
    assert_eq!(answer.length(), answer.body.len() as u64, "{name}");
    assert_eq!(answer.field("vary"), Some("accept-encoding"), "{name}");
    assert!(answer.need("etag").starts_with('"'), "{name}: a strong tag");
    assert_same_bytes(&decoded(answer.field("content-encoding"), &answer.body), file, name);
}

/// Asks until an answer satisfies `wanted`; each answer is held against the file.
#[track_caller]
fn await_answer(client: &mut Client, target: &str, accept: &str, file: &[u8], wanted: impl Fn(&Response) -> bool) -> Response {
    let begun = Instant::now();
    loop {
        let answer = get(client, target, accept);
        assert_is(&answer, file, &format!("{target} with {accept}"));
        if wanted(&answer) {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE * 3, "{target} with {accept}: still {:?}", answer.fields);
        pause(10);
    }
}

fn is_best(answer: &Response) -> bool {
    answer.field("content-encoding").is_some() && !answer.need("etag").contains("quick")
}

#[test]
fn codings_are_made_and_become_better() {
    let tree = Tree::empty();
    // up to the second they are kept in memory
    let sizes = [8_000, 24 * 1024, 24 * 1024 + 1, 90_000];
    for size in sizes {
        tree.write(format!("{size}.html"), text(size as u64, size));
    }
    let server = Server::serving(tree);
    let mut client = server.connect();
    for size in sizes {
        let (target, file) = (format!("/{size}.html"), text(size as u64, size));
        let mut tags = HashSet::from([get(&mut client, &target, "identity").need("etag").to_owned()]);
        for (coding, _) in CODINGS {
            let name = format!("{target} in {coding}");
            let first = get(&mut client, &target, coding);
            assert_is(&first, &file, &name);
            assert_eq!(first.field("content-encoding"), Some(coding), "{name}: who asks first waits for a quick one");
            assert!(first.length() < size as u64, "{name}");
            let best = await_answer(&mut client, &target, coding, &file, is_best);
            assert!(best.length() < first.length(), "{name}: {} after {}", best.length(), first.length());
            for answer in [&first, &best] {
                assert_eq!(answer.need("content-type"), "text/html; charset=utf-8", "{name}");
                tags.insert(answer.need("etag").to_owned());
            }
            assert_ne!(first.need("etag"), best.need("etag"), "{name}: other bytes, another tag");
        }
        assert_eq!(tags.len(), 7, "{target}: one tag for each sequence of bytes");
    }
}

#[test]
fn small_files_are_left_alone() {
    let tree = Tree::empty();
    for size in [0, LEAST - 1, LEAST, LEAST + 1] {
        tree.write(format!("{size}.txt"), text(1, size));
    }
    let server = Server::serving(tree);
    for size in [0, LEAST - 1, LEAST, LEAST + 1] {
        for (coding, _) in CODINGS {
            let (target, is_coded) = (format!("/{size}.txt"), size >= LEAST);
            let answer = get(&mut server.connect(), &target, coding);
            assert_is(&answer, &text(1, size), &target);
            assert_eq!(answer.field("content-encoding"), is_coded.then_some(coding), "{target}");
            let only = get(&mut server.connect(), &target, &format!("{coding}, identity;q=0"));
            assert_eq!(only.status, if is_coded { 200 } else { 406 }, "{target}");
        }
    }
}

/// Who accepts nothing but a coding waits for it, up to the largest file; a larger one has none.
#[test]
fn large_files_up_to_the_bound() {
    let tree = Tree::empty();
    let file = |size: usize| b"a line that comes again and again\n".repeat(size / 34 + 1)[..size].to_vec();
    for size in [MOST - 1, MOST, MOST + 1] {
        tree.write(format!("{size}.txt"), file(size));
    }
    let server = Server::serving(tree);
    let mut client = server.connect();
    for (size, waits) in [(MOST - 1, true), (MOST, false)] {
        let target = format!("/{size}.txt");
        let plain = get(&mut client, &target, "zstd");
        assert_is(&plain, &file(size), &target);
        assert_eq!(plain.field("content-encoding"), None, "{target}: nobody waits for a large one who needs not");
        if waits {
            let coded = get(&mut client, &target, "zstd, identity;q=0");
            assert_is(&coded, &file(size), &target);
            assert_eq!(coded.field("content-encoding"), Some("zstd"), "{target}");
        }
        await_answer(&mut client, &target, "zstd", &file(size), |answer| answer.field("content-encoding") == Some("zstd"));
    }
    let target = format!("/{}.txt", MOST + 1);
    assert_eq!(get(&mut client, &target, "zstd, identity;q=0").status, 406);
    assert_eq!(get(&mut client, &target, "zstd").field("content-encoding"), None);
}

#[test]
fn what_does_not_gain_is_sent_as_it_is() {
    let tree = Tree::empty();
    tree.write("photo.png", text(1, 5_000));
    tree.write("unknown", text(1, 5_000));
    tree.write("noise.txt", noise(1, 5_000));
    let server = Server::serving(tree);
    let mut client = server.connect();
    for round in ["first", "second"] {
        for (target, vary) in [("/photo.png", None), ("/unknown", None), ("/noise.txt", Some("accept-encoding"))] {
            for (coding, _) in CODINGS {
                let name = format!("{target} in {coding}, {round} time");
                let answer = get(&mut client, target, coding);
                assert_eq!((answer.status, answer.length(), answer.field("content-encoding")), (200, 5_000, None), "{name}");
                assert_eq!(answer.field("vary"), vary, "{name}");
                let none = get(&mut client, target, &format!("{coding}, identity;q=0"));
                assert_eq!((none.status, none.field("vary")), (406, Some("accept-encoding")), "{name}");
            }
        }
    }
}

/// A bar stands between two fields, and a dash for no field.
const CHOICES: [(&str, &str); 24] = [
    ("-", "identity"),
    ("", "identity"),
    ("br", "br"),
    ("gzip", "gzip"),
    ("x-gzip", "gzip"),
    ("zstd", "zstd"),
    ("gzip, deflate, br, zstd", "br"),
    ("gzip, deflate, br", "br"),
    ("gzip, deflate", "gzip"),
    ("deflate", "identity"),
    ("gzip;q=1.0, br;q=0.9", "gzip"),
    ("gzip;q=0.5, br;q=0.5, zstd;q=0.6", "zstd"),
    ("br;q=0, gzip;q=0.001", "gzip"),
    ("gzip;q=0", "identity"),
    ("gzip;q=0.5, identity", "identity"),
    ("*", "br"),
    ("*;q=0.5, br;q=0.1", "zstd"),
    ("br;q=0, zstd;q=0, *", "gzip"),
    ("identity;q=0, gzip", "gzip"),
    ("*;q=0, zstd", "zstd"),
    ("*;q=0", "406"),
    ("identity;q=0", "406"),
    ("gzip;q=0.2|br;q=0.1", "gzip"),
    ("identity;q=0|deflate", "406"),
];

fn accept_fields(values: &str) -> String {
    if values == "-" { String::new() } else { values.split('|').map(|value| format!("Accept-Encoding: {value}\r\n")).collect() }
}

#[test]
fn what_is_accepted_is_sent() {
    let tree = Tree::empty();
    let file = text(1, 6_000);
    tree.write("made.html", &file);
    tree.write("beside.html", &file);
    for (coding, extension) in CODINGS {
        tree.write(format!("beside.html.{extension}"), format!("what lies there in {coding}"));
    }
    let server = Server::serving(tree);
    let mut client = server.connect();
    for (values, wanted) in CHOICES {
        for target in ["/made.html", "/beside.html"] {
            let name = format!("{target} with {values:?}");
            let answer = client.get_with(target, &accept_fields(values));
            assert_eq!(answer.field("vary"), Some("accept-encoding"), "{name}");
            if wanted == "406" {
                assert_eq!((answer.status, answer.field("content-encoding")), (406, None), "{name}");
                continue;
            }
            assert_eq!((answer.status, answer.field("content-encoding").unwrap_or("identity")), (200, wanted), "{name}");
            if target == "/beside.html" && wanted != "identity" {
                assert_eq!(answer.text(), format!("what lies there in {wanted}"), "{name}");
            } else {
                assert_is(&answer, &file, &name);
            }
        }
    }
}

#[test]
fn every_answer_of_a_resource_with_codings_says_that_it_varies() {
    let tree = Tree::empty();
    tree.write("page.html", text(1, 3_000));
    let server = Server::serving(tree);
    let mut client = server.connect();
    for (fields, status) in [
        ("", 200),
        ("Accept-Encoding: br\r\n", 200),
        ("If-None-Match: *\r\n", 304),
        ("If-None-Match: *\r\nAccept-Encoding: br\r\n", 304),
        ("If-Match: \"x\"\r\n", 412),
        ("Range: bytes=0-9\r\n", 206),
        ("Range: bytes=0-9\r\nAccept-Encoding: br\r\n", 206),
        ("Range: bytes=0-9\r\nAccept-Encoding: br, identity;q=0\r\n", 206),
        ("Range: bytes=0-9,2000-2009\r\n", 206),
        ("Range: bytes=9999-\r\n", 416),
        ("Accept-Encoding: *;q=0\r\n", 406),
    ] {
        let answer = client.get_with("/page.html", fields);
        assert_eq!((answer.status, answer.field("vary")), (status, Some("accept-encoding")), "{fields:?}");
        let head = client.head_with("/page.html", fields);
        assert_eq!(head.field("vary"), Some("accept-encoding"), "HEAD {fields:?}");
    }
}

#[test]
fn head_says_what_get_says() {
    let tree = Tree::empty();
    let file = text(1, 3_000);
    tree.write("page.html", &file);
    let server = Server::serving(tree);
    let mut client = server.connect();
    for (values, _) in CHOICES {
        // the best coding may come between the two
        let agree = (0..50).any(|_| {
            let (head, get) =
                (client.head_with("/page.html", &accept_fields(values)), client.get_with("/page.html", &accept_fields(values)));
            (head.status, head.fields_but_date()) == (get.status, get.fields_but_date())
        });
        assert!(agree, "{values:?}");
    }
}

/// All representations of a file that can be had, each with its tag.
fn variants(client: &mut Client, target: &str, file: &[u8]) -> Vec<Response> {
    let mut all = vec![get(client, target, "identity")];
    for (coding, _) in CODINGS {
        all.push(get(client, target, coding));
        all.push(await_answer(client, target, coding, file, is_best));
    }
    all
}

/// The client has it, whichever it has: nothing is sent again, also by a server that has not made that coding.
#[test]
fn whoever_has_a_variant_has_it_also_after_a_restart() {
    let tree = Tree::empty();
    let file = text(1, 30_000);
    tree.write("page.html", &file);
    // what has changed at this very moment has a tag that another server does not know
    pause(100);
    let server = Server::serving(tree);
    let all = variants(&mut server.connect(), "/page.html", &file);
    let again = Builder::new(&[]).root(server.tree().root()).start();
    for (server, when) in [(&server, "before"), (&again, "after")] {
        let mut client = server.connect();
        for variant in &all {
            let (etag, coding) = (variant.need("etag"), variant.field("content-encoding").unwrap_or("identity"));
            let known = client.get_with("/page.html", &format!("If-None-Match: \"x\", {etag}\r\nAccept-Encoding: {coding}\r\n"));
            let name = format!("{etag} {when} the restart");
            assert_eq!((known.status, known.need("etag")), (304, etag), "{name}");
            for field in ["vary", "cache-control", "last-modified"] {
                assert_eq!(known.need(field), variant.need(field), "{name}");
            }
            if coding != "identity" {
                let other = client.get_with("/page.html", &format!("If-None-Match: {etag}\r\nAccept-Encoding: identity\r\n"));
                assert_eq!(other.status, 200, "{name}: what is not accepted is not said to be known");
            }
        }
    }
    server.tree().write("page.html", "changed");
    let mut client = again.connect();
    let begun = Instant::now();
    while client.get("/page.html").text() != "changed" {
        assert!(begun.elapsed() < STALE_MAX);
    }
    for variant in &all {
        let fields = format!("If-None-Match: {}\r\nAccept-Encoding: br, zstd, gzip\r\n", variant.need("etag"));
        assert_eq!(client.get_with("/page.html", &fields).status, 200, "the file has changed");
    }
}

#[test]
fn ranges_are_of_one_representation() {
    let tree = Tree::empty();
    let file = text(1, 30_000);
    tree.write("page.html", &file);
    let server = Server::serving(tree);
    let mut client = server.connect();
    let all = variants(&mut client, "/page.html", &file);
    let plain = all[0].need("etag").to_owned();
    let part = client.get_with("/page.html", "Range: bytes=100-199\r\nAccept-Encoding: br, gzip, zstd\r\n");
    assert_eq!((part.status, part.field("content-encoding"), part.need("etag")), (206, None, plain.as_str()), "of the file as it is");
    assert_same_bytes(&part.body, &file[100..200], "a range of the file");
    for variant in &all {
        let (etag, coding) = (variant.need("etag"), variant.field("content-encoding"));
        let fields = format!("Range: bytes=100-199\r\nIf-Range: {etag}\r\nAccept-Encoding: br, gzip, zstd\r\n");
        let part = client.get_with("/page.html", &fields);
        if etag.contains("quick") {
            assert_eq!(part.status, 200, "{etag}: it has been replaced, so all is sent");
            assert_is(&part, &file, etag);
            continue;
        }
        assert_eq!((part.status, part.need("etag"), part.field("content-encoding")), (206, etag, coding));
        assert_same_bytes(&part.body, &variant.body[100..200], etag);
        assert_eq!(part.need("content-range"), format!("bytes 100-199/{}", variant.body.len()), "{etag}");
    }
    let only = client.get_with("/page.html", "Range: bytes=0-99\r\nAccept-Encoding: gzip, identity;q=0\r\n");
    assert_eq!((only.status, only.field("content-encoding")), (206, Some("gzip")));
    assert_same_bytes(&only.body, &all[6].body[..100], "a range of what is accepted");
}

#[test]
fn without_a_cache_nothing_is_made_but_what_lies_there_is_used() {
    let tree = Tree::empty();
    tree.write("page.html", text(1, 3_000));
    tree.write("other.html", text(2, 3_000));
    tree.write("other.html.br", "there");
    let server = Builder::new(&["--cache-size", "0"]).tree(tree).start();
    let mut client = server.connect();
    for _ in 0..3 {
        assert_is(&get(&mut client, "/page.html", "br"), &text(1, 3_000), "as it is");
        assert_eq!(get(&mut client, "/page.html", "br").field("content-encoding"), None);
        assert_eq!(get(&mut client, "/page.html", "br, identity;q=0").status, 406);
        let other = get(&mut client, "/other.html", "br");
        assert_eq!((other.text().as_str(), other.field("content-encoding")), ("there", Some("br")));
    }
}

/// A Zstandard frame that holds these bytes as they are, with this Window_Descriptor (RFC 8878 section 3.1.1).
fn zstd_frame(window: u8, bytes: &[u8]) -> Vec<u8> {
    let block = (bytes.len() as u32) << 3 | 1;
    [&[0x28, 0xB5, 0x2F, 0xFD, 0x00, window], &block.to_le_bytes()[..3], bytes].concat()
}

#[test]
fn a_sidecar_that_browsers_can_not_decode_is_left_aside() {
    const OF_8_MIB: u8 = 0x68;
    const OF_9_MIB: u8 = 0x69;
    let tree = Tree::empty();
    // one that is kept in memory, and one that stays open
    for (name, length) in [("small", 3_000), ("large", 60_000)] {
        tree.write(format!("{name}-good.html"), text(1, length));
        tree.write(format!("{name}-good.html.zst"), zstd_frame(OF_8_MIB, &text(1, length)));
        tree.write(format!("{name}-wide.html"), text(2, length));
        tree.write(format!("{name}-wide.html.zst"), zstd_frame(OF_9_MIB, &text(2, length)));
        age(&tree.path(format!("{name}-wide.html")), -100);
        age(&tree.path(format!("{name}-wide.html.zst")), -50);
    }
    let server = Builder::new(&["--compress", "off"]).tree(tree).start();
    let mut client = server.connect();
    for (name, length) in [("small", 3_000), ("large", 60_000)] {
        let good = get(&mut client, &format!("/{name}-good.html"), "zstd");
        assert_eq!(good.field("content-encoding"), Some("zstd"), "{name}");
        assert_is(&good, &text(1, length), name);
        for _ in 0..3 {
            let wide = get(&mut client, &format!("/{name}-wide.html"), "zstd");
            assert_eq!(wide.field("content-encoding"), None, "{name}");
            assert_is(&wide, &text(2, length), name);
        }
        server.wait_for_line(&format!("{name}-wide.html.zst is not used"));
    }
    assert_eq!(get(&mut client, "/small-wide.html", "zstd, identity;q=0").status, 406);
    let told = server.err.all().iter().filter(|line| line.contains("is not used")).count();
    assert_eq!(told, 2, "once for each");
}

/// Sets the time of the last change, in seconds from now.
fn age(path: &Path, seconds: i64) {
    let now = SystemTime::now();
    let by = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 { now - by } else { now + by };
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

#[track_caller]
fn await_text(client: &mut Client, accept: &str, wanted: &str, what: &str) {
    let begun = Instant::now();
    loop {
        let answer = get(client, "/page.html", accept);
        let coding = answer.field("content-encoding");
        // what lies there is text in these tests, so only what was made here can be decoded
        let text =
            if answer.text().starts_with("beside") { answer.text() } else { String::from_utf8(decoded(coding, &answer.body)).unwrap() };
        if text == wanted {
            return;
        }
        assert!(begun.elapsed() < STALE_MAX, "{what}: still {text:?}");
        pause(10);
    }
}

#[test]
fn coded_files_beside_a_file_come_change_and_go() {
    for (coding, extension) in CODINGS {
        let tree = Tree::empty();
        let beside = tree.path(format!("page.html.{extension}"));
        tree.write("page.html", "the page");
        age(&tree.path("page.html"), -100);
        let server = Server::serving(tree);
        let tree = server.tree();
        let mut client = server.connect();
        let mut shows = |wanted: &str, what: &str| await_text(&mut client, coding, wanted, &format!("{coding}: {what}"));
        shows("the page", "nothing beside");
        fs::write(&beside, "beside 1").unwrap();
        shows("beside 1", "it appears");
        fs::write(&beside, "beside 2").unwrap();
        shows("beside 2", "it changes in place");
        fs::write(tree.outside("new"), "beside 3").unwrap();
        fs::rename(tree.outside("new"), &beside).unwrap();
        shows("beside 3", "it is replaced");
        age(&beside, -200);
        shows("the page", "it is older than the file");
        fs::write(&beside, "beside 4").unwrap();
        shows("beside 4", "an old one is written anew in place");
        age(&beside, -100_000);
        shows("the page", "it is older again");
        age(&beside, 0);
        shows("beside 4", "only its time changes");
        age(&beside, -50);
        age(&tree.path("page.html"), 0);
        shows("the page", "the file has become newer");
        age(&tree.path("page.html"), -50);
        age(&beside, -49);
        shows("beside 4", "and older");
        fs::remove_file(&beside).unwrap();
        shows("the page", "it goes");
        let target = tree.path("kept");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("elsewhere"), "beside 5").unwrap();
        std::os::unix::fs::symlink("kept/elsewhere", &beside).unwrap();
        shows("beside 5", "a link within the root");
        fs::write(target.join("elsewhere"), "beside 6").unwrap();
        shows("beside 6", "what the link leads to changes");
        fs::remove_file(target.join("elsewhere")).unwrap();
        shows("the page", "the link leads nowhere");
        fs::write(target.join("elsewhere"), "beside 7").unwrap();
        shows("beside 7", "the link leads somewhere again");
        age(&target.join("elsewhere"), 0);
        fs::remove_file(tree.path("page.html")).unwrap();
        let begun = Instant::now();
        while get(&mut client, "/page.html", coding).status != 404 {
            assert!(begun.elapsed() < STALE_MAX, "{coding}: without the file there is nothing");
        }
    }
}

#[test]
fn of_the_same_age_is_not_older() {
    let tree = Tree::empty();
    tree.write("page.html", "the page");
    tree.write("page.html.br", "beside");
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_600_000_000_123_456_789);
    for (offset, wanted) in [(0i64, "beside"), (1_000, "beside"), (-1_000, "the page")] {
        let at = |name: &str, time: SystemTime| fs::File::open(tree.path(name)).unwrap().set_modified(time).unwrap();
        let by = Duration::from_nanos(offset.unsigned_abs());
        at("page.html", time);
        at("page.html.br", if offset < 0 { time - by } else { time + by });
        let server = Builder::new(&[]).tree(Tree::empty()).root(tree.root()).start();
        assert_eq!(get(&mut server.connect(), "/page.html", "br").text(), wanted, "{offset} ns");
    }
}

#[test]
fn what_is_no_file_within_the_root_is_not_used() {
    let tree = Tree::empty();
    let file = text(1, 3_000);
    for name in ["out", "absolute", "folder", "fifo", "dangling", "loop"] {
        tree.write(format!("{name}.html"), &file);
    }
    tree.symlink("../secret.txt", "out.html.br");
    tree.symlink(tree.outside("secret.txt"), "absolute.html.br");
    fs::create_dir(tree.path("folder.html.br")).unwrap();
    rustix::fs::mknodat(CWD, tree.path("fifo.html.br"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    tree.symlink("nowhere", "dangling.html.br");
    tree.symlink("loop.html.br", "loop.html.br");
    let server = Server::serving(tree);
    let mut client = server.connect();
    for name in ["out", "absolute", "folder", "fifo", "dangling", "loop"] {
        let target = format!("/{name}.html");
        for _ in 0..2 {
            let answer = get(&mut client, &target, "br");
            assert_is(&answer, &file, name);
            assert_eq!(answer.field("content-encoding"), Some("br"), "{name}: one is made here");
        }
    }
}

/// No answer mixes the states of a file that changes all the time, whatever is made of it meanwhile.
#[test]
fn a_file_that_changes_while_its_codings_are_made() {
    let tree = Tree::empty();
    let state = |number: u64| [format!("{number:08}\n").into_bytes(), text(number % 7, 20_000)].concat();
    tree.write("page.html", state(0));
    let server = Server::serving(tree);
    let tree = server.tree();
    let until = Instant::now() + Duration::from_secs(4);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1.. {
                if Instant::now() > until {
                    return;
                }
                if number % 2 == 0 {
                    tree.replace("page.html", state(number))
                } else {
                    tree.write("page.html", state(number))
                }
                pause(number % 13 * 5);
            }
        });
        for (coding, _) in CODINGS.into_iter().chain([("identity", "")]) {
            let server = &server;
            scope.spawn(move || {
                let mut tags: Vec<(String, Vec<u8>)> = Vec::new();
                let mut client = server.connect();
                let (mut last, mut answers) = (0, 0);
                while Instant::now() < until {
                    let answer = get(&mut client, "/page.html", coding);
                    assert_eq!(answer.status, 200, "{coding}");
                    answers += 1;
                    let body = decoded(answer.field("content-encoding"), &answer.body);
                    let etag = answer.need("etag").to_owned();
                    if let Some((_, known)) = tags.iter().find(|(known, _)| *known == etag) {
                        assert_same_bytes(&answer.body, known, &format!("{coding}: two bodies with the tag {etag}"));
                    } else {
                        tags.push((etag, answer.body.clone()));
                    }
                    // written in place, it is empty for a moment, and may be there in part
                    if body.len() == 20_009 {
                        let number: u64 = String::from_utf8_lossy(&body[..8]).parse().unwrap();
                        assert_same_bytes(&body, &state(number), &format!("{coding}: state {number}"));
                        assert!(number >= last, "{coding}: {number} after {last}");
                        last = number;
                    }
                }
                assert!(answers > 10 && last > 3, "{coding}: {answers} answers, up to state {last}");
            });
        }
    });
}

/// A client that goes before its coding is made leaves nothing undone for those who come after it.
#[test]
fn a_client_that_goes_leaves_nothing_undone() {
    const FILES: u64 = 8;
    let tree = Tree::site();
    for number in 0..FILES {
        tree.write(format!("{number}.html"), text(number, 20_000));
    }
    let server = Server::serving(tree);
    // a file that has just been written is loaded again, and all is forgotten that is known of it
    pause(200);
    for number in 0..FILES {
        assert_eq!(server.get(&format!("/{number}.html")).status, 200);
        let mut stream = TcpStream::connect(server.address()).unwrap();
        // while the worker is held, the client goes: the first answer can not be sent, so the second is given up
        let first = request("GET", "/hello.txt", "Millpond-Fault: stall=40\r\n");
        let two = first + &request("GET", &format!("/{number}.html"), "Accept-Encoding: br\r\n");
        stream.write_all(two.as_bytes()).unwrap();
        pause(10);
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    let mut client = server.connect();
    for number in 0..FILES {
        await_answer(&mut client, &format!("/{number}.html"), "br", &text(number, 20_000), is_best);
    }
}

/// A coding that can not be kept is made each time for those who accept nothing else, and others get the file as it is.
#[test]
fn what_can_not_be_kept_can_be_had() {
    let file = text(1, 4 << 20);
    let tree = Tree::empty();
    tree.write("large.txt", &file);
    let server = Builder::new(&["--cache-size", "1MiB"]).tree(tree).start();
    let mut client = server.connect();
    for accept in ["gzip, identity;q=0", "br, identity;q=0", "gzip, identity;q=0", "br, identity;q=0"] {
        let answer = get(&mut client, "/large.txt", accept);
        assert_is(&answer, &file, accept);
        assert_eq!(answer.field("content-encoding"), accept.split(',').next(), "{accept}");
    }
    assert_eq!(get(&mut client, "/large.txt", "gzip").field("content-encoding"), None);
}

/// What is made has its place in the bound of the cache, and what does not fit is made again or sent as it is.
#[test]
fn what_is_made_stays_within_the_cache() {
    const FILES: u64 = 600;
    let tree = Tree::empty();
    for number in 0..FILES {
        tree.write(format!("{number}.txt"), text(number, 250_000));
    }
    // each thread keeps some of the memory that it has used: that is not what is looked at here
    let server = Builder::new(&["--cache-size", "8MiB", "--blocking-threads", "2"]).tree(tree).start();
    let mut client = server.connect();
    for number in 0..FILES {
        assert_eq!(client.get(&format!("/{number}.txt")).length(), 250_000);
    }
    let before = server.memory();
    for number in 0..FILES {
        let name = format!("/{number}.txt");
        assert_is(&get(&mut client, &name, "zstd"), &text(number, 250_000), &name);
    }
    let after = server.memory();
    // all of them together would take some 50 MiB for each coding
    assert!(after < before + (20 << 20), "{} KiB before, {} KiB after", before >> 10, after >> 10);
}

/// A change of which the kernel tells nothing is met only when the coding is made.
#[test]
fn a_file_that_has_changed_is_coded_as_it_is_then() {
    const LENGTH: usize = 2 << 20;
    let tree = Tree::empty();
    let names = ["first.txt", "second.txt", "third.txt"];
    for name in names {
        tree.write(name, text(0, LENGTH));
        fs::hard_link(tree.path(name), tree.outside(name)).unwrap();
    }
    let server = Server::serving(tree);
    let mut client = server.connect();
    for name in names {
        let target = format!("/{name}");
        assert_eq!(client.get(&target).status, 200);
        fs::write(server.tree().outside(name), text(1, LENGTH)).unwrap();
        let answer = get(&mut client, &target, "gzip, identity;q=0");
        assert_eq!(answer.status, 200, "{name}");
        assert_same_bytes(&decoded(answer.field("content-encoding"), &answer.body), &text(1, LENGTH), name);
    }
}
