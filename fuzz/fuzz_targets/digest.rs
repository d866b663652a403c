//! Want-Repr-Digest: nothing breaks it, and what is put in front of a whole dictionary changes only what it is itself about.
//!
//! An input is the values of the fields, a line for each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::http::digest;

fuzz_target!(|data: &[u8]| {
    // no field value has others
    if data.iter().any(|&b| b.is_ascii_control() && b != b'\n') {
        return;
    }
    let values: Vec<&[u8]> = data.split(|&b| b == b'\n').collect();
    let is_wanted = digest::is_wanted(values.iter().copied());
    let after = digest::is_wanted([&b"sha-512=3;a=\"b,c\""[..]].into_iter().chain(values.iter().copied()));
    if is_wanted {
        assert!(after, "one more algorithm in front");
        assert!(!digest::is_wanted(values.iter().copied().chain([&b"sha-256=0"[..]])), "the last counts");
        assert!(!digest::is_wanted(values.iter().copied().chain([&b","[..]])), "a comma at the end spoils all");
    }
});
