//! The one error that becomes a response: every 4xx and 5xx that the server makes itself.

use std::borrow::Cow;
use std::time::Duration;

use super::accept;
use super::fields::Fields;
use super::header::HeaderName;
use super::{Request, Response, StatusCode, header};

/// Why a request gets no more than an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refuse {
    /// The status.
    pub status: StatusCode,
    /// One sentence for the reader. Never a word of what the client sent.
    pub detail: Cow<'static, str>,
    /// Whether the connection has to end: what follows on it can not be told apart any more.
    pub close: bool,
    /// A field that goes with the status: Allow, Retry-After.
    pub field: Option<(HeaderName, Cow<'static, str>)>,
}

impl Refuse {
    /// A refusal after which the connection can go on.
    pub const fn new(status: StatusCode, detail: &'static str) -> Refuse {
        Refuse { status, detail: Cow::Borrowed(detail), close: false, field: None }
    }

    /// 400, and the end of the connection.
    pub const fn bad(detail: &'static str) -> Refuse {
        Refuse::new(StatusCode::BAD_REQUEST, detail).closing()
    }

    /// The same, and the connection ends.
    #[must_use]
    pub const fn closing(mut self) -> Refuse {
        self.close = true;
        self
    }

    /// 405 for a resource that has these methods.
    pub const fn method(allow: &'static str) -> Refuse {
        let detail = Cow::Borrowed("This address can not be used with that method.");
        Refuse { status: StatusCode::METHOD_NOT_ALLOWED, detail, close: false, field: Some((header::ALLOW, Cow::Borrowed(allow))) }
    }

    /// 503, to be tried again in a moment.
    pub const fn busy(detail: &'static str) -> Refuse {
        let field = Some((header::RETRY_AFTER, Cow::Borrowed("1")));
        Refuse { status: StatusCode::SERVICE_UNAVAILABLE, detail: Cow::Borrowed(detail), close: false, field }
    }

    /// 429, to be tried again after this time.
    pub fn too_many(wait: Duration) -> Refuse {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let detail = Cow::Borrowed("There are too many requests from your address. Try again in a moment.");
        let field = Some((header::RETRY_AFTER, Cow::Owned(seconds.max(1).to_string())));
        Refuse { status: StatusCode::TOO_MANY_REQUESTS, detail, close: false, field }
    }

    /// 404.
    pub const fn not_found() -> Refuse {
        Refuse::new(StatusCode::NOT_FOUND, "There is nothing at this address.")
    }

    /// 500.
    pub const fn internal() -> Refuse {
        Refuse::new(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong here. The log has the details.")
    }

    /// The response: a small page, or `application/problem+json` (RFC 9457) for those who prefer JSON. Never to be stored.
    pub fn into_response(self, request: &Request) -> Response {
        let reason = self.status.canonical_reason().unwrap_or("Error");
        let status = self.status.as_str();
        let (kind, text) = if accept::prefers_json(request.named(header::ACCEPT.as_str())) {
            // none of the three can hold a character that JSON would escape
            ("application/problem+json", format!("{{\"title\":\"{reason}\",\"status\":{status},\"detail\":\"{}\"}}\n", self.detail))
        } else {
            let page = include_str!("error.html").replace("{status}", status).replace("{reason}", reason).replace("{detail}", &self.detail);
            ("text/html; charset=utf-8", page)
        };
        let mut fields = Fields::default()
            .with(&header::CONTENT_TYPE, kind)
            .with(&header::CACHE_CONTROL, "no-store")
            .with(&header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        if let Some((name, value)) = &self.field {
            fields.push(name, value.as_bytes());
        }
        Response { status: self.status, fields, body: text.into(), close: self.close }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::{Body, Chunk};
    use crate::http::h1::tests::request;

    fn text(response: Response) -> String {
        let Body::Chunks(chunks) = response.body else { panic!("a page is made at once") };
        let bytes: Vec<u8> = chunks.into_iter().flat_map(|c| if let Chunk::Mem(b) = c { b.to_vec() } else { Vec::new() }).collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_page_for_people_and_json_for_programs() {
        let page = text(Refuse::not_found().into_response(&request("GET", "/", "Accept: text/html")));
        assert!(page.contains("404") && page.contains("Not Found") && page.contains("There is nothing at this address."), "{page}");
        assert!(!page.contains("{status}") && !page.contains("{reason}") && !page.contains("{detail}"), "{page}");
        let json = text(Refuse::method("GET, HEAD").into_response(&request("GET", "/", "Accept: application/json")));
        assert_eq!(
            json,
            "{\"title\":\"Method Not Allowed\",\"status\":405,\"detail\":\"This address can not be used with that method.\"}\n"
        );
    }

    #[test]
    fn every_refusal_is_kept_out_of_caches_and_405_tells_what_is_allowed() {
        let response = Refuse::method("GET, HEAD").into_response(&Request::default());
        let fields: Vec<_> = response.fields.iter().collect();
        for expected in [(&b"cache-control"[..], &b"no-store"[..]), (b"x-content-type-options", b"nosniff"), (b"allow", b"GET, HEAD")] {
            assert!(fields.contains(&expected), "{fields:?}");
        }
    }
}
