//! What symbolic links may do. How links inside the root are followed is in `symlinks.rs` one level above.

use std::fs;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{assert_mistake, page, poll, serve};
use crate::harness::{Builder, HELLO, SECRET, Tree};
use crate::system_calls::without_openat2;

fn tree() -> Tree {
    let tree = Tree::site();
    tree.symlink("hello.txt", "inside");
    tree.symlink(tree.path("hello.txt"), "inside-absolute");
    tree.symlink("sub", "folder");
    tree.symlink("../secret.txt", "out");
    tree.symlink(tree.outside("secret.txt"), "out-absolute");
    tree.symlink("..", "parent");
    tree.symlink("page.html", "sub/link.html");
    fs::create_dir(tree.path("linked-index")).unwrap();
    tree.symlink("../hello.txt", "linked-index/index.html");
    tree
}

/// By the kernel in one step, and one step after the other.
fn starts(args: &[&str]) -> Vec<Builder> {
    std::iter::once(Builder::new(args)).chain(without_openat2(args)).collect()
}

#[test]
fn none_are_followed() {
    starts(&["--symlinks", "deny"]).into_iter().for_each(deny);
}

fn deny(builder: Builder) {
    let tree = tree();
    tree.symlink("hello.txt", "404.html");
    let server = builder.tree(tree).start();
    for target in [
        "/inside",
        "/inside-absolute",
        "/folder/page.html",
        "/folder/",
        "/folder",
        "/out",
        "/parent/secret.txt",
        "/sub/link.html",
        "/linked-index/",
    ] {
        let answer = server.get(target);
        assert_eq!(answer.status, 404, "{target}");
        assert!(answer.text().contains("There is nothing at this address."), "{target}: {}", answer.text());
    }
    assert_eq!(server.get("/sub/page.html").status, 200);
    server.assert_well("links that are not followed");
}

#[test]
fn listings_tell_of_what_is_served() {
    for (word, told) in [("deny", [false, false]), ("inside", [true, false]), ("follow", [true, true])] {
        let tree = Tree::site();
        tree.symlink("leaf.txt", "bare/within");
        tree.symlink("../../secret.txt", "bare/without");
        let server = serve(tree, &["--listing", "--symlinks", word]);
        let page = server.get("/bare/").text();
        assert!(page.contains("leaf.txt"), "{page}");
        assert_eq!(["within", "without"].map(|name| page.contains(name)), told, "{word}");
    }
}

#[test]
fn a_root_that_is_a_link_is_served_all_the_same() {
    let tree = Tree::site();
    let link = tree.outside("link-to-root");
    std::os::unix::fs::symlink(tree.root(), &link).unwrap();
    let server = Builder::new(&["--symlinks", "deny"]).tree(tree).root(link).start();
    server.assert_well("starting on a link");
}

#[test]
fn links_out_are_followed_by_request_and_said() {
    starts(&["--symlinks", "follow"]).into_iter().for_each(follow);
}

fn follow(builder: Builder) {
    let tree = tree();
    fs::create_dir(tree.outside("elsewhere")).unwrap();
    fs::write(tree.outside("elsewhere/index.html"), page("elsewhere")).unwrap();
    fs::write(tree.outside("elsewhere/.env"), SECRET).unwrap();
    mknodat(CWD, tree.outside("fifo"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    tree.symlink("../elsewhere", "elsewhere");
    tree.symlink("../fifo", "fifo");
    tree.symlink("/dev/zero", "zero");
    tree.symlink("loop", "loop");
    let server = builder.tree(tree).start();
    for (target, body) in [
        ("/inside", HELLO.to_owned()),
        ("/inside-absolute", HELLO.to_owned()),
        ("/folder/page.html", page("page")),
        ("/out", SECRET.to_owned()),
        ("/out-absolute", SECRET.to_owned()),
        ("/parent/secret.txt", SECRET.to_owned()),
        ("/elsewhere/", page("elsewhere")),
        ("/linked-index/", HELLO.to_owned()),
    ] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.text()), (200, body), "{target}");
    }
    assert_eq!(server.get("/elsewhere").need("location"), "/elsewhere/");
    // Everything else stays as it is: only a link leads out, and only to files.
    for (target, status) in [
        ("/../secret.txt", 400),
        ("/parent/../../secret.txt", 400),
        ("/sub/%2e%2e/%2e%2e/secret.txt", 400),
        ("/elsewhere/.env", 404),
        ("/fifo", 404),
        ("/zero", 404),
        ("/loop", 404),
    ] {
        let answer = server.get(target);
        assert_eq!(answer.status, status, "{target}");
        assert!(!answer.text().contains(SECRET), "{target}: it came out");
    }
    server.wait_for_line("symbolic links are followed out of the folder");
    server.assert_well("links out of the root");
}

#[test]
fn what_a_link_outside_holds_is_followed_as_it_changes() {
    let tree = Tree::site();
    fs::write(tree.outside("current"), "one").unwrap();
    tree.symlink("../current", "current.txt");
    let server = serve(tree, &["--symlinks", "follow"]);
    let mut client = server.connect();
    assert_eq!(client.get("/current.txt").text(), "one");
    fs::write(server.tree().outside("current"), "the second").unwrap();
    poll(&mut client, "/current.txt", "the new text", |answer| answer.text() == "the second");
    fs::remove_file(server.tree().outside("current")).unwrap();
    poll(&mut client, "/current.txt", "it has gone", |answer| answer.status == 404);
}

/// Uploaded files never lead out, whatever the site does.
#[test]
fn links_among_uploads_stay_inside() {
    let tree = Tree::site();
    fs::create_dir(tree.path("uploads")).unwrap();
    tree.symlink("../../secret.txt", "uploads/out.txt");
    let server = serve(tree, &["--symlinks", "follow"]);
    let answer = server.get("/uploads/out.txt");
    assert_eq!(answer.status, 404);
    assert!(!answer.text().contains(SECRET));
}

#[test]
fn words_that_are_none() {
    for value in ["", "yes", "Inside", "inside,deny"] {
        assert_mistake(&["--symlinks", value], &["--symlinks", "inside, deny or follow"]);
    }
}
