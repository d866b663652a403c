//! The sandbox: what the process can not do any more, on a worker and on the blocking pool, and that it says so.
//!
//! Acts are tried inside the server, by fault points; every one of them succeeds without the sandbox, so that a refusal means something.

use std::net::TcpListener;
use std::path::Path;

use crate::client::request;
use crate::harness::{Builder, Ran, Server, Tree};

/// What the start says of the sandbox.
fn told(server: &Server) -> String {
    server.wait_for_line("sandbox: ")
}

/// Whether this kernel has all of it.
fn is_whole(server: &Server) -> bool {
    let line = told(server);
    let is_whole = line.starts_with("sandbox: files, connections, devices, signals (Landlock ");
    if !is_whole {
        eprintln!("SKIPPED: this kernel has not all of it: {line}");
    }
    is_whole
}

/// Starts the program below strace, which changes what the kernel says to the calls of the sandbox.
fn on_another_kernel(args: &[&str], inject: &str) -> Builder {
    let trace = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=landlock_create_ruleset", "-e", inject];
    Builder::new(args).through(&trace)
}

pub fn has_strace() -> bool {
    let mut command = std::process::Command::new("strace");
    command.args(["-D", "-f", "-qq", "-o", "/dev/null", "true"]).stdin(std::process::Stdio::null());
    let has_it = command.output().is_ok_and(|output| output.status.success());
    if !has_it {
        eprintln!("SKIPPED: no strace that may trace");
    }
    has_it
}

#[cfg(debug_assertions)]
mod inside {
    use super::*;

    /// Has the server try something; gives what came of it.
    fn attempt(server: &Server, place: &str, act: &str) -> String {
        server.ask(request("GET", "/", &format!("Millpond-Fault: try-{place} {act}\r\n"))).text()
    }

    #[test]
    fn nothing_outside_can_be_read_written_reached_or_signalled() {
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = format!("connect {}", elsewhere.local_addr().unwrap());
        let signal = format!("signal {}", std::process::id());
        for (sandbox, is_on) in [("off", false), ("on", true)] {
            let server = Server::start(&["--sandbox", sandbox]);
            if is_on && !is_whole(&server) {
                return;
            }
            let tree = server.tree();
            let named = |act: &str, path: &Path| format!("{act} {}", path.display());
            let refused = [
                "read /etc/passwd".to_owned(),
                named("read", &tree.outside("secret.txt")),
                named("read", Path::new("/proc/self/environ")),
                named("write", &tree.outside("new.txt")),
                named("write", &tree.outside("secret.txt")),
                named("write", &tree.path("new.txt")),
                named("write", &tree.path("hello.txt")),
                connect.clone(),
                "bind 127.0.0.1:0".to_owned(),
                signal.clone(),
            ];
            for place in ["worker", "pool", "watcher"] {
                let stored = tree.path(format!("uploads/{place}.txt"));
                let allowed = [named("read", &tree.path("hello.txt")), named("write", &stored), named("read", &stored)];
                for act in &refused {
                    let got = attempt(&server, place, act);
                    if is_on {
                        assert!(got.contains("Permission denied") || got.contains("Operation not permitted"), "{place}: {act}: {got}");
                    } else {
                        assert_eq!(got, "done", "{place}: {act}, without the sandbox");
                    }
                }
                for act in &allowed {
                    assert_eq!(attempt(&server, place, act), "done", "{place}: {act}, sandbox {sandbox}");
                }
                // what is stored is not emptied any more
                let again = attempt(&server, place, &named("write", &stored));
                assert_eq!(again == "done", !is_on, "{place}: {again}");
            }
            server.stop().assert_clean();
        }
    }

    /// Links that are followed anywhere need everything to be readable, and nothing else.
    #[test]
    fn links_that_are_followed_open_reading_alone() {
        let server = Server::start(&["--symlinks", "follow"]);
        if !is_whole(&server) {
            return;
        }
        server.wait_for_line("the sandbox lets everything be read");
        assert_eq!(attempt(&server, "pool", "read /etc/passwd"), "done");
        let write = format!("write {}", server.tree().outside("new.txt").display());
        assert!(attempt(&server, "pool", &write).contains("Permission denied"));
    }

