//! Where uploads go, and when there are any.

use std::fs;
use std::net::{Ipv6Addr, TcpListener};

use super::{any, assert_nothing_left, assert_refused, assert_stored, folder, head, listing, post, post_form, post_named};
use crate::client::HOST;
use crate::harness::{Builder, Server, Tree, set_mode, without_privilege};

const FILE: (&str, &[u8]) = ("name=\"file\"; filename=\"a.txt\"", b"hello");

#[test]
fn on_loopback_the_folder_is_made_below_the_root() {
    let rows: [(&str, &[&str], usize); 4] = [
        ("as it comes", &[], 1),
        ("another address", &["--host", "127.0.0.2"], 1),
        ("two addresses", &["--host", "127.0.0.1", "--host", "127.0.0.3"], 2),
        ("the sixth version", &["--host", "::1"], 1),
    ];
    for (name, args, addresses) in rows {
        if args.contains(&"::1") && TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
            eprintln!("SKIPPED: no address ::1 on this machine");
            continue;
        }
        let server = Builder::new(args).addresses(addresses).start();
        let made = folder(&server);
        let line = server.wait_for_line("uploads go to ");
        let told = line.split("uploads go to ").nth(1).unwrap();
        assert_eq!(told, fs::canonicalize(&made).unwrap().to_str().unwrap(), "{name}");
        assert!(made.is_dir(), "{name}: made at the start");
        assert_nothing_left(&server, &made, name);
        assert_stored(&server, &made, &post_form(&server, &[FILE]), &[b"hello"], name);
        assert_eq!(listing(&made), ["a.txt"], "{name}");
    }
}

#[test]
fn a_folder_that_is_there_is_used_with_what_is_in_it() {
    let tree = Tree::site();
    tree.write("uploads/old.txt", "was here before");
    let server = Server::serving(tree);
    assert_eq!(server.get("/uploads/old.txt").text(), "was here before");
    assert_stored(&server, &folder(&server), &post_form(&server, &[FILE]), &[b"hello"], "a folder that is there");
    assert_eq!(listing(&folder(&server)), ["a.txt", "old.txt"]);
}

#[test]
fn off_is_off() {
    for by_flag in [true, false] {
        let builder = if by_flag { Builder::new(&["--uploads", "off"]) } else { Builder::new(&[]).env("MILLPOND_UPLOADS", "off") };
        let server = builder.start();
        for target in ["/uploads/", "/uploads", "/uploads/?name=a.txt", "/uploads/a.txt"] {
            let answer = post(&server, target, "", "hello");
            assert_eq!((answer.status, answer.need("allow")), (405, "GET, HEAD"), "{target}, by flag: {by_flag}");
        }
        assert_eq!(server.get("/uploads/").status, 404, "there is no such folder");
        assert!(!folder(&server).exists(), "nothing is made");
        assert!(!server.err.all().iter().any(|line| line.contains("uploads go to")), "{:?}", server.err.all());
    }
    // A folder of that name is then one like any other.
    let tree = Tree::site();
    tree.write("uploads/index.html", "<!doctype html><title>an index</title>\n");
    tree.write("uploads/page.html", "<!doctype html><title>a page</title>\n");
    let server = Builder::new(&["--uploads", "off"]).tree(tree).start();
    assert!(server.get("/uploads/").text().contains("an index"));
    let page = server.get("/uploads/page.html");
    assert_eq!((page.status, page.field("content-disposition"), page.field("content-security-policy")), (200, None, None));
}

#[test]
fn any_folder_can_be_named() {
    for by_flag in [true, false] {
        let tree = Tree::site();
        let elsewhere = tree.outside("drop");
        fs::create_dir(&elsewhere).unwrap();
        let builder =
            if by_flag { Builder::new(&["--uploads"]).arg(&elsewhere) } else { Builder::new(&[]).env("MILLPOND_UPLOADS", &elsewhere) };
        let server = builder.tree(tree).start();
        let name = format!("by flag: {by_flag}");
        assert!(server.wait_for_line("uploads go to ").ends_with(fs::canonicalize(&elsewhere).unwrap().to_str().unwrap()), "{name}");
        assert_stored(&server, &elsewhere, &post_form(&server, &[FILE]), &[b"hello"], &name);
        assert_eq!(listing(&elsewhere), ["a.txt"], "{name}");
        assert!(!folder(&server).exists(), "{name}: nothing is made below the root");
    }
}

