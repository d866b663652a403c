//! Bounds: of a request, of the folder, of the number of parts, of the head of a part.
//!
//! Classes of failure covered: no limit by default, chunked bodies past the limit, quotas passed by two at once.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::sync::Barrier;
use std::thread;

use super::{
    BOUNDARY, FORM, any, assert_nothing_left, assert_refused, assert_stored, folder, form, head, listing, post, post_chunked, post_form,
    post_named,
};
use crate::client::Client;
use crate::harness::{Builder, Server, Tree, noise, until};

#[test]
fn the_limit_of_a_request() {
    for by_flag in [true, false] {
        let builder =
            if by_flag { Builder::new(&["--upload-limit", "1000"]) } else { Builder::new(&[]).env("MILLPOND_UPLOAD_LIMIT", "1000") };
        let server = builder.start();
        for length in [0, 1, 999, 1_000, 1_001, 1_002, 50_000, 300_000] {
            let body = noise(length as u64, length);
            for way in ["length", "one chunk", "chunks of 7", "waits for 100", "chunks, waits for 100"] {
                let name = format!("{length} bytes, {way}, by flag: {by_flag}");
                let target = "/uploads/?name=limit.bin";
                let answer = match way {
                    "length" => post(&server, target, "", &body),
                    "one chunk" => post_chunked(&server, target, "", &body, length.max(1)),
                    "chunks of 7" => post_chunked(&server, target, "", &body, 7),
                    "waits for 100" => {
                        let mut client = server.connect();
                        client.send(head(&server, target, &format!("Expect: 100-continue\r\nContent-Length: {length}\r\n")));
                        let first = any(&mut client);
                        if first.status != 100 {
                            assert!(length == 0 || length > 1_000, "{name}: {}", first.status);
                            first
                        } else {
                            assert!(length <= 1_000, "{name}: refused before it is sent");
                            client.send(&body);
                            client.answer()
                        }
                    }
                    _ => {
                        let mut client = server.connect();
                        client.send(head(&server, target, "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n"));
                        assert_eq!(any(&mut client).status, 100, "{name}: the size is not known yet");
                        _ = client.send_what_it_takes(super::chunks(&body, length.max(1)));
                        client.answer()
                    }
                };
                if length <= 1_000 {
                    let stored = assert_stored(&server, &folder(&server), &answer, &[&body], &name);
                    fs::remove_file(folder(&server).join(&stored.files[0].name)).unwrap();
                } else {
                    assert_refused(&answer, 413, "", &name);
                }
                assert_nothing_left(&server, &folder(&server), &name);
            }
        }
    }
}

/// The limit is of the whole body: the boundaries and heads count too, or else nothing would bound them.
#[test]
fn the_limit_of_a_form() {
    let frame = form(&[("name=\"f\"; filename=\"limit.bin\"", b"")]).len();
    let server = Builder::new(&["--upload-limit", &(frame + 500).to_string()]).start();
    for (length, fits) in [(499, true), (500, true), (501, false), (100_000, false)] {
        let content = noise(3, length);
        let body = form(&[("name=\"f\"; filename=\"limit.bin\"", &content)]);
        for chunked in [false, true] {
            let name = format!("{length} bytes of content, chunked: {chunked}");
            let answer =
                if chunked { post_chunked(&server, "/uploads/", FORM, &body, 100) } else { post(&server, "/uploads/", FORM, &body) };
            if fits {
                let stored = assert_stored(&server, &folder(&server), &answer, &[&content], &name);
                fs::remove_file(folder(&server).join(&stored.files[0].name)).unwrap();
            } else {
                assert_refused(&answer, 413, "", &name);
            }
            assert_nothing_left(&server, &folder(&server), &name);
        }
    }
    // What comes before, between and behind the parts is bounded as well, and text fields are.
    let small = form(&[("name=\"f\"; filename=\"a.txt\"", b"x")]);
    let text = vec![b't'; 200_000];
    let rows: [(&str, Vec<u8>); 3] = [
        ("a preamble without end", [vec![b'p'; 200_000], b"\r\n".to_vec(), small.clone()].concat()),
        ("an epilogue without end", [small, vec![b'e'; 200_000]].concat()),
        ("a text field without end", form(&[("name=\"t\"", &text), ("name=\"f\"; filename=\"a.txt\"", b"x")])),
    ];
    for (name, body) in rows {
        let answer = post_chunked(&server, "/uploads/", FORM, &body, 4_000);
        if name.starts_with("an epilogue") && answer.status == 201 {
            // It was answered at the final boundary; what follows is dropped.
            fs::remove_file(folder(&server).join("a.txt")).unwrap();
        } else {
            assert_refused(&answer, 413, "", name);
        }
        assert_nothing_left(&server, &folder(&server), name);
    }
}

