//! Heads: what is accepted is what a plain reading of the RFCs accepts, it means the same to both, and it keeps its promises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::http::h1::head::{self, Scan, Scanned};
use millpond::http::path::CleanPath;
use millpond::http::{Bounds, Framing, Method, Request, Version, header};
use millpond_fuzz::{narrow_bounds, reference_path};

fuzz_target!(|data: &[u8]| {
    for bounds in [Bounds::default(), narrow_bounds()] {
        check(data, &bounds);
    }
});

fn check(data: &[u8], bounds: &Bounds) {
    let mut scan = Scan::default();
    let found = scan.find(data, bounds);
    let expected = reference_scan(data, bounds);
    let head = match (&found, expected) {
        (Ok(Scanned::Head(place)), End::At(start, end)) if *place == (start..end) => &data[start..end],
        (Ok(Scanned::More), End::More(_)) => return,
        (Err(refuse), End::Bad) => {
            assert!(refuse.close && refuse.status.is_client_error());
            return;
        }
        // a target that is too long may be noticed before the end of the head
        (Err(refuse), End::At(start, _) | End::More(start)) if target_in_part(&data[start..]) > bounds.target_bytes => {
            assert_eq!(refuse.status, 414);
            return;
        }
        _ => panic!("the scan says {found:?}, the reference {expected:?}"),
    };
    assert!(head.len() <= bounds.head_bytes);

    let mut request = Request::default();
    let result = head::parse(head, bounds, &mut request);
    // a request that was used before must not shine through
    let mut used = Request::default();
    head::parse(
        b"POST /left/over?q HTTP/1.0\r\nHost: x\r\nA: b\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n",
        &Bounds::default(),
        &mut used,
    )
    .expect("a good head");
    used.clear();
    assert_eq!(head::parse(head, bounds, &mut used), result);
    if head.len() < 400 {
        assert_eq!(format!("{used:?}"), format!("{request:?}"));
    }
    let line_end = head.windows(2).position(|w| w == b"\r\n").expect("a head has line ends");
    assert_eq!(request.line(), &head[..line_end], "the line for the log");

    let expected = reference_head(head, bounds);
    let (Ok(()), Some(expected)) = (&result, &expected) else {
        assert!(result.is_err() && expected.is_none(), "the parser says {result:?}, the reference {expected:?}");
        assert!(result.is_err_and(|refuse| refuse.close), "what is no request ends the connection");
        return;
    };
    assert_eq!(request.method.as_str().as_bytes(), expected.method);
    assert_eq!(request.version, expected.version);
    assert_eq!(request.framing, expected.framing);
    assert_eq!(request.keep_alive, expected.keep_alive);
    assert_eq!(request.expects_continue, expected.expects_continue);
    assert_eq!(request.authority(), expected.authority);
    assert_eq!(request.query(), expected.query);
    let mut path = CleanPath::default();
    if let Some(raw) = expected.path {
        path.set(raw).expect("the reference accepts it");
    }
    assert_eq!(request.path, path);
    for (name, _) in &expected.fields {
        let values: Vec<&[u8]> = expected.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v).collect();
        assert_eq!(request.named(name).collect::<Vec<_>>(), values, "{name}");
    }

    // what must hold whatever the reference says
    for segment in request.path.segments() {
        assert!(segment != b"." && segment != b".." && !segment.iter().any(|b| b"\0/\\".contains(b)), "{segment:?}");
    }
    let (length, coding) = (request.field(&header::CONTENT_LENGTH), request.field(&header::TRANSFER_ENCODING));
    assert!(length.is_none() || coding.is_none(), "framed twice");
    match request.framing {
        Framing::None => assert!(coding.is_none() && length.is_none_or(|l| l.iter().all(|&b| b == b'0'))),
        Framing::Length(n) => assert!(n > 0 && length.is_some()),
        Framing::Chunked => assert!(coding.is_some() && request.version == Version::Http11),
    }
    assert!(request.version == Version::Http10 || request.field(&header::HOST).is_some());
}

#[derive(Clone, Copy, Debug)]
enum End {
    /// It begins here.
    More(usize),
    /// It begins and ends here.
    At(usize, usize),
    Bad,
}

/// Where the head begins and ends: after two empty lines at most, up to and with the first empty line.
fn reference_scan(data: &[u8], bounds: &Bounds) -> End {
    let mut start = 0;
    while data[start..].starts_with(b"\r\n") {
        start += 2;
    }
    if start > 4 {
        return End::Bad;
    }
    let rest = &data[start..];
    let end = rest.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4);
    let seen = &rest[..end.unwrap_or(rest.len())];
    if seen.iter().enumerate().any(|(i, &b)| b == b'\n' && (i == 0 || seen[i - 1] != b'\r')) || seen.len() > bounds.head_bytes {
        return End::Bad;
    }
    match end {
        Some(end) => End::At(start, start + end),
        // a target that is too long already is not waited for
        None if !seen.contains(&b'\n') && target_in_part(seen) > bounds.target_bytes => End::Bad,
        None => End::More(start),
    }
}

