//! Forms: `multipart/form-data` as browsers and curl send it, and as nobody should.

use super::{
    BOUNDARY, FORM, any, assert_nothing_left, assert_refused, assert_stored, chunks, folder, form, head, listing, post, post_chunked,
    post_form, receipt,
};
use crate::harness::{Server, noise};

/// A body of one part with this head and content, in a form of boundary `b`.
fn one_part(part_head: &[u8], content: &[u8]) -> Vec<u8> {
    [b"--b\r\n", part_head, b"\r\n\r\n", content, b"\r\n--b--\r\n"].concat()
}

const SHORT: &str = "Content-Type: multipart/form-data; boundary=b\r\n";

#[test]
fn each_file_part_is_a_file_and_text_is_told_to_be_ignored() {
    let server = Server::start(&[]);
    let long = noise(1, 300_000);
    let parts: [(&str, &[u8]); 6] = [
        ("name=\"title\"", b"holidays"),
        ("name=\"file\"; filename=\"one.txt\"", b"first"),
        ("name=\"note\"", b""),
        ("name=\"file\"; filename=\"two.bin\"", &long),
        ("name=\"other\"; filename=\"empty.txt\"", b""),
        ("name=\"title\"", b"once more"),
    ];
    let answer = post_form(&server, &parts);
    let receipt = assert_stored(&server, &folder(&server), &answer, &[b"first", &long, b""], "six parts");
    assert_eq!(receipt.names(), ["one.txt", "two.bin", "empty.txt"], "in the order they came");
    assert!(["title", "note"].iter().all(|name| receipt.ignored.iter().any(|known| known == name)), "{receipt:?}");
    assert!(receipt.ignored.iter().all(|name| name == "title" || name == "note"), "{receipt:?}");
    assert_eq!(listing(&folder(&server)), ["empty.txt", "one.txt", "two.bin"]);
}

#[test]
fn a_hundred_files_in_one_form() {
    let server = Server::start(&[]);
    let contents: Vec<Vec<u8>> = (0..100).map(|number| noise(number, number as usize * 37)).collect();
    let parameters: Vec<String> = (0..100).map(|number| format!("name=\"f\"; filename=\"{number}.bin\"")).collect();
    let parts: Vec<(&str, &[u8])> = parameters.iter().map(String::as_str).zip(contents.iter().map(Vec::as_slice)).collect();
    let wanted: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    assert_stored(&server, &folder(&server), &post_form(&server, &parts), &wanted, "a hundred files");
    assert_eq!(listing(&folder(&server)).len(), 100);
}

#[test]
fn forms_of_a_name() {
    let server = Server::start(&[]);
    // The head of the part, and the name that the file gets.
    let rows: &[(&str, &[u8], &str)] = &[
        ("quoted", b"Content-Disposition: form-data; name=\"f\"; filename=\"q.txt\"", "q.txt"),
        ("a token", b"Content-Disposition: form-data; name=f; filename=token.txt", "token.txt"),
        ("a space", b"Content-Disposition: form-data; name=\"f\"; filename=\"a b.txt\"", "a b.txt"),
        ("a semicolon", b"Content-Disposition: form-data; name=\"f\"; filename=\"a;b=c.txt\"", "a;b=c.txt"),
        ("UTF-8", "Content-Disposition: form-data; name=\"f\"; filename=\"é€😀.txt\"".as_bytes(), "é€😀.txt"),
        ("an escaped quotation mark", b"Content-Disposition: form-data; name=\"f\"; filename=\"a\\\"b.txt\"", "a\"b.txt"),
        ("extended", b"Content-Disposition: form-data; name=\"f\"; filename*=UTF-8''%e2%82%ac%20rates.txt", "€ rates.txt"),
        ("extended, with a language", b"Content-Disposition: form-data; name=\"f\"; filename*=utf-8'en'lang.txt", "lang.txt"),
        ("both", b"Content-Disposition: form-data; name=\"f\"; filename=\"plain.txt\"; filename*=UTF-8''better.txt", "better.txt"),
        ("both, other order", b"Content-Disposition: form-data; name=\"f\"; filename*=UTF-8''best.txt; filename=\"p.txt\"", "best.txt"),
        ("no name of a field", b"Content-Disposition: form-data; filename=\"noname.txt\"", "noname.txt"),
        ("file name first", b"Content-Disposition: form-data; filename=\"first.txt\"; name=\"f\"", "first.txt"),
        ("upper case", b"CONTENT-DISPOSITION: FORM-DATA; NAME=\"f\"; FILENAME=\"Upper.txt\"", "Upper.txt"),
        ("no space", b"Content-Disposition:form-data;name=\"f\";filename=\"tight.txt\"", "tight.txt"),
        (
            "other fields around",
            b"X-Before: filename=\"no.txt\"\r\nContent-Disposition: form-data; name=\"f\"; filename=\"around.txt\"\r\nX-After: y",
            "around.txt",
        ),
        (
            "a field name that looks like one",
            b"Content-Disposition: form-data; name=\"filename=no.txt\"; filename=\"look.txt\"",
            "look.txt",
        ),
        ("a type", b"Content-Disposition: form-data; name=\"f\"; filename=\"typed.png\"\r\nContent-Type: image/png", "typed.png"),
    ];
    for (name, part_head, wanted) in rows {
        let answer = post(&server, "/uploads/", SHORT, one_part(part_head, name.as_bytes()));
        let receipt = assert_stored(&server, &folder(&server), &answer, &[name.as_bytes()], name);
        assert_eq!(receipt.names(), [*wanted], "{name}");
    }
}