/// Over the limit the answer comes at once, not when a client that has all the time in the world comes to its end.
#[test]
fn over_the_limit_nobody_waits_for_the_end() {
    let server = Builder::new(&["--upload-limit", "1000"]).start();
    let mut chunked = server.connect();
    chunked.send(head(&server, "/uploads/?name=a.bin", "Transfer-Encoding: chunked\r\n"));
    chunked.send([b"3e9\r\n".as_slice(), &[b'x'; 1_001], b"\r\n"].concat());
    assert_refused(&chunked.answer(), 413, "", "chunks that go on");
    let mut announced = server.connect();
    announced.send(head(&server, "/uploads/?name=a.bin", "Content-Length: 1001\r\n"));
    assert_refused(&announced.answer(), 413, "", "a length that is too large, and no body yet");
    let mut part = server.connect();
    part.send(head(&server, "/uploads/", &format!("{FORM}Transfer-Encoding: chunked\r\n")));
    let body = form(&[("name=\"f\"; filename=\"a.bin\"", &[b'x'; 1_001])]);
    let begun = &body[..body.len() - 20];
    part.send([format!("{:x}\r\n", begun.len()).as_bytes(), begun, b"\r\n"].concat());
    assert_refused(&part.answer(), 413, "", "a form that goes on");
    assert_nothing_left(&server, &folder(&server), "over the limit");
}

#[test]
fn there_is_a_limit_by_default() {
    let server = Server::start(&[]);
    let ask = |length: u64| {
        let mut client = server.connect();
        client.send(head(&server, "/uploads/?name=a.bin", &format!("Expect: 100-continue\r\nContent-Length: {length}\r\n")));
        any(&mut client)
    };
    for length in [(1 << 30) + 1, 1 << 40, u64::MAX] {
        assert_refused(&ask(length), 413, "", &format!("{length} bytes"));
    }
    let room = rustix::fs::statvfs(server.tree().root()).unwrap();
    if room.f_bavail * room.f_frsize > 4 << 30 {
        assert_eq!(ask(1 << 30).status, 100, "1 GiB");
    } else {
        eprintln!("SKIPPED: there is no room for 1 GiB");
    }
    assert_nothing_left(&server, &folder(&server), "asked and not sent");
}

fn with_quota() -> Server {
    let tree = Tree::site();
    tree.write("uploads/there.bin", noise(1, 400));
    Builder::new(&["--upload-quota", "1000"]).tree(tree).start()
}

#[test]
fn the_quota_of_the_folder() {
    for (length, fits) in [(599, true), (600, true), (601, false), (5_000, false), (3_000_000, false)] {
        for way in ["length", "chunks", "a form", "a form in chunks", "two files", "two files in chunks"] {
            let server = with_quota();
            let name = format!("{length} bytes, {way}");
            let content = noise(2, length);
            let (first, second) = content.split_at(length / 2);
            let one = form(&[("name=\"f\"; filename=\"one.bin\"", &content)]);
            let two = form(&[("name=\"f\"; filename=\"one.bin\"", first), ("name=\"f\"; filename=\"two.bin\"", second)]);
            let answer = match way {
                "length" => post(&server, "/uploads/?name=one.bin", "", &content),
                "chunks" => post_chunked(&server, "/uploads/?name=one.bin", "", &content, 100),
                "a form" => post(&server, "/uploads/", FORM, &one),
                "a form in chunks" => post_chunked(&server, "/uploads/", FORM, &one, 100),
                "two files" => post(&server, "/uploads/", FORM, &two),
                _ => post_chunked(&server, "/uploads/", FORM, &two, 100),
            };
            if fits {
                let wanted: Vec<&[u8]> = if way.starts_with("two") { vec![first, second] } else { vec![&content] };
                assert_stored(&server, &folder(&server), &answer, &wanted, &name);
            } else {
                assert_refused(&answer, 507, "", &name);
                assert_eq!(listing(&folder(&server)), ["there.bin"], "{name}");
            }
        }
    }
}

