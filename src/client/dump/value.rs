//! A value under the name of its kind, as `-o json` shows it, but for a NaN: there are many, and JSON has not even one.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};

use crate::pb::{self, value::Kind};

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Exact {
    Text(String),
    /// In base64.
    Data(String),
    /// As a string, which every tool leaves alone.
    Integer(String),
    Number(Number),
    /// The bits of a NaN, in hexadecimal.
    NumberBits(String),
    Flag(bool),
}

#[derive(Deserialize, Serialize)]
#[serde(untagged, expecting = "a number must be a number, \"Infinity\" or \"-Infinity\"")]
enum Number {
    Finite(f64),
    Infinite(Infinite),
}

#[derive(Deserialize, Serialize)]
enum Infinite {
    Infinity,
    #[serde(rename = "-Infinity")]
    MinusInfinity,
}

pub(super) fn serialize<S: Serializer>(value: &pb::Value, to: S) -> Result<S::Ok, S::Error> {
    let exact = match value.kind.as_ref() {
        None => return Err(S::Error::custom("a value is of a kind that this pail does not know")),
        Some(Kind::Text(text)) => Exact::Text(text.clone()),
        Some(Kind::Data(data)) => Exact::Data(BASE64_STANDARD.encode(data)),
        Some(Kind::Integer(integer)) => Exact::Integer(integer.to_string()),
        Some(Kind::Number(number)) if number.is_nan() => Exact::NumberBits(format!("{:016x}", number.to_bits())),
        Some(Kind::Number(f64::INFINITY)) => Exact::Number(Number::Infinite(Infinite::Infinity)),
        Some(Kind::Number(f64::NEG_INFINITY)) => Exact::Number(Number::Infinite(Infinite::MinusInfinity)),
        Some(Kind::Number(number)) => Exact::Number(Number::Finite(*number)),
        Some(Kind::Flag(flag)) => Exact::Flag(*flag),
    };
    exact.serialize(to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<pb::Value, D::Error> {
    let wrong = |text: &str, is: &str| D::Error::custom(format!("{text:?} is no {is}"));
    let kind = match Exact::deserialize(from)? {
        Exact::Text(text) => Kind::Text(text),
        Exact::Data(text) => Kind::Data(BASE64_STANDARD.decode(&text).map_err(|_| wrong(&text, "base64"))?),
        Exact::Integer(text) => Kind::Integer(text.parse().map_err(|_| wrong(&text, "whole number of 64 bits"))?),
        Exact::Number(Number::Finite(number)) => Kind::Number(number),
        Exact::Number(Number::Infinite(Infinite::Infinity)) => Kind::Number(f64::INFINITY),
        Exact::Number(Number::Infinite(Infinite::MinusInfinity)) => Kind::Number(f64::NEG_INFINITY),
        Exact::NumberBits(text) => {
            let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let bits = u64::from_str_radix(&text, 16).ok().filter(|_| is_hex);
            Kind::Number(f64::from_bits(bits.ok_or_else(|| wrong(&text, "number's bits in 16 hexadecimal digits"))?))
        }
        Exact::Flag(flag) => Kind::Flag(flag),
    };
    Ok(pb::Value { kind: Some(kind) })
}
