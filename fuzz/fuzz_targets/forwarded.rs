//! X-Forwarded-For and Forwarded: who is not trusted is the client, and what a trusted proxy adds at the right is believed.
//!
//! An input is field lines.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use millpond::http::h1::head;
use millpond::http::{Bounds, Request, forwarded};

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

fuzz_target!(|data: &[u8]| {
    let is_trusted = |ip: IpAddr| ip == PROXY;
    if let Some(request) = request(data, "") {
        assert_eq!(forwarded::client(CLIENT, &request, is_trusted), CLIENT, "nobody speaks for itself");
        forwarded::client(PROXY, &request, is_trusted);
    }
    if let Some(request) = request(data, "X-Forwarded-For: 192.0.2.7\r\nForwarded: for=192.0.2.7\r\n") {
        assert_eq!(forwarded::client(PROXY, &request, is_trusted), CLIENT, "the proxy has the last word");
    }
});

/// A request with these lines, and those that a proxy adds as fields of their own.
fn request(lines: &[u8], added: &str) -> Option<Request> {
    let mut bytes = b"GET / HTTP/1.1\r\nHost: h\r\n".to_vec();
    // an empty line would end the head before what is added
    for line in lines.split(|&b| b == b'\n' || b == b'\r').filter(|line| !line.is_empty()) {
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(added.as_bytes());
    bytes.extend_from_slice(b"\r\n");
    let mut request = Request::default();
    head::parse(&bytes, &Bounds::default(), &mut request).ok()?;
    Some(request)
}