/// What is taken away makes room, also when it was not the server that took it.
#[test]
fn the_quota_follows_the_folder() {
    let server = with_quota();
    let body = noise(3, 600);
    assert_eq!(post_named(&server, "a.bin", &body).status, 201);
    assert_refused(&post_named(&server, "b.bin", "x"), 507, "", "full");
    assert_stored(&server, &folder(&server), &post_named(&server, "empty.bin", ""), &[b""], "an empty file takes no room");
    fs::remove_file(folder(&server).join("a.bin")).unwrap();
    let again = || post_named(&server, "c.bin", &body).status;
    until("there is room again", || again() == 201);
    assert_refused(&post_named(&server, "d.bin", "x"), 507, "", "full again");
    // And what failed took none.
    fs::remove_file(folder(&server).join("c.bin")).unwrap();
    until("there is room once more", || post_named(&server, "e.bin", &body).status == 201);
    fs::remove_file(folder(&server).join("e.bin")).unwrap();
    for round in 0..5 {
        assert_refused(&post_chunked(&server, "/uploads/?name=f.bin", "", noise(4, 700), 100), 507, "", &format!("round {round}"));
    }
    until("failures take no room", || post_named(&server, "g.bin", &body).status == 201);
    // A body whose length is not told finds the room too.
    fs::remove_file(folder(&server).join("g.bin")).unwrap();
    until("there is room for chunks", || post_chunked(&server, "/uploads/?name=h.bin", "", &body, 100).status == 201);
}

/// What the owner puts there counts as well.
#[test]
fn the_quota_counts_what_others_put_there() {
    let server = Builder::new(&["--upload-quota", "1000"]).start();
    assert_eq!(post_named(&server, "a.bin", noise(1, 100)).status, 201);
    fs::write(folder(&server).join("by-the-owner.bin"), noise(2, 850)).unwrap();
    assert_refused(&post_named(&server, "b.bin", noise(3, 100)), 507, "", "with its length");
    assert_refused(&post_chunked(&server, "/uploads/?name=c.bin", "", noise(3, 100), 10), 507, "", "in chunks");
    assert_eq!(listing(&folder(&server)), ["a.bin", "by-the-owner.bin"]);
}

/// All files count, whatever their names are made of, and nothing else does.
#[test]
fn the_quota_counts_files_by_any_name_and_no_folders() {
    let server = Builder::new(&["--upload-quota", "1000"]).start();
    assert_eq!(post_named(&server, "a.bin", noise(1, 100)).status, 201);
    fs::create_dir(folder(&server).join("sub")).unwrap();
    assert_eq!(post_named(&server, "b.bin", noise(2, 100)).status, 201, "a folder takes up nothing");
    fs::write(folder(&server).join(OsStr::from_bytes(b"\xff.bin")), noise(3, 750)).unwrap();
    assert_refused(&post_named(&server, "c.bin", noise(4, 100)), 507, "", "a name that is no text");
}

/// So many files may be open for uploads; what is more is told so, and has its place when others are done.
#[test]
fn files_that_are_open_for_uploads() {
    const DESCRIPTORS: usize = 200;
    // 32 and 4 for each thread are reserved, and of the rest an eighth is for uploads
    const MOST: usize = (DESCRIPTORS - 32 - 4) / 8;
    let limit = format!("ulimit -n {DESCRIPTORS} && exec \"$0\" \"$@\"");
    let server = Builder::new(&["--threads", "1", "--queue", "10"]).through(&["sh", "-c", &limit]).start();
    let form_of = |files: usize| {
        let names: Vec<_> = (0..files).map(|number| format!("name=\"f\"; filename=\"{number}.bin\"")).collect();
        let parts: Vec<_> = names.iter().map(|name| (&name[..], &b"content"[..])).collect();
        form(&parts)
    };
    for (files, status) in [(MOST - 1, 201), (MOST, 201), (MOST + 1, 503), (MOST, 201)] {
        let answer = post(&server, "/uploads/", FORM, form_of(files));
        assert_eq!((answer.status, answer.field("retry-after").is_some()), (status, status == 503), "{files}");
    }
    assert_eq!(listing(&folder(&server)).len(), MOST - 1 + 2 * MOST);
}

