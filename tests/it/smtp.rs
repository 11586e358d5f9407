//! Mail servers as they are, and as they should not be: raw sockets on one side, the mail notifier
//! on the other.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use certvigil::domain::retry::Outcome;
use std::{net::SocketAddr, path::Path, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    time::Instant,
};

use super::{
    notifiers::{attempt, notifier, words},
    support::{Tls, crypto, raw_server},
};

const PASSWORD: &str = "hunter2-and-more";

/// Answers each line until `answer` has none; the message is one line.
async fn dialogue(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    greeting: &[u8],
    mut answer: impl FnMut(&str) -> Option<Vec<u8>>,
) {
    let mut stream = BufReader::new(stream);
    drop(stream.get_mut().write_all(greeting).await);
    let (mut line, mut body) = (Vec::new(), false);
    while stream.read_until(b'\n', &mut line).await.is_ok_and(|length| length > 0) {
        let text = String::from_utf8_lossy(&std::mem::take(&mut line)).trim_end().to_owned();
        if body && text != "." {
            continue;
        }
        let Some(reply) = answer(&text) else { return };
        drop(stream.get_mut().write_all(&reply).await);
        body = text == "DATA" && reply.starts_with(b"354");
    }
}

/// What a well-behaved server answers, with these lines after EHLO.
pub fn polite(line: &str, offers: &[&str]) -> Option<Vec<u8>> {
    Some(match line.split(' ').next().unwrap_or_default() {
        "EHLO" => {
            let mut lines = vec!["mx"];
            lines.extend(offers);
            let last = lines.len() - 1;
            let line = |(n, text): (usize, &&str)| {
                format!("250{}{text}\r\n", if n == last { ' ' } else { '-' })
            };
            lines.iter().enumerate().map(line).collect::<String>().into_bytes()
        }
        "DATA" => b"354 go\r\n".to_vec(),
        _ => b"250 ok\r\n".to_vec(),
    })
}

pub async fn server<F>(greeting: &'static [u8], answer: F) -> SocketAddr
where
    F: FnMut(&str) -> Option<Vec<u8>> + Clone + Send + 'static,
{
    raw_server(move |stream| {
        let answer = answer.clone();
        async move { dialogue(stream, greeting, answer).await }
    })
    .await
}

fn config(address: SocketAddr, more: &str) -> String {
    format!(
        "[notifiers.email.ops]\nto = [\"ops@acme.example\"]\n[smtp]\nhost = \"127.0.0.1\"\nport = {}\n\
         from = \"c@acme.example\"\ntimeout = \"400ms\"\n{more}",
        address.port()
    )
}

fn login() -> String {
    format!("tls = \"none\"\nusername = \"certvigil\"\npassword = \"{PASSWORD}\"\n")
}

fn tls(mode: &str, ca: &Path) -> String {
    format!("tls = \"{mode}\"\nca_file = \"{}\"\n", ca.display())
}

fn detail(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Delivered { answer } => answer,
        Outcome::Retry { detail, .. } | Outcome::Rejected { detail, .. } => detail,
    }
}

async fn send(address: SocketAddr, more: &str) -> Outcome {
    crypto();
    attempt(notifier(&config(address, more)).as_ref()).await
}

#[tokio::test]
async fn replies_that_came_before_the_handshake_are_not_believed_after_it() {
    let keys = Tls::new();
    let acceptor = keys.acceptor(false);
    let address = raw_server(move |mut stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut reader = BufReader::new(&mut stream);
            drop(reader.get_mut().write_all(b"220 mx\r\n").await);
            let mut line = String::new();
            drop(reader.read_line(&mut line).await);
            drop(reader.get_mut().write_all(b"250-mx\r\n250 STARTTLS\r\n").await);
            drop(reader.read_line(&mut line).await);
            let forged = b"220 go\r\n250 mx\r\n250 ok\r\n250 ok\r\n354 go\r\n250 queued\r\n";
            drop(reader.get_mut().write_all(forged).await);
            let Ok(stream) = acceptor.accept(stream).await else { return };
            dialogue(stream, b"", |_| Some(b"503 no\r\n".to_vec())).await;
        }
    })
    .await;
    let outcome = send(address, &tls("starttls", &keys.ca)).await;
    assert_eq!(words(&outcome), "retry tls", "{outcome:?}");
    assert!(detail(&outcome).contains("extra data before the TLS handshake"));
}

