//! What only the system calls show: the order in which a file is written, made safe and named before it is told of; and what becomes of an
//! upload when one of these calls fails.
//!
//! These tests look through strace, which can also let calls fail. Without strace they are skipped, and say so.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::{FORM, folder, form, listing, open_files, post, post_form, post_named, receipt, request};
use crate::harness::{Builder, Server, Tree, noise, pause, until};

const CALLS: &str = "openat,openat2,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,link,linkat,rename,renameat,renameat2,unlink,unlinkat,\
    flock,sendto,sendmsg";

/// A start of the program below strace; `None`: there is no strace, or it may not trace.
fn traced(args: &[&str], calls: &str, more: &[&str], output: &Path) -> Option<Builder> {
    static WORKS: OnceLock<bool> = OnceLock::new();
    let works = *WORKS.get_or_init(|| {
        let mut command = Command::new("strace");
        command.args(["-D", "-f", "-y", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "true"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    });
    if !works {
        eprintln!("SKIPPED: no strace that may trace");
        return None;
    }
    let trace = format!("trace={calls}");
    let output: &OsStr = output.as_ref();
    let mut wrapper = vec!["strace", "-D", "-f", "-y", "-q", "-s", "40", "-o", output.to_str().unwrap(), "-e", &trace];
    wrapper.extend(more);
    Some(Builder::new(args).through(&wrapper))
}

/// One thread of each kind makes the order of the calls one order.
const ONE: &[&str] = &["--threads", "1", "--blocking-threads", "1"];

/// One system call: where in the trace it began and ended, and its text.
#[derive(Debug, Clone)]
struct Call {
    thread: String,
    name: String,
    text: String,
    result: i64,
    began: usize,
    ended: usize,
}

impl Call {
    fn is(&self, names: &[&str], part: &str) -> bool {
        names.contains(&self.name.as_str()) && self.text.contains(part)
    }
}

/// Puts calls together that strace had to show in two pieces because others came between.
fn read_trace(text: &str) -> Vec<Call> {
    let (mut calls, mut open): (Vec<Call>, Vec<Call>) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let result = |text: &str| text.rsplit_once(" = ").and_then(|(_, after)| after.split([' ', '<']).next()?.parse().ok()).unwrap_or(-1);
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some(at) = open.iter().position(|call| call.thread == thread) else { continue };
            let mut call = open.remove(at);
            call.text.push_str(resumed.split_once("resumed>").map_or("", |(_, after)| after));
            call.result = result(&call.text);
            call.ended = number;
            calls.push(call);
        } else if let Some((name, _)) = rest.split_once('(') {
            let call = Call {
                thread: thread.to_owned(),
                name: name.to_owned(),
                text: rest.replace(" <unfinished ...>", ""),
                result: result(rest),
                began: number,
                ended: number,
            };
            if rest.ends_with("<unfinished ...>") { open.push(call) } else { calls.push(call) }
        }
    }
    calls.sort_by_key(|call| call.began);
    calls
}

#[test]
fn the_reader_of_traces_reads() {
    let text = "12 openat(5</a>, \".\", O_RDWR|O_TMPFILE, 0600) = 7</a/#12>(deleted)\n13 fsync(7</a/#12>(deleted) <unfinished ...>\n\
        12 write(1</x>, \"b\"..., 1) = 1\n13 <... fsync resumed>) = 0\n12 sendto(9<socket:[1]>, \"HTTP/1.1 201\"..., 20, 0, NULL, 0) = -1 EPIPE (Broken pipe)\n";
    let calls = read_trace(text);
    let shown: Vec<_> = calls.iter().map(|call| (call.name.as_str(), call.result, call.began, call.ended)).collect();
    assert_eq!(shown, [("openat", 7, 0, 0), ("fsync", 0, 1, 3), ("write", 1, 2, 2), ("sendto", -1, 4, 4)]);
}

/// Serves below strace, speaks, ends it, and gives the calls.
fn trace(more: &[&str], speak: impl FnOnce(&Server)) -> Option<Vec<Call>> {
    let kept = tempfile::tempdir().unwrap();
    let output = kept.path().join("trace");
    let server = traced(ONE, CALLS, more, &output)?.start();
    speak(&server);
    server.stop().assert_clean();
    let text = || fs::read_to_string(&output).unwrap_or_default();
    until("the trace is written to its end", || text().contains("+++ exited with 0 +++"));
    Some(read_trace(&text()))
}

const OPENS: &[&str] = &["openat", "openat2"];
const WRITES: &[&str] = &["write", "pwrite64", "writev", "pwritev", "pwritev2"];
const SENDS: &[&str] = &["write", "writev", "sendto", "sendmsg"];
const SYNCS: &[&str] = &["fsync"];
const NAMES: &[&str] = &["linkat"];

