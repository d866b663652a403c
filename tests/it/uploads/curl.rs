//! With curl, as people will: the commands of the manual. Without curl these tests are skipped, and say so.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{folder, listing, sha256};
use crate::harness::{Builder, Server, assert_same_bytes, noise};

/// Runs curl with these arguments: its exit code and what it wrote.
fn curl(input: &Path, args: &[&str]) -> Option<(i32, String)> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*"]).args(args);
    command.stdin(fs::File::open(input).unwrap()).stderr(Stdio::piped());
    match command.output() {
        Ok(output) => Some((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())),
        Err(error) => {
            eprintln!("SKIPPED: no curl: {error}");
            None
        }
    }
}

#[test]
fn the_ways_of_curl() {
    let server = Server::start(&[]);
    let kept = tempfile::tempdir().unwrap();
    // More than 1 MiB: curl waits for 100 Continue before it sends that.
    let body = noise(1, 1_500_000);
    let file = kept.path().join("from curl.bin");
    fs::write(&file, &body).unwrap();
    let url = format!("http://{}/uploads/", server.address());
    let named = |name: &str| format!("{url}?name={name}");
    let (part, data) = (format!("file=@{}", file.display()), format!("@{}", file.display()));
    let path = file.to_str().unwrap();
    let rows: Vec<(&str, Vec<String>, &str)> = vec![
        ("a form", vec!["-F".into(), part.clone(), url.clone()], "from curl.bin"),
        ("a form with a name", vec!["-F".into(), format!("{part};filename=renamed.bin"), url.clone()], "renamed.bin"),
        (
            "a form with text",
            vec!["-F".into(), "title=x".into(), "-F".into(), format!("{part};filename=text.bin"), url.clone()],
            "text.bin",
        ),
        ("a form with quotation marks", vec!["-F".into(), format!("{part};filename=\"a\\\"b.bin\""), url.clone()], "b.bin"),
        ("data", vec!["--data-binary".into(), data.clone(), named("data.bin")], "data.bin"),
        ("a pipe, in chunks", vec!["-X".into(), "POST".into(), "-T".into(), "-".into(), named("pipe.bin")], "pipe.bin"),
        // Behind a slash curl would put the name of the file.
        ("a file", vec!["-X".into(), "POST".into(), "-T".into(), path.into(), named("put.bin").replace("/?", "?")], "put.bin"),
        (
            "a name in a field",
            vec![
                "--data-binary".into(),
                data.clone(),
                "-H".into(),
                "Content-Disposition: attachment; filename=field.bin".into(),
                url.clone(),
            ],
            "field.bin",
        ),
        ("the version before", vec!["-0".into(), "--data-binary".into(), data, named("old.bin")], "old.bin"),
    ];
    for (name, args, wanted) in rows {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let Some((code, out)) = curl(&file, &args) else { return };
        assert_eq!(code, 0, "{name}: {out}");
        let value: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{name}: {error}: {out}"));
        // A quotation mark is escaped as \" by older versions, and as %22 by those that do as browsers do.
        let stored = value["files"][0]["name"].as_str().unwrap();
        assert!(stored == wanted || ["a\"b.bin", "a%22b.bin"].contains(&stored) && wanted == "b.bin", "{name}: {out}");
        assert_eq!(value["files"][0]["sha256"], sha256(&body), "{name}: {out}");
        assert_same_bytes(&fs::read(folder(&server).join(stored)).unwrap(), &body, name);
    }
    assert_eq!(listing(&folder(&server)).len(), 9);
}

/// curl reads a refusal that comes while it still sends.
#[test]
fn curl_is_told_why() {
    let server = Builder::new(&["--upload-limit", "100KiB"]).start();
    let kept = tempfile::tempdir().unwrap();
    let file = kept.path().join("large.bin");
    fs::write(&file, noise(2, 5_000_000)).unwrap();
    let url = format!("http://{}/uploads/", server.address());
    let (part, data) = (format!("file=@{}", file.display()), format!("@{}", file.display()));
    let rows: [(&str, &[&str]); 4] = [
        ("a form", &["-F", &part]),
        ("data", &["--data-binary", &data]),
        ("data, without waiting", &["-H", "Expect:", "--data-binary", &data]),
        ("a pipe", &["-X", "POST", "-T", "-"]),
    ];
    for (name, args) in rows {
        let status = ["-H", "Accept: application/json", "--write-out", "\n%{http_code}", &url];
        let Some((_, out)) = curl(&file, &[args, &status].concat()) else { return };
        assert!(out.ends_with("\n413"), "{name}: {out}");
        assert_eq!(listing(&folder(&server)), Vec::<String>::new(), "{name}");
    }
}
