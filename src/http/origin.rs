//! Where a request comes from, as far as it tells: whether another site may have sent it, and by which name we were addressed.
//!
//! Browsers send requests for any page that asks them to. What changes something here is refused unless it comes from a page of
//! this server, or from no page at all.

use std::net::IpAddr;

use super::header::{ORIGIN, VIA};
use super::refuse::Refuse;
use super::{Request, StatusCode};

/// How browsers tell where a request comes from (Fetch Metadata).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Refuses what a page of another site may have sent.
///
/// # Errors
///
/// 403, with the reason.
pub fn same_site(request: &Request) -> Result<(), Refuse> {
    const ANOTHER: Refuse = Refuse::new(
        StatusCode::FORBIDDEN,
        "This request comes from a page of another site. Uploads are taken from the page at /uploads/ and from programs.",
    );
    let is_told = request.named(SEC_FETCH_SITE).next().is_some();
    let is_own = request.named(SEC_FETCH_SITE).all(|site| matches!(site, b"same-origin" | b"none"));
    let is_ours = request.named(ORIGIN.as_str()).all(|origin| names(origin, request.authority()));
    if if is_told { is_own } else { is_ours } { Ok(()) } else { Err(ANOTHER) }
}

/// Whether an origin (RFC 6454 section 7) is that of this authority.
fn names(origin: &[u8], authority: &[u8]) -> bool {
    let Some((default_port, rest)) =
        [("http://", 80), ("https://", 443)].into_iter().find_map(|(s, port)| Some((port, origin.strip_prefix(s.as_bytes())?)))
    else {
        return false;
    };
    let (host, port) = split(rest);
    let (our_host, our_port) = split(authority);
    !host.is_empty() && host.eq_ignore_ascii_case(our_host) && port.unwrap_or(default_port) == our_port.unwrap_or(default_port)
}

/// Host and port of an authority.
fn split(authority: &[u8]) -> (&[u8], Option<u16>) {
    let colon = authority.iter().rposition(|&b| b == b':').filter(|&at| !authority[at..].contains(&b']'));
    match colon {
        // a port that is no number is that of no origin
        Some(at) => (&authority[..at], std::str::from_utf8(&authority[at + 1..]).ok().map(|port| port.parse().unwrap_or(0))),
        None => (authority, None),
    }
}

/// Whether a server that only this machine can reach was addressed by one of this machine's own names, or one of `others`. Any other
/// name was made to point here by someone else (DNS rebinding).
///
/// # Errors
///
/// 421, with what to do.
pub fn local_name(request: &Request, others: &[String]) -> Result<(), Refuse> {
    let (host, _) = split(request.authority());
    let host = String::from_utf8_lossy(host).to_ascii_lowercase();
    let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    let is_local =
        bare == "localhost" || bare.ends_with(".localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    if is_local || others.iter().any(|name| name.eq_ignore_ascii_case(bare)) {
        return Ok(());
    }
    Err(Refuse::new(
        StatusCode::MISDIRECTED_REQUEST,
        "This server is for its own machine, and was addressed by a name that is not known here. If the name is yours, start it with --allow-host NAME.",
    ))
}

/// Refuses what came through a proxy: others than this machine may stand behind it.
///
/// # Errors
///
/// 403, with what to do.
pub fn direct(request: &Request) -> Result<(), Refuse> {
    let tells = |name: &[u8]| {
        name.eq_ignore_ascii_case(b"forwarded")
            || name.eq_ignore_ascii_case(VIA.as_str().as_bytes())
            || name.get(..12).is_some_and(|n| n.eq_ignore_ascii_case(b"x-forwarded-"))
    };
    if request.names().any(tells) {
        return Err(Refuse::new(
            StatusCode::FORBIDDEN,
            "This request came through a proxy. To take uploads from others, start the server with --uploads DIR.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::tests::request;

    #[test]
    fn pages_of_other_sites_are_told_apart() {
        let cases = [
            ("", true),
            ("Sec-Fetch-Site: same-origin", true),
            ("Sec-Fetch-Site: none", true),
            ("Sec-Fetch-Site: same-site", false),
            ("Sec-Fetch-Site: cross-site", false),
            ("Sec-Fetch-Site: same-origin\r\nOrigin: http://evil.example", true),
            ("Origin: http://localhost", true),
            ("Origin: http://LOCALHOST:80", true),
            ("Origin: https://localhost", true),
            ("Origin: http://localhost:8080", false),
            ("Origin: http://localhost.evil.example", false),
            ("Origin: http://evil.example", false),
            ("Origin: null", false),
            ("Origin: http://localhost\r\nOrigin: http://evil.example", false),
            ("Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site", false),
            ("Origin: file://", false),
            ("Origin: http://", false),
            ("Origin:", false),
        ];
        for (fields, good) in cases {
            assert_eq!(same_site(&request("POST", "/", fields)).is_ok(), good, "{fields}");
        }
        for (target, origin, good) in [
            ("http://a.example:81/", "http://a.example:81", true),
            ("http://a.example:81/", "http://a.example", false),
            ("http://[::1]:81/", "http://[::1]:81", true),
            ("http://[::1]/", "http://[::1]:81", false),
        ] {
            assert_eq!(same_site(&request("POST", target, &format!("Origin: {origin}"))).is_ok(), good, "{target} {origin}");
        }
    }

    #[test]
    fn names_of_this_machine() {
        for (host, good) in [
            ("localhost", true),
            ("LocalHost:80", true),
            ("a.localhost", true),
            ("127.0.0.1:8080", true),
            ("127.9.9.9", true),
            ("[::1]:8080", true),
            ("localhost.", true),
            ("mine.example", true),
            ("mine.example:81", true),
            ("evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("notlocalhost", false),
            ("192.0.2.1", false),
        ] {
            assert_eq!(local_name(&request("POST", &format!("http://{host}/"), ""), &["mine.example".into()]).is_ok(), good, "{host}");
        }
    }

    #[test]
    fn proxies_are_seen() {
        for (fields, good) in [
            ("", true),
            ("Forwarded: for=x", false),
            ("X-Forwarded-For: x", false),
            ("x-forwarded-proto: x", false),
            ("Via: 1.1 x", false),
            ("X-Forward: x", true),
        ] {
            assert_eq!(direct(&request("POST", "/", fields)).is_ok(), good, "{fields}");
        }
    }
}
