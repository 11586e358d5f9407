//! What a person sees: the HTML mail and the pages in a real Chromium, driven over WebDriver.

use axum::{Router, extract::State, response::Html};
use certvigil::{
    message::{Event, Notification, sample},
    notify::email,
};
use fantoccini::{Client, ClientBuilder, Locator, error::CmdError, wd::WebDriverCompatibleCommand};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
};
use tempfile::TempDir;
use url::Url;

use super::{
    messages::{everybody, hostile_message, largest, mail},
    support::{Running, free_port, program, serve, start, until},
};

/// A browser of its own, without any way out of this machine.
struct Browser {
    client: Client,
    _driver: Running,
    _profile: TempDir,
}

/// A command of Chromium's own (<https://chromedevtools.github.io/devtools-protocol/>).
#[derive(Debug)]
struct DevTools(&'static str, Value);

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (reqwest::Method, Option<String>) {
        let body = json!({ "cmd": self.0, "params": self.1 });
        (reqwest::Method::POST, Some(body.to_string()))
    }
}

impl Browser {
    /// `None` if no browser is installed; the test reports that.
    async fn start() -> Option<Browser> {
        let driver = program("chromedriver", "chromium-driver")?;
        let chromium = program("chromium", "chromium")?;
        let port = free_port();
        let driver = std::process::Command::new(driver)
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let driver = Running(driver);
        until("chromedriver", || std::net::TcpStream::connect(("127.0.0.1", port)).ok()).await;
        let profile = tempfile::tempdir().unwrap();
        let options = json!({
            "binary": chromium,
            "args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--disable-dev-shm-usage", "--hide-scrollbars",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                format!("--user-data-dir={}", profile.path().display()),
            ],
        });
        let mut capabilities = serde_json::Map::new();
        capabilities.insert("goog:chromeOptions".to_owned(), options);
        let connector = hyper_util::client::legacy::connect::HttpConnector::new();
        let mut builder = ClientBuilder::new(connector);
        builder.capabilities(capabilities);
        let client = builder.connect(&format!("http://127.0.0.1:{port}")).await.unwrap();
        Some(Browser { client, _driver: driver, _profile: profile })
    }

    async fn dev_tools(&self, command: &'static str, parameters: Value) -> Result<Value, CmdError> {
        self.client.issue_cmd(DevTools(command, parameters)).await
    }

    async fn look(&self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.dev_tools("Emulation.setDeviceMetricsOverride", metrics).await.unwrap();
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.dev_tools("Emulation.setEmulatedMedia", media).await.unwrap();
    }
}

/// Serves a page chosen by the test, and records the requests.
#[derive(Clone, Default)]
struct Pages {
    page: Arc<Mutex<String>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Pages {
    async fn serve(&self) -> SocketAddr {
        async fn page(State(pages): State<Pages>, uri: axum::http::Uri) -> Html<String> {
            pages.asked.lock().unwrap().push(uri.to_string());
            Html(pages.page.lock().unwrap().clone())
        }
        serve(Router::new().fallback(page).with_state(self.clone())).await
    }
}

/// Problems of the current page: elements wider than the window, insufficient contrast
/// (WCAG 2.2, 1.4.3: 4.5 to 1), and loaded resources.
const FAULTS: &str = r"
const faults = [];
const width = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth > width)
  faults.push(`the page is ${document.documentElement.scrollWidth} wide of ${width}`);
