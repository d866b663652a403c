//! The site: from a request to the handler that answers it.
//!
//! A site is built whole from a plan. Handlers are an enum and not a trait: the set is ours, and one match shows it.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::config::plan::Plan;
use crate::files::blocking::Blocking;
use crate::files::{Files, Served};
use crate::http::Request;

/// All that is served.
#[derive(Debug)]
pub struct Site {
    handler: Handler,
}

/// Something that answers requests.
#[derive(Debug)]
enum Handler {
    /// The files below a root.
    Files(Files),
}

impl Site {
    /// Opens what the plan names.
    ///
    /// # Errors
    ///
    /// Something can not be opened.
    pub fn open(plan: &Plan, blocking: &Arc<Blocking>, started: Instant) -> io::Result<Site> {
        Ok(Site { handler: Handler::Files(Files::open(&plan.root, plan, Arc::clone(blocking), started)?) })
    }

    /// Answers a request.
    pub fn serve<'a>(&'a self, request: &'a Request, now: Instant) -> Served<'a> {
        match &self.handler {
            Handler::Files(files) => files.serve(request, now),
        }
    }
}