/// What was said of the calls of one upload: everything about these files, in this folder, up to the answer.
fn assert_order(calls: &[Call], folder: &str, files: &[(&str, usize)]) {
    let shown = || calls.iter().map(|call| format!("{} {}", call.thread, call.text)).collect::<Vec<_>>().join("\n");
    let answer = calls.iter().find(|call| call.is(SENDS, "HTTP/1.1 201")).unwrap_or_else(|| panic!("no 201 was sent:\n{}", shown()));
    let opened: Vec<&Call> =
        calls.iter().filter(|call| call.is(OPENS, "O_TMPFILE") && call.text.contains(folder) && call.result >= 0).collect();
    assert_eq!(opened.len(), files.len(), "one file without a name each:\n{}", shown());
    let mut last_named = 0;
    for ((name, bytes), opened) in files.iter().zip(opened) {
        // `7</folder/#12>`: the descriptor with what strace knows about it, up to its end.
        let descriptor = opened.text.rsplit(" = ").next().unwrap();
        let descriptor = &descriptor[..=descriptor.find('>').unwrap()];
        let of_file = |names: &'static [&str]| calls.iter().filter(move |call| call.is(names, "(") && call.text.contains(descriptor));
        let writes: Vec<&Call> = of_file(WRITES).collect();
        let written: i64 = writes.iter().map(|call| call.result).sum();
        assert_eq!(written, *bytes as i64, "{name}: written:\n{}", shown());
        assert!(writes.iter().all(|call| call.began > opened.ended), "{name}: written after it was opened:\n{}", shown());
        let last_write = writes.iter().map(|call| call.ended).max().unwrap_or(opened.ended);
        let synced = of_file(SYNCS).find(|call| call.began > last_write && call.result == 0);
        let synced = synced.unwrap_or_else(|| panic!("{name}: no fsync after the last write:\n{}", shown()));
        let named = calls.iter().find(|call| call.is(NAMES, &format!("\"{name}\"")) || call.is(NAMES, &format!("/{name}\"")));
        let named = named.unwrap_or_else(|| panic!("{name}: no linkat:\n{}", shown()));
        assert_eq!(named.result, 0, "{name}:\n{}", shown());
        assert!(named.began > synced.ended, "{name}: named after it was safe:\n{}", shown());
        last_named = last_named.max(named.ended);
    }
    let whole = calls.iter().find(|call| call.is(SYNCS, &format!("<{folder}>")) && call.began > last_named && call.result == 0);
    let whole = whole.unwrap_or_else(|| panic!("no fsync of the folder after the last name:\n{}", shown()));
    assert!(answer.began > whole.ended, "told after it was safe:\n{}", shown());
    assert!(
        !calls.iter().any(|call| call.is(&["rename", "renameat", "renameat2"], folder)),
        "nothing takes the place of another:\n{}",
        shown()
    );
}

#[test]
fn written_made_safe_named_made_safe_told() {
    let body = noise(1, 300_000);
    let mut path = String::new();
    let calls = trace(&[], |server| {
        path = fs::canonicalize(folder(server)).unwrap().to_str().unwrap().to_owned();
        assert_eq!(post_named(server, "order.bin", &body).status, 201);
    });
    let Some(calls) = calls else { return };
    assert_order(&calls, &path, &[("order.bin", body.len())]);
}

#[test]
fn two_files_of_a_form_in_the_same_order() {
    let body = noise(2, 150_000);
    let mut path = String::new();
    let calls = trace(&[], |server| {
        path = fs::canonicalize(folder(server)).unwrap().to_str().unwrap().to_owned();
        let answer = post_form(server, &[("name=\"f\"; filename=\"one.bin\"", &body), ("name=\"f\"; filename=\"two.bin\"", b"two")]);
        assert_eq!(answer.status, 201);
    });
    let Some(calls) = calls else { return };
    assert_order(&calls, &path, &[("one.bin", body.len()), ("two.bin", 3)]);
    // All or none: the first is not named before the last is safe.
    let first_named = calls.iter().find(|call| call.is(NAMES, "one.bin")).unwrap();
    let last_written = calls.iter().filter(|call| call.is(SYNCS, &format!("<{path}/"))).map(|call| call.ended).max().unwrap();
    assert!(first_named.began > last_written, "one.bin was named before two.bin was safe");
}

