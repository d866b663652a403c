//! A process that is killed: what was answered is there, what was not is whole or not there, and what was left over goes at the next start.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, FlockOperation, Mode, flock, mknodat};
use rustix::process::Signal;

use super::{FORM, form, listing, request, sha256};
use crate::client::Client;
use crate::harness::{Builder, Server, Tree, assert_same_bytes, noise};

const ROUNDS: u64 = 100;
const CLIENTS: u64 = 4;

/// The name of a file tells what it has to hold.
fn content(round: u64, client: u64, number: u64, part: u64) -> Vec<u8> {
    let seed = ((round * 100 + client) * 10_000 + number) * 2 + part + 1;
    let length = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
    noise(seed, length as usize)
}

fn name(round: u64, client: u64, number: u64, part: u64) -> String {
    format!("r{round}-c{client}-n{number}-p{part}.bin")
}

fn content_by_name(name: &str) -> Option<Vec<u8>> {
    let mut numbers = name.strip_suffix(".bin")?.split('-').map(|part| part[1..].parse::<u64>());
    let mut next = || numbers.next()?.ok();
    Some(content(next()?, next()?, next()?, next()?))
}

/// Uploads without pause until the server is gone; the names and digests that were answered with 201.
fn upload_until_killed(mut connection: Client, host: &Server, round: u64, client: u64, answered: &Mutex<BTreeMap<String, String>>) {
    for number in 0.. {
        let contents = [content(round, client, number, 0), content(round, client, number, 1)];
        let names = [name(round, client, number, 0), name(round, client, number, 1)];
        let sent = if client.is_multiple_of(2) {
            request(host, &format!("/uploads/?name={}", names[0]), "", &contents[0])
        } else {
            let parameters = names.clone().map(|name| format!("name=\"f\"; filename=\"{name}\""));
            request(host, "/uploads/", FORM, &form(&[(&parameters[0], &contents[0]), (&parameters[1], &contents[1])]))
        };
        if connection.send_what_it_takes(sent).is_err() {
            return;
        }
        let Ok(answer) = connection.try_answer(false) else { return };
        let receipt = super::receipt(&answer, &names[0]);
        for (file, (name, content)) in receipt.files.iter().zip(names.iter().zip(&contents)) {
            assert_eq!((&file.name, &file.sha256), (name, &sha256(content)));
            answered.lock().unwrap().insert(file.name.clone(), file.sha256.clone());
        }
    }
}

/// Every file with a name that does not hide is whole, and every one that was answered is there.
fn assert_whole(folder: &Path, answered: &BTreeMap<String, String>, when: &str) {
    for name in listing(folder).iter().filter(|name| !name.starts_with('.')) {
        let wanted = content_by_name(name).unwrap_or_else(|| panic!("{when}: what is {name}?"));
        assert_same_bytes(&fs::read(folder.join(name)).unwrap(), &wanted, &format!("{when}: {name}"));
    }
    for name in answered.keys() {
        assert!(folder.join(name).exists(), "{when}: {name} was answered with 201 and is gone");
    }
}

/// Of a form that was not answered both files are there or neither.
fn assert_forms_whole(folder: &Path, round: u64) {
    let names = listing(folder);
    for name in names.iter().filter(|name| ["-c1-", "-c3-"].iter().any(|client| name.contains(client))) {
        let other = if name.ends_with("-p0.bin") { name.replace("-p0.bin", "-p1.bin") } else { name.replace("-p1.bin", "-p0.bin") };
        assert!(names.contains(&other), "round {round}: {name} is there without {other}");
    }
}

#[test]
fn killed_at_any_moment() {
    let tree = Tree::site();
    let folder = tree.path("uploads");
    let start = || Builder::new(&["--threads", "2"]).root(tree.root()).start();
    let mut total = 0;
    for round in 0..ROUNDS {
        let server = start();
        assert_eq!(listing(&folder), Vec::<String>::new(), "round {round}");
        let answered = Mutex::new(BTreeMap::new());
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (connection, server, answered) = (server.connect(), &server, &answered);
                scope.spawn(move || upload_until_killed(connection, server, round, client, answered));
            }
            // The moment is what is being tested: anywhere in the first uploads, or some time later.
            let moment = Duration::from_micros(noise(round, 2).iter().fold(0, |sum, &byte| sum * 256 + u64::from(byte)) * 2);
            let at = Instant::now() + moment;
            while Instant::now() < at {
                thread::sleep(Duration::from_micros(200).min(at.saturating_duration_since(Instant::now())));
            }
            server.signal(Signal::KILL);
        });
        server.finish();
        let answered = answered.into_inner().unwrap();
        assert_whole(&folder, &answered, &format!("round {round}, after the kill"));
        let again = start();
        assert_whole(&folder, &answered, &format!("round {round}, after the next start"));
        let hidden: Vec<String> = listing(&folder).into_iter().filter(|name| name.starts_with('.')).collect();
        assert!(hidden.is_empty(), "round {round}: left over after the next start: {hidden:?}");
        assert_forms_whole(&folder, round);
        if let Some(name) = answered.keys().next() {
            assert_same_bytes(&again.get(&format!("/uploads/{name}")).body, &content_by_name(name).unwrap(), "GET after the next start");
        }
        drop(again);
        total += answered.len();
        for name in listing(&folder) {
            fs::remove_file(folder.join(name)).unwrap();
        }
    }
    assert!(total > 30, "only {total} files were stored in all rounds: the kills came too early to show anything");
}

/// Only temporary files go, and only those that no living process holds.
#[test]
fn what_a_killed_process_left_goes_at_the_next_start() {
    let tree = Tree::site();
    let folder = tree.path("uploads");
    for gone in [".upload-3f9c2b1a.part", ".upload-0123456789abcdef.part"] {
        tree.write(format!("uploads/{gone}"), "half a file");
    }
    tree.write("uploads/.upload-aaaabbbb.part", "another server writes this");
    let stays = ["a.part", ".hidden", ".upload-note.txt", "upload-3f9c2b1a.part", "x.upload-3f9c2b1a.part", ".part"];
    for name in stays {
        tree.write(format!("uploads/{name}"), "of somebody else");
    }
    fs::create_dir(folder.join(".upload-00000000.part")).unwrap();
    mknodat(CWD, folder.join(".upload-11111111.part"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    tree.symlink(tree.outside("secret.txt"), "uploads/.upload-22222222.part");
    tree.write(".upload-3f9c2b1a.part", "beside the folder");

    let held = fs::File::open(folder.join(".upload-aaaabbbb.part")).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    let server = Builder::new(&[]).root(tree.root()).start();
    let left = listing(&folder);
    for name in stays.iter().chain(&[".upload-aaaabbbb.part", ".upload-00000000.part"]) {
        assert!(left.contains(&(*name).to_owned()), "{name} is gone: {left:?}");
    }
    for name in [".upload-3f9c2b1a.part", ".upload-0123456789abcdef.part"] {
        assert!(!left.contains(&name.to_owned()), "{name} is still there");
        assert_eq!(server.get(&format!("/uploads/{name}")).status, 404);
    }
    assert!(tree.outside("secret.txt").exists() && tree.path(".upload-3f9c2b1a.part").exists());
    assert_eq!(server.get("/uploads/.upload-aaaabbbb.part").status, 404, "hidden by its name");
    server.stop().assert_clean();

    drop(held);
    let server = Builder::new(&[]).root(tree.root()).start();
    assert!(!folder.join(".upload-aaaabbbb.part").exists(), "nobody holds it any more");
    server.assert_well("what was left");
}