#[test]
fn forms_of_a_body() {
    let server = Server::start(&[]);
    let part = |boundary: &str| format!("--{boundary}\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\n\r\nhello\r\n");
    let whole = |boundary: &str| format!("{}--{boundary}--\r\n", part(boundary));
    let longest = "b".repeat(70);
    let rows = [
        ("plain", "boundary=b".to_owned(), whole("b")),
        ("no line end at the end", "boundary=b".to_owned(), format!("{}--b--", part("b"))),
        ("quoted boundary", "boundary=\"b\"".to_owned(), whole("b")),
        ("quoted boundary with odd characters", "boundary=\"gc0:p J'()+_,-./=?q\"".to_owned(), whole("gc0:p J'()+_,-./=?q")),
        ("boundary of dashes", "boundary=--------".to_owned(), whole("--------")),
        ("boundary of 70", format!("boundary={longest}"), whole(&longest)),
        ("other parameters", "charset=utf-8; boundary=b; x=y".to_owned(), whole("b")),
        ("upper case", "BOUNDARY=b".to_owned(), whole("b")),
        ("a boundary with both cases", "boundary=aB".to_owned(), whole("aB")),
        ("preamble", "boundary=b".to_owned(), format!("This is a form.\r\nIgnore me.\r\n{}", whole("b"))),
        ("preamble of a line end", "boundary=b".to_owned(), format!("\r\n{}", whole("b"))),
        ("preamble that is almost a boundary", "boundary=b".to_owned(), format!("-b\r\n--a\r\n{}", whole("b"))),
        ("epilogue", "boundary=b".to_owned(), format!("{}And this was the form.\r\n", whole("b"))),
        ("epilogue with a part", "boundary=b".to_owned(), format!("{}{}", whole("b"), whole("b"))),
        ("a long epilogue", "boundary=b".to_owned(), format!("{}{}", whole("b"), "x".repeat(200_000))),
    ];
    for (name, parameters, body) in &rows {
        for chunked in [false, true] {
            let fields = format!("Content-Type: multipart/form-data; {parameters}\r\n");
            let name = format!("{name}, chunked: {chunked}");
            let answer =
                if chunked { post_chunked(&server, "/uploads/", &fields, body, 5_000) } else { post(&server, "/uploads/", &fields, body) };
            assert_stored(&server, &folder(&server), &answer, &[b"hello"], &name);
        }
    }
    for kind in ["Multipart/Form-Data; Boundary=b", "multipart/form-data;boundary=b", "multipart/form-data ; boundary=b"] {
        let answer = post(&server, "/uploads/", &format!("Content-Type: {kind}\r\n"), whole("b"));
        assert_stored(&server, &folder(&server), &answer, &[b"hello"], kind);
    }
}

