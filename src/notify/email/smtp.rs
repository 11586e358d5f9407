//! Sends one mail to one recipient over one connection (RFC 5321); each step has a deadline.
//!
//! lettre's connection is not used: it keeps its read buffer across STARTTLS, does not limit the
//! length of a line, and treats an accepted message as rejected if the text of the reply is
//! unusual.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use lettre::Address;
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use secrecy::{ExposeSecret, SecretString};
use std::{sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{
    Auth, Smtp, Tls,
    session::{Mechanism, Session, SessionError},
};
use crate::{
    domain::{
        retry::{FailureReason, Outcome},
        text::one_line,
    },
    net,
    notify::NotifierError,
};

/// The time limit of QUIT. The mail is already delivered.
const GOODBYE: Duration = Duration::from_millis(500);
/// The longest time limit of the final reply (RFC 5321, section 4.5.3.2.6).
const FINAL_REPLY: Duration = Duration::from_secs(600);
/// The time limit of the final reply, in multiples of that of a step.
const FINAL_STEPS: u32 = 20;
const CONNECTING: &str = "connecting";
/// The maximum length of a detail, in characters.
const MAX_DETAIL: usize = 300;

/// The time limit of the final reply, which follows the message.
pub(super) fn final_reply(timeout: Duration) -> Duration {
    (timeout * FINAL_STEPS).min(FINAL_REPLY).max(timeout)
}

pub struct Transport {
    smtp: Smtp,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    hello: String,
    login: Option<(String, SecretString)>,
}

impl Transport {
    pub fn new(smtp: Smtp) -> Result<Transport, NotifierError> {
        let tls = match smtp.tls {
            Tls::None => None,
            Tls::StartTls | Tls::Implicit => {
                let name = ServerName::try_from(smtp.host.clone())?;
                Some((connector(&smtp)?, name))
            }
        };
        let hello = smtp.hello_name.clone().unwrap_or_else(host_name);
        let login = match &smtp.login {
            Some((username, password)) => Some((username.clone(), password.read()?)),
            None => None,
        };
        Ok(Transport { smtp, tls, hello, login })
    }

    pub async fn send(&self, recipient: &Address, message: &[u8]) -> Outcome {
        let outcome = self.dialogue(recipient, message).await.unwrap_or_else(|failure| failure);
        // A reply can contain any text, and is stored and shown.
        let Some((username, password)) = &self.login else { return outcome };
        let password = password.expose_secret();
        // The argument of AUTH PLAIN (RFC 4616).
        let plain = BASE64.encode(format!("\0{username}\0{password}"));
        outcome.without(&plain).without(password)
    }

    async fn dialogue(&self, recipient: &Address, message: &[u8]) -> Result<Outcome, Outcome> {
        use FailureReason as Why;
        let mut session = self.step(CONNECTING, Why::Connect, self.connect()).await?;
        if let (Tls::StartTls, Some((connector, name))) = (self.smtp.tls, &self.tls) {
            if !session.offers_starttls() {
                goodbye(session);
                let detail =
                    "the server does not offer STARTTLS: certvigil sends nothing without it";
                return Err(Outcome::retry(Why::Tls, self.with_server(detail)));
            }
            let starttls = session.starttls(connector, name.clone(), &self.hello);
            session = self.step("STARTTLS", Why::Tls, starttls).await?;
        }
        if let Some((username, password)) = &self.login {
            let wanted = self.smtp.auth.mechanisms();
            let logging_in = session.log_in(wanted, username, password.expose_secret());
            self.step("logging in", Why::Login, logging_in).await?;
        }
        let from = format!("MAIL FROM:<{}>", self.smtp.from.email);
        self.step("MAIL FROM", Why::Sender, session.command(&from)).await?;
        let to = format!("RCPT TO:<{recipient}>");
        let accepted = self.step("RCPT TO", Why::Recipient, session.command(&to)).await;
        if let Err(refused) = accepted {
            goodbye(session);
            return Err(refused);
        }
        let data = self.step("DATA", Why::Message, session.command("DATA")).await?;
        if data.code != 354 {
            let detail = format!("DATA: {data}, where 354 was expected");
            return Err(Outcome::retry(Why::Protocol, self.with_server(&detail)));
        }
        self.step("sending the message", Why::Connect, session.send_message(message)).await?;
        let limit = final_reply(self.smtp.timeout);
        match tokio::time::timeout(limit, session.positive()).await {
            Ok(Ok(reply)) if reply.code < 300 => {
                goodbye(session);
                Ok(Outcome::Delivered { answer: reply.to_string() })
            }
            Ok(Ok(reply)) => {
                let detail = format!("the message: {reply}, where 250 was expected");
                Err(Outcome::retry(Why::Protocol, self.with_server(&detail)))
            }
            Ok(Err(error @ SessionError::Refused(_))) => {
                Err(self.failure("the message", Why::Message, &error))
            }
            // The message was sent completely, so it may have arrived.
            Ok(Err(error)) => {
                let detail = format!("after the message: {error}; the message may have arrived");
                Err(Outcome::retry(Why::Unconfirmed, self.with_server(&detail)))
            }
            Err(_) => {
                let detail = format!(
                    "after the message: no reply within {limit:?}; the message may have arrived"
                );
                Err(Outcome::retry(Why::Unconfirmed, self.with_server(&detail)))
            }
        }
    }

    /// Resolves the name, connects to the first address that responds, and reads the greeting.
    async fn connect(&self) -> Result<Session, SessionError> {
        let server = (self.smtp.host.as_str(), self.smtp.port);
        let addresses = tokio::net::lookup_host(server).await.map_err(SessionError::Io)?;
        // The first of several addresses may be unreachable, so each gets half of the time.
        let each = self.smtp.timeout / 2;
        let mut failed = std::io::Error::other("the host name has no address");
        for address in addresses {
            let stream = match tokio::time::timeout(each, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    failed = error;
                    continue;
                }
                Err(_) => {
                    failed = std::io::ErrorKind::TimedOut.into();
                    continue;
                }
            };
            let tls = self.tls.as_ref().filter(|_| self.smtp.tls == Tls::Implicit);
            let tls = tls.map(|(connector, name)| (connector, name.clone()));
            let mut session = Session::open(stream, tls).await?;
            session.greet(&self.hello).await?;
            return Ok(session);
        }
        Err(SessionError::Io(failed))
    }

    async fn step<T>(
        &self,
        what: &str,
        reason: FailureReason,
        work: impl Future<Output = Result<T, SessionError>>,
    ) -> Result<T, Outcome> {
        let limit = self.smtp.timeout;
        match tokio::time::timeout(limit, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(self.failure(what, reason, &error)),
            Err(_) => {
                // A server that expects TLS sends no greeting.
                let hint = match (what, self.smtp.tls) {
                    (CONNECTING, Tls::StartTls | Tls::None) => {
                        "; port 465 usually needs smtp.tls = \"implicit\""
                    }
                    _ => "",
                };
                let detail = format!("{what}: no reply within {limit:?}{hint}");
                Err(Outcome::retry(FailureReason::Timeout, self.with_server(&detail)))
            }
        }
    }

    /// The outcome of a failed step. Only a permanently rejected recipient (5xx) is final: other
    /// errors may be temporary problems of the server.
    fn failure(&self, what: &str, reason: FailureReason, error: &SessionError) -> Outcome {
        use FailureReason as Why;
        let text = match error {
            // A reply may repeat the command, which contains the password.
            SessionError::Refused(reply) if reason == Why::Login => reply.status(),
            error => net::error_chain(error),
        };
        let detail = self.with_server(&format!("{what}: {text}{}", hint(&text)));
        match error {
            SessionError::Refused(reply) if reason == Why::Recipient && reply.is_permanent() => {
                Outcome::Rejected { reason, detail }
            }
            SessionError::Refused(_) | SessionError::NoMechanism(_) => {
                Outcome::retry(reason, detail)
            }
            SessionError::Tls(_) | SessionError::Injected => Outcome::retry(Why::Tls, detail),
            SessionError::TooLong | SessionError::NotAReply(_) => {
                Outcome::retry(Why::Protocol, detail)
            }
            SessionError::Closed | SessionError::Io(_) if reason == Why::Tls => {
                Outcome::retry(Why::Tls, detail)
            }
            SessionError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                Outcome::retry(Why::Timeout, detail)
            }
            SessionError::Closed | SessionError::Io(_) => Outcome::retry(Why::Connect, detail),
        }
    }

    fn with_server(&self, detail: &str) -> String {
        let Smtp { host, port, .. } = &self.smtp;
        format!("{} ({host}:{port})", one_line(detail, MAX_DETAIL))
    }
}

