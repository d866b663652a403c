//! Apps that have their routes in the browser.

use super::{ANYTHING, BROWSER, JSON, assert_mistake, page, poll, serve};
use crate::client::request;
use crate::harness::{Builder, HELLO, Tree};

fn tree() -> Tree {
    let tree = Tree::site();
    tree.write("index.html", page("app"));
    tree
}

#[test]
fn addresses_where_nothing_is_get_the_app() {
    let server = serve(tree(), &["--spa"]);
    let mut client = server.connect();
    for target in ["/login", "/users/7?tab=a", "/users/7/", "/a/b/c.d", "/hello.txt/", "/bare/", "/app.js.map", "/%ff"] {
        let answer = client.get_with(target, BROWSER);
        assert_eq!((answer.status, answer.text()), (200, page("app")), "{target}");
        assert_eq!(answer.need("content-type"), "text/html; charset=utf-8", "{target}");
        assert_eq!(answer.need("cache-control"), "no-cache", "{target}");
        assert!(answer.need("vary").split(", ").any(|name| name == "accept"), "{target}: {}", answer.need("vary"));
        let (etag, fields) = (answer.need("etag").to_owned(), answer.fields_but_date());
        let head = client.head_with(target, BROWSER);
        assert_eq!((head.status, head.fields_but_date()), (200, fields), "{target}");
        let again = client.get_with(target, &format!("{BROWSER}If-None-Match: {etag}\r\n"));
        assert_eq!((again.status, again.need("vary")), (304, answer.need("vary")), "{target}");
    }
}

#[test]
fn what_is_there_and_what_is_missing_for_others_stays() {
    let server = serve(tree(), &["--spa"]);
    let mut client = server.connect();
    assert_eq!(client.get_with("/hello.txt", BROWSER).text(), HELLO);
    assert_eq!(client.get_with("/sub/", BROWSER).status, 200);
    assert_eq!(client.get_with("/sub", BROWSER).status, 301);
    let others = [
        "",
        ANYTHING,
        JSON,
        "Accept: image/avif,image/webp,*/*;q=0.8\r\n",
        "Accept: text/css,*/*;q=0.1\r\n",
        "Accept: text/*\r\n",
        "Accept: text/html;q=0\r\n",
        "Accept: text/html;q=0.5, application/json\r\n",
    ];
    for accept in others {
        for target in ["/assets/missing.js", "/login"] {
            let answer = client.get_with(target, accept);
            assert_eq!((answer.status, answer.field("etag"), answer.field("vary")), (404, None, Some("accept")), "{target} {accept}");
        }
    }
    for method in ["POST", "PUT", "DELETE"] {
        client.send(request(method, "/login", BROWSER));
        assert_eq!(client.answer().status, 405, "{method}");
    }
    for target in ["/.env", "/.git/config", "/.git/nothing", "/sub/.env", "/a/.b/c", "/.well-known/nothing"] {
        let answer = client.get_with(target, BROWSER);
        assert_eq!((answer.status, answer.field("vary")), (404, None), "{target}");
    }
    for target in ["/..%2f", "/%00", "/a\\b"] {
        assert_eq!(server.ask(request("GET", target, BROWSER)).status, 400, "{target}");
    }
}

#[test]
fn dotted_addresses_are_no_routes_even_where_dotfiles_are_served() {
    let server = serve(tree(), &["--spa", "--dotfiles", "allow"]);
    let mut client = server.connect();
    assert_eq!(client.get_with("/.hidden", BROWSER).status, 200);
    for target in ["/.env", "/.git/nothing", "/.well-known/nothing"] {
        assert_eq!(client.get_with(target, BROWSER).status, 404, "{target}");
    }
}

#[test]
fn the_page_may_have_another_name() {
    let tree = Tree::site();
    tree.write("app/shell.html", page("shell"));
    let server = Builder::new(&["--spa=app/shell.html"]).tree(tree).start();
    let mut client = server.connect();
    assert_eq!(client.get_with("/login", BROWSER).text(), page("shell"));
    assert_eq!(client.get_with("/app/shell.html", BROWSER).text(), page("shell"));
    assert_eq!(client.get("/").text(), "<!doctype html><title>home</title>\n");
}