#[tokio::test]
async fn a_reply_without_an_end_is_cut() {
    for greeting in [&b"220 mx\r\n"[..], b""] {
        let address = raw_server(move |mut stream| async move {
            drop(stream.write_all(greeting).await);
            while stream.write_all(&[b'2'; 8_192]).await.is_ok() {}
        })
        .await;
        let outcome = send(address, "tls = \"none\"\n").await;
        assert_eq!(words(&outcome), "retry protocol", "{outcome:?}");
    }
    let address =
        raw_server(
            |mut stream| async move { while stream.write_all(b"220-mx\r\n").await.is_ok() {} },
        )
        .await;
    assert_eq!(words(&send(address, "tls = \"none\"\n").await), "retry protocol");
}

#[tokio::test]
async fn an_accepted_message_is_delivered_whatever_the_text_of_the_reply() {
    for reply in
        [&b"250\r\n"[..], b"250 Nachricht \xfcbernommen\r\n", b"250-a\r\n250 b\r\n", b"251 ok\r\n"]
    {
        let address = server("220 mx Gr\u{fc}\u{df}e\r\n".as_bytes(), move |line| match line {
            "." => Some(reply.to_vec()),
            line => polite(line, &[]),
        })
        .await;
        let outcome = send(address, "tls = \"none\"\n").await;
        assert_eq!(words(&outcome), "delivered", "{reply:?}: {outcome:?}");
    }
    let latin = server(b"220 mx Gr\xfc\xdfe\r\n", |line| polite(line, &["x\u{fc}"])).await;
    assert_eq!(words(&send(latin, "tls = \"none\"\n").await), "delivered");
}

#[tokio::test]
async fn a_final_reply_may_be_slow_and_a_lost_one_is_not_repeated_soon() {
    let slow = raw_server(|stream| async move {
        let mut stream = BufReader::new(stream);
        drop(stream.get_mut().write_all(b"220 mx\r\n").await);
        let (mut line, mut body) = (String::new(), false);
        while stream.read_line(&mut line).await.is_ok_and(|length| length > 0) {
            let text = std::mem::take(&mut line);
            let text = text.trim_end();
            if body && text != "." {
                continue;
            }
            if text == "." {
                tokio::time::sleep(Duration::from_millis(1_200)).await;
            }
            body = text == "DATA";
            let reply = polite(text, &[]).unwrap_or_default();
            drop(stream.get_mut().write_all(&reply).await);
        }
    })
    .await;
    assert_eq!(words(&send(slow, "tls = \"none\"\n").await), "delivered", "three times a step");
    let lost = server(b"220 mx\r\n", |line| match line {
        "." => None,
        line => polite(line, &[]),
    })
    .await;
    assert_eq!(words(&send(lost, "tls = \"none\"\n").await), "retry unconfirmed");
}

#[tokio::test]
async fn keywords_in_lower_case_are_understood() {
    let keys = Tls::new();
    let acceptor = keys.acceptor(false);
    let address = raw_server(move |mut stream| {
        let acceptor = acceptor.clone();
        async move {
            dialogue(&mut stream, b"220 mx\r\n", |line| match line {
                "STARTTLS" => None,
                line => polite(line, &["starttls"]),
            })
            .await;
            drop(stream.write_all(b"220 go\r\n").await);
            let Ok(stream) = acceptor.accept(stream).await else { return };
            dialogue(stream, b"", |line| polite(line, &[])).await;
        }
    })
    .await;
    let outcome = send(address, &tls("starttls", &keys.ca)).await;
    assert_eq!(words(&outcome), "delivered", "{outcome:?}");
}

/// A server that wants a login by these mechanisms, and refuses PLAIN.
fn with_login(
    offers: &'static str,
    prompts: [&'static str; 2],
) -> impl FnMut(&str) -> Option<Vec<u8>> + Clone + Send + 'static {
    let mut step = 0;
    move |line| {
        let (name, password) = (BASE64.encode("certvigil"), BASE64.encode(PASSWORD));
        let reply = |text: String| Some(format!("{text}\r\n").into_bytes());
        match line {
            line if line.starts_with("AUTH PLAIN") => reply("535 5.7.8 no".to_owned()),
            "AUTH LOGIN" => {
                step = 1;
                reply(format!("334 {}", prompts[0]))
            }
            line if step == 1 && line == name => {
                step = 2;
                reply(format!("334 {}", prompts[1]))
            }
            line if step == 2 && line == password => {
                step = 3;
                reply("235 welcome".to_owned())
            }
            line if line.starts_with("MAIL") && step != 3 => reply("530 log in".to_owned()),
            line => polite(line, &[offers]),
        }
    }
}