/// A limit of the system to the size of files is an answer, and not the end of the server.
#[test]
fn a_limit_to_the_size_of_files() {
    let server = Builder::new(&[]).through(&["sh", "-c", "ulimit -f 100 && exec \"$0\" \"$@\""]).start();
    assert_refused(&post_named(&server, "large.bin", noise(1, 1_000_000)), 413, "", "more than a file may have");
    assert_eq!(post_named(&server, "small.bin", noise(2, 10_000)).status, 201);
    assert_eq!(listing(&folder(&server)), ["small.bin"]);
    server.assert_well("a limit to the size of files");
}

#[test]
fn the_quota_holds_for_many_at_once() {
    let server = Builder::new(&["--upload-quota", "1000", "--threads", "4"]).start();
    for chunked in [false, true] {
        let together = Barrier::new(8);
        let statuses: Vec<u16> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|number| {
                    let (server, together) = (&server, &together);
                    scope.spawn(move || {
                        let target = format!("/uploads/?name=many-{number}.bin");
                        together.wait();
                        let answer = if chunked {
                            post_chunked(server, &target, "", noise(number, 300), 50)
                        } else {
                            post(server, &target, "", noise(number, 300))
                        };
                        answer.status
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(statuses.iter().all(|status| [201, 507].contains(status)), "{statuses:?}");
        let stored = statuses.iter().filter(|&&status| status == 201).count();
        assert!(stored <= 3, "chunked: {chunked}: {stored} of 300 bytes were taken into 1000");
        // With their lengths known, those that come first have their room; in chunks they may be in each other's way.
        assert!(stored >= 1 || chunked, "each was refused, as if it was not alone");
        assert_eq!(listing(&folder(&server)).len(), stored, "chunked: {chunked}");
        for name in listing(&folder(&server)) {
            fs::remove_file(folder(&server).join(name)).unwrap();
        }
        until("there is room again", || post_named(&server, "room.bin", noise(9, 900)).status == 201);
        fs::remove_file(folder(&server).join("room.bin")).unwrap();
        until("and again", || post_named(&server, "room.bin", noise(9, 100)).status == 201);
        fs::remove_file(folder(&server).join("room.bin")).unwrap();
    }
}

/// So many text fields, and one file at the end.
fn many_parts(count: usize) -> Vec<u8> {
    let names: Vec<String> = (1..count).map(|number| format!("name=\"t{number}\"")).collect();
    let mut parts: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"t".as_slice())).collect();
    parts.push(("name=\"f\"; filename=\"last.txt\"", b"last"));
    form(&parts)
}

#[test]
fn the_number_of_parts() {
    let server = Server::start(&[]);
    for (count, fits) in [(999, true), (1_000, true), (1_001, false), (1_002, false), (5_000, false)] {
        let name = format!("{count} parts");
        let answer = post(&server, "/uploads/", FORM, many_parts(count));
        if fits {
            let stored = assert_stored(&server, &folder(&server), &answer, &[b"last"], &name);
            assert_eq!(stored.ignored.len(), count - 1, "{name}");
            fs::remove_file(folder(&server).join("last.txt")).unwrap();
        } else {
            assert_refused(&answer, 413, "", &name);
        }
        assert_nothing_left(&server, &folder(&server), &name);
    }
    // A file that came before them goes with them.
    let mut body = form(&[("name=\"f\"; filename=\"first.txt\"", b"first")]);
    body.truncate(body.len() - BOUNDARY.len() - 6);
    body.extend(many_parts(1_000));
    assert_refused(&post(&server, "/uploads/", FORM, body), 413, "", "a file and 1,000 more parts");
    assert_nothing_left(&server, &folder(&server), "a file and 1,000 more parts");
}

/// A part whose head, with all its line ends, has this many bytes.
fn part_head_of(length: usize, fields: usize) -> Vec<u8> {
    let disposition = "Content-Disposition: form-data; name=\"f\"; filename=\"head.txt\"\r\n";
    let mut head = disposition.to_owned();
    for number in 0..fields {
        head.push_str(&format!("X-{number}: y\r\n"));
    }
    let filler = "X-Filler: \r\n";
    assert!(head.len() + filler.len() + 2 <= length);
    head.push_str(&format!("X-Filler: {}\r\n\r\n", "f".repeat(length - head.len() - filler.len() - 2)));
    assert_eq!(head.len(), length);
    [format!("--{BOUNDARY}\r\n{head}content\r\n--{BOUNDARY}--\r\n").into_bytes()].concat()
}

/// 16 KiB; whether the line ends behind the last field count is left open.
#[test]
fn the_head_of_a_part() {
    const MAX: usize = 16 * 1024;
    let server = Server::start(&[]);
    let rows = [
        (1_000, 0, true),
        (8_000, 0, true),
        (MAX - 1, 0, true),
        (MAX, 0, true),
        (MAX + 5, 0, false),
        (MAX + 1_000, 0, false),
        (200_000, 0, false),
    ];
    for (length, fields, fits) in rows {
        for size in [100, 70_000, usize::MAX] {
            let name = format!("a head of {length} bytes, chunks of {size}");
            let body = part_head_of(length, fields);
            let answer = if size < usize::MAX {
                post_chunked(&server, "/uploads/", FORM, &body, size)
            } else {
                post(&server, "/uploads/", FORM, &body)
            };
            if fits {
                assert_stored(&server, &folder(&server), &answer, &[b"content"], &name);
                fs::remove_file(folder(&server).join("head.txt")).unwrap();
            } else {
                assert_refused(&answer, 413, "", &name);
            }
            assert_nothing_left(&server, &folder(&server), &name);
        }
    }
    // One that never ends is not waited for.
    for filler in ["x".repeat(100_000), "X-A: b\r\n".repeat(12_500)] {
        let mut client = server.connect();
        client.send(head(&server, "/uploads/", &format!("{FORM}Content-Length: 1000000\r\n")));
        _ = client.send_what_it_takes(format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{filler}"));
        assert_refused(&client.answer(), 413, "", "a head without end");
        assert_nothing_left(&server, &folder(&server), "a head without end");
    }
    // Names of text fields are a part of the answer, and bounded by the head.
    let name = "n".repeat(10_000);
    let answer = post_form(&server, &[(&format!("name=\"{name}\""), b"t"), ("name=\"f\"; filename=\"a.txt\"", b"x")]);
    assert!([201, 413].contains(&answer.status), "{}", answer.status);
}

/// Where uploads are refused, a long body holds up nobody.
#[test]
fn after_a_refusal_the_server_is_well() {
    let server = Builder::new(&["--upload-limit", "1000", "--threads", "1"]).start();
    let mut idle: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for client in &mut idle {
        client.send(head(&server, "/uploads/?name=a.bin", "Content-Length: 500\r\n"));
        client.send("half a body");
    }
    for _ in 0..20 {
        assert_refused(&post(&server, "/uploads/?name=a.bin", "", vec![b'x'; 300_000]), 413, "", "too long");
    }
    server.assert_well("refusals, with others that wait");
    drop(idle);
    assert_nothing_left(&server, &folder(&server), "those that went away");
}

/// A name that is taken gets a number, as long as one is free.
#[test]
fn the_numbers_of_a_name() {
    const NAMES: u32 = 10_000;
    let server = Builder::new(&[]).start();
    let folder = folder(&server);
    let named = |number: u32| if number == 0 { "a.bin".to_owned() } else { format!("a-{number}.bin") };
    for number in 0..NAMES {
        fs::write(folder.join(named(number)), "").unwrap();
    }
    for free in [NAMES, NAMES - 1, 0] {
        let name = format!("{free} is free");
        _ = fs::remove_file(folder.join(named(free)));
        let answer = post(&server, "/uploads/?name=a.bin", "", b"new");
        if free == NAMES {
            assert_refused(&answer, 409, "of this name", &name);
            assert_eq!(listing(&folder).len(), NAMES as usize, "{name}: something was left behind");
        } else {
            let stored = assert_stored(&server, &folder, &answer, &[b"new"], &name);
            assert_eq!(stored.files[0].name, named(free));
        }
    }
}