    #[test]
    fn a_worker_that_was_replaced_is_confined_too() {
        let server = Server::start(&["--threads", "1"]);
        if !is_whole(&server) {
            return;
        }
        // the connection of the worker that ends gets no answer
        server.connect().send(request("GET", "/", "Millpond-Fault: worker\r\n"));
        server.wait_for_line("ended and was replaced");
        let got = attempt(&server, "worker", "read /etc/passwd");
        assert!(got.contains("Permission denied"), "{got}");
    }
}

#[test]
fn the_whole_of_it_can_be_required() {
    let on = Server::start(&["--sandbox", "on"]);
    if is_whole(&on) {
        let server = Server::start(&["--sandbox", "require"]);
        assert_eq!(told(&server), told(&on));
        server.assert_well("the sandbox was required");
    }
    let off = Server::start(&["--sandbox", "off"]);
    assert_eq!(told(&off), "sandbox: off");
}

#[test]
fn a_kernel_that_has_less_is_told_of_and_refused_where_all_is_required() {
    if !has_strace() {
        return;
    }
    let kernels = [
        ("inject=landlock_create_ruleset:error=ENOSYS", "none (there is no Landlock here)"),
        ("inject=landlock_create_ruleset:error=EOPNOTSUPP", "none (Landlock is not enabled here)"),
        ("inject=landlock_create_ruleset:retval=3:when=1", "files, but not connections, devices, signals (Landlock 3;"),
    ];
    for (inject, says) in kernels {
        let server = on_another_kernel(&["--sandbox", "on"], inject).start();
        let line = told(&server);
        assert!(line.contains(says), "{inject}: {line}");
        server.assert_well(inject);
        server.stop().assert_clean();

        let Ran { code, err, .. } = on_another_kernel(&["--sandbox", "require"], inject).tree(Tree::site()).run();
        assert_eq!(code, Some(2), "{inject}: {err}");
        assert!(err.lines().count() == 1 && err.contains(says) && err.contains("--sandbox on"), "{inject}: {err}");
    }
}

/// What is given up before there is a second thread is given up by all.
#[test]
fn it_is_entered_before_any_thread_exists() {
    if !has_strace() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("trace");
    let calls = "trace=clone,clone3,bind,setuid,setgid,setgroups,landlock_restrict_self";
    let trace = ["strace", "-D", "-f", "-q", "-o", output.to_str().unwrap(), "-e", calls];
    let is_root = rustix::process::geteuid().is_root();
    let log = folder.path().join("access.log");
    let mut builder = Builder::new(&["--access-log", log.to_str().unwrap()]).through(&trace);
    if is_root {
        // a number with no name: no library for names is asked once it is root no more
        builder = builder.arg("--user").arg("12345:12345");
        crate::harness::set_mode(folder.path(), 0o777);
    }
    let tree = Tree::site();
    crate::harness::set_mode(&tree.outside(""), 0o755);
    let server = builder.tree(tree).start();
    server.assert_well("the start");
    // what goes along with it is seen at every thread: that of the log, of the watcher, of the compressor, and so on
    let tasks: Vec<_> = std::fs::read_dir(format!("/proc/{}/task", server.pid().as_raw_nonzero())).unwrap().collect();
    assert!(tasks.len() > 4, "{} threads", tasks.len());
    for task in tasks {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
    }
    server.stop().assert_clean();
    let text = || std::fs::read_to_string(&output).unwrap_or_default();
    crate::harness::until("the trace is written to its end", || text().contains("+++ exited with 0 +++"));
    let text = text();
    let first = |call: &str| text.lines().position(|line| line.contains(call)).unwrap_or_else(|| panic!("no {call}: {text}"));
    let order: &[&str] = if is_root { &["bind(", "setgroups(", "setgid(", "setuid(", "landlock_restrict_self("] } else { &["bind("] };
    assert!(order.is_sorted_by_key(|call| first(call)), "{text}");
    let thread = text.lines().position(|line| line.contains("clone3(") || line.contains("clone(")).expect("threads are started");
    assert!(first("landlock_restrict_self(") < thread, "{text}");
}
