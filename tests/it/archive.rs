//! Folders that are downloaded as one file: what goes in, and that programs of others can read it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, Mode};

use crate::client::{Client, Ending, Response, request};
use crate::harness::{Builder, Server, Tree, assert_same_bytes, noise, until};
use crate::listing::hostile_names;

const FORMS: [(&str, &str); 3] = [("tar", "application/x-tar"), ("tar.gz", "application/gzip"), ("zip", "application/zip")];

/// Reads an archive with Python's own modules and writes, for each member, its name and its content in hexadecimal; folders have `-`.
const READER: &str = r#"
import sys, tarfile, zipfile
form, path = sys.argv[1:]
def tell(name, data):
    print(name.hex(), '-' if data is None else 'x' + data.hex())
if form == 'zip':
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for member in archive.infolist():
            utf8 = member.flag_bits & 0x800
            name = member.orig_filename.encode('utf-8' if utf8 else 'cp437')
            tell(name, None if name.endswith(b'/') else archive.read(member))
else:
    with tarfile.open(path, 'r:gz' if form == 'tar.gz' else 'r:', encoding='utf-8', errors='surrogateescape') as archive:
        for member in archive:
            name = member.name.encode('utf-8', 'surrogateescape')
            assert member.isdir() or member.isreg(), member
            tell(name + (b'/' if member.isdir() else b''), None if member.isdir() else archive.extractfile(member).read())
"#;

type Members = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The members of an archive by a reader that is not ours; `None` where there is none.
fn members(form: &str, archive: &[u8]) -> Option<Members> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive");
    fs::write(&path, archive).unwrap();
    let Ok(ran) = Command::new("python3").args(["-c", READER, form]).arg(&path).stdin(Stdio::null()).output() else {
        eprintln!("skipped: there is no python3 to read archives with");
        return None;
    };
    assert!(ran.status.success(), "{form}: {}", String::from_utf8_lossy(&ran.stderr));
    let mut members = Members::new();
    for line in String::from_utf8(ran.stdout).unwrap().lines() {
        let (name, data) = line.split_once(' ').unwrap();
        let before = members.insert(unhex(name), data.strip_prefix('x').map(unhex));
        assert_eq!(before, None, "{form}: {line} is there twice");
    }
    Some(members)
}

fn archiving(tree: Tree) -> Server {
    Builder::new(&["--listing", "--archive"]).tree(tree).start()
}

fn download(server: &Server, folder: &str, form: &str) -> Response {
    let answer = server.get(&format!("{folder}?download={form}"));
    assert_eq!(answer.status, 200, "{folder} {form}: {}", answer.text());
    answer
}

#[test]
fn a_folder_comes_as_one_file_in_every_form() {
    let tree = Tree::site();
    let large = noise(7, 700_001);
    for (name, bytes) in [("docs/a.txt", &b"a"[..]), ("docs/empty", b""), ("docs/block", &[b'x'; 512]), ("docs/sub/deep/large.bin", &large)]
    {
        tree.write(name, bytes);
    }
    fs::create_dir(tree.path("docs/nothing-in-it")).unwrap();
    let server = archiving(tree);
    let expected: Members = [
        ("docs/a.txt", Some(b"a".to_vec())),
        ("docs/empty", Some(Vec::new())),
        ("docs/block", Some(vec![b'x'; 512])),
        ("docs/nothing-in-it/", None),
        ("docs/sub/", None),
        ("docs/sub/deep/", None),
        ("docs/sub/deep/large.bin", Some(large)),
    ]
    .map(|(name, data)| (name.as_bytes().to_vec(), data))
    .into();
    for (form, kind) in FORMS {
        let answer = download(&server, "/docs/", form);
        assert_eq!(answer.need("content-type"), kind);
        let disposition = format!("attachment; filename=\"docs.{form}\"; filename*=UTF-8''docs.{form}");
        assert_eq!(answer.need("content-disposition"), disposition);
        assert_eq!((answer.need("cache-control"), answer.need("accept-ranges")), ("no-store", "none"));
        let head = server.connect().head(&format!("/docs/?download={form}"));
        assert_eq!(head.status, 200);
        for field in ["content-type", "content-disposition", "cache-control"] {
            assert_eq!(head.need(field), answer.need(field), "{form}");
        }
        if let Some(found) = members(form, &answer.body) {
            assert!(found == expected, "{form}: {:?}", found.keys().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>());
        }
        // for the root there is a name, too, which tells nothing of this machine
        let deep = download(&server, "/docs/sub/", form);
        assert!(deep.need("content-disposition").contains(&format!("\"sub.{form}\"")));
    }
    let page = server.get("/docs/").text();
    for (form, _) in FORMS {
        assert!(page.contains(&format!("<a href=\"?download={form}\"")), "{form} is offered");
    }
}