/// The address is the uploads', whatever the root has under that name.
#[test]
fn a_folder_of_that_name_below_the_root_is_behind_the_uploads() {
    let tree = Tree::site();
    tree.write("uploads/index.html", "the index of the site's folder");
    tree.write("uploads/site.txt", "of the site");
    let elsewhere = tree.outside("drop");
    fs::create_dir(&elsewhere).unwrap();
    let server = Builder::new(&["--uploads"]).arg(&elsewhere).tree(tree).start();
    for target in ["/uploads/site.txt", "/uploads/index.html"] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
    assert!(!server.get("/uploads/").text().contains("the index of the site's folder"));
    assert_stored(&server, &elsewhere, &post_named(&server, "site.txt", "uploaded"), &[b"uploaded"], "the same name");
    assert_eq!(fs::read_to_string(server.tree().path("uploads/site.txt")).unwrap(), "of the site");
}

#[test]
fn a_relative_folder_is_found_from_where_the_program_starts() {
    let tree = Tree::site();
    fs::create_dir(tree.outside("drop")).unwrap();
    let outside = fs::canonicalize(tree.outside("")).unwrap();
    let server = Builder::new(&["--uploads", "drop"]).folder(&outside).tree(tree).start();
    assert!(server.wait_for_line("uploads go to ").ends_with(outside.join("drop").to_str().unwrap()));
    assert_stored(&server, &outside.join("drop"), &post_form(&server, &[FILE]), &[b"hello"], "a relative folder");
}

#[test]
fn on_other_addresses_uploads_have_to_be_asked_for() {
    for host in ["0.0.0.0", "::"] {
        if host == "::" && TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_err() {
            eprintln!("SKIPPED: no address :: on this machine");
            continue;
        }
        let server = Builder::new(&["--host", host]).start();
        let answer = post_form(&server, &[FILE]);
        assert_eq!((answer.status, answer.need("allow")), (405, "GET, HEAD"), "{host}: not asked for");
        assert!(!folder(&server).exists(), "{host}: nothing is made");
        drop(server);

        let tree = Tree::site();
        let given = tree.path("uploads");
        fs::create_dir(&given).unwrap();
        let server = Builder::new(&["--host", host, "--uploads"]).arg(&given).tree(tree).start();
        assert_stored(&server, &given, &post_form(&server, &[FILE]), &[b"hello"], &format!("{host}: asked for"));
        // Such a server is there for others: its name is not for us to know.
        let answer = post(&server, "/uploads/?name=b.txt", &format!("Host: {HOST}\r\n"), "hello");
        assert_eq!(answer.status, 201, "{host}: under a name: {}", answer.text());
    }
}

#[test]
fn through_a_proxy_uploads_have_to_be_asked_for() {
    let rows = [
        "Forwarded: for=192.0.2.60;proto=http;by=203.0.113.43",
        "X-Forwarded-For: 192.0.2.60",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: pond.test",
        "x-forwarded-port: 443",
        "Via: 1.1 proxy.test",
        "X-Forwarded-For:",
    ];
    let by_default = Server::start(&[]);
    let tree = Tree::site();
    let given = tree.path("uploads");
    let by_flag = Builder::new(&["--uploads"]).arg(&given);
    fs::create_dir(&given).unwrap();
    let by_flag = by_flag.tree(tree).start();
    let tree = Tree::site();
    let given = tree.path("uploads");
    fs::create_dir(&given).unwrap();
    let by_environment = Builder::new(&[]).env("MILLPOND_UPLOADS", &given).tree(tree).start();
    for row in rows {
        let fields = format!("{row}\r\n");
        assert_refused(&post(&by_default, "/uploads/?name=a.txt", &fields, "hello"), 403, "--uploads", row);
        assert_nothing_left(&by_default, &folder(&by_default), row);
        for server in [&by_flag, &by_environment] {
            let answer = post(server, "/uploads/?name=a.txt", &fields, "hello");
            assert_eq!(answer.status, 201, "{row}: asked for: {}", answer.text());
        }
    }
    // Without a proxy it works all the while.
    assert_eq!(post_form(&by_default, &[FILE]).status, 201);
}

