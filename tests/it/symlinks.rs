//! Links, fifos, sockets, devices and files that may not be read.
//!
//! Classes of failure covered: links that lead out of the root, by every way there is; links exchanged while they are looked at; a fifo that
//! holds up whoever opens it.

use std::fs;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};

use crate::client::{HOST, find, request};
use crate::harness::{Builder, HELLO, SECRET, Server, Tree, pause, set_mode, without_privilege};

#[test]
fn links_inside_the_root_are_followed() {
    follow_links_inside(Server::serving);
}

/// The rules hold however the server opens files: `start` decides that.
pub fn follow_links_inside(start: impl Fn(Tree) -> Server) {
    let tree = Tree::site();
    let root = tree.root();
    tree.symlink("hello.txt", "relative");
    tree.symlink("sub/page.html", "relative-below");
    tree.symlink("../hello.txt", "sub/up");
    tree.symlink("../sub/../hello.txt", "sub/up-and-down");
    tree.symlink(root.join("hello.txt"), "absolute");
    tree.symlink(root.join("hello.txt"), "sub/absolute-from-below");
    tree.symlink("sub", "folder");
    tree.symlink(root.join("sub"), "absolute-folder");
    tree.symlink("relative", "twice");
    tree.symlink("absolute", "to-absolute");
    tree.symlink("absolute-folder/deep", "through-absolute");
    tree.symlink(".", "sub/here");
    let server = start(tree);
    let rows = [
        ("/relative", HELLO),
        ("/relative-below", "<!doctype html><title>page</title>\n"),
        ("/sub/up", HELLO),
        ("/sub/up-and-down", HELLO),
        ("/absolute", HELLO),
        ("/sub/absolute-from-below", HELLO),
        ("/folder/page.html", "<!doctype html><title>page</title>\n"),
        ("/folder/", "<!doctype html><title>sub</title>\n"),
        ("/folder/up", HELLO),
        ("/absolute-folder/page.html", "<!doctype html><title>page</title>\n"),
        ("/absolute-folder/deep/leaf.txt", "leaf\n"),
        ("/absolute-folder/", "<!doctype html><title>sub</title>\n"),
        ("/twice", HELLO),
        ("/to-absolute", HELLO),
        ("/through-absolute/leaf.txt", "leaf\n"),
        ("/sub/here/here/here/page.html", "<!doctype html><title>page</title>\n"),
    ];
    for (target, body) in rows {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.text().as_str()), (200, body), "{target}");
    }
    for target in ["/folder", "/absolute-folder"] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.need("location").to_owned()), (301, format!("{target}/")), "{target}");
    }
}

#[test]
fn links_out_of_the_root_lead_nowhere() {
    refuse_links_outside(Server::serving);
}

pub fn refuse_links_outside(start: impl Fn(Tree) -> Server) {
    let tree = Tree::site();
    let (root, outside) = (tree.root(), tree.outside(""));
    tree.symlink("../secret.txt", "relative");
    tree.symlink("../../secret.txt", "sub/relative");
    tree.symlink(outside.join("secret.txt"), "absolute");
    tree.symlink("/etc/passwd", "passwd");
    tree.symlink("..", "parent");
    tree.symlink(&outside, "outside");
    tree.symlink("/", "slash");
    tree.symlink("/proc/self/root", "proc-root");
    tree.symlink("/proc/self/cwd", "proc-cwd");
    tree.symlink("../www_evil", "same-beginning");
    tree.symlink(outside.join("www_evil/secret.txt"), "same-beginning-absolute");
    tree.symlink("../www/hello.txt", "out-and-in");
    tree.symlink("relative", "by-way-of-another");
    tree.symlink("absolute", "by-way-of-an-absolute");
    tree.symlink(root.join("../secret.txt"), "absolute-with-dots");
    tree.symlink(root.join("sub/../../secret.txt"), "absolute-with-more-dots");
    tree.symlink("nothing", "dangling");
    tree.symlink(root.join("nothing"), "dangling-absolute");
    tree.symlink("loop", "loop");
    tree.symlink("loop-b", "loop-a");
    tree.symlink("loop-a", "loop-b");
    tree.symlink(root.join("loop-absolute"), "loop-absolute");
    tree.symlink("../secret.txt", "sub/deep/index.html");
    let server = start(tree);
    let targets = [
        "/relative",
        "/sub/relative",
        "/absolute",
        "/passwd",
        "/parent",
        "/parent/",
        "/parent/secret.txt",
        "/parent/www/hello.txt",
        "/outside/secret.txt",
        "/outside/www/hello.txt",
        "/slash",
        "/slash/etc/passwd",
        "/proc-root/etc/passwd",
        "/proc-cwd/Cargo.toml",
        "/same-beginning/secret.txt",
        "/same-beginning-absolute",
        "/out-and-in",
        "/by-way-of-another",
        "/by-way-of-an-absolute",
        "/absolute-with-dots",
        "/absolute-with-more-dots",
        "/dangling",
        "/dangling-absolute",
        "/loop",
        "/loop/x",
        "/loop-a",
        "/loop-absolute",
        "/sub/deep/",
    ];
    for target in targets {
        let answer = server.get(target);
        assert_eq!(answer.status, 404, "{target}");
        assert!(!answer.text().contains(SECRET) && !answer.text().contains("root:"), "{target}: it came out");
    }
    server.assert_well("links out of the root");
}

