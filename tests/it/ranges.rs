//! Ranges: parts of files, one or several, and when the whole is sent instead.
//!
//! Classes of failure covered: arithmetic of ranges that wraps around, many or overlapping ranges that make a small request a large
//! answer, a download that is resumed with the bytes of another file.

use std::fs;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use crate::client::{Client, HOST, Response, find};
use crate::harness::{HELLO, Server, Tree, assert_same_bytes, noise};
use crate::http_date;

/// Ranges with fewer bytes than this between them are sent as one.
const GAP: usize = 80;
/// Ranges that a request may ask for.
const RANGES: usize = 16;

/// A part of a body of several: its fields, as they stand there, and its bytes.
struct Part {
    fields: Vec<String>,
    bytes: Vec<u8>,
}

/// Takes multipart/byteranges apart, strictly: the delimiters are looked for in the bytes, and nothing stands before or behind.
fn parts(answer: &Response) -> Vec<Part> {
    let boundary = answer.need("content-type").strip_prefix("multipart/byteranges; boundary=").expect("several parts");
    assert!((1..=70).contains(&boundary.len()) && boundary.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{boundary}");
    assert_eq!(answer.field("content-range"), None, "it stands in the parts");
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = answer.body.strip_prefix(&delimiter.as_bytes()[2..]).expect("a delimiter first");
    let mut parts = Vec::new();
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let head = find(part, b"\r\n\r\n").expect("a head");
        let fields = std::str::from_utf8(&part[..head]).unwrap().split("\r\n").map(str::to_owned).collect();
        let content = &part[head + 4..];
        let end = find(content, delimiter.as_bytes()).expect("a delimiter behind");
        parts.push(Part { fields, bytes: content[..end].to_vec() });
        rest = &content[end + delimiter.len()..];
    }
    assert_eq!(rest, b"--\r\n", "the end");
    parts
}

/// The answer to a set of ranges: where each part lies, checked against the bytes of the file. The whole file is one part.
#[track_caller]
fn spans(client: &mut Client, target: &str, set: &str, file: &[u8]) -> Vec<RangeInclusive<usize>> {
    let answer = client.get_with(target, &format!("Range: bytes={set}\r\n"));
    let span = |value: &str, bytes: &[u8]| {
        let (place, length) = value.strip_prefix("bytes ").unwrap().split_once('/').unwrap();
        let (first, last) = place.split_once('-').unwrap();
        let span = first.parse().unwrap()..=last.parse().unwrap();
        assert_eq!(length.parse(), Ok(file.len()), "{set}");
        assert_same_bytes(bytes, &file[span.clone()], &format!("{target} {set}: {place}"));
        span
    };
    match (answer.status, answer.field("content-range")) {
        (200, None) => {
            assert_same_bytes(&answer.body, file, &format!("{target} {set}"));
            vec![0..=file.len() - 1]
        }
        (206, Some(value)) => vec![span(value, &answer.body)],
        (206, None) => {
            let spans = parts(&answer).into_iter().map(|part| match &part.fields[..] {
                [kind, place] => {
                    assert_eq!(kind, "content-type: application/octet-stream", "{set}");
                    span(place.strip_prefix("content-range: ").expect("its place"), &part.bytes)
                }
                fields => panic!("{set}: {fields:?}"),
            });
            spans.collect()
        }
        other => panic!("{set}: {other:?}"),
    }
}

