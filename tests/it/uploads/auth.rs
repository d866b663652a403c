//! `--upload-auth`: who may post. Reading stays open.
//!
//! Classes of failure covered: names found by timing, rules on one method and not on another.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{BROWSER, assert_nothing_left, assert_refused, assert_stored, folder, head, listing, post, post_named};
use crate::client::Response;
use crate::harness::{Builder, Server, Tree};

/// `open sesame`
const ALICE: &str = "alice:$argon2id$v=19$m=256,t=1,p=1$F2+4nR63GTpRrxfU7/Lgeg$kE43yR5QXZgIiJFV4K9590seI9mpYP8nQUEHhgZ73ew";
/// `hunter2`
const BOB: &str = "bob:$2b$04$8wyHxG/o5FX3CjI4Qd7BjOUNA5emmtTtYjphZaDRxJOjlByfHOUla";
/// `pa:ss:word`
const CAROL: &str = "carol:$argon2id$v=19$m=256,t=1,p=1$4nwXMHcXd8NBNxJ0jCq8Aw$Cn2GrU+5mcOFPeXIEASAIH9o6ZNtMH4nO4FiWbnxi7c";
/// `pässwört€`
const ZOE: &str = "zoë:$argon2id$v=19$m=256,t=1,p=1$pDuE4N3aSBnqbeU7vhyyFQ$N7VkdquCYvzeV4Me9OihbwgklmYnX9mQbvMFIQMfJoo";

/// The browser is told to ask, and how the answer is to be coded if it is told that too (RFC 7617).
fn assert_asks(answer: &Response, name: &str) {
    let question = answer.need("www-authenticate");
    let asks = question == "Basic realm=\"uploads\"" || question == "Basic realm=\"uploads\", charset=\"UTF-8\"";
    assert!(asks, "{name}: {question}");
}

fn basic(credentials: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(credentials))
}

fn start(tree: Tree) -> Server {
    Builder::new(&["--upload-auth", ALICE, "--upload-auth", BOB, "--upload-auth", CAROL, "--upload-auth", ZOE]).tree(tree).start()
}

#[test]
fn only_with_a_name_and_its_password() {
    let server = start(Tree::site());
    let wrong: Vec<(&str, String)> = vec![
        ("nothing", String::new()),
        ("a wrong password", basic("alice:open sesam")),
        ("a longer password", basic("alice:open sesame ")),
        ("other capitals", basic("alice:Open Sesame")),
        ("no password", basic("alice:")),
        ("no colon", basic("alice")),
        ("the password of another", basic("alice:hunter2")),
        ("the other way round", basic("bob:open sesame")),
        ("nobody", basic("mallory:open sesame")),
        ("no name", basic(":open sesame")),
        ("other capitals in the name", basic("Alice:open sesame")),
        ("a part of the password", basic("carol:pa")),
        ("NUL behind the password", basic("bob:hunter2\0x")),
        ("the hash as the password", basic(ALICE)),
        ("an empty value", "Authorization:\r\n".to_owned()),
        ("a scheme alone", "Authorization: Basic\r\n".to_owned()),
        ("no base64", "Authorization: Basic %%%%\r\n".to_owned()),
        ("another scheme", "Authorization: Bearer b3BlbiBzZXNhbWU=\r\n".to_owned()),
        ("not coded", "Authorization: Basic alice:open sesame\r\n".to_owned()),
        ("nothing coded", "Authorization: Basic \r\n".to_owned()),
        ("a long password", basic(&format!("bob:{}", "x".repeat(10_000)))),
    ];
    for (name, fields) in wrong {
        let answer = post(&server, "/uploads/?name=a.txt", &fields, "hello");
        assert_refused(&answer, 401, "", name);
        assert_asks(&answer, name);
        assert_nothing_left(&server, &folder(&server), name);
    }
    let right = [
        ("argon2", basic("alice:open sesame")),
        ("bcrypt", basic("bob:hunter2")),
        ("colons in the password", basic("carol:pa:ss:word")),
        ("UTF-8", basic("zoë:pässwört€")),
        ("a scheme in capitals", basic("alice:open sesame").replace("Basic", "BASIC")),
    ];
    for (name, fields) in right {
        let answer = post(&server, "/uploads/?name=a.txt", &fields, "hello");
        assert_stored(&server, &folder(&server), &answer, &[b"hello"], name);
    }
    assert_eq!(listing(&folder(&server)).len(), 5);
}

