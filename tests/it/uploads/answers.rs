//! The answers: what a program gets, what a browser gets, and that what was stored is there from then on, beside all that was there before.
//!
//! Classes of failure covered: overwrite races, exists() before write, links followed on write, stale entries of a cache.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Barrier;
use std::thread;

use super::{
    BROWSER, FORM, Receipt, assert_nothing_left, assert_refused, assert_stored, folder, form, listing, post, post_form, post_named, receipt,
};
use crate::client::Response;
use crate::harness::{Builder, SECRET, Server, Tree, until};

#[test]
fn exactly_these_members_and_fields() {
    let server = Server::start(&[]);
    let parts: [(&str, &[u8]); 3] =
        [("name=\"file\"; filename=\"a b.txt\"", b"hello"), ("name=\"note\"", b"text"), ("name=\"file\"; filename=\"c.txt\"", b"")];
    let answer = post_form(&server, &parts);
    let receipt = assert_stored(&server, &folder(&server), &answer, &[b"hello", b""], "two files");
    let paths: Vec<&str> = receipt.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["/uploads/a%20b.txt", "/uploads/c.txt"]);
    assert_eq!(receipt.names(), ["a b.txt", "c.txt"]);
    assert_eq!(receipt.ignored, ["note"]);
    let digests: Vec<&str> = receipt.files.iter().map(|file| file.sha256.as_str()).collect();
    assert_eq!(
        digests,
        [
            "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        ]
    );
    assert_eq!(answer.need("location"), "/uploads/a%20b.txt");
    assert!(answer.fields.iter().all(|(name, _)| !name.to_ascii_lowercase().starts_with("access-control-")), "{:?}", answer.fields);
}

#[test]
fn a_path_is_escaped_and_a_name_is_not() {
    let server = Server::start(&[]);
    for name in ["\"quoted\" & <b>.txt", "100%.txt", "a?b#c.txt", "é€😀.txt", "a;b=c,d.txt"] {
        let answer = post_named(&server, name, "x");
        assert!(answer.need("location").is_ascii(), "{name}: {:?}", answer.fields);
        assert_eq!(receipt(&answer, name).names(), [name]);
    }
}

#[test]
fn json_for_programs_and_a_redirect_for_browsers() {
    let server = Server::start(&[]);
    let rows = [
        ("no wish", "Accept:\r\n", 201),
        ("anything", "Accept: */*\r\n", 201),
        ("JSON", "Accept: application/json\r\n", 201),
        ("JSON before HTML", "Accept: application/json, text/html;q=0.9\r\n", 201),
        ("HTML after JSON", "Accept: text/html;q=0.5, application/json\r\n", 201),
        ("a browser", BROWSER, 303),
        ("HTML", "Accept: text/html\r\n", 303),
        ("HTML before JSON", "Accept: application/json;q=0.5, text/html\r\n", 303),
        ("HTML, never", "Accept: text/html;q=0, application/json\r\n", 201),
        ("something else", "Accept: image/png\r\n", 201),
    ];
    for (name, accept, status) in rows {
        let name = name.replace(' ', "_");
        for as_form in [true, false] {
            let answer = if as_form {
                post(&server, "/uploads/", &format!("{accept}{FORM}"), form(&[(&format!("name=\"f\"; filename=\"{name}\""), b"x")]))
            } else {
                post(&server, &format!("/uploads/?name={name}"), accept, "x")
            };
            assert_eq!(answer.status, status, "{name}: {}", answer.text());
            if status == 201 {
                receipt(&answer, &name);
            } else {
                assert_eq!(answer.need("cache-control"), "no-store", "{name}");
                assert!(answer.need("location").starts_with(&format!("/uploads/?stored={name}")), "{name}: {:?}", answer.fields);
            }
        }
    }
    // Without Accept at all.
    let mut client = server.connect();
    client.send(format!("POST /uploads/?name=plain.txt HTTP/1.1\r\nHost: {}\r\nContent-Length: 1\r\n\r\nx", server.address()));
    assert_eq!(receipt(&client.answer(), "no Accept").names(), ["plain.txt"]);
}

