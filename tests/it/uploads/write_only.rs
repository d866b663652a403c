//! `--uploads-write-only`: a drop box. What is in it can be neither read nor listed, nor asked about.

use std::fs;

use super::{BROWSER, FORM, any, folder, form, head, listing, post, post_form};
use crate::client::request;
use crate::harness::{Builder, Server, Tree};

const INSIDE: &str = "what somebody dropped here";

fn start() -> Server {
    let tree = Tree::site();
    for name in ["there.txt", "there.png", "index.html", "a b.txt"] {
        tree.write(format!("uploads/{name}"), INSIDE);
    }
    Builder::new(&["--uploads-write-only"]).tree(tree).start()
}

#[test]
fn what_is_there_answers_as_what_is_not() {
    let server = start();
    let rows: &[(&str, &str, &str)] = &[
        ("a file", "/uploads/there.txt", "/uploads/nothx.txt"),
        ("a picture", "/uploads/there.png", "/uploads/nothx.png"),
        ("an index", "/uploads/index.html", "/uploads/nothxx.html"),
        ("a slash behind", "/uploads/there.txt/", "/uploads/nothx.txt/"),
        ("a slash more", "/uploads//there.txt", "/uploads//nothx.txt"),
        ("slashes before", "//uploads/there.txt", "//uploads/nothx.txt"),
        ("a way around", "/sub/../uploads/there.txt", "/sub/../uploads/nothx.txt"),
        ("a way around inside", "/uploads/x/../there.txt", "/uploads/x/../nothx.txt"),
        ("a dot", "/uploads/./there.txt", "/uploads/./nothx.txt"),
        ("escaped", "/%75ploads/there.txt", "/%75ploads/nothx.txt"),
        ("escaped name", "/uploads/%74here.txt", "/uploads/%74othx.txt"),
        ("a query", "/uploads/there.txt?x=y", "/uploads/nothx.txt?x=y"),
        ("clean", "/uploads/there", "/uploads/nothx"),
    ];
    for (name, there, not) in rows {
        for method in ["GET", "HEAD"] {
            for fields in [
                "",
                "Range: bytes=0-3\r\n",
                "If-None-Match: *\r\n",
                "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n",
                "Accept-Encoding: gzip\r\n",
            ] {
                let ask = |target: &str| {
                    let mut client = server.connect();
                    client.send(request(method, target, &format!("{fields}Connection: close\r\n")));
                    client.try_answer(method == "HEAD").unwrap()
                };
                let (there, not) = (ask(there), ask(not));
                let name = format!("{name}, {method} {fields:?}");
                assert_eq!(there.status, 404, "{name}");
                assert_eq!((there.status, there.fields_but_date()), (not.status, not.fields_but_date()), "{name}");
                assert_eq!(there.body, not.body, "{name}");
            }
        }
    }
}

#[test]
fn the_page_tells_nothing_of_what_is_there() {
    let server = start();
    let plain = server.get("/uploads/");
    assert_eq!(plain.status, 200);
    assert!(plain.text().contains("multipart/form-data"), "{}", plain.text());
    let with = server.get("/uploads/?stored=there.txt").text();
    let without = server.get("/uploads/?stored=nothx.txt").text();
    assert_eq!(with, without, "asked about a name");
    for text in [plain.text(), with, server.get("/uploads/?stored=there.txt&stored=2").text()] {
        assert!(!text.contains("there.txt") && !text.contains(&format!("{} bytes", INSIDE.len())), "{text}");
    }
}

#[test]
fn posts_are_stored_and_counted() {
    let server = start();
    let answer = post_form(&server, &[("name=\"f\"; filename=\"new.txt\"", b"dropped")]);
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(fs::read_to_string(folder(&server).join("new.txt")).unwrap(), "dropped");
    assert_eq!(server.get("/uploads/new.txt").status, 404, "not even right after");

    let parts: [(&str, &[u8]); 2] = [("name=\"f\"; filename=\"one.txt\"", b"1"), ("name=\"f\"; filename=\"two.txt\"", b"2")];
    let answer = post(&server, "/uploads/", &format!("{BROWSER}{FORM}"), form(&parts));
    assert_eq!((answer.status, answer.need("location")), (303, "/uploads/?stored=2"));
    let page = server.get("/uploads/?stored=2").text();
    assert!(page.contains("<li>2 files were stored.</li>"), "{page}");
    assert!(!page.contains("one.txt"), "{page}");
    assert_eq!(listing(&folder(&server)), ["a b.txt", "index.html", "new.txt", "one.txt", "there.png", "there.txt", "two.txt"]);

    // A name that is taken is still not lost.
    assert_eq!(post(&server, "/uploads/?name=there.txt", "", "another").status, 201);
    assert_eq!(fs::read_to_string(folder(&server).join("there.txt")).unwrap(), INSIDE);
    assert_eq!(fs::read_to_string(folder(&server).join("there-1.txt")).unwrap(), "another");
}

#[test]
fn the_count_on_the_page_is_a_number_or_nothing() {
    let server = start();
    let plain = server.get("/uploads/").text().matches("<b>").count();
    for value in ["<b>1</b>", "-1", "1e9", "99999999999999999999999", "0", "", "1%00", "NaN", "%zz", "1&stored=<b>"] {
        let escaped: String = if value.contains('%') { value.to_owned() } else { super::escaped(value.as_bytes()) };
        let page = server.get(&format!("/uploads/?stored={escaped}"));
        assert_eq!((page.status, page.text().matches("<b>").count()), (200, plain), "{value}");
    }
    server.assert_well("odd counts");
}

/// A folder below the root is not read as a part of the site either.
#[test]
fn a_named_folder_below_the_root() {
    for below in ["drop", "sub/drop"] {
        let tree = Tree::site();
        tree.write(format!("{below}/there.txt"), INSIDE);
        tree.write(format!("{below}/index.html"), INSIDE);
        let given = tree.path(below);
        let server = Builder::new(&["--uploads-write-only", "--uploads"]).arg(&given).tree(tree).start();
        assert_eq!(post(&server, "/uploads/?name=new.txt", "", INSIDE).status, 201);
        for name in ["there.txt", "new.txt", "index.html", "", "./there.txt", "x/../there.txt"] {
            for target in
                [format!("/{below}/{name}"), format!("/sub/../{below}/{name}"), format!("//{below}//{name}"), format!("/uploads/{name}")]
            {
                let answer = server.get(&target);
                assert!(!answer.text().contains(INSIDE), "{target}: {}", answer.status);
            }
        }
        server.assert_well(below);
    }
}

#[test]
fn no_method_reads() {
    let server = start();
    for method in ["PUT", "DELETE", "OPTIONS", "PROPFIND", "SEARCH", "COPY"] {
        let mut client = server.connect();
        client.send(head(&server, "/uploads/there.txt", "Content-Length: 0\r\nDestination: /copy.txt\r\n").replacen("POST", method, 1));
        let answer = any(&mut client);
        assert_eq!(answer.status, 405, "{method}");
        assert!(!answer.text().contains(INSIDE), "{method}");
    }
}

#[test]
fn from_the_environment() {
    let tree = Tree::site();
    tree.write("uploads/there.txt", INSIDE);
    let server = Builder::new(&[]).env("MILLPOND_UPLOADS_WRITE_ONLY", "true").tree(tree).start();
    assert_eq!(server.get("/uploads/there.txt").status, 404);
}