#[test]
fn bodies_that_are_no_forms_store_nothing() {
    let server = Server::start(&[]);
    let disposition = "Content-Disposition: form-data; name=\"f\"; filename=\"a.txt\"";
    let part = format!("--b\r\n{disposition}\r\n\r\nhello\r\n");
    let rows: Vec<(&str, &str, String)> = vec![
        ("no final boundary", "; boundary=b", part.clone()),
        ("no boundary behind the content", "; boundary=b", format!("--b\r\n{disposition}\r\n\r\nhello")),
        ("a final boundary without its dashes", "; boundary=b", format!("{part}--b")),
        ("a final boundary with one dash", "; boundary=b", format!("{part}--b-")),
        ("a first part, and a second that does not end", "; boundary=b", format!("{part}{part}")),
        ("a first part, and a second head that does not end", "; boundary=b", format!("{part}--b\r\n{disposition}\r\n")),
        ("another boundary", "; boundary=c", format!("{part}--b--\r\n")),
        ("no boundary given", "", format!("{part}--b--\r\n")),
        ("an empty boundary", "; boundary=", format!("{part}--b--\r\n")),
        ("an empty boundary in quotes", "; boundary=\"\"", format!("{part}--b--\r\n")),
        ("nothing at all", "; boundary=b", String::new()),
        ("text", "; boundary=b", "hello".to_owned()),
        ("the final boundary alone", "; boundary=b", "--b--\r\n".to_owned()),
        ("text fields alone", "; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"t\"\r\n\r\nhello\r\n--b--\r\n".to_owned()),
        (
            "no file chosen",
            "; boundary=b",
            "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"\"\r\nContent-Type: application/octet-stream\r\n\r\n\r\n--b--\r\n".to_owned(),
        ),
        ("bare line feeds", "; boundary=b", format!("{part}--b--\r\n").replace("\r\n", "\n")),
        ("bare line feeds in the head of the part", "; boundary=b", format!("--b\r\n{disposition}\n\nhello\r\n--b--\r\n")),
        ("a bare line feed behind the boundary", "; boundary=b", format!("--b\n{disposition}\r\n\r\nhello\r\n--b--\r\n")),
        ("a bare line feed before the final boundary", "; boundary=b", format!("--b\r\n{disposition}\r\n\r\nhello\n--b--\r\n")),
        ("bare carriage returns", "; boundary=b", format!("{part}--b--\r\n").replace("\r\n", "\r")),
        ("no head in the part", "; boundary=b", "--b\r\nhello\r\n--b--\r\n".to_owned()),
        ("a head without a colon", "; boundary=b", format!("--b\r\nhello\r\n{disposition}\r\n\r\nhello\r\n--b--\r\n")),
    ];
    for (name, parameters, body) in rows {
        for chunked in [false, true] {
            let name = format!("{name}, chunked: {chunked}");
            let fields = format!("Content-Type: multipart/form-data{parameters}\r\n");
            let answer =
                if chunked { post_chunked(&server, "/uploads/", &fields, &body, 7) } else { post(&server, "/uploads/", &fields, &body) };
            assert_refused(&answer, 400, "", &name);
            assert_nothing_left(&server, &folder(&server), &name);
        }
    }
    server.assert_well("bodies that are no forms");
}

/// A part of a form, but not as a file: whatever is made of it, it is no file.
#[test]
fn parts_that_name_no_file() {
    let server = Server::start(&[]);
    for part_head in
        ["Content-Type: text/plain", "Content-Disposition: form-data", "Content-Disposition: form-data; name=\"t\"; file=\"x\""]
    {
        let body = format!(
            "--b\r\n{part_head}\r\n\r\nnot a file\r\n--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\n\r\nhello\r\n--b--\r\n"
        );
        let answer = post(&server, "/uploads/", SHORT, body);
        if answer.status == 400 {
            assert_nothing_left(&server, &folder(&server), part_head);
        } else {
            assert_eq!(receipt(&answer, part_head).files.len(), 1, "{part_head}");
            std::fs::remove_file(folder(&server).join("a.txt")).unwrap();
            assert_nothing_left(&server, &folder(&server), part_head);
        }
    }
}

/// Content that looks like a boundary for as long as it can, and ends of content at every edge of a buffer.
#[test]
fn content_is_kept_to_the_byte() {
    let server = Server::start(&[]);
    let every: Vec<u8> = (0..=255).cycle().take(1_000).collect();
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("every byte", every),
        ("line ends", b"\r\n\r\n\r\n".to_vec()),
        ("a carriage return at the end", b"hello\r".to_vec()),
        ("a line feed at the end", b"hello\n".to_vec()),
        ("a line end at the end", b"hello\r\n".to_vec()),
        ("two carriage returns at the end", b"hello\r\r".to_vec()),
        ("dashes at the end", b"hello\r\n--".to_vec()),
        ("half a boundary", format!("a\r\n--{}", &BOUNDARY[..12]).into_bytes()),
        ("a boundary but its last byte", format!("a\r\n--{}", &BOUNDARY[..BOUNDARY.len() - 1]).into_bytes()),
        ("half boundaries one after another", format!("\r\n--{0}\r\n--{0}\r\r\n-", &BOUNDARY[..20]).repeat(500).into_bytes()),
        ("a boundary without its line end", format!("a--{BOUNDARY}\r\nb").into_bytes()),
        ("a boundary behind a line feed", format!("a\n--{BOUNDARY}b").into_bytes()),
        ("a whole form of another boundary", one_part(b"Content-Disposition: form-data; name=\"f\"; filename=\"x.txt\"", b"inner")),
        ("carriage returns", vec![b'\r'; 70_000]),
        ("dashes", vec![b'-'; 70_000]),
    ];
    for (name, content) in rows {
        let answer = post_form(&server, &[("name=\"f\"; filename=\"edge.bin\"", &content), ("name=\"f\"; filename=\"z.bin\"", b"z")]);
        assert_stored(&server, &folder(&server), &answer, &[&content, b"z"], name);
    }
    let mut client = server.connect();
    for edge in [4_096, 8_192, 16_384, 32_768, 65_536, 131_072, 262_144] {
        for length in [edge - 90, edge - 1, edge, edge + 1] {
            let content = noise(length as u64, length);
            client.send(super::request(&server, "/uploads/", FORM, &form(&[("name=\"f\"; filename=\"edge.bin\"", &content)])));
            assert_stored(&server, &folder(&server), &client.answer(), &[&content], &format!("{length} bytes"));
        }
    }
}