#[test]
fn single_ranges() {
    let tree = Tree::site();
    let small = noise(5, 1_000);
    tree.write("small.bin", &small);
    // Beyond the size that leaves from memory.
    let big = noise(6, 300_000);
    tree.write("big.bin", &big);
    let server = Server::serving(tree);
    let mut client = server.connect();
    for (target, bytes) in [("/small.bin", &small), ("/big.bin", &big)] {
        let total = bytes.len();
        let rows = [
            ("0-0".to_owned(), 0, 0),
            ("0-499".to_owned(), 0, 499),
            ("500-999".to_owned(), 500, 999),
            ("7-7".to_owned(), 7, 7),
            (format!("0-{}", total - 1), 0, total - 1),
            ("0-".to_owned(), 0, total - 1),
            ("500-".to_owned(), 500, total - 1),
            (format!("{}-", total - 1), total - 1, total - 1),
            (format!("500-{}", total + 5), 500, total - 1),
            ("500-18446744073709551615".to_owned(), 500, total - 1),
            ("-1".to_owned(), total - 1, total - 1),
            ("-500".to_owned(), total - 500, total - 1),
            (format!("-{total}"), 0, total - 1),
            (format!("-{}", total + 1), 0, total - 1),
            ("-18446744073709551615".to_owned(), 0, total - 1),
            ("00-0001".to_owned(), 0, 1),
        ];
        let whole = client.get(target);
        for (range, first, last) in rows {
            let answer = client.get_with(target, &format!("Range: bytes={range}\r\n"));
            let name = format!("{target} {range}");
            assert_eq!(answer.status, 206, "{name}");
            assert_eq!(answer.need("content-range"), format!("bytes {first}-{last}/{total}"), "{name}");
            assert_same_bytes(&answer.body, &bytes[first..=last], &name);
            for field in ["etag", "last-modified", "content-type", "cache-control", "accept-ranges"] {
                assert_eq!(answer.need(field), whole.need(field), "{name}: {field}");
            }
        }
    }
    assert_eq!(client.get_with("/small.bin", "Range: BYTES=0-1\r\n").status, 206, "the unit in capitals");
    // Half a mebibyte out of the middle of a big file, many times on one connection.
    for start in (0..250_000).step_by(25_000) {
        let answer = client.get_with("/big.bin", &format!("Range: bytes={start}-{}\r\n", start + 40_000));
        assert_same_bytes(&answer.body, &big[start..=start + 40_000], &format!("from {start}"));
    }
}

#[test]
fn ranges_that_cannot_be_satisfied() {
    let tree = Tree::site();
    tree.write("small.bin", noise(5, 1_000));
    let server = Server::serving(tree);
    let mut client = server.connect();
    for range in ["1000-", "1000-1000", "1000-2000", "5000-", "18446744073709551615-", "-0"] {
        let answer = client.get_with("/small.bin", &format!("Range: bytes={range}\r\n"));
        assert_eq!((answer.status, answer.need("content-range")), (416, "bytes */1000"), "{range}");
    }
    let answer = client.get_with("/empty.txt", "Range: bytes=0-\r\n");
    assert_eq!((answer.status, answer.need("content-range")), (416, "bytes */0"), "nothing has no first byte");
    let answer = client.get_with("/empty.txt", "Range: bytes=-5\r\n");
    assert_eq!((answer.status, answer.body.len()), (200, 0), "but all of nothing can be sent");
    assert_eq!(client.get("/hello.txt").text(), HELLO);
}

#[test]
fn ranges_that_are_none_are_ignored() {
    let tree = Tree::site();
    let small = noise(5, 1_000);
    tree.write("small.bin", &small);
    let server = Server::serving(tree);
    let mut client = server.connect();
    let ignored = [
        "bytes=5-2",
        "bytes=-",
        "bytes=",
        "bytes",
        "",
        "bytes=a-b",
        "bytes=0-b",
        "bytes=a-5",
        "bytes=0x0-0x5",
        "bytes=--5",
        "bytes=5--",
        "bytes=+1-5",
        "bytes=1-+5",
        "bytes=0-5x",
        "bytes=5",
        "bytes=0 - 5 x",
        "bytes:0-5",
        "bytes 0-5",
        "0-5",
        "items=0-5",
        "byte=0-5",
        "bytess=0-5",
        "=0-5",
        "bytes=0.5-5",
        "bytes=\u{660}-5",
    ];
    for range in ignored {
        let answer = client.get_with("/small.bin", &format!("Range: {range}\r\n"));
        assert_eq!(answer.status, 200, "{range:?}");
        assert_same_bytes(&answer.body, &small, range);
        assert_eq!(answer.field("content-range"), None, "{range:?}");
    }
    let answer = client.get_with("/small.bin", "Range: bytes=0-1\r\nRange: bytes=0-1\r\n");
    assert_eq!(answer.status, 200, "two fields");
    assert_same_bytes(&answer.body, &small, "two fields");
    // Numbers beyond every file are taken for what they mean, and never wrapped around.
    for (range, status) in [
        ("0-99999999999999999999999", 206),
        ("-99999999999999999999999", 206),
        ("99999999999999999999999-", 416),
        ("18446744073709551616-18446744073709551620", 416),
        ("18446744073709551616-5", 200),
    ] {
        let answer = client.get_with("/small.bin", &format!("Range: bytes={range}\r\n"));
        assert_eq!(answer.status, status, "{range}");
        assert!(answer.status == 416 || answer.body == small, "{range}: {} bytes", answer.body.len());
    }
}