#[test]
fn reading_stays_open() {
    let tree = Tree::site();
    tree.write("uploads/there.txt", "to be read by all");
    let server = start(tree);
    server.assert_well("a server with names");
    for fields in [String::new(), basic("alice:wrong")] {
        let mut client = server.connect();
        let answer = client.get_with("/uploads/there.txt", &fields);
        assert_eq!((answer.status, answer.text().as_str()), (200, "to be read by all"));
        assert_eq!(client.get_with("/uploads/", &fields).status, 200, "the page");
        assert_eq!(client.head_with("/uploads/there.txt", &fields).status, 200, "HEAD");
        assert_eq!(client.get_with("/uploads/nowhere.txt", &fields).status, 404);
    }
}

/// A browser is asked too, and the body is not wanted before the name is known.
#[test]
fn the_question_comes_first() {
    let server = start(Tree::site());
    let answer = post(&server, "/uploads/?name=a.txt", BROWSER, "hello");
    assert_eq!(answer.status, 401);
    assert_asks(&answer, "a browser");
    let mut client = server.connect();
    client.send(head(&server, "/uploads/?name=a.txt", "Expect: 100-continue\r\nContent-Length: 1000000\r\n"));
    assert_eq!(client.any_answer(false).unwrap().status, 401, "no 100 Continue before");
    assert_nothing_left(&server, &folder(&server), "401");
}

/// A name and its password do not open what is closed to other sites.
#[test]
fn the_other_rules_hold_with_a_password() {
    let server = start(Tree::site());
    let fields = basic("alice:open sesame");
    for (more, status) in [("Sec-Fetch-Site: cross-site\r\n", 403), ("Origin: http://evil.test\r\n", 403), ("Host: evil.test\r\n", 421)] {
        let answer = post(&server, "/uploads/?name=a.txt", &format!("{fields}{more}"), "hello");
        assert_eq!(answer.status, status, "{more:?}");
    }
    assert_nothing_left(&server, &folder(&server), "the other rules");
}

/// What the server does for a name that nobody has takes the work of one that somebody has.
#[test]
fn an_unknown_name_costs_as_much_as_a_wrong_password() {
    let rows = [
        ("argon2", "slow:$argon2id$v=19$m=4096,t=2,p=1$rVDPP/mPN/oFj0V6U0+TyQ$wGS8DLTM9XK2/B63NO0Y4OYFU2E0wVzCcsbkVLexR8Q"),
        ("bcrypt", "slow:$2b$08$7TH1mHmmGe6a9lJpQaxkzeryfabGnAI2L2pJqi6cTazQHQwliX/7K"),
    ];
    for (name, user) in rows {
        let server = Builder::new(&["--upload-auth", user]).start();
        assert_eq!(post(&server, "/uploads/?name=a.txt", &basic("slow:slow and steady"), "x").status, 201, "{name}");
        // Processor time, so that other tests at the same time change nothing.
        let refuse = |fields: &str| assert_eq!(post(&server, "/uploads/?name=a.txt", fields, "x").status, 401, "{name}");
        let (known, unknown) = (basic("slow:wrong and steady"), basic("nobody:slow and steady"));
        let (start, mut times) = (server.cpu_ticks(), 0);
        while server.cpu_ticks() < start + 25 {
            refuse(&known);
            times += 1;
            assert!(times < 10_000, "{name}: a wrong password costs next to nothing");
        }
        let for_known = server.cpu_ticks() - start;
        (0..times).for_each(|_| refuse(&unknown));
        let for_unknown = server.cpu_ticks() - start - for_known;
        let alike = for_unknown * 2 >= for_known && for_unknown <= for_known * 2;
        assert!(alike, "{name}: {for_unknown} ticks for an unknown name, {for_known} for a known one, {times} times each");
    }
}

#[test]
fn names_from_the_environment() {
    let server = Builder::new(&[]).env("MILLPOND_UPLOAD_AUTH", BOB).start();
    assert_eq!(post_named(&server, "a.txt", "x").status, 401);
    assert_eq!(post(&server, "/uploads/?name=a.txt", &basic("bob:hunter2"), "x").status, 201);
}
