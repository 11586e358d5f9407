//! Values of the configuration: each is parsed when it is read, and displayed as it was written.
//!
//! The problem of a rejected value has the form of [`mismatch`] and contains no possible secret.

use chrono::TimeDelta;
use chrono_tz::Tz;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Value, json};
use std::{borrow::Cow, fmt::Display, marker::PhantomData, ops::Deref, time::Duration};

use super::{problem::mismatch, routing::Extra};
use crate::{
    domain::{
        credential::WatchedKeys,
        selection::{Glob, Globs},
        threshold::{Lead, Severity, Share},
    },
    logging,
    notify::email::{Auth, Tls},
    redact::quoted,
    schedule::Cron,
};

/// The longest accepted duration: beyond it, times overflow.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A value that is written as a string.
pub trait Text: Sized {
    /// The expected type in the error for a value of another type.
    const KIND: &'static str = "a string";

    /// # Errors
    /// The problem.
    fn parse(text: &str) -> Result<Self, String>;

    /// Its JSON Schema.
    fn schema() -> Value {
        json!({ "type": "string" })
    }
}

/// The problem of an unexpected text.
pub fn unexpected<T>(text: &str, expected: impl Display) -> Result<T, String> {
    Err(mismatch(quoted(text), expected))
}

/// A value with its text as written.
#[derive(Clone, Debug)]
pub struct Written<T> {
    pub text: String,
    value: T,
}

impl<T> Deref for Written<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<'de, T: Text> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Written<T>, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<T: Text> de::Visitor<'_> for Visitor<T> {
            type Value = Written<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(T::KIND)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Written<T>, E> {
                Written::parse(text.to_owned()).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor(PhantomData))
    }
}

impl<T: Text> Written<T> {
    fn parse(text: String) -> Result<Written<T>, String> {
        T::parse(&text).map(|value| Written { text, value })
    }
}

impl<T> Serialize for Written<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

impl<T: Text> JsonSchema for Written<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        std::any::type_name::<T>().into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::try_from(T::schema()).unwrap_or_default()
    }
}

/// A closed set of words.
macro_rules! words {
    ($($name:ty),+) => {
        $(impl Text for $name {
            fn parse(text: &str) -> Result<Self, String> {
                <$name>::parse(text).map_or_else(|| unexpected(text, one_of(&Self::ALL)), Ok)
            }
            fn schema() -> Value {
                json!({ "enum": Self::ALL })
            }
        })+
    };
}
words! { Severity, WatchedKeys, Tls, Auth, Extra, logging::Format }

/// `"a", "b" or "c"`.
pub fn one_of(words: &[impl Display]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// A severity, or `off`.
impl Text for Option<Severity> {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(None),
            text => Severity::parse(text)
                .map(Some)
                .map_or_else(|| unexpected(text, one_of(&words_or_off())), Ok),
        }
    }
    fn schema() -> Value {
        json!({ "enum": words_or_off() })
    }
}

fn words_or_off() -> Vec<&'static str> {
    Severity::ALL.iter().map(|one| one.as_str()).chain(["off"]).collect()
}

/// A duration in the format of `humantime`.
impl Text for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            Ok(duration) if duration > MAX_DURATION => {
                unexpected(text, "a duration of at most 100 years")
            }
            Ok(duration) => Ok(duration),
            Err(_) => unexpected(text, "a duration such as \"90d\", \"12h\" or \"1h 30m\""),
        }
    }
    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^([0-9]+ *[a-zA-Zµ]+ *)+$" })
    }
}

/// A duration above zero.
#[derive(Clone, Copy, Debug)]
pub struct Positive(Duration);

impl Positive {
    pub fn duration(self) -> Duration {
        self.0
    }

    pub fn delta(self) -> TimeDelta {
        // At most 100 years, which always fits.
        TimeDelta::from_std(self.0).unwrap_or(TimeDelta::MAX)
    }
}

impl Text for Positive {
    fn parse(text: &str) -> Result<Self, String> {
        let duration = <Duration as Text>::parse(text)?;
        match duration.is_zero() {
            true => Err(mismatch("a duration of zero", "a duration above zero")),
            false => Ok(Positive(duration)),
        }
    }
    fn schema() -> Value {
        <Duration as Text>::schema()
    }
}

