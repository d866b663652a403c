//! Names: whatever a client sends, by whatever road, one plain segment inside the folder comes of it.
//!
//! Classes of failure covered: directories in the names of multipart files, `..`, absolute paths, names of devices, NUL and controls.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{BOUNDARY, FORM, escaped, folder, head, post, receipt, unescaped};
use crate::client::Response;
use crate::harness::{Server, Tree};

/// What a file name is called in a failure, and its bytes. `PLANT` stands for the absolute path of something beside the root.
fn hostile() -> Vec<(String, Vec<u8>)> {
    let fixed: &[(&str, &[u8])] = &[
        ("up and away", b"../../etc/passwd"),
        ("one up", b"../planted"),
        ("two up", b"../../planted"),
        ("far up", b"../../../../../../../../../../tmp/planted-by-an-upload"),
        ("a backslash up", b"..\\x"),
        ("backslashes", b"..\\..\\planted"),
        ("a drive", b"C:\\Users\\x\\a.txt"),
        ("a drive with slashes", b"C:/Users/x/a.txt"),
        ("a share", b"\\\\server\\share\\a.txt"),
        ("absolute", b"/abs"),
        ("absolute twice", b"//abs"),
        ("absolute planted", b"PLANT"),
        ("a folder", b"sub/a.txt"),
        ("a slash at the end", b"a/"),
        ("only a slash", b"/"),
        ("only slashes", b"///"),
        ("only a backslash", b"\\"),
        ("hidden", b".hidden"),
        ("hidden twice", b"..hidden"),
        ("htaccess", b".htaccess"),
        ("a temporary name", b".upload-0123.part"),
        ("empty", b""),
        ("a dot", b"."),
        ("two dots", b".."),
        ("three dots", b"..."),
        ("dots up and down", b"./.././.."),
        ("dots with spaces", b". . ."),
        ("a space before a dot", b" .hidden"),
        ("a tab before a dot", b"\t.hidden"),
        ("only a space", b" "),
        ("only spaces", b"     "),
        ("a space around", b" a.txt "),
        ("a dot at the end", b"a."),
        ("dots at the end", b"a..."),
        ("a space at the end", b"a.txt "),
        ("escaped dots", b"%2e%2e"),
        ("escaped path", b"%2e%2e%2fplanted"),
        ("escaped twice", b"%252e%252e%252fplanted"),
        ("an escaped NUL", b"a%00.txt"),
        ("a percent sign", b"100%"),
        ("NUL", b"a\0b.txt"),
        ("NUL before a path", b"a.txt\0/../../planted"),
        ("only NUL", b"\0"),
        ("a control character", b"a\x01\x1f\x7fb.txt"),
        ("only control characters", b"\x01\x02"),
        ("a terminal escape", b"\x1b[31mred\x1b[0m.txt"),
        ("a line end", b"a\r\nSet-Cookie: x=y\r\n.txt"),
        ("a control character before a dot", b"\x01.hidden"),
        ("the other control characters", "a\u{85}\u{9b}31m.txt".as_bytes()),
        ("other line ends", "a\u{2028}\u{2029}b.txt".as_bytes()),
        ("right to left", "a\u{202e}txt.exe".as_bytes()),
        ("a device", b"CON"),
        ("a device with an extension", b"nul.txt"),
        ("a numbered device", b"COM1"),
        ("a device with a superscript", "COM\u{b9}".as_bytes()),
        ("a stream", b"a.txt::$DATA"),
        ("a colon", b"a:b"),
        ("a short name", b"PROGRA~1"),
        ("emoji", "😀👩‍👩‍👧.png".as_bytes()),
        ("combining", "e\u{301}.txt".as_bytes()),
        ("a slash that is none", "a\u{2215}b\u{ff0f}c".as_bytes()),
        ("dots that are none", "\u{ff0e}\u{ff0e}/x".as_bytes()),
        ("invalid UTF-8", b"a\xff\xfe.txt"),
        ("overlong", b"\xc0\xae\xc0\xae\xc0\xafplanted"),
        ("half a character", b"a\xe2\x82"),
        ("a surrogate", b"\xed\xa0\x80.txt"),
        ("markup", b"<img src=x onerror=alert(1)>.png"),
        ("quotation marks", b"a\"b'c.txt"),
        ("a query", b"a?b=c.txt"),
        ("a fragment", b"a#b.txt"),
        ("separators of other things", b"a;b&c=d+e,f.txt"),
        ("a dash", b"-rf"),
        ("a tilde", b"~root"),
        ("shell", b"$(id);`id`|id.txt"),
        ("a star", b"*.txt"),
    ];
    let mut rows: Vec<(String, Vec<u8>)> = fixed.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
    for length in [254, 255, 256, 300, 4_000] {
        rows.push((format!("{length} bytes"), format!("{}.txt", "n".repeat(length - 4)).into_bytes()));
    }
    rows.push(("300 bytes of extension".to_owned(), format!("a.{}", "e".repeat(298)).into_bytes()));
    rows.push(("300 bytes without extension".to_owned(), vec![b'w'; 300]));
    rows.push(("300 bytes of dots".to_owned(), vec![b'.'; 300]));
    rows.push(("300 bytes of emoji".to_owned(), "😀".repeat(75).into_bytes()));
    rows.push(("emoji that do not end at the bound".to_owned(), format!("a{}", "😀".repeat(75)).into_bytes()));
    rows.push(("300 bytes that are no UTF-8".to_owned(), vec![0xff; 300]));
    rows
}

