//! Bodies that are no forms: one file each, under a name that is given or made.

use super::{assert_nothing_left, assert_stored, folder, head, listing, post, post_chunked, receipt, request};
use crate::client::request as get;
use crate::harness::{HELLO, Server, noise};

#[test]
fn names_that_are_given() {
    let server = Server::start(&[]);
    let rows = [
        ("quoted", "/uploads/", "Content-Disposition: attachment; filename=\"quoted name.txt\"\r\n", "quoted name.txt"),
        ("a token", "/uploads/", "Content-Disposition: attachment; filename=token.txt\r\n", "token.txt"),
        ("extended", "/uploads/", "Content-Disposition: attachment; filename*=UTF-8''%e2%82%ac%20rates.txt\r\n", "€ rates.txt"),
        ("both", "/uploads/", "Content-Disposition: attachment; filename=\"a.txt\"; filename*=UTF-8''better.txt\r\n", "better.txt"),
        ("a quoted pair", "/uploads/", "Content-Disposition: attachment; filename=\"q\\\"p.txt\"\r\n", "q\"p.txt"),
        ("upper case", "/uploads/", "CONTENT-DISPOSITION: ATTACHMENT; FILENAME=\"Upper.txt\"\r\n", "Upper.txt"),
        ("no form of presentation that is known", "/uploads/", "Content-Disposition: inline; filename=\"inline.txt\"\r\n", "inline.txt"),
        ("in the query", "/uploads/?name=query.txt", "", "query.txt"),
        ("in the query, escaped", "/uploads/?name=%E2%82%AC%20%26%3D.txt", "", "€ &=.txt"),
        ("in the query, behind others", "/uploads/?a=b&name=behind.txt&c=d", "", "behind.txt"),
        ("in both", "/uploads/?name=query2.txt", "Content-Disposition: attachment; filename=\"field.txt\"\r\n", "field.txt"),
        ("a field without a name", "/uploads/?name=query3.txt", "Content-Disposition: attachment\r\n", "query3.txt"),
    ];
    for (name, target, fields, wanted) in rows {
        let receipt = assert_stored(&server, &folder(&server), &post(&server, target, fields, name), &[name.as_bytes()], name);
        assert_eq!(receipt.names(), [wanted], "{name}");
        assert!(receipt.ignored.is_empty(), "{name}");
    }
}

/// `upload-20261122-170000-xxxxxxxx.ext`
#[test]
fn names_that_are_made() {
    let server = Server::start(&[]);
    let rows: [(&str, &[&str]); 10] = [
        ("text/plain", &[".txt"]),
        ("text/plain; charset=utf-8", &[".txt"]),
        ("application/json", &[".json"]),
        ("image/png", &[".png"]),
        ("image/jpeg", &[".jpg", ".jpeg"]),
        ("application/pdf", &[".pdf"]),
        ("IMAGE/GIF", &[".gif"]),
        ("application/x-unheard-of", &["", ".bin"]),
        ("../../x", &["", ".bin"]),
        ("", &["", ".bin"]),
    ];
    let mut seen = Vec::new();
    for (kind, extensions) in rows {
        for target in ["/uploads/", "/uploads/?name=", "/uploads/?other=x"] {
            let fields = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
            let name = format!("{kind:?} to {target}");
            let receipt = assert_stored(&server, &folder(&server), &post(&server, target, &fields, "hello"), &[b"hello"], &name);
            let made = receipt.files[0].name.clone();
            let parts: Vec<&str> = made.strip_prefix("upload-").unwrap_or_else(|| panic!("{name}: {made}")).splitn(3, '-').collect();
            assert_eq!((parts.len(), parts[0].len(), parts[1].len()), (3, 8, 6), "{name}: {made}");
            assert!(parts[..2].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit())), "{name}: {made}");
            assert!(parts[0].starts_with("20"), "{name}: {made}");
            let (random, extension) = parts[2].split_at(8);
            assert!(random.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{name}: {made}");
            assert!(extensions.contains(&extension), "{name}: {made}");
            assert!(!seen.contains(&random.to_owned()), "{name}: {made} was there before");
            seen.push(random.to_owned());
        }
    }
}

