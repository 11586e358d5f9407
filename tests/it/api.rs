//! The API against its own description: that is valid, and every answer to whatever is asked is as
//! it says.

use fastrand::Rng;
use jsonschema::Validator;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

use super::{
    daemon::Daemon,
    window::{TOKEN, demo, guarded, told},
};

/// The JSON Schema of OpenAPI 3.1 (<https://spec.openapis.org/oas/3.1/schema/2022-10-07>).
const SCHEMA: &str = include_str!("data/openapi-3.1.schema.json");
/// How many requests are made up.
const REQUESTS: usize = 400;

fn document() -> Value {
    serde_json::to_value(certvigil::http::document()).unwrap()
}

#[test]
fn the_description_is_valid_and_shows_what_every_answer_is() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let document = document();
    let faults: Vec<String> = validator
        .iter_errors(&document)
        .map(|fault| format!("{}: {fault}", fault.instance_path))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
    let operations = operations(&document);
    assert_eq!(operations.len(), 10, "a new one wants a test");
    for operation in &operations {
        assert!(
            operation.answers.contains_key("default"),
            "{} {}",
            operation.method,
            operation.path
        );
        assert!(!operation.summary.is_empty(), "{} {}", operation.method, operation.path);
        let writes = operation.method != Method::GET;
        assert_eq!(operation.secured, writes, "{} {}", operation.method, operation.path);
    }
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    // OpenAPI 3.1, section 4.8.10: an operationId is unique in the document.
    let paths = document["paths"].as_object().unwrap().values();
    let items = paths.flat_map(|item| item.as_object().unwrap().values());
    let ids: Vec<&str> = items.filter_map(|one| one["operationId"].as_str()).collect();
    let unique: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!((ids.len(), unique.len()), (operations.len(), operations.len()), "{ids:?}");
}

/// One operation, as it is described.
struct Operation {
    method: Method,
    path: String,
    summary: String,
    parameters: Vec<Value>,
    body: Option<Value>,
    /// What the answer is, by status: its content type, and what checks it. Nothing where it has no
    /// body.
    answers: BTreeMap<String, Option<(String, Validator)>>,
    secured: bool,
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let answers =
                operation["responses"].as_object().unwrap().iter().map(|(status, answer)| {
                    let content = answer["content"].as_object();
                    let content = content.map(|content| {
                        let (kind, body) = content.iter().next().unwrap();
                        let mut schema = body["schema"].clone();
                        schema["components"] = document["components"].clone();
                        (kind.clone(), jsonschema::validator_for(&schema).unwrap())
                    });
                    (status.clone(), content)
                });
            let answers = answers.collect();
            let body = operation.get("requestBody").map(|body| {
                let mut schema = body["content"]["application/json"]["schema"].clone();
                schema["components"] = document["components"].clone();
                schema
            });
            let only_token = json!([{ "token": [] }]);
            all.push(Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                summary: operation["summary"].as_str().unwrap_or_default().to_owned(),
                parameters: operation["parameters"].as_array().cloned().unwrap_or_default(),
                body,
                answers,
                secured: operation.get("security") == Some(&only_token),
            });
        }
    }
    all
}

/// Invalid requests.
fn junk(rng: &mut Rng) -> String {
    let odd = [
        "",
        "..",
        "%00",
        "\u{0}",
        "null",
        "-1",
        "1e9",
        "🔑",
        "'; DROP TABLE scans; --",
        "{{7*7}}",
        "a:b:c",
        ":",
    ];
    match rng.u8(0..4) {
        0 => odd[rng.usize(..odd.len())].to_owned(),
        1 => (0..rng.usize(..40)).map(|_| rng.char(..)).collect(),
        2 => rng.i64(..).to_string(),
        _ => "x".repeat(rng.usize(..3_000)),
    }
}