/// A duration, or a share of a certificate's lifetime.
impl Text for Lead {
    fn parse(text: &str) -> Result<Self, String> {
        if !text.contains('%') {
            return Positive::parse(text).map(|positive| Lead::Fixed(positive.delta()));
        }
        let expected = "a share of the certificate’s lifetime, above 0% and at most 100%";
        Share::parse(text).map(Lead::Share).map_or_else(|| unexpected(text, expected), Ok)
    }
    fn schema() -> Value {
        let pattern = "^(([0-9]+ *[a-zA-Zµ]+ *)+|[0-9]+(\\.[0-9]+)?%)$";
        json!({ "type": "string", "pattern": pattern })
    }
}

impl Text for Glob {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => unexpected(text, "a glob such as \"prod-*\""),
            text => Ok(Glob::new(text)),
        }
    }
}

/// An IANA time zone.
impl Text for Tz {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().or_else(|_| unexpected(text, "an IANA time zone such as \"Europe/Berlin\""))
    }
}

/// A level of the log, or a list of `target=level`.
#[derive(Clone, Debug)]
pub struct Level(pub String);

impl Text for Level {
    fn parse(text: &str) -> Result<Self, String> {
        let expected = "error, warn, info, debug, trace, or a list of target=level";
        match logging::check_level(text) {
            Ok(()) => Ok(Level(text.to_owned())),
            Err(why) => Err(mismatch(format!("{} ({why})", quoted(text)), expected)),
        }
    }
}

/// A cron expression, in UTC until the time zone is known.
impl Text for Cron {
    fn parse(text: &str) -> Result<Self, String> {
        let expected = "a cron expression of 5 fields, or 6 with seconds first";
        Cron::parse(text, Tz::UTC)
            .map_err(|why| mismatch(format!("{} ({why})", quoted(text)), expected))
    }
}

/// A whole number within inclusive bounds.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(transparent)]
pub struct Within<const LEAST: u32, const MOST: u32>(pub u32);

impl<'de, const LEAST: u32, const MOST: u32> Deserialize<'de> for Within<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            number if (LEAST..=MOST).contains(&number) => Ok(Within(number)),
            number => {
                let expected = format!("a number from {LEAST} to {MOST}");
                Err(de::Error::custom(mismatch(number, expected)))
            }
        }
    }
}

impl<const LEAST: u32, const MOST: u32> JsonSchema for Within<LEAST, MOST> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Within".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "integer", "minimum": LEAST, "maximum": MOST })
    }
}

/// A list of strings; from the environment, a JSON array.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent, bound = "")]
pub struct List<T>(pub Vec<Written<T>>);

impl<'de, T: Text> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<List<T>, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<'de, T: Text> de::Visitor<'de> for Visitor<T> {
            type Value = List<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of strings such as [\"a\", \"b\"]")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<List<T>, E> {
                let written: Vec<String> = serde_json::from_str(text)
                    .map_err(|_| E::invalid_type(de::Unexpected::Str(text), &self))?;
                let parsed: Result<_, String> = written.into_iter().map(Written::parse).collect();
                parsed.map(List).map_err(E::custom)
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(one) = seq.next_element()? {
                    list.push(one);
                }
                Ok(List(list))
            }
        }
        deserializer.deserialize_any(Visitor(PhantomData))
    }
}

impl<T: Text> JsonSchema for List<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "List".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "array", "items": T::schema() })
    }
}

impl List<Glob> {
    pub fn globs(&self) -> Globs {
        Globs(self.0.iter().map(|glob| glob.value.clone()).collect())
    }
}

/// At least one glob: an empty list would select nothing.
#[derive(Clone, Debug, JsonSchema, Serialize)]
#[serde(transparent)]
pub struct Selection(List<Glob>);

impl<'de> Deserialize<'de> for Selection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Selection, D::Error> {
        let list = List::deserialize(deserializer)?;
        match list.0.is_empty() {
            true => {
                Err(de::Error::custom(mismatch("an empty list", "at least one glob such as \"*\"")))
            }
            false => Ok(Selection(list)),
        }
    }
}

/// The globs of a list; all if it is omitted.
pub fn selected(list: &Option<Selection>) -> Globs {
    list.as_ref().map_or_else(Globs::all, |list| list.0.globs())
}

/// The globs of a list; none if it is omitted.
pub fn listed(list: &Option<List<Glob>>) -> Globs {
    list.as_ref().map_or_else(|| Globs(Vec::new()), List::globs)
}