#[test]
fn head_ignores_range() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for range in ["bytes=0-3", "bytes=100-", "bytes=-1", "nonsense"] {
        let head = client.head_with("/hello.txt", &format!("Range: {range}\r\n"));
        assert_eq!((head.status, head.length()), (200, HELLO.len() as u64), "{range}");
        assert_eq!(head.field("content-range"), None, "{range}");
    }
    // Also in the choice of a coding, which ranges are not of.
    server.tree().write("page.html", "a line that comes again and again\n".repeat(1_000));
    let coded = client.get_with("/page.html", "Accept-Encoding: gzip\r\n");
    let head = client.head_with("/page.html", "Accept-Encoding: gzip\r\nRange: bytes=0-3\r\n");
    assert_eq!(head.field("content-encoding"), coded.field("content-encoding"));
}

#[test]
fn several_ranges() {
    let tree = Tree::site();
    let (small, big) = (noise(5, 1_000), noise(6, 300_000));
    tree.write("small.bin", &small);
    // Beyond the size that leaves from memory.
    tree.write("big.bin", &big);
    let server = Server::serving(tree);
    let mut client = server.connect();
    let whole = [0..=999];
    let rows: [(&str, &str, &[RangeInclusive<usize>]); 16] = [
        ("in the order asked", "500-509,0-9,-10", &[500..=509, 0..=9, 990..=999]),
        ("white space and empty elements", "  0-9 ,,\t200-209 , ", &[0..=9, 200..=209]),
        ("those past the end are left out", "0-9,1000-,2000-3000,-0,500-509", &[0..=9, 500..=509]),
        ("one that is left", "1000-,0-9", &[0..=9]),
        ("side by side", "0-9,10-19", &[0..=19]),
        ("overlapping", "5-14,0-9", &[0..=14]),
        ("a gap that costs less than a part", "0-9,89-99", &[0..=99]),
        ("a gap that costs as much", "0-9,90-99", &[0..=9, 90..=99]),
        ("near, backwards", "89-99,0-9", &[0..=99]),
        ("apart, backwards", "90-99,0-9", &[90..=99, 0..=9]),
        ("joined in the place of the first", "400-409,0-9,600-609,20-29", &[400..=409, 0..=29, 600..=609]),
        ("one that joins two", "100-109,700-709,300-309,150-259", &[100..=309, 700..=709]),
        ("as long as the file", "0-499,500-999", &whole),
        ("longer than the file", "0-500,500-999", &whole),
        ("all of it, many times", "0-,0-,0-,0-,0-", &whole),
        ("one that is malformed", "0-9,500-x", &whole),
    ];
    for (name, set, expected) in rows {
        assert_eq!(spans(&mut client, "/small.bin", set, &small), expected, "{name}: {set}");
    }
    let sets = [("0-99999,200000-299999", vec![0..=99_999, 200_000..=299_999]), ("-1,0-0", vec![299_999..=299_999, 0..=0])];
    for (set, expected) in sets {
        assert_eq!(spans(&mut client, "/big.bin", set, &big), expected, "{set}");
    }
    let answer = client.get_with("/small.bin", "Range: bytes=1000-,2000-3000,-0\r\n");
    assert_eq!((answer.status, answer.need("content-range")), (416, "bytes */1000"), "none of them");
    assert_eq!(client.get_with("/small.bin", "Range: bytes=0-499,500-999\r\n").status, 206, "as long as the file");
    assert_eq!(client.get_with("/small.bin", "Range: bytes=0-500,500-999\r\n").status, 200, "longer than the file");
}

