//! File names in Content-Disposition: what comes out is one plain segment, and it stays so when it is numbered and told again.
//!
//! An input is the value of the field.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::http::disposition::{self, NAME_BYTES};

fuzz_target!(|data: &[u8]| {
    disposition::parameter(data, "name");
    let Some(name) = disposition::file_name(data).and_then(|name| disposition::plain_segment(&name)) else { return };
    for name in [name.clone(), disposition::numbered(&name, 1), disposition::numbered(&name, u32::MAX)] {
        assert!(!name.is_empty() && name.len() <= NAME_BYTES && !name.starts_with('.'), "{name:?}");
        assert!(!name.contains(['/', '\\']) && !name.chars().any(char::is_control), "{name:?}");
    }
    let told = disposition::attachment(&name);
    assert!(told.is_ascii() && !told.bytes().any(|b| b.is_ascii_control()), "{told:?}");
    assert_eq!(disposition::file_name(told.as_bytes()).as_deref(), Some(&name[..]), "{told:?}");
});
