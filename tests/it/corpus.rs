//! The requests of `tests/corpus/head`, which are also the seeds of fuzzing: each has the verdict that is written down for it.

use std::path::Path;

use millpond::http::h1::head::{Scan, Scanned, parse};
use millpond::http::{Bounds, Request};

/// `ok`, `more`, or the status that the head is refused with.
fn verdict(bytes: &[u8]) -> String {
    let found = Scan::default().find(bytes, &Bounds::default()).and_then(|scanned| match scanned {
        Scanned::More => Ok("more"),
        Scanned::Head(place) => parse(&bytes[place], &Bounds::default(), &mut Request::default()).map(|()| "ok"),
    });
    found.map_or_else(|refuse| refuse.status.as_str().to_owned(), str::to_owned)
}

#[test]
fn every_head_of_the_corpus_has_its_verdict() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let table = std::fs::read_to_string(corpus.join("verdicts.txt")).unwrap();
    let mut told = Vec::new();
    for line in table.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (name, expected) = (words.next().unwrap(), words.next().unwrap());
        let bytes = std::fs::read(corpus.join("head").join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(verdict(&bytes), expected, "{name}");
        told.push(name.to_owned());
    }
    for entry in std::fs::read_dir(corpus.join("head")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(told.contains(&name), "{name} has no verdict");
    }
}
