//! A disk that is full: 507, and all that was taken is given back.
//!
//! The disk is a small one in memory, mounted for the server alone. Where nothing can be mounted, these tests are skipped, and say so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::{FORM, any, assert_refused, form, head, listing, open_files, post, post_chunked, post_named, receipt};
use crate::harness::{Builder, Server, Tree, assert_same_bytes, noise, until};

/// Mounts 2 MiB at the first argument, and becomes the program that follows.
const MOUNT: &str = "mount -t tmpfs -o size=2m tmpfs \"$1\" && shift && exec \"$@\"";

/// How a program gets mounts of its own here; `None` where it can not.
fn apart() -> Option<&'static [&'static str]> {
    static WAY: OnceLock<Option<&[&str]>> = OnceLock::new();
    *WAY.get_or_init(|| {
        let ways: [&[&str]; 2] = [&["unshare", "--mount"], &["unshare", "--map-root-user", "--mount"]];
        let works = |way: &&&[&str]| {
            let folder = tempfile::tempdir().unwrap();
            let mut command = Command::new(way[0]);
            command.args(&way[1..]).args(["sh", "-c", MOUNT, "sh"]).arg(folder.path()).arg("true");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        let way = ways.iter().find(works).copied();
        if way.is_none() {
            eprintln!("SKIPPED: nothing can be mounted here");
        }
        way
    })
}

/// A server whose uploads go to a disk of 2 MiB, and the path by which the test sees into it.
fn start(args: &[&str]) -> Option<(Server, PathBuf)> {
    let tree = Tree::site();
    let small = tree.outside("small");
    fs::create_dir(&small).unwrap();
    let mut wrapper = apart()?.to_vec();
    wrapper.extend(["sh", "-c", MOUNT, "sh", small.to_str().unwrap()]);
    let server = Builder::new(args).arg("--uploads").arg(&small).tree(tree).through(&wrapper).start();
    let seen = format!("/proc/{}/root{}", server.pid().as_raw_nonzero(), server.tree().outside("small").display());
    Some((server, PathBuf::from(seen)))
}

fn free(folder: &Path) -> u64 {
    let room = rustix::fs::statvfs(folder).unwrap();
    room.f_bavail * room.f_frsize
}

#[track_caller]
fn assert_given_back(server: &Server, folder: &Path, before: u64, left: &[&str], name: &str) {
    assert_eq!(listing(folder), left, "{name}");
    until(&format!("{name}: the room is given back"), || free(folder) == before);
    assert_eq!(open_files(server, &server.tree().outside("small")), 0, "{name}");
}

#[test]
fn a_full_disk_is_told_and_nothing_is_left() {
    let Some((server, folder)) = start(&[]) else { return };
    let empty = free(&folder);
    assert!((1 << 20..=2 << 20).contains(&empty), "{empty} bytes on the small disk");
    let large = noise(1, 3 << 20);
    let part = ("name=\"f\"; filename=\"large.bin\"", large.as_slice());
    let small = ("name=\"f\"; filename=\"small.bin\"", b"small".as_slice());
    let medium = noise(2, 1_300_000);
    let rows = [
        ("raw", false, Vec::new()),
        ("raw, chunked", true, Vec::new()),
        ("a form", false, form(&[part])),
        ("a form, chunked", true, form(&[part])),
        ("a small file before it", false, form(&[small, part])),
        ("a small file before it, chunked", true, form(&[small, part])),
        ("two that fit alone", true, form(&[("name=\"f\"; filename=\"a.bin\"", &medium), ("name=\"f\"; filename=\"b.bin\"", &medium)])),
    ];
    for (name, chunked, body) in rows {
        let (target, fields, body) = if body.is_empty() { ("/uploads/?name=large.bin", "", &large) } else { ("/uploads/", FORM, &body) };
        let answer = if chunked { post_chunked(&server, target, fields, body, 60_000) } else { post(&server, target, fields, body) };
        assert_refused(&answer, 507, "", name);
        assert_given_back(&server, &folder, empty, &[], name);
    }
    // Looked at first: who waits for 100 does not get it.
    let mut client = server.connect();
    client.send(head(&server, "/uploads/?name=large.bin", "Expect: 100-continue\r\nContent-Length: 3000000\r\n"));
    assert_refused(&any(&mut client), 507, "", "before 100 Continue");

    // What fits is taken, then and after.
    let fits = noise(3, 1_000_000);
    for round in 0..3 {
        let stored = receipt(&post_named(&server, "fits.bin", &fits), "what fits");
        assert_same_bytes(&fs::read(folder.join("fits.bin")).unwrap(), &fits, "what fits");
        assert_eq!(stored.names(), ["fits.bin"]);
        let half = free(&folder);
        assert_refused(&post_chunked(&server, "/uploads/?name=more.bin", "", noise(4, 1_500_000), 60_000), 507, "", "beside it");
        assert_given_back(&server, &folder, half, &["fits.bin"], &format!("round {round}"));
        fs::remove_file(folder.join("fits.bin")).unwrap();
    }
    assert_given_back(&server, &folder, empty, &[], "the end");
    server.assert_well("a full disk");
}

/// The owner makes room, and it is there: the server does not keep what it has served.
#[test]
fn room_that_the_owner_makes_is_there() {
    let Some((server, folder)) = start(&[]) else { return };
    let body = noise(1, 1_500_000);
    for round in 0..3 {
        until("there is room", || post_named(&server, "large.bin", &body).status == 201);
        assert_same_bytes(&server.get("/uploads/large.bin").body, &body, &format!("round {round}"));
        fs::remove_file(folder.join("large.bin")).unwrap();
    }
}

/// The disk fills while a body arrives, by somebody else.
#[test]
fn a_disk_that_fills_midway() {
    let Some((server, folder)) = start(&[]) else { return };
    let body = noise(1, 1_200_000);
    let mut client = server.connect();
    let whole = super::request(&server, "/uploads/?name=mid.bin", "", &body);
    client.send(&whole[..200_000]);
    until("the upload has begun", || open_files(&server, &server.tree().outside("small")) > 0);
    // As the owner of the disk would: from outside.
    fs::write(folder.join("other.bin"), noise(2, 1_600_000)).unwrap();
    _ = client.send_what_it_takes(&whole[200_000..]);
    assert_refused(&client.answer(), 507, "", "filled midway");
    until("the room is given back", || open_files(&server, &server.tree().outside("small")) == 0);
    assert_eq!(listing(&folder), ["other.bin"]);
    assert_eq!(fs::metadata(folder.join("other.bin")).unwrap().len(), 1_600_000);
}

/// Many at once that fit alone and not together: some are stored, whole, and the others leave nothing.
#[test]
fn a_disk_that_many_fill_together() {
    let Some((server, folder)) = start(&["--threads", "4"]) else { return };
    let contents: Vec<Vec<u8>> = (0..6).map(|number| noise(number + 1, 700_000)).collect();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = contents
            .iter()
            .enumerate()
            .map(|(number, content)| {
                let server = &server;
                scope.spawn(move || post_named(server, &format!("{number}.bin"), content).status)
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| [201, 507].contains(status)), "{statuses:?}");
    let wanted: Vec<String> = (0..6).filter(|&number| statuses[number] == 201).map(|number| format!("{number}.bin")).collect();
    assert_eq!(listing(&folder), wanted, "{statuses:?}");
    assert!(wanted.len() <= 2, "{statuses:?}");
    for (number, content) in contents.iter().enumerate().filter(|(number, _)| statuses[*number] == 201) {
        assert_same_bytes(&fs::read(folder.join(format!("{number}.bin"))).unwrap(), content, &format!("{number}.bin"));
    }
    until("the room is given back", || open_files(&server, &server.tree().outside("small")) == 0);
    assert_eq!(post_named(&server, "after.bin", "after").status, 201);
}
