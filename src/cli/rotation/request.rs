//! The requests of a rotation, to be sent by the operator. certvigil does not send these requests.

use serde_json::{Value, json};
use url::Url;

use crate::domain::{
    certificate::{Certificate, CertificateId},
    rotation::plan::Place,
};

/// The API of the requests.
pub struct Api {
    pub base: Url,
    /// Whether the API requires a client certificate.
    pub shows_certificate: bool,
}

/// One request (API reference, Certificates).
pub struct Request {
    method: &'static str,
    /// Path segments below the base URL.
    path: Vec<String>,
    body: Body,
}

enum Body {
    None,
    /// The certificate to activate or to deactivate; the API takes a list of up to ten.
    Id(CertificateId),
    /// A certificate in a file, with a name for it.
    Upload {
        name: String,
    },
}

/// The uploaded file.
const FILE: &str = "successor.pem";

impl Request {
    /// The upload of a successor.
    pub fn upload(old: &Certificate) -> Request {
        let name = format!("{}-2", old.title());
        Request {
            method: "POST",
            path: vec!["certificates".to_owned()],
            body: Body::Upload { name },
        }
    }

    pub fn activate(place: Place<'_>, certificate: &Certificate) -> Request {
        Request::switch(place, certificate, "activate")
    }

    pub fn deactivate(place: Place<'_>, certificate: &Certificate) -> Request {
        Request::switch(place, certificate, "deactivate")
    }

    fn switch(place: Place<'_>, certificate: &Certificate, action: &str) -> Request {
        let mut path = match place {
            Place::Organization => Vec::new(),
            Place::Project(project) => vec!["projects".to_owned(), project.id.to_string()],
        };
        path.extend(["certificates".to_owned(), action.to_owned()]);
        Request { method: "POST", path, body: Body::Id(certificate.id.clone()) }
    }

    pub fn delete(certificate: &Certificate) -> Request {
        let path = vec!["certificates".to_owned(), certificate.id.to_string()];
        Request { method: "DELETE", path, body: Body::None }
    }

    fn url(&self, api: &Api) -> String {
        let mut url = api.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("organization").extend(&self.path);
        }
        url.to_string()
    }

    /// The request as JSON; the certificate to upload is `null`.
    pub fn document(&self, api: &Api) -> Value {
        let body = match &self.body {
            Body::None => Value::Null,
            Body::Id(id) => json!({ "certificate_ids": [id] }),
            Body::Upload { name } => json!({ "name": name, "certificate": null }),
        };
        json!({ "method": self.method, "url": self.url(api), "body": body })
    }

    /// The request as a `curl` command, with the key in `OPENAI_ADMIN_KEY`.
    pub fn command(&self, api: &Api) -> String {
        let quoted =
            |text: &str| shlex::try_quote(text).map_or_else(|_| "''".to_owned(), Into::into);
        let (before, data) = match &self.body {
            Body::None => (String::new(), String::new()),
            Body::Id(id) => {
                let body = json!({ "certificate_ids": [id] }).to_string();
                (String::new(), format!(" --data {}", quoted(&body)))
            }
            Body::Upload { name } => {
                let read = "jq -n --rawfile certificate";
                let fill = quoted("{name: $name, certificate: $certificate}");
                let before = format!("{read} {FILE} --arg name {} {fill} | ", quoted(name));
                (before, " --data @-".to_owned())
            }
        };
        let shown = if api.shows_certificate { " --cert client.pem --key client.key" } else { "" };
        let kind = match self.body {
            Body::None => "",
            Body::Id(_) | Body::Upload { .. } => " --header 'Content-Type: application/json'",
        };
        format!(
            "{before}curl --fail-with-body --silent --show-error{shown} --request {} {} \
             --header \"Authorization: Bearer $OPENAI_ADMIN_KEY\"{kind}{data}",
            self.method,
            quoted(&self.url(api)),
        )
    }
}