#[test]
fn a_browser_is_led_to_what_it_stored() {
    let server = Server::start(&[]);
    let parts: [(&str, &[u8]); 3] = [
        ("name=\"file\"; filename=\"a b.txt\"", b"hello"),
        ("name=\"file\"; filename=\"<i>&amp;\\\"'.txt\"", b"x"),
        ("name=\"note\"", b"text"),
    ];
    let answer = post(&server, "/uploads/", &format!("{BROWSER}{FORM}"), form(&parts));
    assert_eq!(answer.status, 303);
    let location = answer.need("location").to_owned();
    let (path, query) = location.split_once('?').unwrap();
    assert_eq!(path, "/uploads/");
    let stored: Vec<Vec<u8>> = query.split('&').map(|pair| super::unescaped(pair.strip_prefix("stored=").unwrap()).unwrap()).collect();
    assert_eq!(stored, [b"a b.txt".to_vec(), b"<i>&amp;\"'.txt".to_vec()]);
    assert!(query.starts_with("stored=a%20b.txt&"), "{query}");
    assert!(!query.contains('<') && !query.contains('"'), "{query}");

    let page = server.get(&location);
    assert_eq!((page.status, page.need("content-type")), (200, "text/html; charset=utf-8"));
    let text = page.text();
    assert!(text.contains("<li><a href=\"/uploads/a%20b.txt\">a b.txt</a> <span>5 bytes</span></li>"), "{text}");
    assert!(text.contains("&lt;i&gt;&amp;amp;") && !text.contains("<i>&amp;"), "{text}");
    assert_eq!(server.get("/uploads/a%20b.txt").text(), "hello");
}

/// Whatever the query says, it is text on the page, and it tells nothing about what is elsewhere.
#[test]
fn the_page_shows_no_more_than_what_was_stored() {
    let tree = Tree::site();
    tree.write("uploads/there.txt", "12345");
    tree.write("uploads/.hidden.txt", "1234567");
    let server = Server::serving(tree);
    let plain = server.get("/uploads/").text();
    assert_eq!(plain.matches("<li>").count(), 0, "{plain}");
    let rows = [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "../../secret.txt",
        "../hello.txt",
        "/etc/passwd",
        ".hidden.txt",
        "..",
        ".",
        "",
        "nowhere.txt",
        "a\0b",
        "{results}",
        "99999999999999999999999",
    ];
    for row in rows {
        let text = server.get(&format!("/uploads/?stored={}", super::escaped(row.as_bytes()))).text();
        assert!(!text.contains("<script>alert") && !text.contains("<img src=x"), "{row}: {text}");
        for size in [SECRET.len(), crate::harness::HELLO.len(), 7] {
            assert!(!text.contains(&format!("<span>{size} bytes</span>")), "{row}: {text}");
        }
    }
    let raw =
        server.ask(format!("GET /uploads/?stored=%zz&stored=%&stored&=&stored=there.txt HTTP/1.1\r\nHost: {}\r\n\r\n", server.address()));
    assert!(raw.status == 400 || raw.text().contains("there.txt"), "{}", raw.status);
    // Each one costs a look at the disk: they are bounded by the target.
    let many = "stored=there.txt&".repeat(400);
    assert_eq!(server.get(&format!("/uploads/?{many}")).status, 200);
    server.assert_well("odd queries");
}

#[test]
fn what_was_not_there_is_there_right_after_the_answer() {
    let server = Server::start(&["--threads", "2"]);
    for round in 0..40 {
        let name = format!("round-{round}.txt");
        let target = format!("/uploads/{name}");
        // Several connections, so that every worker has looked and remembers.
        let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.get(&target).status, 404, "{name}: before");
        }
        let content = format!("content {round}");
        assert_eq!(receipt(&post_named(&server, &name, &content), &name).names(), [&name]);
        for client in &mut clients {
            let answer = client.get(&target);
            assert_eq!((answer.status, answer.text().as_str()), (200, content.as_str()), "{name}: right after");
        }
    }
}

