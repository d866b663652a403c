//! What only the system calls show: that pipelined answers leave together, that big files leave by sendfile, and that files are opened
//! beneath the root by the kernel, or safely without it where it cannot do that.
//!
//! These tests look through strace, which can also make the kernel seem older than it is. Without strace they are skipped, and say so.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::client::{find, request};
use crate::codings::{decoded, text};
use crate::harness::{Builder, HELLO, Server, Tree, assert_same_bytes, noise, pause, until};
use crate::{paths, symlinks};

/// A start of the program below strace (`-D`: the program stays our child). `None`: there is no strace, or it may not trace.
fn traced(calls: &str, inject: &str, output: &Path) -> Option<Builder> {
    traced_with(&["--threads", "1"], calls, inject, output)
}

fn traced_with(args: &[&str], calls: &str, inject: &str, output: &Path) -> Option<Builder> {
    static WORKS: OnceLock<bool> = OnceLock::new();
    let works = *WORKS.get_or_init(|| {
        let mut command = Command::new("strace");
        command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=openat2", "-e", "inject=openat2:error=ENOSYS", "true"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    });
    if !works {
        eprintln!("SKIPPED: no strace that may trace");
        return None;
    }
    let trace = format!("trace={calls}");
    let output: &OsStr = output.as_ref();
    let mut wrapper = vec!["strace", "-D", "-f", "-q", "-s", "20", "-o", output.to_str().unwrap(), "-e", &trace];
    if !inject.is_empty() {
        wrapper.extend(["-e", inject]);
    }
    Some(Builder::new(args).through(&wrapper))
}

/// A start on a kernel without openat2. `None`: as above.
pub fn without_openat2(args: &[&str]) -> Option<Builder> {
    let builder = traced("openat2", "inject=openat2:error=ENOSYS", Path::new("/dev/null"))?;
    Some(args.iter().fold(builder, |builder, arg| builder.arg(arg)))
}

/// Serves a tree below strace, speaks, ends it, and gives the lines of the trace.
fn trace(calls: &str, tree: Tree, speak: impl FnOnce(&Server)) -> Option<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("trace");
    let server = traced(calls, "", &output)?.tree(tree).start();
    speak(&server);
    server.stop().assert_clean();
    let text = || fs::read_to_string(&output).unwrap_or_default();
    until("the trace is written to its end", || text().contains("+++ exited with 0 +++"));
    Some(text().lines().map(str::to_owned).collect())
}

const SENDS: &str = "sendto,sendmsg,sendmmsg,write,writev,pwritev2,sendfile,splice,openat2";

fn count(lines: &[String], parts: &[&str]) -> usize {
    lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
}

#[test]
fn pipelined_answers_leave_together() {
    let lines = trace(SENDS, Tree::site(), |server| {
        let mut client = server.connect();
        client.send(request("GET", "/hello.txt", "").repeat(50));
        for _ in 0..50 {
            assert_eq!(client.answer().text(), HELLO);
        }
    });
    let Some(lines) = lines else { return };
    let sends = count(&lines, &["HTTP/1.1 200"]);
    assert!((1..=5).contains(&sends), "fifty small answers left in {sends} writes: {lines:#?}");
}

#[test]
fn small_files_leave_with_their_head_and_big_ones_by_sendfile() {
    let tree = Tree::site();
    tree.write("small.bin", noise(1, 16 * 1024));
    // up to 1 MiB a file that has just changed is sent from memory too
    tree.write("big.bin", noise(2, 1024 * 1024 + 1));
    for (target, sendfile) in [("/hello.txt", false), ("/small.bin", false), ("/big.bin", true)] {
        let again = Tree::site();
        for name in ["small.bin", "big.bin"] {
            fs::copy(tree.path(name), again.path(name)).unwrap();
        }
        let mut head = 0;
        let lines = trace(SENDS, again, |server| {
            let mut client = server.connect();
            client.send(request("GET", target, "Connection: close\r\n"));
            let (bytes, _) = client.rest();
            head = find(&bytes, b"\r\n\r\n").unwrap() + 4;
        });
        let Some(lines) = lines else { return };
        assert_eq!(count(&lines, &["sendfile("]) > 0, sendfile, "{target}: {lines:#?}");
        assert_eq!(count(&lines, &["HTTP/1.1 200"]), 1, "{target}: one head, sent once: {lines:#?}");
        let at = lines.iter().position(|line| line.contains("HTTP/1.1 200")).unwrap();
        let (line, thread) = (&lines[at], lines[at].split_whitespace().next().unwrap());
        // where another thread came between, what came of the call is in a later line of its own thread
        let told = lines[at..].iter().filter(|line| line.starts_with(thread)).find_map(|line| line.rsplit_once(" = "));
        let sent: usize = told.unwrap().1.trim().parse().unwrap();
        assert!(sendfile || sent > head, "{target}: the body leaves with the head of {head} bytes: {line}");
    }
}

/// What was compressed here is kept where the kernel can send it from, once it is too large to be copied for each answer.
#[test]
fn large_codings_leave_by_sendfile() {
    for (length, by_sendfile) in [(20 << 10, false), (400 << 10, true)] {
        let tree = Tree::site();
        let page = text(7, length);
        tree.write("page.html", &page);
        let lines = trace(SENDS, tree, |server| {
            let mut client = server.connect();
            for _ in 0..2 {
                client.send(request("GET", "/page.html", "Accept-Encoding: br\r\n"));
                let answer = client.answer();
                assert_eq!(answer.field("content-encoding"), Some("br"));
                assert_same_bytes(&decoded(Some("br"), &answer.body), &page, "page.html");
            }
        });
        let Some(lines) = lines else { return };
        assert_eq!(count(&lines, &["sendfile("]) > 0, by_sendfile, "{length} bytes: {lines:#?}");
    }
}

#[test]
fn files_are_opened_beneath_the_root_by_the_kernel() {
    let lines = trace("open,openat,openat2", Tree::site(), |server| {
        assert_eq!(server.get("/sub/deep/leaf.txt").status, 200);
        assert_eq!(server.get("/nowhere").status, 404);
    });
    let Some(lines) = lines else { return };
    let named: Vec<&String> = lines.iter().filter(|line| line.contains("leaf.txt") || line.contains("nowhere")).collect();
    assert!(!named.is_empty(), "{lines:#?}");
    for line in named {
        assert!(line.contains("openat2(") && line.contains("RESOLVE_BENEATH"), "{line}");
    }
}

/// Kernels and sandboxes without openat2: everything holds that holds with it.
#[test]
fn without_openat2_the_same_rules_hold() {
    for error in ["ENOSYS", "EPERM"] {
        let inject = format!("inject=openat2:error={error}");
        let start = |tree: Tree| traced("openat2", &inject, Path::new("/dev/null")).unwrap().tree(tree).start();
        if traced("openat2", &inject, Path::new("/dev/null")).is_none() {
            return;
        }
        let server = start(Tree::site());
        server.assert_well(error);
        paths::refuse_hostile_paths(&server);
        drop(server);
        symlinks::follow_links_inside(start);
        symlinks::refuse_links_outside(start);
        symlinks::exchange_links(500, start);
    }
}

/// EAGAIN says that something was renamed meanwhile: the kernel is asked again.
#[test]
fn an_open_that_was_disturbed_is_tried_again() {
    let Some(builder) = traced("openat2", "inject=openat2:error=EAGAIN:when=1+2", Path::new("/dev/null")) else { return };
    let tree = Tree::site();
    for number in 0..50 {
        tree.write(format!("n/{number}.txt"), number.to_string());
    }
    let server = builder.tree(tree).start();
    for number in 0..50 {
        let answer = server.get(&format!("/n/{number}.txt"));
        assert_eq!((answer.status, answer.text()), (200, number.to_string()), "file {number}");
    }
    assert_eq!(server.get("/nowhere").status, 404);
}

/// Many ask for a file at once that nobody has asked for before: it is loaded once, also when it is not in memory, so that it is loaded
/// where others have to wait for it.
#[test]
fn a_file_is_loaded_once_however_many_ask() {
    for (how, inject) in [("at once", ""), ("on the pool", "inject=preadv2:error=EAGAIN")] {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("trace");
        let Some(builder) = traced_with(&["--threads", "3", "--queue", "200"], "openat2,preadv2", inject, &output) else { return };
        let tree = Tree::site();
        let names = ["small.txt", "big.bin"];
        tree.write(names[0], noise(1, 1000));
        tree.write(names[1], noise(2, 100_000));
        let server = builder.tree(tree).start();
        // a file that has just been written is read once more, for a write may have been under way
        pause(1100);
        for (seed, name) in (1..).zip(names) {
            let mut clients: Vec<_> = (0..200).map(|_| server.connect()).collect();
            clients.iter_mut().for_each(|client| client.send_get(&format!("/{name}")));
            for client in &mut clients {
                let answer = client.answer();
                assert_eq!(answer.status, 200, "{how}: {name}");
                assert!(answer.body == noise(seed, if seed == 1 { 1000 } else { 100_000 }), "{how}: {name}");
            }
        }
        server.stop().assert_clean();
        let text = || fs::read_to_string(&output).unwrap_or_default();
        until("the trace is written to its end", || text().contains("+++ exited with 0 +++"));
        let lines: Vec<String> = text().lines().map(str::to_owned).collect();
        for name in names {
            let opened = count(&lines, &[name, "O_RDONLY|O_NOCTTY"]);
            let by_workers = count(&lines, &[name, "O_RDONLY|O_NOCTTY", "RESOLVE_CACHED"]);
            // a worker may have to leave off where it would have to wait
            assert!((1..=4).contains(&opened) && opened - by_workers <= 1, "{how}: {name}: {lines:#?}");
        }
    }
}

/// Where folders can not be watched, changes show after a second, and the operator is told why.
#[test]
fn without_notification_changes_show_after_a_second() {
    for (inject, message) in [
        ("inject=inotify_init1:error=EMFILE", "folders can not be watched"),
        ("inject=inotify_add_watch:error=ENOSPC", "fs.inotify.max_user_watches"),
    ] {
        let Some(builder) = traced("inotify_init1,inotify_add_watch", inject, Path::new("/dev/null")) else { return };
        let server = builder.start();
        let mut client = server.connect();
        for round in 0..3 {
            server.tree().write("sub/page.txt", round.to_string());
            let begun = Instant::now();
            while client.get("/sub/page.txt").text() != round.to_string() {
                assert!(begun.elapsed() < Duration::from_secs(3), "{inject}: round {round}");
            }
        }
        server.wait_for_line(message);
        let told = server.err.all().iter().filter(|line| line.contains(message)).count();
        // of uploads too, which are in a folder of their own
        assert!(told <= 2, "{inject}: told {told} times");
        server.stop().assert_clean();
    }
}

/// For a digest of a large file all of it is read, and for a coding of it too. However many ask, that is done for two of them at most, and
/// the others are told what was found; the coding is made once more as well as it gets.
#[test]
fn what_takes_long_is_not_done_for_each_who_asks() {
    const LENGTH: usize = 2 << 20;
    for (fields, times) in [("Want-Repr-Digest: sha-256=1\r\n", 2), ("Accept-Encoding: zstd, identity;q=0\r\n", 3)] {
        let tree = Tree::site();
        tree.write("large.txt", &b"a line that comes again and again\n".repeat(LENGTH / 34 + 1)[..LENGTH]);
        // a file that has just been written is loaded again, and all is forgotten that is known of it
        pause(200);
        let lines = trace("pread64", tree, |server| {
            let mut clients: Vec<_> = (0..30).map(|_| server.connect()).collect();
            clients.iter_mut().for_each(|client| client.send(request("HEAD", "/large.txt", fields)));
            let answers: Vec<_> = clients.iter_mut().map(|client| client.answer_to_head()).collect();
            assert!(answers.iter().all(|answer| answer.status == 200), "{fields}");
        });
        let Some(lines) = lines else { return };
        let read = |line: &String| line.rsplit(" = ").next()?.parse::<usize>().ok().filter(|bytes| *bytes > 65_536);
        let bytes: usize = lines.iter().filter_map(read).sum();
        assert!((LENGTH..=times * LENGTH).contains(&bytes), "{fields}: {bytes} bytes were read for a file of {LENGTH}");
    }
}
