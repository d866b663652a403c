//! Names that begin with a dot.

use super::{assert_mistake, page, serve};
use crate::harness::{HIDDEN, SECRET, Tree};

#[test]
fn they_are_served_by_request_and_that_is_said() {
    let tree = Tree::site();
    tree.write(".config/index.html", page("config"));
    tree.symlink("../secret.txt", ".out");
    let server = serve(tree, &["--dotfiles", "allow"]);
    for target in ["/.hidden", "/.git/config", "/sub/.env"] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.text().as_str()), (200, HIDDEN), "{target}");
    }
    assert_eq!(server.get("/.config/").text(), page("config"));
    assert_eq!(server.get("/.config").need("location"), "/.config/");
    assert_eq!(server.get("/.well-known/acme.txt").status, 200);
    for target in ["/.out", "/.nothing", "/../.hidden"] {
        let answer = server.get(target);
        assert!([400, 404].contains(&answer.status) && !answer.text().contains(SECRET), "{target}");
    }
    server.wait_for_line("names that begin with a dot are served");
}

#[test]
fn otherwise_they_are_not_there() {
    for args in [&[][..], &["--dotfiles", "deny"]] {
        let server = serve(Tree::site(), args);
        for target in ["/.hidden", "/.git/config", "/sub/.env", "/.git/", "/.nothing"] {
            let answer = server.get(target);
            assert!(answer.status == 404 && !answer.text().contains(HIDDEN), "{target}");
        }
        assert_eq!(server.get("/.well-known/acme.txt").status, 200);
    }
}

#[test]
fn listings_tell_of_what_is_served() {
    for (args, told) in [(&["--listing"][..], false), (&["--listing", "--dotfiles", "allow"], true)] {
        let tree = Tree::site();
        tree.write("bare/.profile", HIDDEN);
        let server = serve(tree, args);
        assert_eq!(server.get("/bare/").text().contains(".profile"), told, "{args:?}");
    }
}

/// What is on its way into the folder of uploads has a hidden name.
#[test]
fn uploads_hide_them_all_the_same() {
    let tree = Tree::site();
    tree.write("uploads/.half", HIDDEN);
    let server = serve(tree, &["--dotfiles", "allow"]);
    assert_eq!(server.get("/uploads/.half").status, 404);
}

#[test]
fn words_that_are_none() {
    for value in ["", "on", "Deny"] {
        assert_mistake(&["--dotfiles", value], &["--dotfiles", "deny or allow"]);
    }
}
