//! Paths: a clean path leads nowhere but below the root, is what the reference says, and reads back from its Location.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::http::path::CleanPath;
use millpond_fuzz::reference_path;

fuzz_target!(|data: &[u8]| {
    check(data);
    // most mutations cost an input its first slash
    if !data.starts_with(b"/") {
        check(&[b"/", data].concat());
    }
});

fn check(raw: &[u8]) {
    let mut path = CleanPath::default();
    let result = path.set(raw);
    // a path that was used before must not shine through
    let mut used = CleanPath::default();
    used.set(b"/left/over").expect("a good path");
    assert_eq!(used.set(raw), result);
    assert_eq!(used, path);

    let expected = reference_path(raw);
    assert_eq!(result.is_ok(), expected.is_some(), "{result:?} but {expected:?}");
    let Some((segments, is_folder)) = expected else {
        assert!(path.as_bytes().is_empty(), "left behind: {path:?}");
        return;
    };
    assert_eq!(path.segments().map(<[u8]>::to_vec).collect::<Vec<_>>(), segments);
    assert_eq!(path.is_folder(), is_folder);
    assert_eq!(path.name(), segments.last().map_or(&b""[..], Vec::as_slice));
    let mut joined = segments.join(&b'/');
    if is_folder && !joined.is_empty() {
        joined.push(b'/');
    }
    assert_eq!(path.as_bytes(), joined);
    for segment in path.segments() {
        assert!(segment != b"." && segment != b".." && !segment.iter().any(|b| b"\0/\\".contains(b)), "{segment:?}");
    }

    if let Some((first, rest)) = segments.split_first() {
        let below = path.below(first).expect("it is below its own first segment");
        assert_eq!(below.segments().map(<[u8]>::to_vec).collect::<Vec<_>>(), rest);
        assert!(!below.as_bytes().starts_with(b"/"));
        // a name that only begins alike is another one
        let (_, part) = first.split_last().expect("no segment is empty");
        assert_eq!(path.below(part), None);
        assert!(path.is_within(first) && path.is_within(b"") && (part.is_empty() || !path.is_within(part)));
    }

    let location = path.to_location();
    assert!(location.starts_with('/') && !location.starts_with("//"), "{location}");
    assert!(location.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}?#".contains(&b)), "{location}");
    let mut again = CleanPath::default();
    again.set(location.as_bytes()).expect("what was rendered is good");
    assert_eq!(again, path);
    assert_eq!(again.to_location(), location);
}