/// Whatever fails, the answer says so and nothing is left.
#[test]
fn calls_that_fail() {
    let one = |server: &Server| post_named(server, "one.bin", noise(1, 100_000));
    let two = |server: &Server| {
        post(
            server,
            "/uploads/",
            FORM,
            form(&[("name=\"f\"; filename=\"one.bin\"", &noise(1, 1_000)), ("name=\"f\"; filename=\"two.bin\"", b"two")]),
        )
    };
    type Speak<'a> = &'a dyn Fn(&Server) -> crate::client::Response;
    let rows: [(&str, &str, Speak, &[u16]); 8] = [
        ("the file can not be made safe", "inject=fsync,fdatasync:error=EIO", &one, &[500]),
        ("no room when it is made safe", "inject=fsync,fdatasync:error=ENOSPC", &one, &[507]),
        ("no quota when it is made safe", "inject=fsync,fdatasync:error=EDQUOT", &one, &[507]),
        ("the folder can not be made safe", "inject=fsync:error=EIO:when=2", &one, &[500]),
        ("the second file can not be made safe", "inject=fsync:error=EIO:when=2", &two, &[500]),
        ("it can not be named", "inject=linkat:error=EIO", &one, &[500]),
        ("no room for its name", "inject=linkat:error=ENOSPC", &one, &[507]),
        ("the second can not be named", "inject=linkat:error=ENOSPC:when=2", &two, &[507]),
    ];
    for (name, inject, speak, statuses) in rows {
        let Some(builder) = traced(ONE, CALLS, &["-e", inject], Path::new("/dev/null")) else { return };
        let server = builder.start();
        let answer = speak(&server);
        assert!(statuses.contains(&answer.status), "{name}: {} {}", answer.status, answer.text());
        assert_eq!(listing(&folder(&server)), Vec::<String>::new(), "{name}");
        until(&format!("{name}: given up"), || open_files(&server, &folder(&server)) == 0);
        assert_eq!(server.get("/uploads/one.bin").status, 404, "{name}");
        server.assert_well(name);
    }
}

/// A lookup finds nothing and is slow to say so; meanwhile the file is stored. What the lookup found is not remembered beyond that.
#[test]
fn a_lookup_that_was_under_way_is_not_remembered() {
    let wrapper = ["-e", "inject=openat2:delay_exit=400000"];
    let Some(builder) = traced(&["--threads", "2"], "openat2", &wrapper, Path::new("/dev/null")) else { return };
    let server = builder.start();
    for round in 0..3 {
        let name = format!("round-{round}.bin");
        let target = format!("/uploads/{name}");
        // A look from here, so that the system knows that there is nothing and tells the server without a second try.
        assert!(!folder(&server).join(&name).exists());
        let mut early = server.connect();
        early.send_get(&target);
        until("the lookup is under way", || is_held(&server));
        assert_eq!(post_named(&server, &name, "stored").status, 201);
        let found = early.answer().status;
        let after = server.get(&target);
        assert_eq!(after.status, 200, "{name}: right after its 201, and the lookup before it said {found}");
        assert_eq!(after.text(), "stored", "{name}");
    }
}

/// The folder is being counted for one upload while another gets its name: the quota holds all the same.
#[test]
fn the_quota_holds_while_the_folder_is_counted() {
    let wrapper = ["-e", "inject=getdents64:delay_exit=400000"];
    let args = ["--threads", "2", "--upload-quota", "1000"];
    let Some(builder) = traced(&args, "getdents64", &wrapper, Path::new("/dev/null")) else { return };
    let server = builder.start();
    let mut first = server.connect();
    let whole = request(&server, "/uploads/?name=first.bin", "", &noise(1, 600));
    first.send(&whole[..whole.len() - 1]);
    until("the first has begun", || open_files(&server, &folder(&server)) == 1);
    let mut second = server.connect();
    second.send(request(&server, "/uploads/?name=second.bin", "", &noise(2, 600)));
    until("the folder is being counted for the second", || is_held(&server));
    first.send(&whole[whole.len() - 1..]);
    let statuses = [first.answer().status, second.answer().status];
    let bytes: u64 = fs::read_dir(folder(&server)).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= 1_000, "{bytes} bytes are in a folder that may hold 1000; the two answers were {statuses:?}");
}

/// The note by which a form is undone after a kill can not be taken away: then the form is not stored, or it stays for good.
#[test]
fn a_form_that_was_answered_is_not_undone() {
    for which in 1..=3 {
        let inject = format!("inject=unlinkat,unlink:error=EIO:when={which}");
        let tree = Tree::site();
        let root = tree.root();
        let Some(builder) = traced(ONE, CALLS, &["-e", &inject], Path::new("/dev/null")) else { return };
        let server = builder.root(&root).start();
        let answer = post_form(&server, &[("name=\"f\"; filename=\"one.bin\"", b"one"), ("name=\"f\"; filename=\"two.bin\"", b"two")]);
        server.signal(rustix::process::Signal::KILL);
        server.finish();
        let server = Builder::new(&[]).root(&root).start();
        let name = format!("unlink {which} failed, answered with {}", answer.status);
        let left: Vec<String> = listing(&root.join("uploads")).into_iter().filter(|name| !name.starts_with('.')).collect();
        if answer.status == 201 {
            assert_eq!(left, ["one.bin", "two.bin"], "{name}");
        } else {
            assert!([500, 507].contains(&answer.status), "{name}");
            assert_eq!(left, Vec::<String>::new(), "{name}");
        }
        server.assert_well(&name);
    }
}

