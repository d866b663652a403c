//! Started as root: another user, wholly and for good, once the ports are bound.

use std::fs;
use std::process::Command;

use crate::client::{HOST, request};
use crate::harness::{Builder, HELLO, Ran, Server, Tree, set_mode};

/// Whether this runs as root; only then is there something to give up.
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: not root");
    }
    is_root
}

/// A tree that everybody can reach.
fn open_tree() -> Tree {
    let tree = Tree::site();
    set_mode(&tree.outside(""), 0o755);
    tree
}

/// A field of the status of each thread of the process.
fn statuses(server: &Server, field: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid().as_raw_nonzero())).unwrap();
    tasks
        .map(|task| {
            let text = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_else(|| panic!("no {field}: {text}"));
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        })
        .collect()
}

#[test]
fn the_whole_process_becomes_the_user_with_its_groups() {
    if !is_root() {
        return;
    }
    // nobody's own group, another one, and a number without a name
    let groups = Command::new("id").args(["-G", "nobody"]).output().unwrap();
    let own = String::from_utf8(groups.stdout).unwrap().trim().to_owned();
    let gid = own.split(' ').next().unwrap().to_owned();
    for (user, uid, gid, groups) in
        [("nobody", "65534", &gid[..], &own[..]), ("nobody:daemon", "65534", "1", ""), ("12345:54321", "12345", "54321", "54321")]
    {
        let tree = open_tree();
        tree.write("closed.txt", "only for root\n");
        set_mode(&tree.path("closed.txt"), 0o600);
        let server = Builder::new(&["--user", user]).tree(tree).start();
        server.assert_well(user);
        server.wait_for_line(&format!("runs as {user}"));
        assert_eq!(server.get("/closed.txt").status, 403, "{user}");
        for status in statuses(&server, "Uid:") {
            assert_eq!(status, [uid; 4].join(" "), "{user}");
        }
        for status in statuses(&server, "Gid:") {
            assert_eq!(status, [gid; 4].join(" "), "{user}");
        }
        for status in statuses(&server, "Groups:") {
            assert!(groups.is_empty() || status == groups, "{user}: {status}");
            assert!(!status.split(' ').any(|group| group == "0"), "{user} kept a group of root: {status}");
        }
        for (field, wanted) in [("CapEff:", "0000000000000000"), ("CapPrm:", "0000000000000000"), ("NoNewPrivs:", "1")] {
            assert!(statuses(&server, field).iter().all(|status| status == wanted), "{user}: {field}");
        }
        let stopped = server.stop();
        stopped.assert_clean();
        for warning in ["runs as root", "can not be held back"] {
            assert!(!stopped.err.iter().any(|line| line.contains(warning)), "{user}: {:#?}", stopped.err);
        }
    }
}

#[test]
fn ports_are_bound_before() {
    if !is_root() {
        return;
    }
    let server = Builder::new(&["--user", "nobody", "--host", "127.0.0.83", "--port", "83"]).tree(open_tree()).start();
    assert_eq!(server.get("/hello.txt").text(), HELLO);
}

#[test]
fn without_a_user_root_is_warned() {
    if !is_root() {
        return;
    }
    Server::start(&[]).wait_for_line("millpond: this runs as root; give it a user with fewer rights: --user NAME");
}

#[test]
fn the_folder_of_uploads_has_to_be_open_to_the_user() {
    if !is_root() {
        return;
    }
    // nobody asked for them: there are none, and it is said
    let server = Builder::new(&["--user", "nobody"]).tree(open_tree()).start();
    let line = server.wait_for_line("uploads are off: ");
    assert!(line.contains("can not be made"), "{line}");
    let tree = open_tree();
    fs::create_dir(tree.path("uploads")).unwrap();
    let server = Builder::new(&["--user", "nobody"]).tree(tree).start();
    let line = server.wait_for_line("uploads are off: ");
    assert!(line.contains("can not be written to by this user, number 65534"), "{line}");

    // asked for: it does not start
    for flags in [&["--user", "nobody"][..], &["--user", "nobody", "--check"]] {
        let tree = open_tree();
        let received = tree.outside("received");
        fs::create_dir(&received).unwrap();
        let ran = Builder::new(flags).arg("--uploads").arg(&received).tree(tree).run();
        assert_mistake(&ran, &["received", "number 65534", "--uploads off"], &format!("{flags:?}"));
    }

    // open: an upload is stored, and belongs to the user
    let tree = open_tree();
    let received = tree.outside("received");
    fs::create_dir(&received).unwrap();
    set_mode(&received, 0o777);
    let server = Builder::new(&["--user", "nobody", "--allow-host", HOST]).arg("--uploads").arg(&received).tree(tree).start();
    let answer = server.ask(request("POST", "/uploads/?name=a.txt", "Content-Length: 5\r\n") + "hello");
    assert_eq!(answer.status, 201, "{}", answer.text());
    let stored = fs::metadata(received.join("a.txt")).unwrap();
    assert_eq!((std::os::unix::fs::MetadataExt::uid(&stored), stored.len()), (65534, 5));
}

#[test]
fn what_the_user_can_not_read_is_not_served() {
    if !is_root() {
        return;
    }
    let tree = open_tree();
    set_mode(&tree.root(), 0o700);
    let ran = Builder::new(&["--user", "nobody"]).tree(tree).run();
    assert_mistake(&ran, &["user nobody can not read", "www"], "a closed root");
    let tree = open_tree();
    let log = tree.outside("access.log");
    let ran = Builder::new(&["--user", "nobody"]).arg("--access-log").arg(log).tree(tree).run();
    assert_mistake(&ran, &["access.log", "--access-log"], "a closed folder for the log");
}

#[test]
fn users_that_are_not_there_are_refused() {
    let rows = [
        ("no-such-user-here", &["no such user"][..]),
        ("nobody:no-such-group-here", &["no group"]),
        ("root", &["root itself"]),
        ("0", &["root itself"]),
        ("4000000", &["no group of its own", "4000000:4000000"]),
        ("", &["--user"]),
        (":nogroup", &["--user"]),
        ("nobody:", &["--user"]),
    ];
    for (user, words) in rows {
        let ran = Builder::new(&["--user", user]).tree(Tree::site()).run();
        assert_mistake(&ran, words, user);
    }
}

#[test]
fn only_root_can_become_another_user() {
    if !is_root() {
        return;
    }
    let drop = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"];
    let can_start = Command::new(drop[0]).args(&drop[1..]).arg(crate::harness::program()).arg("--version").output();
    if !can_start.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no setpriv, or another user can not reach the program");
        return;
    }
    let ran = Builder::new(&["--user", "nobody"]).through(&drop).tree(open_tree()).run();
    assert_mistake(&ran, &["only root"], "not root");
    // the user that it is already is no change
    let server = Builder::new(&["--user", "12345:12345"]).through(&drop).tree(open_tree()).start();
    server.assert_well("the user that it is already");
}

#[track_caller]
fn assert_mistake(ran: &Ran, words: &[&str], name: &str) {
    assert_eq!(ran.code, Some(2), "{name}: {ran:?}");
    assert_eq!(ran.err.lines().count(), 1, "{name}: one line: {:?}", ran.err);
    for word in words {
        assert!(ran.err.contains(word), "{name}: {word:?} is not in {:?}", ran.err);
    }
}