/// A value of a parameter, and whether it is one that the description allows.
fn value(rng: &mut Rng, parameter: &Value, known: &BTreeMap<&str, Vec<String>>) -> (String, bool) {
    let schema = &parameter["schema"];
    let words = schema["enum"].as_array().or_else(|| {
        let all = schema["oneOf"].as_array()?;
        all.iter().find_map(|one| one["enum"].as_array())
    });
    let name = parameter["name"].as_str().unwrap();
    let kind = schema["type"].as_array().and_then(|kinds| kinds.first()).unwrap_or(&schema["type"]);
    if rng.u8(0..4) == 0 {
        let text = junk(rng);
        // Where any text is taken it is no wrong one; an organization that is not there is.
        let taken = matches!(name, "q" | "notifier");
        return (text, taken);
    }
    if let Some(values) = known.get(name).filter(|values| !values.is_empty()) {
        return (values[rng.usize(..values.len())].clone(), true);
    }
    let text = match (words, kind.as_str()) {
        (Some(words), _) => words[rng.usize(..words.len())].as_str().unwrap().to_owned(),
        (None, Some("integer")) => rng.u32(1..=500).to_string(),
        (None, Some("boolean")) => rng.bool().to_string(),
        (None, _) => "prod".to_owned(),
    };
    (text, true)
}

