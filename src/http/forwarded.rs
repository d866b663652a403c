//! For which client a proxy speaks: X-Forwarded-For, and Forwarded (RFC 7239).
//!
//! A proxy adds the address that it was connected from at the right. So an address is as good as the word of whoever stands to the
//! right of it: it is believed for as long as those are proxies that are trusted.

use std::net::{IpAddr, SocketAddr};

use super::Request;
use super::fields::split_unquoted;

/// The client that a request comes from: the rightmost address that is not a trusted proxy, beginning with the one that is connected.
///
/// A proxy passes on what it does not know. So if both fields are there and tell different clients, one of the two may be made up by
/// the client: then neither is believed, and the proxy itself counts.
pub fn client(peer: IpAddr, request: &Request, is_trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    if !is_trusted(peer) {
        return peer;
    }
    let told = |name: &str, read: fn(&[u8]) -> Option<IpAddr>| {
        let elements: Vec<&[u8]> = request.named(name).flat_map(|value| split_unquoted(value, b',')).collect();
        (!elements.is_empty()).then(|| first_stranger(peer, elements.iter().rev().map(|element| read(element)), &is_trusted))
    };
    match (told("x-forwarded-for", address), told("forwarded", forwarded_for)) {
        (Some(one), Some(other)) if one != other => peer,
        (Some(client), _) | (None, Some(client)) => client,
        (None, None) => peer,
    }
}

/// The first address that is not trusted; the last one that is readable, if all are.
fn first_stranger(peer: IpAddr, addresses: impl Iterator<Item = Option<IpAddr>>, is_trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer;
    for address in addresses {
        let Some(address) = address else { break };
        client = address;
        if !is_trusted(address) {
            break;
        }
    }
    client
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address| address.to_canonical())
}

/// The parameter `for` of an element of Forwarded: `for=192.0.2.1;proto=https`, `For="[2001:db8::1]:80"`. What is hidden or unknown
/// is no address.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let pair = element.split(|&b| b == b';').map(<[u8]>::trim_ascii).find(|pair| pair.len() > 4 && pair[..4].eq_ignore_ascii_case(b"for="));
    let value = &pair?[4..];
    address(value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::tests::request;

    #[test]
    fn the_rightmost_address_that_is_no_trusted_proxy() {
        let trusted = |ip: IpAddr| ip.to_string().starts_with("10.") || ip.to_string().starts_with("fd00:");
        let rows = [
            // peer, fields, client
            ("10.0.0.1", "", "10.0.0.1"),
            ("192.0.2.9", "X-Forwarded-For: 198.51.100.1", "192.0.2.9"),
            ("192.0.2.9", "Forwarded: for=198.51.100.1", "192.0.2.9"),
            ("10.0.0.1", "X-Forwarded-For: 198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "X-Forwarded-For: 203.0.113.7, 198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "X-Forwarded-For: 203.0.113.7, 198.51.100.1, 10.0.0.2 ,10.9.9.9", "198.51.100.1"),
            ("10.0.0.1", "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: 198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "X-Forwarded-For: 10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("10.0.0.1", "X-Forwarded-For: 198.51.100.1:4711", "198.51.100.1"),
            ("10.0.0.1", "X-Forwarded-For: 2001:db8::1", "2001:db8::1"),
            ("10.0.0.1", "X-Forwarded-For: [2001:db8::1]:80", "2001:db8::1"),
            ("10.0.0.1", "X-Forwarded-For: [2001:db8::1]", "2001:db8::1"),
            ("10.0.0.1", "X-Forwarded-For: ::ffff:198.51.100.1", "198.51.100.1"),
            ("fd00::1", "X-Forwarded-For: 198.51.100.1", "198.51.100.1"),
            // what can not be read ends it: what stands to its left is nobody's word
            ("10.0.0.1", "X-Forwarded-For: 198.51.100.1, unknown", "10.0.0.1"),
            ("10.0.0.1", "X-Forwarded-For: 198.51.100.1, garbage, 10.0.0.2", "10.0.0.2"),
            ("10.0.0.1", "X-Forwarded-For: 198.51.100.1,", "10.0.0.1"),
            ("10.0.0.1", "X-Forwarded-For:", "10.0.0.1"),
            ("10.0.0.1", "X-Forwarded-For: 999.1.1.1", "10.0.0.1"),
            ("10.0.0.1", "Forwarded: for=198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "Forwarded: for=203.0.113.7, For=\"198.51.100.1:80\";proto=https;by=10.0.0.1", "198.51.100.1"),
            ("10.0.0.1", "Forwarded: proto=https;for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("10.0.0.1", "Forwarded: for=\"_a,b\"", "10.0.0.1"),
            ("10.0.0.1", "Forwarded: for=203.0.113.7, for=_hidden", "10.0.0.1"),
            ("10.0.0.1", "Forwarded: for=203.0.113.7, by=10.0.0.2", "10.0.0.1"),
            ("10.0.0.1", "Forwarded: for=", "10.0.0.1"),
            // both, of which one may come from the client
            ("10.0.0.1", "X-Forwarded-For: 198.51.100.1\r\nForwarded: for=198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "X-Forwarded-For: 198.51.100.1\r\nForwarded: for=203.0.113.7", "10.0.0.1"),
        ];
        for (peer, fields, expected) in rows {
            let got = client(peer.parse().unwrap(), &request("GET", "/", fields), trusted);
            assert_eq!(got.to_string(), expected, "{peer}, {fields:?}");
        }
    }
}