/// The owner takes a file away, and the next one of that name is another.
#[test]
fn an_old_entry_is_gone_before_the_answer() {
    let server = Server::start(&["--threads", "2"]);
    for round in 0..20 {
        let content = format!("content {round}");
        assert_eq!(receipt(&post_named(&server, "same.txt", &content), "same name").names(), ["same.txt"]);
        for _ in 0..3 {
            assert_eq!(server.get("/uploads/same.txt").text(), content, "round {round}");
        }
        fs::remove_file(folder(&server).join("same.txt")).unwrap();
    }
}

#[test]
fn a_taken_name_gets_a_number() {
    let tree = Tree::site();
    tree.write("uploads/page.html", "was here before");
    fs::create_dir_all(tree.path("uploads/folder.txt/inside")).unwrap();
    let server = Server::serving(tree);
    let rows = [
        ("a.txt", ["a.txt", "a-1.txt", "a-2.txt"]),
        ("README", ["README", "README-1", "README-2"]),
        ("page.html", ["page-1.html", "page-2.html", "page-3.html"]),
        ("folder.txt", ["folder-1.txt", "folder-2.txt", "folder-3.txt"]),
        ("n-1.txt", ["n-1.txt", "n-1-1.txt", "n-1-2.txt"]),
    ];
    for (name, wanted) in rows {
        for (round, wanted) in wanted.iter().enumerate() {
            let content = format!("{name} {round}");
            let stored = assert_stored(&server, &folder(&server), &post_named(&server, name, &content), &[content.as_bytes()], name);
            assert_eq!(stored.names(), [*wanted]);
        }
    }
    assert_eq!(fs::read_to_string(folder(&server).join("page.html")).unwrap(), "was here before");
    // In one form too.
    let part = ("name=\"f\"; filename=\"twin.txt\"", b"first".as_slice());
    let answer = post_form(&server, &[part, ("name=\"f\"; filename=\"twin.txt\"", b"second")]);
    assert_eq!(assert_stored(&server, &folder(&server), &answer, &[b"first", b"second"], "twins").names(), ["twin.txt", "twin-1.txt"]);
}

/// A number has to fit into the bound of a name.
#[test]
fn the_longest_name_when_it_is_taken() {
    let server = Server::start(&[]);
    for name in [format!("{}.txt", "n".repeat(251)), "w".repeat(255), format!("{}.txt", "é".repeat(125))] {
        let mut seen = BTreeSet::new();
        for round in 0..12 {
            let content = format!("round {round}");
            let stored = assert_stored(&server, &folder(&server), &post_named(&server, &name, &content), &[content.as_bytes()], &name);
            let stored = stored.files[0].name.clone();
            assert!(stored.len() <= 255, "{} bytes: {stored}", stored.len());
            assert!(seen.insert(stored), "round {round}");
        }
    }
}

/// A link is a name that is taken, wherever it leads.
#[test]
fn a_link_is_never_written_through() {
    let tree = Tree::site();
    fs::create_dir(tree.path("uploads")).unwrap();
    tree.symlink(tree.outside("created-by-an-upload"), "uploads/dangling.txt");
    tree.symlink(tree.outside("secret.txt"), "uploads/secret.txt");
    tree.symlink("../hello.txt", "uploads/hello.txt");
    tree.symlink("loop.txt", "uploads/loop.txt");
    let server = Server::serving(tree);
    for name in ["dangling", "secret", "hello", "loop"] {
        let answer = post_named(&server, &format!("{name}.txt"), "uploaded");
        assert_eq!(receipt(&answer, name).names(), [format!("{name}-1.txt")]);
    }
    assert!(!server.tree().outside("created-by-an-upload").exists());
    assert_eq!(fs::read_to_string(server.tree().outside("secret.txt")).unwrap(), SECRET);
    server.assert_well("links in the folder");
}

