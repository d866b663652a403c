//! Which file a folder is served by.

use std::fs;

use super::{assert_mistake, page, poll, serve};
use crate::harness::{Builder, Tree, set_mode, without_privilege};

#[test]
fn the_first_name_that_is_there_counts() {
    let tree = Tree::empty();
    tree.write("both/index.html", page("html"));
    tree.write("both/index.htm", page("htm"));
    tree.write("second/index.htm", page("htm"));
    tree.write("second/default.txt", "text");
    tree.write("third/default.txt", "text");
    tree.write("none/other.html", page("other"));
    tree.write("folder/index.html/leaf.txt", "a folder with the name of an index");
    tree.write("folder/index.htm", page("htm"));
    let server = serve(tree, &["--index", "index.html", "--index", "index.htm,default.txt"]);
    let rows = [
        ("/both/", page("html"), "text/html; charset=utf-8"),
        ("/second/", page("htm"), "text/html; charset=utf-8"),
        ("/third/", "text".into(), "text/plain; charset=utf-8"),
        ("/folder/", page("htm"), "text/html; charset=utf-8"),
    ];
    for (target, body, kind) in rows {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.text(), answer.need("content-type")), (200, body, kind), "{target}");
    }
    for target in ["/none/", "/", "/nowhere/"] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
    for folder in ["/both", "/none", "/third"] {
        let answer = server.get(folder);
        assert_eq!((answer.status, answer.need("location")), (301, format!("{folder}/").as_str()));
    }
}

#[test]
fn the_environment_takes_several() {
    let tree = Tree::empty();
    tree.write("b.html", page("b"));
    let server = Builder::new(&[]).tree(tree).env("MILLPOND_INDEX", "a.html,b.html").start();
    assert_eq!(server.get("/").text(), page("b"));
}

#[test]
fn indexes_come_and_go() {
    let tree = Tree::empty();
    tree.write("index.htm", page("second"));
    let server = serve(tree, &["--index", "index.html,index.htm"]);
    let mut client = server.connect();
    assert_eq!(client.get("/").text(), page("second"));
    server.tree().write("index.html", page("first"));
    poll(&mut client, "/", "an index that goes before", |answer| answer.text() == page("first"));
    fs::remove_file(server.tree().path("index.html")).unwrap();
    poll(&mut client, "/", "without it", |answer| answer.text() == page("second"));
    fs::remove_file(server.tree().path("index.htm")).unwrap();
    poll(&mut client, "/", "without any", |answer| answer.status == 404);
    server.tree().write("index.htm", page("back"));
    poll(&mut client, "/", "it is back", |answer| answer.text() == page("back"));
}

/// The same file under two names, of which one goes: what follows from the name follows it.
#[test]
fn an_index_that_is_the_same_file_under_another_name() {
    let tree = Tree::empty();
    tree.write("data", "the same");
    tree.symlink("data", "index.html");
    tree.symlink("data", "index.txt");
    let server = serve(tree, &["--index", "index.html,index.txt"]);
    let mut client = server.connect();
    assert_eq!(client.get("/").need("content-type"), "text/html; charset=utf-8");
    fs::remove_file(server.tree().path("index.html")).unwrap();
    poll(&mut client, "/", "the other name", |answer| answer.need("content-type") == "text/plain; charset=utf-8");
}

#[test]
fn an_index_that_may_not_be_read_is_not_passed_over() {
    let Some(wrapper) = without_privilege() else {
        eprintln!("SKIPPED: running as root without setpriv, everything may be read");
        return;
    };
    let tree = Tree::empty();
    tree.write("index.html", page("closed"));
    set_mode(&tree.path("index.html"), 0o000);
    tree.write("index.htm", page("open"));
    let server = Builder::new(&["--index", "index.html,index.htm"]).tree(tree).through(&wrapper).start();
    assert_eq!(server.get("/").status, 403);
}

#[test]
fn names_that_are_none() {
    for name in ["", "a/b", "/index.html", "..", ".", ".htaccess", "a,,b", "a\\b"] {
        assert_mistake(&["--index", name], &["--index"]);
    }
}
