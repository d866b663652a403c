//! The page at /uploads/: a form that works by itself, and nothing on it that runs but its own script.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::{any, head};
use crate::client::Response;
use crate::harness::{Builder, Server, Tree};

/// The text between the one `<name>` and its end.
fn between<'a>(page: &'a str, name: &str) -> &'a str {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    assert_eq!((page.matches(&format!("<{name}")).count(), page.matches(&end).count()), (1, 1), "one {name}, without attributes");
    page.split_once(&start).unwrap().1.split_once(&end).unwrap().0
}

fn directive(page: &Response, name: &str) -> String {
    let policy = page.need("content-security-policy");
    let found = policy.split(';').map(str::trim).find_map(|part| part.strip_prefix(name)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {name} in {policy:?}")).to_owned()
}

#[test]
fn the_page_is_a_form_with_its_own_policy() {
    let server = Server::start(&[]);
    for target in ["/uploads/", "/uploads/?stored=a.txt", "/uploads/?x=y", "/%75ploads/"] {
        let page = server.get(target);
        assert_eq!((page.status, page.need("content-type")), (200, "text/html; charset=utf-8"), "{target}");
        let text = page.text();
        let form = text.split("<form").nth(1).expect("a form").split('>').next().unwrap();
        for attribute in ["method=\"post\"", "action=\"/uploads/\"", "enctype=\"multipart/form-data\""] {
            assert!(form.contains(attribute), "{target}: <form{form}>");
        }
        let inputs: Vec<&str> = text.split("<input").skip(1).map(|rest| rest.split('>').next().unwrap()).collect();
        let is_chooser = |input: &&&str| ["type=\"file\"", "name=\"file\"", "multiple"].iter().all(|attribute| input.contains(attribute));
        assert_eq!(inputs.iter().filter(is_chooser).count(), 1, "{target}: {inputs:?}");
        assert!(!text.contains("{{") && !text.contains("results}"), "{target}: a placeholder was left");

        for (element, sources) in [("script", "script-src"), ("style", "style-src")] {
            let hash = STANDARD.encode(Sha256::digest(between(&text, element)));
            let allowed = directive(&page, sources);
            assert_eq!(allowed, format!("'sha256-{hash}'"), "{target}: {sources}");
        }
        for (name, wanted) in [
            ("form-action", "'self'"),
            ("connect-src", "'self'"),
            ("img-src", "'self' data:"),
            ("base-uri", "'none'"),
            ("frame-ancestors", "'none'"),
            ("default-src", "'none'"),
        ] {
            assert_eq!(directive(&page, name), wanted, "{target}: {name}");
        }
        assert!(
            !text.contains(" onclick=") && !text.contains(" style=\"") && !text.contains("javascript:"),
            "{target}: nothing that the policy stops"
        );
        for from_elsewhere in ["src=\"http", "href=\"http", "src=\"//", "href=\"//", "url(http", "url(//", "@import", "fetch("] {
            assert!(!text.contains(from_elsewhere), "{target}: {from_elsewhere}");
        }
    }
}

#[test]
fn the_page_is_not_kept_and_head_has_its_fields() {
    let server = Server::start(&[]);
    let page = server.get("/uploads/");
    assert_eq!(page.need("cache-control"), "no-store");
    let head = server.connect().head("/uploads/");
    assert_eq!((head.status, head.length()), (200, page.body.len() as u64));
    assert_eq!(head.fields_but_date(), page.fields_but_date());
}

/// The page is the server's own, whatever the folder and the root hold.
#[test]
fn the_page_is_never_an_uploaded_file() {
    let tree = Tree::site();
    tree.write("uploads/index.html", "an uploaded index");
    tree.write("uploads/index.htm", "an uploaded index");
    tree.write("uploads.html", "a page beside it");
    let server = Server::serving(tree);
    for target in ["/uploads/", "/uploads/?stored=index.html", "//uploads/", "/sub/../uploads/", "/uploads/.", "/uploads/x/.."] {
        let page = server.get(target);
        assert!(!page.text().contains("an uploaded index") && !page.text().contains("a page beside it"), "{target}");
        assert!(page.status != 200 || page.text().contains("multipart/form-data"), "{target}: {}", page.text());
    }
}

/// A page that another site can frame, or a script that it can read, would let it use the form: neither is offered.
#[test]
fn no_other_site_is_let_in() {
    let server = Server::start(&[]);
    for method in ["OPTIONS", "GET", "POST"] {
        let fields = "Origin: http://evil.test\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n\
             Access-Control-Request-Private-Network: true\r\n";
        let mut client = server.connect();
        client.send(head(&server, "/uploads/", &format!("{fields}Content-Length: 0\r\n")).replacen("POST", method, 1));
        let answer = any(&mut client);
        let allowing = answer.fields.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with("access-control-"));
        assert!(!allowing, "{method}: {:?}", answer.fields);
    }
}

/// Where folders are listed, the page tells what is there: the latest first, what can be had and nothing else.
#[test]
fn the_page_tells_what_is_in_the_folder_where_folders_are_listed() {
    const HOSTILE: &str = "<img src=x onerror=alert(1)> & {{results}}.txt";
    let tree = || {
        let tree = Tree::empty();
        tree.write("uploads/old.txt", "old");
        tree.write(format!("uploads/{HOSTILE}"), "hostile");
        tree.write("uploads/.hidden", "hidden");
        tree.write("uploads/sub/inner.txt", "inner");
        let old = std::fs::File::open(tree.path("uploads/old.txt")).unwrap();
        old.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(784_111_777)).unwrap();
        tree
    };
    let page = |args: &[&str]| Builder::new(args).tree(tree()).start().get("/uploads/").text();
    let told = page(&["--listing"]);
    let places: Vec<_> = ["<bdi>&lt;img src=x onerror=alert(1)&gt; &amp; {{results}}.txt</bdi>", "<bdi>old.txt</bdi>"]
        .map(|name| told.find(name).unwrap_or_else(|| panic!("no {name}: {told}")))
        .into();
    assert!(places[0] < places[1], "the latest first");
    assert!(told.contains("<a href=\"./old.txt\">") && told.contains("3 bytes") && told.contains("1994-11-06 08:49 UTC"), "{told}");
    for name in ["./.hidden", "inner.txt", "./sub", "<img src"] {
        assert!(!told.contains(name), "{name}");
    }
    for args in [&[][..], &["--listing", "--uploads-write-only"]] {
        assert!(!page(args).contains("old.txt"), "{args:?}");
    }
    let first = page(&["--listing", "--listing-page", "1"]);
    assert!(first.contains("1 file is not shown.") && !first.contains("old.txt"), "{first}");
}
