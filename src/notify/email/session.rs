//! A connection to a mail server: commands out, replies in.
//!
//! Guarantees: replies have a size limit; data from before the TLS handshake is not read after it
//! (CVE-2011-0411); only the first digit of a reply decides. The caller sets the deadline of each
//! step (`smtp.rs`).

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use rustls::pki_types::ServerName;
use std::{collections::BTreeSet, io};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::reply::{Line, Reply};

/// The longest line of a reply, in bytes. RFC 5321 (section 4.5.3.1.5) allows 512.
const MAX_LINE: u64 = 2_048;
/// The maximum number of lines of a reply.
const MAX_LINES: usize = 100;

/// The error of a step of the dialogue.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("{0}")]
    Refused(Reply),
    #[error("the server closed the connection")]
    Closed,
    #[error("{0}")]
    Io(io::Error),
    #[error("{0}")]
    Tls(io::Error),
    #[error("a reply is longer than {MAX_LINES} lines of {MAX_LINE} bytes")]
    TooLong,
    #[error("the server sent something that is not an SMTP reply: “{0}”")]
    NotAReply(String),
    #[error("the server sent extra data before the TLS handshake: someone may have injected it")]
    Injected,
    #[error("{0}")]
    NoMechanism(String),
}

type Result<T> = std::result::Result<T, SessionError>;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    Login,
}

impl Mechanism {
    fn word(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
        }
    }
}

pub struct Session {
    stream: BufReader<Box<dyn Stream>>,
    /// The extensions in the server's latest EHLO response with their parameters, in capitals.
    offers: Vec<(String, BTreeSet<String>)>,
}

impl Session {
    /// Starts a session; with `tls`, encrypted from the first byte.
    pub async fn open(
        stream: TcpStream,
        tls: Option<(&TlsConnector, ServerName<'static>)>,
    ) -> Result<Session> {
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(stream),
            Some((connector, name)) => {
                Box::new(connector.connect(name, stream).await.map_err(SessionError::Tls)?)
            }
        };
        Ok(Session { stream: BufReader::new(stream), offers: Vec::new() })
    }

    /// Reads the greeting and sends EHLO.
    pub async fn greet(&mut self, hello: &str) -> Result<()> {
        self.positive().await?;
        self.hello(hello).await
    }

    async fn hello(&mut self, hello: &str) -> Result<()> {
        let reply = self.command(&format!("EHLO {hello}")).await?;
        let offered = reply.lines.iter().skip(1).filter_map(|line| {
            let line = line.to_ascii_uppercase();
            let mut words = line.split([' ', '=']).filter(|word| !word.is_empty());
            Some((words.next()?.to_owned(), words.map(str::to_owned).collect()))
        });
        self.offers = offered.collect();
        Ok(())
    }

    pub fn offers_starttls(&self) -> bool {
        self.offers.iter().any(|(keyword, _)| keyword == "STARTTLS")
    }

    /// Encrypts the connection (RFC 3207) and sends EHLO again.
    pub async fn starttls(
        mut self,
        connector: &TlsConnector,
        name: ServerName<'static>,
        hello: &str,
    ) -> Result<Session> {
        self.command("STARTTLS").await?;
        if !self.stream.buffer().is_empty() {
            return Err(SessionError::Injected);
        }
        let encrypted = connector.connect(name, self.stream.into_inner()).await;
        let stream: Box<dyn Stream> = Box::new(encrypted.map_err(SessionError::Tls)?);
        let mut session = Session { stream: BufReader::new(stream), offers: Vec::new() };
        session.hello(hello).await?;
        Ok(session)
    }