#[test]
fn the_number_of_ranges_is_bounded() {
    let tree = Tree::site();
    let big = noise(6, 300_000);
    tree.write("big.bin", &big);
    let server = Server::serving(tree);
    let mut client = server.connect();
    for (count, expected) in [(RANGES - 1, RANGES - 1), (RANGES, RANGES), (RANGES + 1, 1), (2_000, 1)] {
        let set: Vec<_> = (0..count).rev().map(|i| format!("{0}-{0}", i * 100)).collect();
        assert_eq!(spans(&mut client, "/big.bin", &set.join(","), &big).len(), expected, "{count} ranges");
    }
}

#[test]
fn the_fields_of_several_parts() {
    let tree = Tree::site();
    tree.write("page.txt", noise(5, 1_000));
    let server = Server::serving(tree);
    let mut client = server.connect();
    let whole = client.get("/page.txt");
    let ask = |client: &mut Client| client.get_with("/page.txt", "Range: bytes=0-0,500-500\r\n");
    let answer = ask(&mut client);
    for field in ["etag", "last-modified", "cache-control", "accept-ranges"] {
        assert_eq!(answer.need(field), whole.need(field), "{field}");
    }
    let expected = ["bytes 0-0/1000", "bytes 500-500/1000"]
        .map(|place| vec![format!("content-type: {}", whole.need("content-type")), format!("content-range: {place}")]);
    assert_eq!(parts(&answer).into_iter().map(|part| part.fields).collect::<Vec<_>>(), expected);
    assert_ne!(ask(&mut client).need("content-type"), answer.need("content-type"), "nobody can foresee the boundary");
    client.send(format!("GET /page.txt HTTP/1.0\r\nHost: {HOST}\r\nRange: bytes=0-0,500-500\r\n\r\n"));
    assert_eq!(parts(&client.answer()).len(), 2, "HTTP/1.0");
}

/// Whatever is asked for, the parts hold it, and no byte comes twice.
#[test]
fn sets_of_ranges_by_chance() {
    let tree = Tree::site();
    let file = noise(7, 40_000);
    tree.write("file.bin", &file);
    let server = Server::serving(tree);
    let mut client = server.connect();
    let mut random = noise(8, 1 << 16).into_iter().cycle();
    let mut below = |bound: usize| (0..3).fold(0, |number, _| number << 8 | usize::from(random.next().unwrap())) % bound;
    for _ in 0..300 {
        let (mut asked, mut sum) = (vec![false; file.len()], 0);
        let set: Vec<_> = (0..=below(RANGES))
            .map(|_| {
                let (first, length) = (below(file.len()), 1 + below(3_000));
                let last = (first + length - 1).min(file.len() - 1);
                asked[first..=last].fill(true);
                sum += last - first + 1;
                format!("{first}-{}", first + length - 1)
            })
            .collect();
        let set = set.join(",");
        let mut sent = vec![0; file.len()];
        let spans = spans(&mut client, "/file.bin", &set, &file);
        for span in &spans {
            sent[span.clone()].iter_mut().for_each(|times| *times += 1);
            let unasked = asked[span.clone()].split(|asked| *asked).map(<[bool]>::len).max();
            assert!(sum > file.len() || unasked < Some(GAP), "{set}: {span:?} holds {unasked:?} bytes in a row that nobody wants");
        }
        assert!(sent.iter().zip(&asked).all(|(times, asked)| *times <= 1 && (*times == 1 || !asked)), "{set}: {spans:?}");
    }
}