#[test]
fn the_root_itself_may_be_a_link() {
    let tree = Tree::site();
    let link = tree.outside("link-to-root");
    std::os::unix::fs::symlink(tree.root(), &link).unwrap();
    tree.symlink(tree.root().join("hello.txt"), "by-its-true-path");
    tree.symlink("../secret.txt", "out");
    let server = Builder::new(&[]).tree(tree).root(link).start();
    server.assert_well("starting on a link");
    assert_eq!(server.get("/by-its-true-path").text(), HELLO);
    assert_eq!(server.get("/out").status, 404);
}

/// The root is a folder, not a path: what is put in its place later is not served.
#[test]
fn hidden_names_count_only_below_the_root() {
    let tree = Tree::empty();
    let root = tree.outside(".public");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("hello.txt"), HELLO).unwrap();
    let server = Builder::new(&[]).tree(tree).root(root).start();
    server.assert_well("starting in a folder with a hidden name");
}

/// A link that points now inside, now outside: only one of the two is ever served.
#[test]
fn links_exchanged_in_a_loop_let_nothing_out() {
    exchange_links(2_000, Server::serving);
}

/// Ends a loop when it is dropped.
pub struct Stops<'a>(pub &'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub fn exchange_links(rounds: usize, start: impl Fn(Tree) -> Server) {
    const FILES: usize = 100;
    let tree = Tree::site();
    for number in 0..FILES {
        tree.write(format!("inside/{number}.txt"), "inside");
        fs::write(tree.outside(format!("www_evil/{number}.txt")), SECRET).unwrap();
    }
    tree.symlink("inside", "swapped");
    let (swapped, fresh) = (tree.path("swapped"), tree.outside("fresh"));
    let evil = tree.outside("www_evil");
    let server = start(tree);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // also when the test fails
        let _stops = Stops(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for target in [evil.as_path(), "inside".as_ref(), "../www_evil".as_ref(), "inside".as_ref()] {
                    std::os::unix::fs::symlink(target, &fresh).unwrap();
                    fs::rename(&fresh, &swapped).unwrap();
                }
            }
        });
        let mut client = server.connect();
        let mut served = 0;
        for round in 0..rounds {
            let answer = client.get(&format!("/swapped/{}.txt", round % FILES));
            assert!(find(&answer.body, SECRET.as_bytes()).is_none(), "round {round}: it came out");
            assert!([200, 404].contains(&answer.status), "round {round}: {}", answer.status);
            served += usize::from(answer.status == 200);
        }
        assert!(served > 0, "the loop never served the file inside: it tested nothing");
    });
}

/// A folder and a link to the outside change places without end, and so do the folder of uploads and such a link, while clients read
/// and upload: nothing comes out, nothing gets out, and whoever asks for what is there gets it.
#[test]
fn folders_exchanged_for_links_let_nothing_out_or_in() {
    const TIME: Duration = Duration::from_secs(10);
    let tree = Tree::site();
    for name in ["a.txt", "b.txt", "c.txt"] {
        tree.write(format!("swapped/{name}"), "inside");
        fs::write(tree.outside(format!("www_evil/{name}")), SECRET).unwrap();
    }
    tree.symlink("../www_evil", "evil");
    fs::create_dir(tree.outside("trap")).unwrap();
    fs::create_dir(tree.path("uploads")).unwrap();
    tree.symlink("../trap", "trap");
    let (root, trap) = (tree.root(), tree.outside("trap"));
    // a cache would answer without a look
    let server = Builder::new(&["--cache-size", "0", "--allow-host", HOST]).tree(tree).start();
    let started = Instant::now();
    let (swapped, seen) = thread::scope(|scope| {
        let exchange = scope.spawn(|| {
            let dir = fs::File::open(&root).unwrap();
            let mut count = 0;
            while started.elapsed() < TIME {
                for (one, other) in [("swapped", "evil"), ("uploads", "trap")] {
                    renameat_with(&dir, one, &dir, other, RenameFlags::EXCHANGE).unwrap();
                    count += 1;
                }
            }
            count
        });
        let clients: Vec<_> = (0..2)
            .map(|number| {
                let server = &server;
                scope.spawn(move || {
                    let mut seen = Seen::default();
                    let mut client = server.connect();
                    while started.elapsed() < TIME {
                        for name in ["a.txt", "b.txt", "c.txt"] {
                            let answer = client.get(&format!("/swapped/{name}"));
                            assert!(find(&answer.body, SECRET.as_bytes()).is_none(), "it came out");
                            match (answer.status, answer.text().as_str()) {
                                (200, "inside") => seen.inside += 1,
                                (404, _) => seen.outside += 1,
                                other => panic!("{other:?}"),
                            }
                            seen.honest(client.get("/hello.txt").status == 200);
                            seen.honest(client.get("/sub/deep/leaf.txt").status == 200);
                        }
                        let target = format!("/uploads/?name={number}-{}.txt", seen.asked);
                        client.send(request("POST", &target, &format!("Content-Length: {}\r\n", HELLO.len())) + HELLO);
                        seen.honest(client.answer().status == 201);
                    }
                    seen
                })
            })
            .collect();
        let mut seen = Seen::default();
        for client in clients {
            seen.add(&client.join().unwrap());
        }
        (exchange.join().unwrap(), seen)
    });
    assert!(seen.inside > 0 && seen.outside > 0 && swapped > 1_000, "it tested nothing: {swapped} times, {seen:?}");
    assert!(seen.served * 10 >= seen.asked * 9, "{seen:?}");
    assert_eq!(fs::read_dir(trap).unwrap().count(), 0, "an upload got out");
    server.stop().assert_clean();
}