#[test]
fn an_empty_folder_is_in_its_own_archive() {
    let tree = Tree::site();
    fs::create_dir(tree.path("docs")).unwrap();
    let server = archiving(tree);
    for (form, _) in FORMS {
        let found = members(form, &download(&server, "/docs/", form).body);
        assert!(found.is_none_or(|found| found == Members::from([(b"docs/".to_vec(), None)])), "{form}");
    }
}

#[test]
fn archives_are_for_those_who_asked_for_them() {
    let server = Builder::new(&["--listing"]).start();
    assert_eq!(server.get("/bare/?download=tar").status, 403);
    assert!(!server.get("/bare/").text().contains("?download="), "nothing is offered");
    drop(server);
    let server = archiving(Tree::site());
    assert_eq!(server.get("/bare/?download=rar").status, 400);
    assert_eq!(server.get("/missing/?download=tar").status, 404);
    assert!(server.get("/sub/?download=tar").text().contains("<title>sub</title>"), "a folder with an index is its index");
    assert_eq!(server.get("/hello.txt?download=tar").text(), crate::harness::HELLO);
    let ran = Builder::new(&["--archive"]).tree(Tree::site()).run();
    assert!(ran.code == Some(2) && ran.err.contains("--listing"), "{ran:?}");
    for args in [["--archive-limit", "0"], ["--archive-depth", "x"], ["--archive-jobs", "0"]] {
        assert_eq!(Builder::new(&args).tree(Tree::site()).run().code, Some(2), "{args:?}");
    }
}

#[test]
fn names_go_in_as_they_are() {
    let tree = Tree::empty();
    let mut expected = Members::new();
    for name in hostile_names() {
        fs::create_dir_all(tree.path("d").join(OsStr::from_bytes(&name)).join("deep")).unwrap();
        fs::write(tree.path("d").join(OsStr::from_bytes(&name)).join("deep").join(OsStr::from_bytes(&name)), &name).unwrap();
        let top = [b"d/", &name[..], b"/"].concat();
        expected.insert(top.clone(), None);
        expected.insert([&top[..], b"deep/"].concat(), None);
        expected.insert([&top[..], b"deep/", &name].concat(), Some(name));
    }
    let server = archiving(tree);
    for (form, _) in FORMS {
        let answer = download(&server, "/d/", form);
        let Some(found) = members(form, &answer.body) else { return };
        let mut expected = expected.clone();
        if form == "zip" {
            // a folder that is not text has no entry of its own; what is in it has
            expected.retain(|name, data| data.is_some() || std::str::from_utf8(name).is_ok());
        }
        let shown = |members: &Members| members.keys().map(|name| name.escape_ascii().to_string()).collect::<Vec<_>>();
        assert_eq!(shown(&found), shown(&expected), "{form}");
        assert!(found == expected, "{form}: contents");
    }
    // in Content-Disposition, too, nothing gets out
    for (path, plain, extended) in [
        (
            "/d/%3Cimg%20src=x%20onerror=alert(1)%3E/",
            "_img src_x onerror_alert_1__.tar",
            "%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E.tar",
        ),
        ("/d/two%0Alines%0D%0AX-Evil:%201/", "two_lines__X-Evil_ 1.tar", "two%E2%90%8Alines%E2%90%8D%E2%90%8AX-Evil%3A%201.tar"),
        ("/d/caf%E9-%FF%FE/", "caf_-__.tar", "caf%EF%BF%BD-%EF%BF%BD%EF%BF%BD.tar"),
    ] {
        let answer = download(&server, path, "tar");
        assert_eq!(answer.need("content-disposition"), format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{extended}"));
    }
}

/// GNU tar reads it too, as a stream.
#[test]
fn tar_reads_it_as_a_stream() {
    let tree = Tree::empty();
    let name = "n".repeat(255);
    tree.write(format!("d/{name}"), "long");
    tree.write("d/--checkpoint-action=exec=touch evil", "dash");
    let server = archiving(tree);
    for (form, flag) in [("tar", "-xf"), ("tar.gz", "-xzf")] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive");
        fs::write(&path, download(&server, "/d/", form).body).unwrap();
        let Ok(ran) = Command::new("tar").arg(flag).arg(&path).arg("-C").arg(folder.path()).stdin(Stdio::null()).output() else {
            eprintln!("skipped: there is no tar");
            return;
        };
        assert!(ran.status.success() && ran.stderr.is_empty(), "{form}: {ran:?}");
        assert_eq!(fs::read_to_string(folder.path().join("d").join(&name)).unwrap(), "long");
        assert_eq!(fs::read_to_string(folder.path().join("d/--checkpoint-action=exec=touch evil")).unwrap(), "dash");
    }
}