/// The folder that stands behind the flag is the folder to serve, and no page.
#[test]
fn the_flag_takes_nothing_from_what_follows_it() {
    let tree = tree();
    let root = tree.root();
    let server = Builder::new(&["--port", "0", "--access-log", "off", "--spa"]).arg(root).bare().tree(tree).start();
    assert_eq!(server.connect().get_with("/login", BROWSER).text(), page("app"));
    let server = Builder::new(&[]).tree(self::tree()).env("MILLPOND_SPA", "index.html").start();
    assert_eq!(server.connect().get_with("/login", BROWSER).text(), page("app"));
}

#[test]
fn a_page_that_is_not_there_or_leads_out() {
    let tree = Tree::empty();
    tree.symlink("../secret.txt", "app.html");
    let server = serve(tree, &["--spa=app.html"]);
    server.wait_for_line("there is no app.html for --spa yet: unknown addresses get 404");
    let mut client = server.connect();
    assert_eq!(client.get_with("/login", BROWSER).status, 404);
    std::fs::remove_file(server.tree().path("app.html")).unwrap();
    assert_eq!(client.get_with("/login", BROWSER).status, 404);
    server.tree().write("app.html", page("late"));
    poll(&mut client, "/app.html", "the page comes", |answer| answer.status == 200);
    assert_eq!(client.get_with("/login", BROWSER).text(), page("late"));
    for value in ["--spa=", "--spa=/index.html", "--spa=../index.html", "--spa=a/", "--spa=.env"] {
        assert_mistake(&[value], &["--spa"]);
    }
}

#[test]
fn a_listing_goes_before_the_app() {
    let server = serve(tree(), &["--spa", "--listing"]);
    let mut client = server.connect();
    let answer = client.get_with("/bare/", BROWSER);
    assert!(answer.status == 200 && answer.text().contains("leaf.txt"), "{}", answer.text());
    assert_eq!(client.get_with("/bare/nowhere", BROWSER).text(), page("app"));
}

#[test]
fn a_folder_is_no_page() {
    for args in [&["--spa=sub"][..], &["--spa=bare"], &["--spa=sub", "--clean-urls"]] {
        let server = serve(Tree::site(), args);
        let mut client = server.connect();
        for target in ["/nowhere", "/nowhere/", "/bare/"] {
            let answer = client.get_with(target, BROWSER);
            assert_eq!((answer.status, answer.field("location")), (404, None), "{args:?}: {target}");
        }
        assert_eq!(client.get_with("/sub", BROWSER).need("location"), "/sub/", "{args:?}");
    }
}

/// What an address comes to changes with what is there.
#[test]
fn a_file_takes_the_place_of_a_route() {
    let server = serve(tree(), &["--spa"]);
    let mut client = server.connect();
    assert_eq!(client.get_with("/late.txt", BROWSER).text(), page("app"));
    server.tree().write("late.txt", "late");
    poll(&mut client, "/late.txt", "the file", |answer| answer.text() == "late");
    assert_eq!(client.get_with("/late.txt", BROWSER).text(), "late");
}

#[test]
fn ranges_codings_and_preconditions_are_those_of_the_file() {
    let tree = tree();
    tree.write("index.html", page("app").repeat(200));
    let server = serve(tree, &["--spa"]);
    let mut client = server.connect();
    let answer = client.get_with("/login", &format!("{BROWSER}Range: bytes=0-4\r\n"));
    assert_eq!((answer.status, answer.text().as_str()), (206, "<!doc"));
    let answer = client.get_with("/login", &format!("{BROWSER}If-Match: \"other\"\r\n"));
    assert_eq!((answer.status, answer.need("vary")), (412, "accept, accept-encoding"));
    let answer = client.get_with("/login", &format!("{BROWSER}Accept-Encoding: gzip\r\n"));
    assert_eq!((answer.status, answer.need("content-encoding")), (200, "gzip"));
}
