//! A mail server that stores received mails; a library implements SMTP.

use mailin_embedded::{AuthMechanism, Handler, Response, Server, SslConfig, response};
use parking_lot::Mutex;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

/// The conditions for accepting mails.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Offer STARTTLS with this certificate and key (PEM files).
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Require this user name and password.
    pub login: Option<(String, String)>,
}

/// An accepted mail.
#[derive(Clone, Debug)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    /// Headers and body as received.
    pub data: Vec<u8>,
}

/// A running mailbox. Clones share the received mails.
#[derive(Clone)]
pub struct Mailbox {
    pub address: SocketAddr,
    mails: Arc<Mutex<Vec<Mail>>>,
    refused: Arc<Mutex<Vec<(String, u16)>>>,
}

impl Mailbox {
    /// Listens on a free port of 127.0.0.1 until the process ends.
    ///
    /// # Errors
    /// If no port is available, or the certificate is unusable.
    pub fn start(terms: Terms) -> io::Result<Mailbox> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mailbox = Mailbox {
            address: listener.local_addr()?,
            mails: Arc::default(),
            refused: Arc::default(),
        };
        let session = Session {
            mailbox: mailbox.clone(),
            login: terms.login.clone(),
            admitted: terms.login.is_none(),
            mail: Mail { from: String::new(), to: Vec::new(), data: Vec::new() },
        };
        let mut server = Server::new(session);
        server.with_name("mailbox.example").with_tcp_listener(listener).with_num_threads(16);
        if let Some((certificate, key)) = &terms.tls {
            let ssl = SslConfig::SelfSigned {
                cert_path: certificate.display().to_string(),
                key_path: key.display().to_string(),
            };
            server.with_ssl(ssl).map_err(|error| io::Error::other(error.to_string()))?;
        }
        if terms.login.is_some() {
            server.with_auth(AuthMechanism::Plain).with_auth(AuthMechanism::Login);
        }
        std::thread::Builder::new().name("mailbox".to_owned()).spawn(move || {
            if let Err(error) = server.serve() {
                tracing::error!(%error, "the mail server of the demo stopped");
            }
        })?;
        Ok(mailbox)
    }

    /// The received mails, oldest first.
    pub fn mails(&self) -> Vec<Mail> {
        self.mails.lock().clone()
    }

    /// Deletes the received mails.
    pub fn forget(&self) {
        self.mails.lock().clear();
    }

    /// Rejects a recipient with this SMTP code from now on; `None` accepts it again.
    pub fn refuse(&self, recipient: &str, code: Option<u16>) {
        let mut refused = self.refused.lock();
        refused.retain(|(known, _)| known != recipient);
        refused.extend(code.map(|code| (recipient.to_owned(), code)));
    }
}

/// One SMTP session.
#[derive(Clone)]
struct Session {
    mailbox: Mailbox,
    login: Option<(String, String)>,
    admitted: bool,
    mail: Mail,
}

impl Session {
    fn admit(&mut self, username: &str, password: &str) -> Response {
        let given = Some((username.to_owned(), password.to_owned()));
        self.admitted = self.login == given;
        if self.admitted { response::AUTH_OK } else { response::INVALID_CREDENTIALS }
    }
}

impl Handler for Session {
    fn mail(&mut self, _ip: IpAddr, _domain: &str, from: &str) -> Response {
        if !self.admitted {
            return response::AUTHENTICATION_REQUIRED;
        }
        self.mail = Mail { from: from.to_owned(), to: Vec::new(), data: Vec::new() };
        response::OK
    }

    fn rcpt(&mut self, to: &str) -> Response {
        let refused = self.mailbox.refused.lock();
        if let Some((_, code)) = refused.iter().find(|(refused, _)| refused == to) {
            return Response::custom(*code, "not this recipient".to_owned());
        }
        self.mail.to.push(to.to_owned());
        response::OK
    }

    fn data(&mut self, buffer: &[u8]) -> io::Result<()> {
        self.mail.data.extend_from_slice(buffer);
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        let mail = self.mail.clone();
        self.mailbox.mails.lock().push(mail);
        response::OK
    }

    fn auth_plain(&mut self, _authorization: &str, username: &str, password: &str) -> Response {
        self.admit(username, password)
    }

    fn auth_login(&mut self, username: &str, password: &str) -> Response {
        self.admit(username, password)
    }
}