#[tokio::test]
async fn a_login_works_with_what_servers_offer() {
    let user = ["VXNlcjo=", "UGFzczo="];
    let cases = [
        ("AUTH LOGIN", user, "", "delivered"),
        ("AUTH LOGIN", ["", ""], "", "delivered"),
        ("AUTH LOGIN", ["your name, please", "and the rest"], "", "delivered"),
        ("AUTH=LOGIN PLAIN", user, "", "delivered"),
        ("AUTH LOGIN PLAIN", user, "", "delivered"),
        ("AUTH LOGIN PLAIN", user, "auth = \"login\"\n", "delivered"),
        ("AUTH LOGIN PLAIN", user, "auth = \"plain\"\n", "retry login"),
        ("AUTH XOAUTH2", user, "", "retry login"),
        ("SIZE 100", user, "", "retry login"),
    ];
    for (offers, prompts, more, expected) in cases {
        let address = server(b"220 mx\r\n", with_login(offers, prompts)).await;
        let outcome = send(address, &format!("{}{more}", login())).await;
        assert_eq!(words(&outcome), expected, "{offers} {prompts:?} {more}: {outcome:?}");
        if offers == "AUTH XOAUTH2" {
            assert!(detail(&outcome).contains("the server offers only XOAUTH2"), "{outcome:?}");
            assert!(!detail(&outcome).contains("TLS"), "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_password_that_the_server_repeats_is_not_kept() {
    let address = server(b"220 mx\r\n", |line| {
        let command = line.starts_with("AUTH") || !line.contains(' ') && line.ends_with('=');
        match command {
            true => Some(format!("500 5.5.1 unrecognized: {line}\r\n").into_bytes()),
            false => polite(line, &["AUTH PLAIN LOGIN"]),
        }
    })
    .await;
    let outcome = send(address, &login()).await;
    let text = format!("{outcome:?}");
    assert!(text.contains("logging in: 500 5.5.1"), "{text}");
    let plain = BASE64.encode(format!("\0certvigil\0{PASSWORD}"));
    for secret in [PASSWORD, &BASE64.encode(PASSWORD), &plain] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn the_wrong_kind_of_tls_fails_in_time_and_names_the_cause() {
    let keys = Tls::new();
    let acceptor = keys.acceptor(false);
    let implicit = raw_server(move |stream| {
        let acceptor = acceptor.clone();
        async move { drop(acceptor.accept(stream).await) }
    })
    .await;
    let begun = Instant::now();
    let outcome = send(implicit, &tls("starttls", &keys.ca)).await;
    assert!(begun.elapsed() < Duration::from_millis(2_000), "{:?}", begun.elapsed());
    assert!(detail(&outcome).contains("smtp.tls = \"implicit\""), "{outcome:?}");
    let plain = server(b"220 mx\r\n", |line| polite(line, &[])).await;
    let outcome = send(plain, &tls("implicit", &keys.ca)).await;
    assert!(detail(&outcome).contains("smtp.tls = \"starttls\""), "{outcome:?}");
    assert!(detail(&outcome).contains(&format!("127.0.0.1:{}", plain.port())), "{outcome:?}");
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_or_the_error_names_the_remedy() {
    crypto();
    for (is_ca, expected) in [(false, "delivered"), (true, "retry tls")] {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        parameters.is_ca = match is_ca {
            true => rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained),
            false => rcgen::IsCa::ExplicitNoCa,
        };
        let certificate = parameters.self_signed(&key).unwrap();
        let pem = folder.path().join("server.pem");
        std::fs::write(&pem, certificate.pem()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server_config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(server_config));
        let address = raw_server(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                dialogue(stream, b"220 mx\r\n", |line| polite(line, &[])).await;
            }
        })
        .await;
        let outcome = send(address, &tls("implicit", &pem)).await;
        assert_eq!(words(&outcome), expected, "{outcome:?}");
        if is_ca {
            assert!(
                detail(&outcome).contains("the server presents a CA certificate"),
                "{outcome:?}"
            );
        }
    }
}