/// What clients got.
#[derive(Debug, Default)]
struct Seen {
    /// Answers from below the folder that changes places, while it was there and while it was not.
    inside: u32,
    outside: u32,
    /// Requests for what was always there, and how many of them were served.
    asked: u32,
    served: u32,
}

impl Seen {
    fn honest(&mut self, is_served: bool) {
        self.asked += 1;
        self.served += u32::from(is_served);
    }

    fn add(&mut self, other: &Seen) {
        self.inside += other.inside;
        self.outside += other.outside;
        self.asked += other.asked;
        self.served += other.served;
    }
}

#[test]
fn things_that_are_no_files_are_not_there() {
    let tree = Tree::site();
    let fifo = |name: &str| mknodat(CWD, tree.path(name), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    fifo("fifo");
    fs::create_dir(tree.path("fifo-index")).unwrap();
    fifo("fifo-index/index.html");
    fifo("fifo.png");
    let _socket = UnixListener::bind(tree.path("socket")).unwrap();
    tree.symlink("fifo", "link-to-fifo");
    for device in ["null", "zero", "full", "random", "tty", "stdin", "fd/0"] {
        tree.symlink(format!("/dev/{device}"), &format!("dev-{}", device.replace('/', "-")));
    }
    let server = Builder::new(&["--threads", "1", "--blocking-threads", "2"]).tree(tree).start();
    let targets = [
        "/fifo",
        "/fifo.png",
        "/fifo-index/",
        "/link-to-fifo",
        "/socket",
        "/fifo/",
        "/fifo/x",
        "/socket/",
        "/dev-null",
        "/dev-zero",
        "/dev-full",
        "/dev-random",
        "/dev-tty",
        "/dev-stdin",
        "/dev-fd-0",
    ];
    // Several times each: with two threads for what may block, three that hang would end all service.
    for round in 0..4 {
        for target in targets {
            assert_eq!(server.get(target).status, 404, "{target}, round {round}");
        }
    }
    let answer = server.get("/fifo-index");
    assert!([301, 404].contains(&answer.status), "{}", answer.status);
    server.assert_well("fifos and devices");
}

/// Nobody ever opened the fifo: a writer that waits for a reader is still waiting.
#[test]
fn a_fifo_is_never_opened() {
    let tree = Tree::site();
    let path = tree.path("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    let server = Server::serving(tree);
    let opened = thread::spawn({
        let path = path.clone();
        move || drop(fs::OpenOptions::new().write(true).open(path).unwrap())
    });
    pause(20);
    for _ in 0..5 {
        assert_eq!(server.get("/fifo").status, 404);
    }
    assert!(!opened.is_finished(), "somebody opened the fifo for reading");
    drop(fs::File::open(path).unwrap());
    opened.join().unwrap();
}

#[test]
fn a_file_that_may_not_be_read_gets_403() {
    let Some(wrapper) = without_privilege() else {
        eprintln!("SKIPPED: running as root without setpriv, everything may be read");
        return;
    };
    let tree = Tree::site();
    tree.write("closed.txt", SECRET);
    set_mode(&tree.path("closed.txt"), 0o000);
    tree.write("closed/file.txt", SECRET);
    set_mode(&tree.path("closed"), 0o000);
    let folder = tree.path("closed");
    let server = Builder::new(&[]).tree(tree).through(&wrapper).start();
    for target in ["/closed.txt", "/closed/file.txt"] {
        let answer = server.get(target);
        assert_eq!(answer.status, 403, "{target}");
        assert!(!answer.text().contains(SECRET), "{target}");
    }
    server.assert_well("closed files");
    // So that the folder can be removed.
    set_mode(&folder, 0o755);
}
