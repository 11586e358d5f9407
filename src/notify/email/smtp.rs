//! One mail to one recipient over one connection (RFC 5321), each step with a deadline.
//!
//! It drives lettre's connection itself: lettre's own transport has no deadline behind the TCP
//! connect, waits for the answer to `QUIT`, and gives up on all recipients where one is refused.

use lettre::{
    Address,
    transport::smtp::{
        Error,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, Certificate, TlsParameters},
        commands::{Data, Mail, Rcpt},
        extension::ClientId,
        response::Response,
    },
};
use secrecy::{ExposeSecret, SecretString};
use std::{future::Future, time::Duration};

use super::{Smtp, Tls};
use crate::{
    domain::{
        retry::{FailureReason, Outcome},
        text::one_line,
    },
    net,
};

/// The mail is handed over by then; a server's goodbye is not worth waiting for.
const GOODBYE: Duration = Duration::from_millis(500);

/// Resolving the name, connecting, the greeting and EHLO: so many times the time of a step.
const CONNECTING: u32 = 2;

pub struct Transport {
    smtp: Smtp,
    tls: Option<TlsParameters>,
    hello: ClientId,
    login: Option<Credentials>,
    password: Option<SecretString>,
}

impl Transport {
    pub fn new(smtp: Smtp) -> anyhow::Result<Transport> {
        let tls = match smtp.tls {
            Tls::None => None,
            Tls::StartTls | Tls::Implicit => {
                let mut parameters = TlsParameters::builder(smtp.host.clone());
                if let Some(ca) = &smtp.ca {
                    use rustls::pki_types::{CertificateDer, pem::PemObject};
                    for certificate in CertificateDer::pem_slice_iter(&ca.0) {
                        let der = certificate?.to_vec();
                        parameters = parameters.add_root_certificate(Certificate::from_der(der)?);
                    }
                }
                Some(parameters.build()?)
            }
        };
        let hello = smtp.hello_name.clone().map_or_else(ClientId::default, ClientId::Domain);
        let password = smtp.login.as_ref().map(|(_, password)| password.read()).transpose()?;
        let login = smtp.login.as_ref().zip(password.as_ref()).map(|((username, _), password)| {
            Credentials::new(username.clone(), password.expose_secret().to_owned())
        });
        Ok(Transport { smtp, tls, hello, login, password })
    }

    pub async fn send(&self, recipient: &Address, message: &[u8]) -> Outcome {
        let outcome = self.dialogue(recipient, message).await.unwrap_or_else(|failure| failure);
        match &self.password {
            // A server may say anything, and what it says is kept and shown.
            Some(password) => outcome.without(password.expose_secret()),
            None => outcome,
        }
    }

    async fn dialogue(&self, recipient: &Address, message: &[u8]) -> Result<Outcome, Outcome> {
        use FailureReason as Why;
        let server = (self.smtp.host.as_str(), self.smtp.port);
        let implicit = self.tls.clone().filter(|_| self.smtp.tls == Tls::Implicit);
        // A name may have several addresses, of which the first is dead: each has its part of the time.
        let each = Some(self.smtp.timeout / 2);
        let connecting =
            AsyncSmtpConnection::connect_tokio1(server, each, &self.hello, implicit, None);
        let limit = self.smtp.timeout * CONNECTING;
        let connecting = step("connecting", limit, Why::Connect, connecting);
        let mut connection = connecting.await?;
        if self.smtp.tls == Tls::StartTls {
            if !connection.can_starttls() {
                goodbye(connection);
                let detail = "the server does not offer STARTTLS, and nothing is sent without";
                return Err(Outcome::retry(Why::Tls, detail));
            }
            if let Some(tls) = self.tls.clone() {
                self.step("STARTTLS", Why::Tls, connection.starttls(tls, &self.hello)).await?;
            }
        }
        if let Some(login) = &self.login {
            self.step("logging in", Why::Login, connection.auth(DEFAULT_MECHANISMS, login)).await?;
        }
        let from = Mail::new(Some(self.smtp.from.email.clone()), Vec::new());
        self.step("MAIL FROM", Why::Sender, connection.command(from)).await?;
        let to = Rcpt::new(recipient.clone(), Vec::new());
        let accepted = self.step("RCPT TO", Why::Recipient, connection.command(to)).await;
        if let Err(refused) = accepted {
            goodbye(connection);
            return Err(refused);
        }
        self.step("DATA", Why::Message, connection.command(Data)).await?;
        let accepted = self.step("the message", Why::Message, connection.message(message)).await?;
        goodbye(connection);
        if !accepted.has_code(250) {
            let detail = format!("the message: {} where 250 was expected", words(&accepted));
            return Err(Outcome::retry(Why::Protocol, detail));
        }
        Ok(Outcome::Delivered { answer: words(&accepted) })
    }

    async fn step<T>(
        &self,
        what: &str,
        reason: FailureReason,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Outcome> {
        step(what, self.smtp.timeout, reason, work).await
    }
}

async fn step<T>(
    what: &str,
    limit: Duration,
    reason: FailureReason,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Outcome> {
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(failure(what, reason, &error)),
        Err(_) => {
            let detail = format!("{what}: no answer within {limit:?}");
            Err(Outcome::retry(FailureReason::Timeout, detail))
        }
    }
}

/// What a failed step means. Only a recipient that is refused for good (5xx) is final: everything else
/// may be the server's trouble of the day.
fn failure(what: &str, reason: FailureReason, error: &Error) -> Outcome {
    let mut detail = format!("{what}: {}", net::error_chain(error));
    if reason == FailureReason::Login && error.is_client() {
        detail.push_str("; some servers offer a login only under TLS (smtp.tls)");
    }
    if reason == FailureReason::Recipient && error.is_permanent() {
        return Outcome::Rejected { reason, detail };
    }
    let answered = error.is_permanent() || error.is_transient();
    let reason = if answered || reason == FailureReason::Tls {
        reason
    } else if error.is_timeout() {
        FailureReason::Timeout
    } else if error.is_tls() || detail.contains("certificate") {
        FailureReason::Tls
    } else if reason == FailureReason::Connect {
        reason
    } else if error.is_response() || error.is_client() {
        FailureReason::Protocol
    } else {
        FailureReason::Connect
    };
    Outcome::retry(reason, detail)
}

fn words(response: &Response) -> String {
    let text: Vec<&str> = response.message().collect();
    one_line(&format!("{} {}", response.code(), text.join(" ")), 200)
}

/// Nobody waits for it: what was accepted is recorded at once.
fn goodbye(mut connection: AsyncSmtpConnection) {
    tokio::spawn(async move {
        // Whatever comes of it: the connection is dropped then.
        drop(tokio::time::timeout(GOODBYE, connection.quit()).await);
    });
}