/// Everything beside the uploads folder.
fn surroundings(tree: &Tree) -> BTreeSet<PathBuf> {
    let (mut found, uploads) = (BTreeSet::new(), tree.path("uploads"));
    let mut todo = vec![tree.outside("")];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path != uploads && path.is_dir() {
                todo.push(path.clone());
            }
            found.insert(path);
        }
    }
    found
}

fn entries(folder: &Path) -> BTreeSet<Vec<u8>> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().as_bytes().to_vec()).collect()
}

/// Sends each name by one road. `send` gives `None` for names that the road can not carry.
fn every_name(send: impl Fn(&Server, &[u8], &[u8]) -> Option<Response>, may_be_refused: impl Fn(&[u8]) -> bool) {
    let server = Server::start(&[]);
    let around = surroundings(server.tree());
    let plant = server.tree().outside("planted").to_str().unwrap().to_owned();
    let folder = folder(&server);
    let mut stored = 0;
    for (name, mut bytes) in hostile() {
        if bytes == b"PLANT" {
            bytes = plant.clone().into_bytes();
        }
        let before = entries(&folder);
        let content = format!("content of {name}");
        let Some(answer) = send(&server, &bytes, content.as_bytes()) else { continue };
        let after = entries(&folder);
        let new: Vec<&Vec<u8>> = after.difference(&before).collect();
        assert!(before.is_subset(&after), "{name}: something is gone");
        if answer.status == 400 && may_be_refused(&bytes) {
            assert!(new.is_empty(), "{name}: refused, and yet: {new:?}");
            continue;
        }
        let receipt = receipt(&answer, &name);
        assert_eq!(new.len(), 1, "{name}: one file each");
        let segment = new[0];
        let shown = String::from_utf8_lossy(segment);
        assert!((1..=255).contains(&segment.len()), "{name}: {shown:?}");
        assert!(!segment.starts_with(b"."), "{name}: {shown:?}");
        assert!(!segment.iter().any(|byte| b"/\\".contains(byte)), "{name}: {shown:?}");
        assert!(!shown.chars().any(char::is_control), "{name}: {shown:?}");
        assert_eq!(receipt.files.len(), 1, "{name}");
        assert_eq!(receipt.files[0].name, shown, "{name}: named as it is");
        let told = unescaped(receipt.files[0].path.strip_prefix("/uploads/").unwrap()).unwrap();
        assert_eq!(&told, segment, "{name}: found at its address");
        let path = folder.join(std::ffi::OsStr::from_bytes(segment));
        assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{name}: {shown:?} is a plain file");
        assert_eq!(fs::read(&path).unwrap(), content.as_bytes(), "{name}");
        let got = server.get(&receipt.files[0].path);
        assert_eq!((got.status, got.text()), (200, content), "{name}: GET {}", receipt.files[0].path);
        stored += 1;
    }
    assert!(stored > 50, "only {stored} names were sent");
    assert_eq!(surroundings(server.tree()), around, "something came to be beside the folder");
    assert!(!Path::new("/tmp/planted-by-an-upload").exists() && !Path::new("/abs").exists());
}

/// Bytes that have no place in a field value, so that refusing the message is as good as storing it safely.
fn breaks_fields(bytes: &[u8]) -> bool {
    bytes.iter().any(|&byte| byte < b' ' || byte == 0x7f)
}