/// The likely cause of a failed handshake, and the remedy.
fn hint(error: &str) -> &'static str {
    if error.contains("InvalidContentType") {
        "; the server does not start with TLS: ports 587 and 25 usually need smtp.tls = \"starttls\""
    } else if error.contains("CaUsedAsEndEntity") {
        "; the server presents a CA certificate: install a server certificate (basicConstraints \
         CA:FALSE) there; set smtp.ca_file to its issuer, or to the certificate itself if \
         self-signed"
    } else if error.contains("UnknownIssuer") {
        "; set smtp.ca_file for a private CA"
    } else {
        ""
    }
}

/// Trusts the system's authorities and those of `smtp.ca_file`.
fn connector(smtp: &Smtp) -> Result<TlsConnector, NotifierError> {
    let pem = smtp.ca.as_ref().map(|ca| ca.0.as_slice()).unwrap_or_default();
    let own: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls_platform_verifier::Verifier::new_with_extra_roots(own, Arc::clone(&provider))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

/// The name of this machine for EHLO, or else an address literal (RFC 5321, section 4.1.3).
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let is_plain =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
    if is_plain { name } else { "[127.0.0.1]".to_owned() }
}

/// Ends the session in the background, so that the result is recorded at once.
fn goodbye(mut session: Session) {
    tokio::spawn(async move {
        // The result does not matter: the connection is dropped.
        tokio::time::timeout(GOODBYE, session.command("QUIT")).await.ok();
    });
}

impl Auth {
    fn mechanisms(self) -> &'static [Mechanism] {
        match self {
            Auth::Auto => &[Mechanism::Plain, Mechanism::Login],
            Auth::Plain => &[Mechanism::Plain],
            Auth::Login => &[Mechanism::Login],
        }
    }
}