    /// Logs in with the first of these mechanisms that the server offers and accepts.
    pub async fn log_in(
        &mut self,
        wanted: &[Mechanism],
        username: &str,
        password: &str,
    ) -> Result<()> {
        let offered: BTreeSet<String> = {
            let auth = self.offers.iter().filter(|(keyword, _)| keyword == "AUTH");
            auth.flat_map(|(_, mechanisms)| mechanisms.clone()).collect()
        };
        let usable: Vec<Mechanism> =
            wanted.iter().copied().filter(|one| offered.contains(one.word())).collect();
        if usable.is_empty() {
            let offered: Vec<&str> = offered.iter().map(String::as_str).collect();
            let wanted: Vec<&str> = wanted.iter().map(|one| one.word()).collect();
            return Err(SessionError::NoMechanism(match offered.join(", ") {
                offered if offered.is_empty() => "the server offers no authentication".to_owned(),
                offered => {
                    format!(
                        "the server offers only {offered}; smtp.auth allows {}",
                        wanted.join(", ")
                    )
                }
            }));
        }
        let mut refused = None;
        for mechanism in usable {
            let tried = match mechanism {
                Mechanism::Plain => self.log_in_plain(username, password).await,
                Mechanism::Login => self.log_in_login(username, password).await,
            };
            match tried {
                Err(SessionError::Refused(reply)) if reply.is_permanent() => {
                    refused = Some(SessionError::Refused(reply));
                }
                Err(SessionError::Closed) if refused.is_some() => break,
                done => return done,
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// RFC 4616.
    async fn log_in_plain(&mut self, username: &str, password: &str) -> Result<()> {
        let credentials = BASE64.encode(format!("\0{username}\0{password}"));
        let reply = self.command(&format!("AUTH PLAIN {credentials}")).await?;
        if reply.code == 334 {
            self.command(&credentials).await?;
        }
        Ok(())
    }

    /// Sends name and password after one prompt each; the text of the prompts does not matter.
    async fn log_in_login(&mut self, username: &str, password: &str) -> Result<()> {
        let mut reply = self.command("AUTH LOGIN").await?;
        for answer in [username, password] {
            if reply.code != 334 {
                break;
            }
            reply = self.command(&BASE64.encode(answer)).await?;
        }
        Ok(())
    }

    /// Sends a command; returns a positive reply.
    pub async fn command(&mut self, command: &str) -> Result<Reply> {
        self.send(format!("{command}\r\n").as_bytes()).await?;
        self.positive().await
    }

    /// Sends the message and its end (RFC 5321, section 4.5.2).
    pub async fn send_message(&mut self, message: &[u8]) -> Result<()> {
        let mut bytes = Vec::with_capacity(message.len() + 64);
        for line in message.split_inclusive(|byte| *byte == b'\n') {
            if line.starts_with(b".") {
                bytes.push(b'.');
            }
            bytes.extend_from_slice(line);
        }
        if !bytes.ends_with(b"\r\n") {
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b".\r\n");
        self.send(&bytes).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await.map_err(SessionError::Io)?;
        self.stream.flush().await.map_err(SessionError::Io)
    }

    /// Reads the next reply; an error unless it is positive.
    pub async fn positive(&mut self) -> Result<Reply> {
        let reply = self.reply().await?;
        if reply.is_positive() { Ok(reply) } else { Err(SessionError::Refused(reply)) }
    }

    async fn reply(&mut self) -> Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let Line { code, is_last, text } = self.line().await?;
            lines.push(text);
            if is_last {
                return Ok(Reply { code, lines });
            }
            if lines.len() == MAX_LINES {
                return Err(SessionError::TooLong);
            }
        }
    }

    async fn line(&mut self) -> Result<Line> {
        let mut raw = Vec::new();
        let limited = &mut (&mut self.stream).take(MAX_LINE);
        limited.read_until(b'\n', &mut raw).await.map_err(SessionError::Io)?;
        if !raw.ends_with(b"\n") {
            let is_full = raw.len() as u64 == MAX_LINE;
            return Err(if is_full { SessionError::TooLong } else { SessionError::Closed });
        }
        Line::parse(&raw).ok_or_else(|| {
            let text = String::from_utf8_lossy(&raw);
            SessionError::NotAReply(crate::domain::text::one_line(&text, 60))
        })
    }
}