#[test]
fn uploads_of_one_name_at_once_are_all_kept() {
    const CLIENTS: usize = 12;
    const ROUNDS: usize = 3;
    let server = Server::start(&["--threads", "4"]);
    let together = Barrier::new(CLIENTS);
    let stored: Vec<(String, String)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (server, together) = (&server, &together);
                scope.spawn(move || {
                    let mut stored = Vec::new();
                    for round in 0..ROUNDS {
                        let content = format!("client {client}, round {round}");
                        together.wait();
                        let receipt = receipt(&post_named(server, &format!("{round}.txt"), &content), &content);
                        stored.push((receipt.files[0].name.clone(), content));
                    }
                    stored
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let names: BTreeSet<&String> = stored.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), CLIENTS * ROUNDS, "every one has a name of its own: {stored:?}");
    let mut wanted: Vec<String> = (0..ROUNDS)
        .flat_map(|round| {
            (0..CLIENTS).map(move |number| if number == 0 { format!("{round}.txt") } else { format!("{round}-{number}.txt") })
        })
        .collect();
    wanted.sort();
    assert_eq!(listing(&folder(&server)), wanted);
    for (name, content) in &stored {
        assert_eq!(fs::read_to_string(folder(&server).join(name)).unwrap(), *content, "{name}");
    }
}

/// Whoever has a file open keeps what was there: nothing is ever written in its place.
#[test]
fn a_file_is_there_at_once_and_whole() {
    let server = Server::start(&["--threads", "2"]);
    let content = "x".repeat(400_000);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..10 {
                receipt(&post_named(&server, &format!("whole-{round}.bin"), &content), "a whole file");
            }
        });
        let (mut looks, mut last) = (0, 0);
        while !writer.is_finished() {
            for entry in fs::read_dir(folder(&server)).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name().to_string_lossy().into_owned();
                if !name.starts_with('.') {
                    assert_eq!(entry.metadata().unwrap().len(), content.len() as u64, "{name} was there before it was whole");
                }
            }
            (looks, last) = (looks + 1, listing(&folder(&server)).len());
        }
        assert!(looks > 5 || last == 10, "{looks} looks");
    });
}

/// Every refusal of a POST comes in the form that was asked for, and is not to be kept.
#[test]
fn refusals_explain_themselves() {
    let server = Builder::new(&["--upload-limit", "100"]).start();
    let rows: [(&str, u16, &str, &str); 4] = [
        ("too large", 413, "", "x"),
        ("another site", 403, "Sec-Fetch-Site: cross-site\r\n", ""),
        ("another name", 421, "Host: pond.test\r\n", ""),
        ("no form", 400, "Content-Type: multipart/form-data; boundary=b\r\n", ""),
    ];
    let page = |answer: &Response| {
        let text = answer.text().to_lowercase();
        answer.need("content-type") == "text/html; charset=utf-8" && text.starts_with("<!doctype html>")
    };
    for (name, status, fields, body) in rows {
        let body = if body.is_empty() { "hello".to_owned() } else { body.repeat(101) };
        let target = "/uploads/?name=a.txt";
        assert_refused(&post(&server, target, fields, &body), status, "", name);
        let answer = post(&server, target, &format!("{fields}{BROWSER}"), &body);
        assert_eq!(answer.status, status, "{name}");
        assert!(page(&answer), "{name}: {}", answer.text());
        assert_nothing_left(&server, &folder(&server), name);
    }
}

/// A folder that goes away while the server runs: an error, and no file anywhere else.
#[test]
fn a_folder_that_is_gone() {
    let server = Server::start(&[]);
    fs::rename(folder(&server), server.tree().outside("moved")).unwrap();
    let answer = post_named(&server, "a.txt", "hello");
    // Either the folder that was opened at the start still is the one, or there is nothing to store into.
    if answer.status == 201 {
        let Receipt { files, .. } = receipt(&answer, "moved");
        let moved = server.tree().outside("moved").join(&files[0].name);
        until("the file is in the folder that was moved", || moved.exists() || folder(&server).join(&files[0].name).exists());
    } else {
        assert!((500..=599).contains(&answer.status), "{}", answer.status);
    }
    server.assert_well("a folder that is gone");
}
