//! Where a request comes from: another site is never taken for this one, whatever else the request says.
//!
//! An input is field lines, of which one may be a Host.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::http::h1::head;
use millpond::http::{Bounds, Request, origin};

fuzz_target!(|data: &[u8]| {
    if let Some(request) = request(data, "") {
        let _ = origin::same_site(&request);
        let _ = origin::direct(&request);
        let is_local = origin::local_name(&request, &[]).is_ok();
        assert!(!is_local || origin::local_name(&request, &["pond.example".to_owned()]).is_ok(), "another name takes none away");
    }
    if let Some(request) = request(data, "Sec-Fetch-Site: cross-site\r\n") {
        assert!(origin::same_site(&request).is_err(), "a browser tells of another site");
    }
    if let Some(request) = request(data, "Via: 1.1 proxy\r\n") {
        assert!(origin::direct(&request).is_err(), "a proxy tells of itself");
    }
});

fn request(lines: &[u8], added: &str) -> Option<Request> {
    let mut bytes = b"POST /uploads/ HTTP/1.1\r\n".to_vec();
    // an empty line would end the head before what is added
    for line in lines.split(|&b| b == b'\n' || b == b'\r').filter(|line| !line.is_empty()) {
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(added.as_bytes());
    bytes.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    let mut request = Request::default();
    head::parse(&bytes, &Bounds::default(), &mut request).ok()?;
    Some(request)
}