#[test]
fn ranges_and_conditions() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let whole = client.get("/hello.txt");
    let etag = whole.need("etag").to_owned();
    let rows = [
        ("known: 304 goes before the range", format!("If-None-Match: {etag}\r\nRange: bytes=0-1\r\n"), 304),
        ("not known", "If-None-Match: \"other\"\r\nRange: bytes=0-1\r\n".to_owned(), 206),
        ("known, and the range impossible", format!("If-None-Match: {etag}\r\nRange: bytes=99-\r\n"), 304),
        ("If-Range fits", format!("If-Range: {etag}\r\nRange: bytes=0-1\r\n"), 206),
        ("If-Range does not fit", "If-Range: \"other\"\r\nRange: bytes=0-1\r\n".to_owned(), 200),
        ("If-Range is weak", format!("If-Range: W/{etag}\r\nRange: bytes=0-1\r\n"), 200),
        ("If-Range is another date", format!("If-Range: {}\r\nRange: bytes=0-1\r\n", http_date::imf(0)), 200),
        ("If-Range does not fit, and the range impossible", "If-Range: \"other\"\r\nRange: bytes=99-\r\n".to_owned(), 200),
        ("If-Range is a list", format!("If-Range: {etag}, \"other\"\r\nRange: bytes=0-1\r\n"), 200),
        ("If-Range stands twice", format!("If-Range: {etag}\r\nIf-Range: {etag}\r\nRange: bytes=0-1\r\n"), 200),
        ("If-Range alone", format!("If-Range: {etag}\r\n"), 200),
        ("nothing there", "Range: bytes=0-1\r\n".to_owned(), 206),
    ];
    for (name, fields, status) in rows {
        assert_eq!(client.get_with("/hello.txt", &fields).status, status, "{name}");
    }
    assert_eq!(client.get_with("/nowhere", "Range: bytes=0-1\r\n").status, 404);
    assert_eq!(client.get_with("/sub", "Range: bytes=0-1\r\n").status, 301);
}

/// A date tells the bytes apart only once its second is over.
#[test]
fn if_range_with_a_date() {
    let server = Server::start(&[]);
    let tree = server.tree();
    let mut client = server.connect();
    let mut resume = |name: &str, modified: SystemTime| {
        tree.write(name, "the bytes of a page");
        fs::File::options().write(true).open(tree.path(name)).unwrap().set_modified(modified).unwrap();
        let modified = client.get(&format!("/{name}")).need("last-modified").to_owned();
        let answer = client.get_with(&format!("/{name}"), &format!("Range: bytes=4-8\r\nIf-Range: {modified}\r\n"));
        let age = http_date::parse_imf(answer.need("date")).unwrap() - http_date::parse_imf(&modified).unwrap();
        assert_eq!(answer.status, if age < 2 { 200 } else { 206 }, "{age} s after the change");
        assert_eq!(answer.text(), if age < 2 { "the bytes of a page" } else { "bytes" });
        age
    };
    assert!((0..10).any(|number| resume(&format!("{number}.txt"), SystemTime::now()) < 2), "ten times it took more than a second");
    assert!(resume("old.txt", SystemTime::now() - Duration::from_secs(3_600)) >= 3_600);
}

/// The file is replaced in the middle of a download: what is left of it is not asked of another.
#[test]
fn a_download_is_resumed_with_the_same_bytes_or_from_the_start() {
    let tree = Tree::site();
    let (old, new) = (noise(1, 100_000), noise(2, 100_000));
    tree.write("file.bin", &old);
    let server = Server::serving(tree);
    let mut client = server.connect();
    let first = client.get_with("/file.bin", "Range: bytes=0-49999\r\n");
    let resume = format!("Range: bytes=50000-\r\nIf-Range: {}\r\n", first.need("etag"));
    let second = client.get_with("/file.bin", &resume);
    assert_eq!(second.status, 206);
    assert_same_bytes(&[first.body, second.body].concat(), &old, "resumed");
    server.tree().replace("file.bin", &new);
    let fresh = |answer: &Response| {
        assert_same_bytes(&answer.body, if answer.status == 200 { &new } else { &old[50_000..] }, "old or new");
        answer.status == 200
    };
    // What is known of a file may be a second old.
    let begun = std::time::Instant::now();
    while !fresh(&client.get_with("/file.bin", &resume)) {
        assert!(begun.elapsed() < Duration::from_secs(3), "still the old file");
        std::thread::sleep(Duration::from_millis(20));
    }
}