#[test]
fn a_default_folder_that_can_not_be_made_ends_uploads_and_nothing_else() {
    let tree = Tree::site();
    tree.write("uploads", "a file has this name");
    let server = Server::serving(tree);
    server.wait_for_line("uploads are off: ");
    assert_eq!(post_form(&server, &[FILE]).status, 405);
    assert_eq!(fs::read_to_string(server.tree().path("uploads")).unwrap(), "a file has this name");
    server.assert_well("a file in the place of the folder");

    let Some(wrapper) = without_privilege() else {
        eprintln!("SKIPPED: root may write everywhere, and setpriv is not there to take that away");
        return;
    };
    let tree = Tree::site();
    let root = tree.root();
    set_mode(&root, 0o555);
    let server = Builder::new(&[]).tree(tree).through(&wrapper).start();
    server.wait_for_line("uploads are off: ");
    assert_eq!(post_form(&server, &[FILE]).status, 405);
    server.assert_well("a root that may not be written to");
    set_mode(&root, 0o755);
}

/// What comes into a folder that was removed would be lost.
#[test]
fn a_folder_that_is_removed_takes_nothing_more() {
    let server = Server::start(&[]);
    assert_eq!(post_form(&server, &[FILE]).status, 201);
    fs::remove_dir_all(folder(&server)).unwrap();
    assert_refused(&post_form(&server, &[FILE]), 500, "", "its folder is gone");
    server.wait_for_line("an upload can not be stored: its folder has been removed");
    // another one is another folder
    fs::create_dir(folder(&server)).unwrap();
    assert_refused(&post_form(&server, &[FILE]), 500, "", "the one that it was given is gone");
    assert_nothing_left(&server, &folder(&server), "the new folder");
    server.assert_well("a folder that was removed");
}

/// A check says what the start would.
#[test]
fn what_is_no_folder_is_an_error() {
    let tree = Tree::site();
    tree.write("file", "precious");
    tree.symlink("nowhere", "link");
    for name in ["file", "link", "file/uploads"] {
        for check in [&[][..], &["--check"]] {
            let ran = Builder::new(check).arg("--uploads").arg(tree.path(name)).root(tree.root()).run();
            assert_eq!((ran.code, ran.err.lines().count()), (Some(2), 1), "{name}, {check:?}: {ran:?}");
            assert!(ran.err.contains("can not be made"), "{name}, {check:?}: {ran:?}");
        }
    }
}

/// Nothing can be made in a folder that may be written to and not entered.
#[test]
fn a_folder_that_may_not_be_entered_is_an_error() {
    let Some(wrapper) = without_privilege() else {
        eprintln!("SKIPPED: running as root without setpriv, every folder may be entered");
        return;
    };
    let tree = Tree::site();
    fs::create_dir(tree.outside("shut")).unwrap();
    set_mode(&tree.outside("shut"), 0o666);
    for check in [&[][..], &["--check"]] {
        let ran = Builder::new(check).arg("--uploads").arg(tree.outside("shut/uploads")).root(tree.root()).through(&wrapper).run();
        assert_eq!((ran.code, ran.err.lines().count()), (Some(2), 1), "{check:?}: {ran:?}");
        assert!(ran.err.contains("can not be made"), "{check:?}: {ran:?}");
    }
}

#[test]
fn a_folder_that_was_asked_for_and_can_not_be_used_is_an_error() {
    let tree = Tree::site();
    let file = tree.path("hello.txt");
    let ran = Builder::new(&["--uploads"]).arg(&file).tree(tree).run();
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.starts_with("millpond: ") && ran.err.trim_end().lines().count() == 1, "{ran:?}");
}

