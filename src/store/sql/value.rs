//! Bound values.

#[derive(Clone, Debug)]
pub enum Value {
    Text(Option<String>),
    Number(Option<i64>),
    Flag(bool),
}

macro_rules! values {
    ($($from:ty: |$value:ident| $to:expr,)+) => {
        $(impl From<$from> for Value {
            fn from($value: $from) -> Value {
                $to
            }
        })+
    };
}
values! {
    &str: |text| Value::Text(Some(text.to_owned())),
    &String: |text| Value::Text(Some(text.clone())),
    String: |text| Value::Text(Some(text)),
    Option<&str>: |text| Value::Text(text.map(str::to_owned)),
    Option<String>: |text| Value::Text(text),
    i64: |number| Value::Number(Some(number)),
    u32: |number| Value::Number(Some(number.into())),
    Option<i64>: |number| Value::Number(number),
    bool: |flag| Value::Flag(flag),
}