/// However the bytes are cut up, they are the same form.
#[test]
fn every_split_is_the_same_form() {
    // Hundreds of connections at once: none of them is to be shed.
    let server = Server::start(&["--threads", "1", "--queue", "1000"]);
    let content = b"a\r\n--b\r\n--\r\n\r--\r\n--c".as_slice();
    let body = [
        b"preamble\r\n--bnd\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\n\r\n".as_slice(),
        content,
        b"\r\n--bnd\r\nContent-Disposition: form-data; name=\"t\"\r\n\r\ntext\r\n--bnd--\r\nepilogue",
    ]
    .concat();
    let fields = "Content-Type: multipart/form-data; boundary=bnd\r\n";
    let check = |answer, name: &str| {
        let receipt = receipt(&answer, name);
        assert_eq!(
            (receipt.files.len(), receipt.files[0].bytes, receipt.ignored),
            (1, content.len() as u64, vec!["t".to_owned()]),
            "{name}"
        );
        assert_eq!(std::fs::read(folder(&server).join(&receipt.files[0].name)).unwrap(), content, "{name}");
    };
    // In two pieces, at every place: each connection has sent its first piece before any has sent its second.
    let whole = super::request(&server, "/uploads/", fields, &body);
    let start = whole.len() - body.len();
    let mut clients: Vec<_> = (start..whole.len()).map(|at| (server.connect(), at)).collect();
    for (client, at) in &mut clients {
        client.send(&whole[..*at]);
    }
    // What is behind this on the one thread was read behind them.
    server.assert_well("the first pieces");
    for (client, at) in &mut clients {
        client.send(&whole[*at..]);
    }
    for (client, at) in &mut clients {
        check(client.answer(), &format!("cut at {} of the body", *at - start));
    }
    // Byte by byte, and in chunks of every small size.
    let mut client = server.connect();
    for byte in &whole {
        client.send([*byte]);
    }
    check(client.answer(), "byte by byte");
    for size in 1..=30 {
        client.send(
            [head(&server, "/uploads/", &format!("{fields}Transfer-Encoding: chunked\r\n")).into_bytes(), chunks(&body, size)].concat(),
        );
        check(any(&mut client), &format!("chunks of {size}"));
    }
}

/// A later part that fails takes the earlier ones with it.
#[test]
fn all_files_of_a_form_or_none() {
    let server = Server::start(&["--upload-limit", "100KiB"]);
    let good = ("name=\"f\"; filename=\"good.txt\"", b"good".as_slice());
    let large = vec![b'x'; 110_000];
    let mut cut_short = form(&[good, good, good]);
    cut_short.truncate(cut_short.len() - BOUNDARY.len() - 6);
    let rows: Vec<(&str, Vec<u8>, u16)> = vec![
        ("the last part does not end", cut_short, 400),
        ("the second is too large", form(&[good, ("name=\"f\"; filename=\"large.txt\"", &large)]), 413),
        ("the second has too large a head", form(&[good, (&format!("name=\"f\"; filename=\"{}\"", "x".repeat(17_000)), b"x")]), 413),
        ("the last has a bad head", [&form(&[good])[..form(&[good]).len() - 4], b"\r\nbad\r\n\r\nx\r\n"].concat(), 400),
    ];
    for (name, body, status) in rows {
        for chunked in [false, true] {
            let name = format!("{name}, chunked: {chunked}");
            let answer =
                if chunked { post_chunked(&server, "/uploads/", FORM, &body, 3_000) } else { post(&server, "/uploads/", FORM, &body) };
            assert_refused(&answer, status, "", &name);
            assert_nothing_left(&server, &folder(&server), &name);
        }
    }
}