/// Whatever the type says, the bytes are stored as they are.
#[test]
fn all_types_go_the_same_road() {
    let server = Server::start(&[]);
    let form = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x.txt\"\r\n\r\nhello\r\n--b--\r\n";
    let rows: [(&str, &[u8]); 10] = [
        ("Content-Type: application/json\r\n", b"{\"a\": 1}"),
        ("Content-Type: text/plain\r\n", b"plain"),
        ("Content-Type: text/html\r\n", b"<script>alert(1)</script>"),
        ("Content-Type: image/png\r\n", b"\x89PNG\r\n\x1a\n\0"),
        ("Content-Type: application/x-www-form-urlencoded\r\n", b"a=b&c=d"),
        ("Content-Type: multipart/mixed; boundary=b\r\n", form.as_bytes()),
        ("Content-Type: multipart/form-datax; boundary=b\r\n", form.as_bytes()),
        ("Content-Type: application/gzip\r\n", b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0"),
        ("Content-Type: nonsense\r\n", b"nonsense"),
        ("", b"no type"),
    ];
    for (fields, body) in rows {
        for chunked in [false, true] {
            let target = "/uploads/?name=road.bin";
            let answer = if chunked { post_chunked(&server, target, fields, body, 3) } else { post(&server, target, fields, body) };
            assert_stored(&server, &folder(&server), &answer, &[body], &format!("{fields:?}, chunked: {chunked}"));
        }
    }
}

/// A body is never unpacked: it is stored as it was sent, or refused.
#[test]
fn a_coded_body_is_not_unpacked() {
    let server = Server::start(&[]);
    let body = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0";
    let answer = post(&server, "/uploads/?name=a.txt", "Content-Encoding: gzip\r\n", body);
    if answer.status == 415 {
        assert_nothing_left(&server, &folder(&server), "415");
    } else {
        assert_stored(&server, &folder(&server), &answer, &[body], "stored as it is");
    }
}

#[test]
fn an_empty_body_is_an_empty_file() {
    let server = Server::start(&[]);
    assert_stored(&server, &folder(&server), &post(&server, "/uploads/?name=a.txt", "", ""), &[b""], "Content-Length: 0");
    assert_stored(&server, &folder(&server), &post_chunked(&server, "/uploads/?name=b.txt", "", "", 1), &[b""], "chunked");
    assert_eq!(listing(&folder(&server)), ["a.txt", "b.txt"]);
}

#[test]
fn sizes_and_chunks() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for length in [1, 2, 4_095, 65_535, 65_536, 65_537, 262_144, 262_145, 1_000_000] {
        let body = noise(length as u64, length);
        client.send(request(&server, "/uploads/?name=size.bin", "", &body));
        assert_stored(&server, &folder(&server), &client.answer(), &[&body], &format!("{length} bytes"));
    }
    let body = noise(7, 150_000);
    for size in [1_000, 16_384, 65_536, 100_000, 150_000] {
        let answer = post_chunked(&server, "/uploads/?name=chunks.bin", "", &body, size);
        assert_stored(&server, &folder(&server), &answer, &[&body], &format!("chunks of {size}"));
    }
    let extended = "5;a=b;c=\"d\"\r\nhello\r\n0;last\r\nX-Trailer: 1\r\nContent-Disposition: attachment; filename=no.txt\r\n\r\n";
    client.send(head(&server, "/uploads/?name=extended.txt", "Transfer-Encoding: chunked\r\n") + extended);
    let receipt = assert_stored(&server, &folder(&server), &client.answer(), &[b"hello"], "extensions and trailers");
    assert_eq!(receipt.names(), ["extended.txt"], "a trailer names nothing");
}

#[test]
fn a_client_that_waits_is_told_to_go_on() {
    let server = Server::start(&[]);
    for framing in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = server.connect();
        client.send(head(&server, "/uploads/?name=waited.txt", &format!("Expect: 100-continue\r\n{framing}")));
        assert_eq!(client.any_answer(false).unwrap().status, 100, "{framing}");
        client.send(if framing.starts_with('C') { "hello" } else { "5\r\nhello\r\n0\r\n\r\n" });
        assert_stored(&server, &folder(&server), &client.answer(), &[b"hello"], framing);
    }
}

/// A body is read to its end and no further: the requests around it on the same connection are answered as ever.
#[test]
fn requests_around_an_upload() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let smuggled = get("GET", "/other.txt", "");
    let form = super::form(&[("name=\"f\"; filename=\"form.txt\"", smuggled.as_bytes())]);
    let mut sent = get("GET", "/hello.txt", "").into_bytes();
    sent.extend(request(&server, "/uploads/?name=raw.txt", "", smuggled.as_bytes()));
    sent.extend(get("GET", "/uploads/raw.txt", "").into_bytes());
    sent.extend(request(&server, "/uploads/", super::FORM, &[&form, smuggled.as_bytes()].concat()));
    sent.extend(get("GET", "/uploads/form.txt", "").into_bytes());
    sent.extend(head(&server, "/uploads/?name=chunked.txt", "Transfer-Encoding: chunked\r\n").into_bytes());
    sent.extend(super::chunks(smuggled.as_bytes(), 10));
    sent.extend(get("GET", "/uploads/chunked.txt", "Connection: close\r\n").into_bytes());
    client.send(sent);
    let (answers, _) = client.answers();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 201, 200, 201, 200, 201, 200]);
    assert_eq!(answers[0].text(), HELLO);
    for (at, name) in [(1, "raw.txt"), (3, "form.txt"), (5, "chunked.txt")] {
        assert_eq!(receipt(&answers[at], name).names(), [name]);
        assert_eq!(answers[at + 1].text(), smuggled, "GET right behind {name}");
    }
}

/// HTTP/1.0 clients upload too.
#[test]
fn the_version_before() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let sent = String::from_utf8(request(&server, "/uploads/?name=old.txt", "", b"hello")).unwrap();
    client.send(sent.replacen("HTTP/1.1", "HTTP/1.0", 1));
    assert_stored(&server, &folder(&server), &client.answer(), &[b"hello"], "HTTP/1.0");
    client.assert_end("HTTP/1.0");
}