/// How long the target is as far as it came: what is between the first space and the second, or the end of the line.
fn target_in_part(head: &[u8]) -> usize {
    let line = head.split(|&b| b == b'\n').next().unwrap_or_default();
    let mut words = line.splitn(3, |&b| b == b' ');
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    if method.len() > 32 { 0 } else { target.iter().position(|&b| b == b'\r').unwrap_or(target.len()) }
}

/// What a head says.
#[derive(Debug)]
struct Expected<'a> {
    method: &'a [u8],
    version: Version,
    framing: Framing,
    keep_alive: bool,
    expects_continue: bool,
    authority: &'a [u8],
    path: Option<&'a [u8]>,
    query: Option<&'a [u8]>,
    fields: Vec<(&'a str, &'a [u8])>,
}

/// Reads a complete head line by line; `None` where it has to be refused.
fn reference_head<'a>(head: &'a [u8], bounds: &Bounds) -> Option<Expected<'a>> {
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some(at) = rest.windows(2).position(|w| w == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    let fields = &lines[1..lines.len() - 1];
    if fields.len() > bounds.head_fields || lines.iter().any(|line| line.iter().any(|b| b"\0\r\n".contains(b))) {
        return None;
    }

    let words: Vec<&[u8]> = lines[0].split(|&b| b == b' ').collect();
    let [method, target, version] = words[..] else { return None };
    if method.len() > 32 || !is_token(method) || target.is_empty() || target.len() > bounds.target_bytes {
        return None;
    }
    if target.iter().any(|&b| b <= b' ' || b >= 0x7F || b == b'#') {
        return None;
    }
    let version = match version.strip_prefix(b"HTTP/1.")? {
        b"0" => Version::Http10,
        [b'1'..=b'9'] => Version::Http11,
        _ => return None,
    };

    let fields = fields.iter().map(|line| field(line)).collect::<Option<Vec<_>>>()?;
    let all = |name: &str| -> Vec<&'a [u8]> { fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v).collect() };
    let elements = |name: &str| -> Vec<String> {
        all(name).iter().flat_map(|v| v.split(|&b| b == b',')).map(|v| String::from_utf8_lossy(trim(v)).to_ascii_lowercase()).collect()
    };

    let host = match all("host")[..] {
        [host] => Some(host),
        [] if version == Version::Http10 => None,
        _ => return None,
    };
    if host.is_some_and(|host| authority(host).is_none()) {
        return None;
    }
    let framing = match (&all("content-length")[..], &elements("transfer-encoding")[..]) {
        ([], []) => Framing::None,
        ([digits], []) => match number(digits)? {
            0 => Framing::None,
            n => Framing::Length(n),
        },
        ([], [only]) if only == "chunked" && version == Version::Http11 => Framing::Chunked,
        _ => return None,
    };
    let options = elements("connection");
    let has = |option: &str| options.iter().any(|o| o == option);
    let keep_alive = !has("close") && (version == Version::Http11 || has("keep-alive"));
    let expectations = all("expect");
    let is_expecting = version == Version::Http11 && !expectations.is_empty();
    if is_expecting && !expectations.iter().all(|e| e.eq_ignore_ascii_case(b"100-continue")) {
        return None;
    }

    let mut expected = Expected {
        method,
        version,
        framing,
        keep_alive,
        expects_continue: is_expecting && framing != Framing::None,
        authority: host.unwrap_or_default(),
        path: None,
        query: None,
        fields: fields.clone(),
    };
    if method == Method::CONNECT.as_str().as_bytes() {
        // RFC 9110 section 9.3.6: the port has to be there
        return authority(target)?.is_some_and(|port| port > 0).then_some(expected);
    }
    if target == b"*" && method == b"OPTIONS" {
        return Some(expected);
    }
    let mut rest = target;
    if rest[0] != b'/' {
        let lower = rest.to_ascii_lowercase();
        let scheme = ["http://", "https://"].into_iter().find(|s| lower.starts_with(s.as_bytes()))?;
        rest = &rest[scheme.len()..];
        let end = rest.iter().position(|b| b"/?".contains(b)).unwrap_or(rest.len());
        authority(&rest[..end])?;
        expected.authority = &rest[..end];
        rest = &rest[end..];
    }
    let mut parts = rest.splitn(2, |&b| b == b'?');
    let path = parts.next().filter(|p| !p.is_empty()).unwrap_or(b"/");
    reference_path(path)?;
    expected.path = Some(path);
    expected.query = parts.next();
    Some(expected)
}

/// `name ":" OWS value OWS`
fn field(line: &[u8]) -> Option<(&str, &[u8])> {
    let colon = line.iter().position(|&b| b == b':')?;
    let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
    let is_good = is_token(name) && value.iter().all(|&b| b == b'\t' || !b.is_ascii_control());
    is_good.then_some((std::str::from_utf8(name).ok()?, value))
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

fn number(digits: &[u8]) -> Option<u64> {
    // `parse` alone would take a plus sign
    if digits.iter().all(u8::is_ascii_digit) { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

/// How many digits the port of an authority has, if it has one; `None` if it is no authority.
fn authority(text: &[u8]) -> Option<Option<usize>> {
    let text = std::str::from_utf8(text).ok()?;
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&b)),
    };
    let is_port = port.is_none_or(|p| p.len() <= 5 && p.bytes().all(|b| b.is_ascii_digit()));
    (is_host && is_port).then_some(port.map(str::len))
}
