//! The sample site: what people see first is there, and it arrives as it lies on the disk.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Builder, Tree, assert_same_bytes};

fn resources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("resources")
}

/// Every file below the folder that has no hidden name, as a path that begins below it.
fn files_below(folder: &Path, prefix: &str, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().expect("plain names");
        if name.starts_with('.') {
            continue;
        }
        let path = format!("{prefix}/{name}");
        if entry.file_type().unwrap().is_dir() {
            files_below(&entry.path(), &path, found);
        } else {
            found.push((path, fs::read(entry.path()).unwrap()));
        }
    }
}

#[test]
fn the_sample_site_arrives_byte_by_byte() {
    let mut files = Vec::new();
    files_below(&resources(), "", &mut files);
    let ends = |ending: &str| files.iter().any(|(path, _)| path.ends_with(ending));
    for ending in [".html", ".css", ".png", ".jpg", ".svg"] {
        assert!(ends(ending), "the sample site has a file that ends in {ending}");
    }
    let server = Builder::new(&[]).tree(Tree::empty()).root(resources()).start();
    let mut client = server.connect();
    for (path, bytes) in &files {
        let answer = client.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_same_bytes(&answer.body, bytes, path);
        let wanted = match path.rsplit('.').next().unwrap() {
            "html" => "text/html; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "png" => "image/png",
            "jpg" => "image/jpeg",
            "svg" => "image/svg+xml",
            _ => continue,
        };
        assert!(answer.need("content-type").starts_with(wanted), "{path}: {}", answer.need("content-type"));
        match wanted {
            "image/png" => assert!(answer.body.starts_with(b"\x89PNG\r\n\x1a\n"), "{path} is a PNG"),
            "image/jpeg" => assert!(answer.body.starts_with(b"\xff\xd8\xff"), "{path} is a JPEG"),
            _ => {}
        }
    }
    let home = fs::read(resources().join("index.html")).unwrap();
    assert_same_bytes(&client.get("/").body, &home, "/");
}

/// What its pages ask for is there.
#[test]
fn the_sample_site_is_whole() {
    let server = Builder::new(&[]).tree(Tree::empty()).root(resources()).start();
    let mut client = server.connect();
    let mut seen = vec!["/".to_owned()];
    let mut next = 0;
    while let Some(page) = seen.get(next).cloned() {
        next += 1;
        let answer = client.get(&page);
        assert!([200, 301].contains(&answer.status), "{page}, which a page links to: {}", answer.status);
        if !answer.field("content-type").is_some_and(|kind| kind.starts_with("text/html")) {
            continue;
        }
        let text = answer.text();
        assert!(!text.contains("<script"), "{page} needs no script");
        for link in ["href=\"", "src=\""].iter().flat_map(|start| text.split(start).skip(1)).filter_map(|rest| rest.split('"').next()) {
            let elsewhere = link.contains(':') || link.starts_with('#') || link.starts_with("//");
            let target = resolve(&page, link.split(['#', '?']).next().unwrap());
            if !elsewhere && !seen.contains(&target) {
                seen.push(target);
            }
        }
    }
    assert!(seen.len() >= 4, "the home page leads to others: {seen:?}");
}

/// The path that a link on a page leads to.
fn resolve(page: &str, link: &str) -> String {
    let folder = if link.starts_with('/') { "/" } else { &page[..=page.rfind('/').unwrap()] };
    let mut path: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    let mut open_ended = true;
    for part in link.split('/') {
        open_ended = ["", ".", ".."].contains(&part);
        match part {
            "" | "." => {}
            ".." => _ = path.pop(),
            name => path.push(name),
        }
    }
    let end = if open_ended && !path.is_empty() { "/" } else { "" };
    format!("/{}{end}", path.join("/"))
}

#[test]
fn links_are_resolved_as_browsers_do() {
    for (page, link, wanted) in [
        ("/", "./", "/"),
        ("/", "about.html", "/about.html"),
        ("/", "/", "/"),
        ("/a/b.html", "./", "/a/"),
        ("/a/b.html", "../c.css", "/c.css"),
        ("/a/b.html", "/d/e", "/d/e"),
    ] {
        assert_eq!(resolve(page, link), wanted, "{link} on {page}");
    }
}