#[test]
fn values_that_make_no_sense_are_errors() {
    let rows = [
        ("--upload-limit", "much"),
        ("--upload-limit", "-1"),
        ("--upload-limit", "1 parsec"),
        ("--upload-quota", "1GiBi"),
        ("--upload-quota", ""),
        ("--upload-auth", "alice"),
        ("--upload-auth", "alice:open sesame"),
        ("--upload-auth", "alice:"),
        ("--upload-auth", ":$2b$04$8wyHxG/o5FX3CjI4Qd7BjOUNA5emmtTtYjphZaDRxJOjlByfHOUla"),
        ("--upload-auth", "alice:$2b$04$8wyHxG"),
        ("--upload-auth", "alice:$argon2id$v=19$m=256,t=1,p=1$F2+4nR63GTpRrxfU7"),
        ("--upload-auth", "alice:$1$abcdefgh$abcdefghijklmnopqrstuv"),
    ];
    let tree = Tree::site();
    let root = tree.root();
    for (flag, value) in rows {
        let ran = Builder::new(&[&format!("{flag}={value}")]).root(&root).run();
        assert_eq!(ran.code, Some(2), "{flag}={value}: {ran:?}");
        assert!(!ran.err.is_empty() && !ran.err.contains("panicked"), "{flag}={value}: {ran:?}");
        assert!(!root.join("uploads").exists(), "{flag}={value}: nothing is made");
    }
}

/// Only a start that serves makes the folder.
#[test]
fn a_check_makes_no_folder() {
    let tree = Tree::site();
    let root = tree.root();
    let ran = Builder::new(&["--check"]).root(&root).run();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!root.join("uploads").exists());
}

/// POST is for the uploads' address alone, and other methods store nothing there either.
#[test]
fn methods_and_addresses() {
    let tree = Tree::site();
    tree.write("uploads/kept.txt", "kept");
    let server = Server::serving(tree);
    for target in ["/", "/hello.txt", "/sub/", "/upload", "/uploads.txt", "/uploadsx/", "/sub/uploads/", "/Uploads/"] {
        let answer = post(&server, target, "", "hello");
        assert_eq!((answer.status, answer.need("allow")), (405, "GET, HEAD"), "POST {target}");
    }
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "MKCOL", "PROPFIND", "MOVE", "COPY"] {
        for target in ["/uploads/", "/uploads/kept.txt", "/uploads/new.txt"] {
            let mut client = server.connect();
            let head = head(&server, target, "Content-Length: 5\r\nDestination: /uploads/b.txt\r\n").replacen("POST", method, 1);
            client.send(format!("{head}hello"));
            let answer = any(&mut client);
            // What can be posted to is the address itself and not a file below it.
            let allowed = if target == "/uploads/" { "GET, HEAD, POST" } else { "GET, HEAD" };
            assert_eq!((answer.status, answer.need("allow")), (405, allowed), "{method} {target}");
            assert_eq!(answer.need("cache-control"), "no-store", "{method} {target}");
        }
    }
    for method in ["GET", "HEAD"] {
        let mut client = server.connect();
        let head = head(&server, "/uploads/?name=new.txt", "Content-Length: 5\r\nConnection: close\r\n").replacen("POST", method, 1);
        client.send(format!("{head}hello"));
        client.rest();
    }
    // There are no folders below it, and no file is written by its name.
    for target in ["/uploads/sub/", "/uploads/sub/a.txt", "/uploads/kept.txt", "/uploads/new.txt"] {
        let mut client = server.connect();
        _ = client.send_what_it_takes(super::request(&server, target, "", b"hello"));
        let status = any(&mut client).status;
        assert!([404, 405].contains(&status), "POST {target}: {status}");
    }
    assert_eq!(listing(&folder(&server)), ["kept.txt"]);
    assert_eq!(fs::read_to_string(folder(&server).join("kept.txt")).unwrap(), "kept");
    assert_eq!(listing(server.tree().outside("").as_path()), ["secret.txt", "www", "www_evil"]);
}

#[test]
fn with_or_without_the_slash() {
    let server = Server::start(&[]);
    let answer = post(&server, "/uploads?name=a.txt", "", "without");
    assert_stored(&server, &folder(&server), &answer, &[b"without"], "POST /uploads");
    let answer = post(&server, "/uploads/?name=b.txt", "", "with");
    assert_stored(&server, &folder(&server), &answer, &[b"with"], "POST /uploads/");
    let answer = server.get("/uploads");
    assert_eq!((answer.status, answer.need("location")), (301, "/uploads/"));
}
