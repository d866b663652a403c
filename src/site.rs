//! The site: from a request to the handler that answers it.
//!
//! A site is built whole from a plan. Handlers are an enum and not a trait: the set is ours, and one match shows it.

use std::io;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::time::Instant;

use crate::config::plan::Plan;
use crate::config::rules::PageFile;
use crate::files::blocking::Blocking;
use crate::files::listing::Listing;
use crate::files::root::{Found, How};
use crate::files::upload::{self, Uploads};
use crate::files::{Files, Policy, Served};
use crate::http::Request;
use crate::http::body::Inbound;
use crate::http::path::CleanPath;
use crate::http::refuse::Refuse;

/// All that is served.
#[derive(Debug)]
pub struct Site {
    files: Files,
    uploads: Option<Uploads>,
    /// Where the folder of uploads is below the root, if it is there: what is in it is served as uploads and not as files.
    uploads_below: Option<Vec<u8>>,
}

/// Something that answers requests.
enum Handler<'a> {
    /// The files below the root.
    Files(&'a Files),
    /// Uploads, at a path below their address.
    Uploads(&'a Uploads, CleanPath),
    /// Nothing is here.
    Nothing,
}

impl Site {
    /// Opens what the plan names; the folder of uploads has to be there.
    ///
    /// # Errors
    ///
    /// Something can not be opened.
    pub fn open(plan: &Plan, blocking: &Arc<Blocking>, started: Instant) -> io::Result<Site> {
        let uploads = plan.uploads.as_ref().map(|rules| Uploads::open(rules, plan, blocking, started)).transpose()?;
        let below =
            plan.uploads.as_ref().and_then(|rules| Some(rules.folder.canonicalize().ok()?.strip_prefix(&plan.root).ok()?.to_owned()));
        let uploads_below = below.map(|path| path.into_os_string().into_vec());
        let elsewhere: Vec<_> = uploads.is_some().then(|| upload::SEGMENT.to_vec()).into_iter().chain(uploads_below.clone()).collect();
        let files = Files::open(&plan.root, plan, Policy::Site, elsewhere.clone(), Arc::clone(blocking), started)?;
        // what is not served from the files is not told as if it were
        let files = if plan.listing { files.listed(Listing::new(plan, elsewhere)) } else { files };
        if plan.cache_warm {
            let files = files.clone();
            // nobody waits for it
            drop(blocking.run(move || files.warm()));
        }
        Ok(Site { files, uploads, uploads_below })
    }

    /// The page that is answered with where nothing is, if it is not there; waits for the disk.
    pub fn missing_page<'a>(&self, plan: &'a Plan) -> Option<&'a CleanPath> {
        let PageFile(page) = plan.rules.spa.as_ref()?;
        (!matches!(self.files.look(page.as_bytes(), How::Any), Ok(Found::File(_)))).then_some(page)
    }

    /// Has the thread that follows changes of files do something, for tests; it is dropped if there is no such thread.
    #[cfg(debug_assertions)]
    pub fn run_on_watcher(&self, work: impl FnOnce() + Send + 'static) {
        self.files.run_on_watcher(work);
    }

    /// Answers a request.
    pub fn serve<'a>(&'a self, request: &'a Request, inbound: &Inbound, now: Instant) -> Served<'a> {
        match self.handler(request) {
            Handler::Files(files) => files.serve(request, now),
            Handler::Uploads(uploads, path) => uploads.serve(request, path, inbound.clone(), now),
            Handler::Nothing => self.files.refuse(Refuse::not_found(), request, now),
        }
    }

    /// Answers what is no request that can be served.
    pub fn refuse<'a>(&'a self, refuse: Refuse, request: &'a Request, now: Instant) -> Served<'a> {
        self.files.refuse(refuse, request, now)
    }

    fn handler(&self, request: &Request) -> Handler<'_> {
        if let Some(uploads) = &self.uploads
            && let Some(path) = request.path.below(upload::SEGMENT)
        {
            return Handler::Uploads(uploads, path);
        }
        if self.uploads_below.as_ref().is_some_and(|folder| request.path.is_within(folder)) {
            return Handler::Nothing;
        }
        Handler::Files(&self.files)
    }
}
