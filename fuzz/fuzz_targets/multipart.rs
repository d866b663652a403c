//! Forms that are uploaded, as far as the disk: how the bytes are cut into pieces changes nothing, what is well-formed is stored byte
//! by byte, and what is refused leaves nothing behind.
//!
//! An input begins with control bytes. The boundary is `X`.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use millpond::cli::{self, Parsed};
use millpond::config::plan::Plan;
use millpond::files::Served;
use millpond::files::blocking::Blocking;
use millpond::files::upload::Uploads;
use millpond::http::body::Inbound;
use millpond::http::h1::head;
use millpond::http::path::CleanPath;
use millpond::http::refuse::Refuse;
use millpond::http::{Bounds, Request, disposition};
use millpond_fuzz::Control;

/// The end of a form, as the driver tells it of a body that is cut off.
const GONE: Refuse = Refuse::bad("The request ended within its body.");

/// What came of a form: the status, and what was stored.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    status: u16,
    /// Names and contents, sorted.
    files: Vec<(String, Vec<u8>)>,
}

// control: bit 2 cuts the request off behind its last byte
fuzz_target!(|data: &[u8]| {
    let Some((control, form)) = Control::split(data) else { return };
    let is_cut_off = control.flag(2);
    let whole = upload(form, &[form.len()], is_cut_off);
    let pieces = upload(form, &control.ends(form.len()), is_cut_off);
    assert_eq!(pieces, whole, "in pieces");
    if whole.status != 201 {
        assert_eq!(whole.files, [], "left behind by a refusal");
    }
    match reference(form) {
        // text fields alone are no upload
        Some(files) if files.is_empty() => assert_eq!(whole.status, 400),
        Some(mut files) if !is_cut_off => {
            files.sort();
            let mut contents: Vec<_> = whole.files.into_iter().map(|(_, content)| content).collect();
            contents.sort();
            assert_eq!((whole.status, contents), (201, files));
        }
        _ => assert!(!is_cut_off || whole.status != 201, "an upload that was cut off is not kept"),
    }
    names(form);
});

/// Whatever stands in a Content-Disposition, what becomes of it is one plain segment.
fn names(value: &[u8]) {
    for given in [disposition::file_name(value), disposition::parameter(value, "name")].into_iter().flatten() {
        let Some(name) = disposition::plain_segment(&given) else { continue };
        assert!(!name.is_empty() && name.len() <= disposition::NAME_BYTES && !name.starts_with('.'), "{name:?}");
        assert!(!name.chars().any(|c| c.is_control() || "/\\".contains(c)), "{name:?}");
        assert_eq!(disposition::plain_segment(&name), Some(name), "a plain name stays as it is");
    }
}

/// Uploads, and the folder that they go to.
struct Place {
    uploads: Uploads,
    folder: PathBuf,
}

fn place() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        // in memory, if there is such a place: the disk is not what is tested
        let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let root = base.join(format!("millpond-fuzz-{}", std::process::id()));
        let folder = root.join("uploads");
        std::fs::create_dir_all(&folder).expect("a folder");
        let args = ["millpond", "--uploads", folder.to_str().expect("a plain path"), root.to_str().expect("a plain path")];
        let Ok(Parsed::Run(cli)) = cli::parse(args.map(Into::into)) else { panic!("good flags") };
        let plan = Plan::compile(cli.file, 1000).expect("a good plan");
        let blocking = Arc::new(Blocking::new(1).expect("a pool"));
        let uploads = Uploads::open(plan.uploads.as_ref().expect("they are on"), &plan, &blocking, Instant::now()).expect("it opens");
        Place { uploads, folder }
    })
}

/// Uploads a form in pieces that end at these places, and takes away again what was stored.
fn upload(form: &[u8], ends: &[usize], is_cut_off: bool) -> Outcome {
    let Place { uploads, folder } = place();
    let mut request = Request::default();
    let head = "POST /uploads/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\
        Content-Type: multipart/form-data; boundary=X\r\n\r\n";
    head::parse(head.as_bytes(), &Bounds::default(), &mut request).expect("a good head");
    let inbound = Inbound::new(request.framing);
    let mut pieces = ends.iter().scan(0, |at, &end| Some(Bytes::copy_from_slice(&form[std::mem::replace(at, end)..end])));
    let response = match uploads.serve(&request, CleanPath::default(), inbound.clone(), Instant::now()) {
        Served::Whole(whole) => whole.into_response(),
        Served::Ready(response) => response,
        Served::Later(mut handler) => {
            let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
            let mut cx = Context::from_waker(&waker);
            loop {
                match handler.as_mut().poll(&mut cx) {
                    Poll::Ready(response) => break response,
                    Poll::Pending if inbound.is_wanted() => inbound.put(match pieces.find(|piece| !piece.is_empty()) {
                        Some(piece) => Ok(Some(piece)),
                        None if is_cut_off => Err(GONE),
                        None => Ok(None),
                    }),
                    Poll::Pending => std::thread::park(),
                }
            }
        }
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let entry = entry.expect("it can be read");
        let name = entry.file_name().into_string().expect("names are text");
        files.push((name, std::fs::read(entry.path()).expect("a file")));
        std::fs::remove_file(entry.path()).expect("it can be removed");
    }
    files.sort();
    // a name that was made up has the time in it, and chance
    files.iter_mut().filter(|(name, _)| name.starts_with("upload-2")).for_each(|(name, _)| name.clear());
    files.sort();
    Outcome { status: response.status.as_u16(), files }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The contents of the files of a form that is well-formed beyond doubt (RFC 7578); `None` for any other.
fn reference(form: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut rest = form.strip_prefix(b"--X")?;
    let mut files = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Some(files);
        }
        let part = rest.strip_prefix(b"\r\n")?;
        let head = find(part, b"\r\n\r\n")?;
        let content = &part[head + 4..];
        let end = find(content, b"\r\n--X")?;
        let fields = std::str::from_utf8(&part[..head]).ok()?;
        let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
        let mut is_file = None;
        for line in fields.split("\r\n") {
            if let Some(kind) = line.strip_prefix("Content-Type: ") {
                let (left, right) = kind.split_once('/')?;
                if left.is_empty() || right.is_empty() || !is_plain(left) || !is_plain(right) {
                    return None;
                }
            } else {
                let (name, file) = match line.strip_prefix("Content-Disposition: form-data; name=\"")?.split_once("\"; filename=\"") {
                    Some((name, file)) => (name, Some(file.strip_suffix('"')?)),
                    None => (line.strip_prefix("Content-Disposition: form-data; name=\"")?.strip_suffix('"')?, None),
                };
                if is_file.is_some() || !is_plain(name) || name.is_empty() || !file.is_none_or(is_plain) {
                    return None;
                }
                is_file = Some(file);
            }
        }
        match is_file? {
            // no file was chosen
            Some("") if end == 0 => {}
            Some(_) => files.push(content[..end].to_vec()),
            None => {}
        }
        rest = &content[end + 5..];
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