#[test]
fn what_may_not_be_fetched_does_not_go_in() {
    let tree = Tree::empty();
    for name in ["d/.env", "d/.git/config", "d/a/.hidden", "d/a/seen.txt", "d/back\\slash", ".well-known/acme.txt", "uploads/x"] {
        tree.write(name, name);
    }
    let secret = tree.outside("secret.txt");
    symlink(&secret, tree.path("d/out")).unwrap();
    symlink("../../secret.txt", tree.path("d/out-relative")).unwrap();
    symlink("../..", tree.path("d/out-folder")).unwrap();
    symlink("..", tree.path("d/a/loop")).unwrap();
    symlink(".", tree.path("d/a/self")).unwrap();
    symlink("a", tree.path("d/link-to-folder")).unwrap();
    symlink("a/seen.txt", tree.path("d/link")).unwrap();
    rustix::fs::mknodat(CWD, tree.path("d/fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let server = archiving(tree);
    for (form, _) in FORMS {
        let Some(found) = members(form, &download(&server, "/d/", form).body) else { return };
        let names: Vec<_> = found.iter().map(|(name, data)| (std::str::from_utf8(name).unwrap(), data.as_deref())).collect();
        let seen = Some(&b"d/a/seen.txt"[..]);
        assert_eq!(names, [("d/a/", None), ("d/a/seen.txt", seen), ("d/link", seen)], "{form}: a link to a file is its content");
        let found = members(form, &download(&server, "/", form).body).unwrap();
        let names: Vec<_> = found.keys().map(|name| std::str::from_utf8(name).unwrap()).collect();
        let expected = ["files/.well-known/", "files/.well-known/acme.txt", "files/d/", "files/d/a/", "files/d/a/seen.txt", "files/d/link"];
        assert_eq!(names, expected, "{form}: dotfiles and uploads stay out");
    }
}

#[test]
fn bounds_of_an_archive() {
    for (files, status) in [(3, 200), (4, 200), (5, 403)] {
        let tree = Tree::empty();
        // one folder, and what is hidden counts as well
        tree.write("d/sub/.hidden", "");
        (0..files - 2).for_each(|i| tree.write(format!("d/f{i}"), ""));
        let server = Builder::new(&["--listing", "--archive", "--archive-limit", "4"]).tree(tree).start();
        for (form, _) in FORMS {
            assert_eq!(server.get(&format!("/d/?download={form}")).status, status, "{files} entries");
            assert_eq!(server.connect().head(&format!("/d/?download={form}")).status, status, "{files} entries");
        }
    }
    for (depth, status) in [(2, 200), (3, 200), (4, 403)] {
        let tree = Tree::empty();
        tree.write(format!("{}/x", vec!["d"; depth].join("/")), "");
        let server = Builder::new(&["--listing", "--archive", "--archive-depth", "2"]).tree(tree).start();
        assert_eq!(server.get("/d/?download=zip").status, status, "depth {depth}");
    }
}

/// Asks for an archive and reads its head; the rest is left where it is.
fn begin(server: &Server, target: &str) -> (Client, Response) {
    let mut client = server.connect();
    client.send(request("GET", target, ""));
    let head = client.any_answer_head();
    (client, head)
}

/// A file that is larger than all buffers on the way, and takes no room on the disk.
fn sparse(tree: &Tree, name: &str, len: u64) {
    tree.write(name, "");
    fs::File::options().write(true).open(tree.path(name)).unwrap().set_len(len).unwrap();
}

#[test]
fn archives_made_at_once_are_bounded_and_a_client_that_goes_frees_its_place() {
    let tree = Tree::site();
    sparse(&tree, "d/large", 256 << 20);
    for jobs in [1, 2] {
        let jobs_text = jobs.to_string();
        let server = Builder::new(&["--listing", "--archive", "--archive-jobs", &jobs_text]).root(tree.root()).start();
        let before = server.descriptors();
        let mut held: Vec<_> = (0..jobs).map(|_| begin(&server, "/d/?download=tar")).collect();
        assert!(held.iter().all(|(_, head)| head.status == 200));
        let busy = server.get("/d/?download=tar");
        assert_eq!((busy.status, busy.need("retry-after")), (503, "1"), "{jobs} are being made");
        assert_eq!(server.get("/d/").status, 200, "everything else goes on");
        held.pop();
        until("the place is free again", || begin(&server, "/d/?download=tar").1.status == 200);
        drop(held);
        until("all files are closed", || server.descriptors() <= before + 1);
        server.assert_well("clients that went away");
    }
}

/// Who has a whole archive can ask for the next one: the place is free before the end is sent.
#[test]
fn one_archive_after_the_other_is_never_too_many() {
    let server = Builder::new(&["--listing", "--archive", "--archive-jobs", "1"]).start();
    for round in 0..60 {
        let (form, _) = FORMS[round % 3];
        download(&server, "/bare/", form);
        assert_eq!(server.connect().head(&format!("/bare/?download={form}")).status, 200, "{form}");
    }
}

#[test]
fn a_file_that_becomes_shorter_breaks_the_archive_off() {
    for (form, _) in FORMS {
        let tree = Tree::site();
        // what does not get smaller fills the buffers on the way in every form
        tree.write("d/large", noise(3, 48 << 20));
        let server = archiving(tree);
        let (mut client, head) = begin(&server, &format!("/d/?download={form}"));
        assert_eq!(head.status, 200);
        client.take(100_000);
        fs::File::options().write(true).open(server.tree().path("d/large")).unwrap().set_len(1000).unwrap();
        let (rest, _) = client.rest();
        assert!(!rest.ends_with(b"\r\n0\r\n\r\n"), "{form}: the end was sent though a part is missing");
        assert!(rest.len() < 48 << 20, "{form}: nothing is made up");
        server.wait_for_line("an archive was broken off: a file became shorter");
        server.assert_well("a broken archive");
    }
}

#[test]
fn a_file_that_grows_goes_in_as_it_was() {
    let tree = Tree::site();
    let bytes = noise(5, 24 << 20);
    tree.write("d/a-large", &bytes);
    tree.write("d/b", "behind it");
    let server = archiving(tree);
    for (form, _) in FORMS {
        let (mut client, _) = begin(&server, &format!("/d/?download={form}"));
        use std::io::Write;
        let mut file = fs::File::options().append(true).open(server.tree().path("d/a-large")).unwrap();
        // it was opened by now, as a part of it was sent
        let start = client.take(100_000);
        file.write_all(b"more").unwrap();
        let (rest, _) = read_chunks(client, start);
        file.set_len(bytes.len() as u64).unwrap();
        let Some(found) = members(form, &rest) else { return };
        assert_same_bytes(found[&b"d/a-large"[..]].as_ref().unwrap(), &bytes, form);
        assert_eq!(found[&b"d/b"[..]].as_deref(), Some(&b"behind it"[..]), "{form}");
    }
}

/// The rest of a chunked body of which a part was taken.
fn read_chunks(mut client: Client, mut raw: Vec<u8>) -> (Vec<u8>, Ending) {
    client.close_writing();
    let (rest, ending) = client.rest();
    raw.extend(rest);
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let line = crate::client::find(&raw[at..], b"\r\n").expect("a chunk has its size");
        let size = usize::from_str_radix(std::str::from_utf8(&raw[at..at + line]).unwrap(), 16).unwrap();
        let from = at + line + 2;
        body.extend_from_slice(&raw[from..from + size]);
        at = from + size + 2;
        if size == 0 {
            return (body, ending);
        }
    }
}

/// Whatever happens to the folder, an archive is one that can be read, or is broken off.
#[test]
fn a_folder_that_changes_meanwhile() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let tree = Tree::empty();
    (0..30).for_each(|i| tree.write(format!("d/stays-{i:02}"), vec![b'x'; 1000 * i]));
    let folder = tree.path("d");
    let server = archiving(tree);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let name = folder.join(format!("comes-{}", round % 9));
                _ = fs::write(&name, vec![b'y'; round % 9 * 3000]);
                _ = fs::remove_file(&name);
                _ = fs::create_dir(&name);
                _ = fs::remove_dir(&name);
                _ = symlink(["stays-00", "../../secret.txt", "."][round % 3], &name);
                _ = fs::remove_file(&name);
            }
        });
        let mut whole = 0;
        for round in 0..30 {
            let (form, _) = FORMS[round % 3];
            let mut client = server.connect();
            client.send(request("GET", &format!("/d/?download={form}"), ""));
            if let Ok(answer) = client.try_answer(false) {
                assert_eq!(answer.status, 200);
                let Some(found) = members(form, &answer.body) else { break };
                for i in 0..30 {
                    let data = found[format!("d/stays-{i:02}").as_bytes()].as_deref();
                    assert_eq!(data.map(<[u8]>::len), Some(1000 * i), "{form}");
                }
                assert!(!found.values().flatten().any(|data| crate::client::find(data, crate::harness::SECRET.as_bytes()).is_some()));
                whole += 1;
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(whole > 0, "most are whole");
    });
}

/// Many members, and what they cost in memory, is bounded: the process stays small beside what it sends.
#[test]
fn memory_does_not_grow_with_the_archive() {
    let tree = Tree::site();
    sparse(&tree, "d/large", 1 << 30);
    let server = archiving(tree);
    let resident_kib = || {
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid().as_raw_pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = resident_kib();
    let (mut client, head) = begin(&server, "/d/?download=tar");
    assert_eq!(head.status, 200);
    for _ in 0..64 {
        client.take(1 << 20);
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more after 64 MiB were sent");
}