const colour = text => { const m = text.match(/[\d.]+/g).map(Number); return m.length > 3 ? m : [...m, 1]; };
const part = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
const behind = element => {
  for (; element; element = element.parentElement) {
    const c = colour(getComputedStyle(element).backgroundColor);
    if (c[3] > 0.99) return c;
  }
  return [255, 255, 255];
};
let texts = 0;
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const node = walk.currentNode, element = node.parentElement;
  const range = document.createRange();
  range.selectNodeContents(node);
  const boxes = [...range.getClientRects()];
  if (!node.data.trim() || !boxes.length) continue;
  texts++;
  const style = getComputedStyle(element);
  const [a, b] = [light(colour(style.color)), light(behind(element))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const said = node.data.trim().slice(0, 40);
  if (ratio < 4.5 || style.opacity < 1) faults.push(`contrast ${ratio.toFixed(1)}: ${said}`);
  if (parseFloat(style.fontSize) < 11) faults.push(`letters of ${style.fontSize}: ${said}`);
  if (boxes.some(box => box.right > width + 0.5 || box.left < -0.5)) faults.push(`cut off: ${said}`);
}
if (!texts) faults.push('nothing is shown');
for (const one of performance.getEntriesByType('resource'))
  if (!one.name.endsWith('/favicon.ico')) faults.push(`loads ${one.name}`);
return [faults, document.documentElement.scrollHeight];
";