async fn ids(daemon: &Daemon, path: &str, field: &str) -> Vec<String> {
    let answer = daemon.request(Method::GET, path).bearer_auth(TOKEN).send().await.unwrap();
    let page: Value = answer.json().await.unwrap();
    let data = page["data"].as_array().unwrap().iter();
    data.map(|one| one[field].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_the_answer_is_as_described() {
    let sim = demo().await;
    let mut daemon = told(&sim, &guarded(&sim)).await;
    let served = daemon.request(Method::GET, "/api/v1/openapi.json").bearer_auth(TOKEN);
    let served: Value = served.send().await.unwrap().json().await.unwrap();
    let document = document();
    assert_eq!(served, document, "the served document equals the generated one");
    let mut known: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    known.insert("organization", vec!["acme".to_owned()]);
    known.insert("cursor", vec![]);
    let certificates = ids(&daemon, "/api/v1/certificates", "id").await;
    let deliveries = ids(&daemon, "/api/v1/deliveries", "id").await;
    let operations = operations(&document);
    let seed = 20_261_124;
    let mut rng = Rng::with_seed(seed);
    let (mut fine, mut refused) = (0, 0);
    for _ in 0..REQUESTS {
        let operation = &operations[rng.usize(..operations.len())];
        let (mut path, mut query, mut allowed) = (operation.path.clone(), Vec::new(), true);
        for parameter in &operation.parameters {
            let name = parameter["name"].as_str().unwrap();
            if parameter["in"] == "path" {
                let values = match (operation.path.as_str(), name) {
                    (path, "id") if path.contains("certificates") => certificates.clone(),
                    (path, "id") if path.contains("deliveries") => deliveries.clone(),
                    (_, "id") => vec!["0190d9a4-7b1c-7000-8000-000000000000".to_owned()],
                    _ => vec!["acme".to_owned()],
                };
                let of = BTreeMap::from([(name, values)]);
                let (text, is) = value(&mut rng, parameter, &of);
                allowed &= is && !text.is_empty();
                let encoded: String = url::form_urlencoded::byte_serialize(text.as_bytes())
                    .map(|part| part.replace('+', "%20"))
                    .collect();
                path = path.replace(&format!("{{{name}}}"), &encoded);
            } else if rng.u8(0..3) == 0 && name != "cursor" {
                let (text, is) = value(&mut rng, parameter, &known);
                allowed &= is;
                query.push((name.to_owned(), text));
            }
        }
        if rng.u8(0..12) == 0 && !operation.path.contains('{') && operation.method == Method::GET {
            query.push(("unknown".to_owned(), junk(&mut rng)));
            allowed = false;
        }
        let mut request =
            daemon.request(operation.method.clone(), &path).bearer_auth(TOKEN).query(&query);
        let mut sent = Value::Null;
        if operation.body.is_some() {
            sent = json!({
                "organization": "acme", "certificate": certificates[rng.usize(..certificates.len())],
                "until": "2099-01-01T00:00:00Z", "reason": "made up", "by": null,
            });
            for _ in 0..rng.u8(0..3) {
                let name = ["organization", "certificate", "until", "reason", "by", "more"]
                    [rng.usize(..6)];
                sent[name] = match rng.u8(0..4) {
                    0 => json!(rng.i64(..)),
                    1 => json!([{}]),
                    2 => Value::Null,
                    _ => json!(junk(&mut rng)),
                };
            }
            request = match rng.u8(0..8) {
                0 => request.header("content-type", "application/json").body(junk(&mut rng)),
                1 => request.header("content-type", "text/plain").body(sent.to_string()),
                _ => request.json(&sent),
            };
        }
        let what = format!("{} {path} {query:?} {sent}", operation.method);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => panic!("{what}: {error:?}"),
        };
        let status = answer.status();
        assert!(!status.is_server_error(), "{what}: {status}");
        let described = operation.answers.get(status.as_str());
        let described = described.unwrap_or_else(|| {
            assert!(status.is_client_error(), "{what}: {status} is not described");
            &operation.answers["default"]
        });
        let kind =
            answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        let text = answer.text().await.unwrap();
        match described {
            None => assert_eq!((kind, text.as_str()), (None, ""), "{what}"),
            Some((expected, validator)) => {
                assert_eq!(kind.as_deref(), Some(expected.as_str()), "{what}: {text}");
                let body: Value = serde_json::from_str(&text).unwrap();
                let faults: Vec<String> =
                    validator.iter_errors(&body).map(|fault| fault.to_string()).collect();
                assert!(faults.is_empty(), "{what}: {faults:?}\n{body:#}");
            }
        }
        let reads = operation.method == Method::GET;
        if reads && allowed {
            assert_eq!(status, 200, "{what}: {text}");
            fine += 1;
        } else if status.is_client_error() {
            refused += 1;
        }
    }
    assert!(fine > 100 && refused > 100, "{fine} {refused}: nothing was tried");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_comes_whole_in_pages_of_any_size() {
    let sim = demo().await;
    let mut daemon = told(&sim, &guarded(&sim)).await;
    let scan = daemon.request(Method::POST, "/api/v1/scans").bearer_auth(TOKEN);
    assert_eq!(scan.send().await.unwrap().status(), 202);
    for (list, field) in
        [("certificates", "id"), ("projects", "id"), ("deliveries", "id"), ("scans", "id")]
    {
        let whole = ids(&daemon, &format!("/api/v1/{list}"), field).await;
        assert!(!whole.is_empty(), "{list}");
        for limit in [1, 2, 7] {
            let (mut found, mut cursor, mut pages) = (Vec::new(), None::<String>, 0);
            loop {
                let mut query = vec![("limit", limit.to_string())];
                query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
                let path = format!("/api/v1/{list}");
                let request = daemon.request(Method::GET, &path).bearer_auth(TOKEN).query(&query);
                let page: Value = request.send().await.unwrap().json().await.unwrap();
                let data = page["data"].as_array().unwrap();
                assert!(data.len() <= limit as usize);
                found.extend(data.iter().map(|one| one[field].as_str().unwrap().to_owned()));
                pages += 1;
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = Some(next.to_owned()),
                    None => break,
                }
            }
            // A scan may have come to an end meanwhile.
            assert!(found.ends_with(&whole) || list == "scans", "{list} in pages of {limit}");
            assert!(pages >= whole.len() / limit as usize, "{list} in pages of {limit}");
        }
    }
    let method = daemon.request(Method::PUT, "/api/v1/scans").bearer_auth(TOKEN);
    let refused = method.send().await.unwrap();
    assert_eq!(refused.status(), 405);
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    assert_eq!(refused.headers()["allow"], "GET,HEAD,POST");
    daemon.stop().await;
}