#[test]
fn in_the_quoted_name_of_a_form() {
    let send = |server: &Server, name: &[u8], content: &[u8]| {
        let name = name.iter().flat_map(|&byte| if byte == b'"' { vec![b'\\', b'"'] } else { vec![byte] }).collect::<Vec<u8>>();
        let body = [
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"f\"; filename=\"").as_bytes(),
            &name,
            b"\"\r\n\r\n",
            content,
            format!("\r\n--{BOUNDARY}--\r\n").as_bytes(),
        ]
        .concat();
        Some(post(server, "/uploads/", FORM, body))
    };
    every_name(send, |name| breaks_fields(name) || name.ends_with(b"\\"));
}

#[test]
fn in_the_extended_name_of_a_form() {
    let send = |server: &Server, name: &[u8], content: &[u8]| {
        let parameters = format!("name=\"f\"; filename*=UTF-8''{}", escaped(name));
        Some(post(server, "/uploads/", FORM, super::form(&[(&parameters, content)])))
    };
    every_name(send, |_| false);
}

#[test]
fn in_the_query() {
    let send = |server: &Server, name: &[u8], content: &[u8]| {
        let target = format!("/uploads/?name={}", escaped(name));
        (target.len() < 8_000).then(|| post(server, &target, "", content))
    };
    every_name(send, |_| false);
}

#[test]
fn in_a_header_field() {
    let quoted = |server: &Server, name: &[u8], content: &[u8]| {
        let name = name.iter().flat_map(|&byte| if byte == b'"' { vec![b'\\', b'"'] } else { vec![byte] }).collect::<Vec<u8>>();
        let head =
            head(server, "/uploads/", &format!("Content-Disposition: attachment; filename=\"@\"\r\nContent-Length: {}\r\n", content.len()));
        let (before, after) = head.split_once('@').unwrap();
        let mut client = server.connect();
        _ = client.send_what_it_takes([before.as_bytes(), &name, after.as_bytes(), content].concat());
        Some(client.answer())
    };
    every_name(quoted, |name| breaks_fields(name) || name.ends_with(b"\\"));
    let extended = |server: &Server, name: &[u8], content: &[u8]| {
        let fields = format!("Content-Disposition: attachment; filename*=UTF-8''{}\r\n", escaped(name));
        Some(post(server, "/uploads/", &fields, content))
    };
    every_name(extended, |_| false);
}

/// Names that are fine are left as they are.
#[test]
fn good_names_stay() {
    let server = Server::start(&[]);
    let longest = format!("{}.txt", "n".repeat(251));
    let names = [
        "a.txt",
        "Ünïcödé – 日本語.pdf",
        "😀.png",
        "with space (1).jpg",
        "a'b\"c.txt",
        "100%.txt",
        "a+b&c=d;e,f.txt",
        "#1?.txt",
        "two.dots.tar.gz",
        "README",
        "a..b",
        "-dash",
        longest.as_str(),
    ];
    for name in names {
        let receipt = receipt(&super::post_named(&server, name, "x"), name);
        assert_eq!(receipt.names(), [name]);
    }
}

/// A name in an extension that is not what it says it is.
#[test]
fn broken_extended_names() {
    let server = Server::start(&[]);
    for value in [
        "utf-16''a.txt",
        "UTF-8''%zz",
        "UTF-8''a%2",
        "UTF-8'",
        "UTF-8",
        "''",
        "klingon''a.txt",
        "iso-8859-1''%e9.txt",
        "UTF-8''%ff%fe",
        "UTF-8''%",
    ] {
        for plain in ["filename=\"plain.txt\"; ", ""] {
            // It is a file in any case: nobody who sends one is told that there was none.
            let parameters = format!("name=\"f\"; {plain}filename*={value}");
            let answer = post(&server, "/uploads/", FORM, super::form(&[(&parameters, b"x"), ("name=\"f\"; filename=\"z.txt\"", b"z")]));
            let name = format!("{plain}{value}");
            let receipt = receipt(&answer, &name);
            assert_eq!((receipt.files.len(), receipt.ignored.len()), (2, 0), "{name}: {receipt:?}");
            let stored = &receipt.files[0].name;
            assert!(!stored.is_empty() && !stored.starts_with('.') && !stored.contains(['/', '\\']), "{name}: {stored:?}");
        }
    }
}