/// The same mail as a program shows it that strips `<style>`.
fn without_styles(html: &str) -> String {
    let (before, rest) = html.split_once("<style").unwrap();
    let (_, after) = rest.split_once("</style>").unwrap();
    assert!(!after.contains("<style"), "there is but one");
    format!("{before}{after}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mail_is_readable_in_every_window_and_light_and_loads_nothing() {
    super::support::crypto();
    let Some(browser) = Browser::start().await else { return };
    let pages = Pages::default();
    let address = pages.serve().await;
    let config = everybody();
    let mut mails: Vec<(String, Notification)> = Event::ALL
        .iter()
        .map(|event| (event.to_string(), sample::of(*event, "ops", start())))
        .collect();
    mails.push(("digest".to_owned(), sample::digest("ops", start())));
    mails.push(("hostile".to_owned(), hostile_message()));
    mails.push(("largest".to_owned(), largest()));
    let pictures = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mails");
    std::fs::create_dir_all(&pictures).unwrap();
    let mut faults = Vec::new();
    for (name, message) in mails {
        let email::Rendered { html, .. } = mail(&config, &message);
        for (variant, page) in [("", html.clone()), ("-stripped", without_styles(&html))] {
            *pages.page.lock().unwrap() = page;
            for (width, scheme) in [(360, "light"), (360, "dark"), (800, "light"), (800, "dark")] {
                browser.look(width, 800, scheme).await;
                browser.client.goto(&format!("http://{address}/mail")).await.unwrap();
                let found = browser.client.execute(FAULTS, vec![]).await.unwrap();
                // Links of the operator's own, and no others.
                let links = "return !!document.querySelector('img, script, link, iframe, form, object') || \
                             [...document.links].some(a => !a.href.startsWith('https://certvigil.acme.example/'))";
                let has_links = browser.client.execute(links, vec![]).await.unwrap();
                assert_eq!(has_links, json!(false), "{name}: has what a mail must not have");
                let what = format!("{name}{variant}-{width}-{scheme}");
                for fault in found[0].as_array().unwrap() {
                    faults.push(format!("{what}: {fault}"));
                }
                let height = found[1].as_u64().unwrap().min(6_000) as u32;
                browser.look(width, height, scheme).await;
                let picture = browser.client.screenshot().await.unwrap();
                std::fs::write(pictures.join(format!("{what}.png")), picture).unwrap();
            }
        }
    }
    let asked = pages.asked.lock().unwrap().clone();
    let others: Vec<&String> =
        asked.iter().filter(|path| !["/mail", "/favicon.ico"].contains(&path.as_str())).collect();
    assert!(others.is_empty(), "{others:?}");
    browser.client.clone().close().await.unwrap();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// What keeps somebody out who cannot see the page, or has no mouse (WCAG 2.2: 1.3.1, 2.4.1, 2.4.2,
/// 3.1.1, 3.3.2, 4.1.2).
const BARRIERS: &str = r"
const faults = [];
const all = selector => [...document.querySelectorAll(selector)];
const name = element => (element.getAttribute('aria-label') || element.textContent || element.value || '').trim();
if (document.documentElement.lang !== 'en') faults.push('no language');
if (!document.title) faults.push('no title');
if (all('main').length !== 1) faults.push(`${all('main').length} main`);
if (all('h1').length !== 1) faults.push(`${all('h1').length} h1`);
let level = 0;
for (const heading of all('h1, h2, h3')) {
  const own = Number(heading.tagName[1]);
  if (own > level + 1) faults.push(`${heading.tagName} after H${level}: ${name(heading)}`);
  level = own;
}
for (const field of all('input:not([type=hidden]), select'))
  if (!field.labels.length) faults.push(`no label: ${field.name}`);
for (const control of all('a, button, summary'))
  if (!name(control)) faults.push(`no name: ${control.outerHTML.slice(0, 60)}`);
for (const cell of all('thead th'))
  if (cell.scope !== 'col') faults.push(`no scope: ${name(cell)}`);
for (const section of all('section, nav, form[role=search]'))
  if (!section.getAttribute('aria-label') && !document.getElementById(section.getAttribute('aria-labelledby')))
    faults.push(`no name: ${section.outerHTML.slice(0, 60)}`);
const ids = all('[id]').map(element => element.id);
for (const id of new Set(ids)) if (ids.filter(one => one === id).length > 1) faults.push(`twice: ${id}`);
for (const picture of all('svg'))
  if (picture.getAttribute('role') !== 'img' || !picture.querySelector('title, desc')) faults.push('a picture without words');
if (all('script, [onclick], [style]').length) faults.push('scripts, or styles that the policy forbids');
return faults;
";

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_can_be_read_filtered_and_used_in_every_window_and_light() {
    super::support::crypto();
    let Some(browser) = Browser::start().await else { return };
    let client = &browser.client;
    let sim = super::window::demo().await;
    let text = super::window::guarded(&sim)
        .replace("[http]\n", "[http]\npublic_url = \"http://certvigil.acme.example\"\n");
    let mut daemon = super::window::told(&sim, &text).await;
    let link = format!("/link/{}", super::links::tokens(&sim, "a@acme.example")[0]);
    browser.look(1_280, 900, "light").await;
    let press = async |text: &str| {
        let button = Locator::XPath(&format!("//button[normalize-space()='{text}']"));
        client.wait().for_element(button).await.unwrap().click().await.unwrap();
    };
    let fill = async |name: &str, text: &str| {
        let field = client.find(Locator::Css(&format!("[name={name}]"))).await.unwrap();
        field.send_keys(text).await.unwrap();
    };
    let heading = async || {
        let read =
            "return document.readyState === 'complete' && document.querySelector('h1').innerText";
        for _ in 0..500 {
            if let Ok(Value::String(text)) = client.execute(read, vec![]).await {
                return text;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("the page has no heading")
    };
    let address = async || {
        let url = client.current_url().await.unwrap();
        format!("{}{}", url.path(), url.query().map_or(String::new(), |query| format!("?{query}")))
    };

    // Signing in, with a wrong token and with the right one.
    client.goto(&daemon.url("/projects")).await.unwrap();
    assert_eq!(address().await, "/login?next=%2Fprojects");
    fill("token", "wrong").await;
    press("Sign in").await;
    let said = client.wait().for_element(Locator::Css("[role=alert]")).await.unwrap();
    assert_eq!(said.text().await.unwrap(), "That is not the token.");
    fill("token", super::window::TOKEN).await;
    press("Sign in").await;
    client.wait().for_url(&daemon.url("/projects").parse().unwrap()).await.unwrap();
    assert_eq!(heading().await, "Projects");

    // Every page in every window and light.
    let pictures = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pages");
    std::fs::create_dir_all(&pictures).unwrap();
    let mut faults = Vec::new();
    for (name, path) in [
        ("overview", "/"),
        ("certificates", "/certificates"),
        ("certificate", "/certificates/acme/cert_demo_prod"),
        ("hostile", "/certificates/acme/cert_demo_hostile"),
        ("projects", "/projects?status=covered"),
        ("deliveries", "/deliveries"),
        ("runbook", "/runbook"),
        ("problem", "/certificates/acme/cert_none"),
        ("link", link.as_str()),
    ] {
        for (width, scheme) in [(360, "light"), (360, "dark"), (1_280, "light"), (1_280, "dark")] {
            browser.look(width, 900, scheme).await;
            client.goto(&daemon.url(path)).await.unwrap();
            let what = format!("{name}-{width}-{scheme}");
            let found = client.execute(FAULTS, vec![]).await.unwrap();
            let barriers = client.execute(BARRIERS, vec![]).await.unwrap();
            let seen = found[0].as_array().unwrap().iter();
            // Texts for screen readers are invisible, and on a phone so are the column names.
            let seen = seen.filter(|fault| {
                let text = fault.as_str().unwrap();
                let unseen = width == 360 && text.starts_with("cut off");
                !unseen && !text.ends_with(": To the content")
            });
            for fault in seen.chain(barriers.as_array().unwrap()) {
                faults.push(format!("{what}: {fault}"));
            }
            let height = found[1].as_u64().unwrap().min(12_000) as u32;
            browser.look(width, height, scheme).await;
            std::fs::write(
                pictures.join(format!("{what}.png")),
                client.screenshot().await.unwrap(),
            )
            .unwrap();
        }
    }
    browser.look(1_280, 900, "light").await;

    // The first thing that a key reaches leads to the content.
    client.goto(&daemon.url("/")).await.unwrap();
    assert!(heading().await.starts_with("Yes: "), "{}", heading().await);
    let body = client.find(Locator::Css("body")).await.unwrap();
    body.send_keys("\u{e004}").await.unwrap();
    let reached = client.active_element().await.unwrap();
    assert_eq!(reached.text().await.unwrap(), "To the content");

    // Filters, and a certificate's page.
    fill("q", "weeks").await;
    press("Filter").await;
    client.wait().for_element(Locator::LinkText("Show all")).await.unwrap();
    assert_eq!(address().await, "/?organization=&severity=&q=weeks");
    let rows =
        client.find_all(Locator::Css("[aria-labelledby=certificates] tbody tr")).await.unwrap();
    assert_eq!(rows.len(), 1);
    client.find(Locator::LinkText("staging-ca")).await.unwrap().click().await.unwrap();
    client
        .wait()
        .for_url(&daemon.url("/certificates/acme/cert_demo_weeks").parse().unwrap())
        .await
        .unwrap();
    assert_eq!(heading().await, "staging-ca");

    // Quiet for it, and back.
    let date = "document.querySelector('[name=until]').value = '2098-12-31'";
    client.execute(date, vec![]).await.unwrap();
    fill("reason", "the new one is on its way").await;
    fill("by", "dana").await;
    press("Acknowledge").await;
    press("Withdraw").await;
    let again = Locator::XPath("//button[normalize-space()='Acknowledge']");
    client.wait().for_element(again).await.unwrap();
    assert_eq!(address().await, "/certificates/acme/cert_demo_weeks");
    let reading = super::window::acknowledgements(&daemon).await;
    assert_eq!(reading["data"][0]["ending"], "withdrawn", "{reading}");
    assert_eq!(reading["data"][0]["until"], "2099-01-01T00:00:00Z", "the end of that day");

    // Without a script there is nothing to run, and nothing was refused by the policy.
    press("Sign out").await;
    client.wait().for_element(Locator::Css("[name=token]")).await.unwrap();

    // The link of a message needs no token.
    client.goto(&daemon.url(&link)).await.unwrap();
    press("Acknowledge").await;
    let done = client.wait().for_element(Locator::Css("[role=status]")).await.unwrap();
    let done = done.text().await.unwrap();
    assert!(done.starts_with("Acknowledged until "), "{done}");
    client.clone().close().await.unwrap();
    daemon.stop().await;
    assert!(faults.is_empty(), "{faults:#?}");
}