/// Whether a thread of the server is held by its tracer, and not only for a moment.
fn is_held(server: &Server) -> bool {
    let held = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", server.pid().as_raw_nonzero())).unwrap();
        let states = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
        // `t`: stopped by its tracer.
        let of_held = states.filter(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('t')));
        of_held.filter_map(|stat| Some(stat.split_once(' ')?.0.to_owned())).collect::<Vec<String>>()
    };
    let before = held();
    pause(30);
    let after = held();
    before.iter().any(|task| after.contains(task))
}

/// A file system without O_TMPFILE: a hidden, locked file takes its place, and it is gone in the end.
#[test]
fn without_files_that_have_no_name() {
    // Which of the openings, counted by thread, is the one that asks for a file without a name?
    let kept = tempfile::tempdir().unwrap();
    let output = kept.path().join("trace");
    let Some(builder) = traced(ONE, "openat", &[], &output) else { return };
    let server = builder.start();
    assert_eq!(post_named(&server, "first.bin", "x").status, 201);
    server.stop().assert_clean();
    let text = || fs::read_to_string(&output).unwrap_or_default();
    until("the trace is written to its end", || text().contains("+++ exited with 0 +++"));
    let calls = read_trace(&text());
    let asked = calls.iter().find(|call| call.text.contains("O_TMPFILE") && call.result >= 0).expect("a file without a name");
    let count = calls.iter().filter(|call| call.thread == asked.thread && call.began <= asked.began).count();

    for error in ["EOPNOTSUPP", "EISDIR"] {
        let inject = format!("inject=openat:error={error}:when={count}");
        let output = kept.path().join(error);
        let server = traced(ONE, CALLS, &["-e", &inject], &output).unwrap().tree(Tree::site()).start();
        let body = noise(5, 200_000);
        let stored = receipt(&post_named(&server, "named.bin", &body), error);
        assert_eq!(stored.names(), ["named.bin"], "{error}");
        assert_eq!(fs::read(folder(&server).join("named.bin")).unwrap(), body, "{error}");
        assert_eq!(listing(&folder(&server)), ["named.bin"], "{error}: the temporary name is gone");
        let path = fs::canonicalize(folder(&server)).unwrap();
        server.stop().assert_clean();
        let text = || fs::read_to_string(&output).unwrap_or_default();
        until("the trace is written to its end", || text().contains("+++ exited with 0 +++"));
        let calls = read_trace(&text());
        let shown = || calls.iter().map(|call| call.text.clone()).collect::<Vec<_>>().join("\n");
        assert!(
            calls.iter().any(|call| call.text.contains("O_TMPFILE") && call.text.contains("INJECTED")),
            "{error}: it was let fail:\n{}",
            shown()
        );
        let temporary = |call: &&Call| call.is(OPENS, "/.upload-") || call.is(OPENS, "\".upload-");
        let made = calls.iter().find(temporary).unwrap_or_else(|| panic!("{error}: no temporary file:\n{}", shown()));
        assert!(made.text.contains("O_EXCL") && made.text.contains("O_CREAT"), "{error}: {}", made.text);
        let first_write = calls.iter().find(|call| call.is(WRITES, "/.upload-")).unwrap();
        assert!(
            calls.iter().any(|call| call.is(&["flock"], "LOCK_EX") && call.ended < first_write.began),
            "{error}: locked first:\n{}",
            shown()
        );
        let named = calls.iter().find(|call| call.text.contains("named.bin") && call.is(&["linkat", "renameat2"], "")).unwrap();
        assert!(named.name == "linkat" || named.text.contains("RENAME_NOREPLACE"), "{error}: never over another: {}", named.text);
        let synced = calls.iter().find(|call| call.is(SYNCS, "/.upload-") && call.result == 0).unwrap();
        assert!(synced.began > first_write.ended && named.began > synced.ended, "{error}:\n{}", shown());
        let whole = calls.iter().find(|call| call.is(SYNCS, &format!("<{}>", path.display())) && call.began > named.ended);
        let whole = whole.unwrap_or_else(|| panic!("{error}: no fsync of the folder:\n{}", shown()));
        let answer = calls.iter().find(|call| call.is(SENDS, "HTTP/1.1 201")).unwrap();
        assert!(answer.began > whole.ended, "{error}:\n{}", shown());
    }
}
