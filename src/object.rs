//! JSON objects that have to be objects.
//!
//! A structure that is read by serde also takes an array that has its fields in their order. Nobody who
//! writes JSON means that, and what it means would change with every new field. So what comes from outside is
//! read through this.

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::{fmt, marker::PhantomData};

/// Something that was an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object(deserializer).map(Self)
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object with named fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// For a field that has to be an object.
pub fn object<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_map(Fields(PhantomData))
}

/// For a field that is an object, or `null`.
pub fn object_or_null<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let read = Option::<Object<T>>::deserialize(deserializer)?;
    Ok(read.map(|Object(inner)| inner))
}

/// For a field that is a list of objects.
pub fn objects<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let read = Vec::<Object<T>>::deserialize(deserializer)?;
    Ok(read.into_iter().map(|Object(inner)| inner).collect())
}

/// For a field that is a list of objects, or `null`.
pub fn objects_or_null<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let read = Option::<Vec<Object<T>>>::deserialize(deserializer)?;
    Ok(read.map(|list| list.into_iter().map(|Object(inner)| inner).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, value::RawValue};

    #[derive(Debug, Deserialize, PartialEq)]
    struct Inner {
        a: u8,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(tag = "kind")]
    enum Tagged {
        One { a: u8 },
    }

    #[derive(Debug, Deserialize)]
    struct Outer<'a> {
        #[serde(deserialize_with = "object")]
        tagged: Tagged,
        #[serde(default, deserialize_with = "object_or_null")]
        inner: Option<Inner>,
        #[serde(default, deserialize_with = "objects")]
        list: Vec<Inner>,
        #[serde(borrow, default)]
        raw: Option<&'a RawValue>,
    }

    #[test]
    fn an_array_is_no_object_wherever_it_stands() {
        let tagged = r#""tagged": {"kind": "One", "a": 1}"#;
        let good = format!(
            "{{{tagged}, \"inner\": {{\"a\": 2}}, \"list\": [{{\"a\": 3}}], \"raw\": [4]}}"
        );
        let Object(outer) = serde_json::from_str::<Object<Outer<'_>>>(&good).unwrap();
        assert_eq!(outer.tagged, Tagged::One { a: 1 });
        assert_eq!((outer.inner, outer.list), (Some(Inner { a: 2 }), vec![Inner { a: 3 }]));
        assert_eq!(outer.raw.unwrap().get(), "[4]");
        let least = format!("{{{tagged}, \"inner\": null}}");
        assert!(serde_json::from_str::<Object<Outer<'_>>>(&least).is_ok());
        for wrong in [
            "[]".to_owned(),
            "[[\"One\", 1]]".into(),
            "{\"tagged\": [\"One\", 1]}".into(),
            "{\"tagged\": null}".into(),
            format!("{{{tagged}, \"inner\": [2]}}"),
            format!("{{{tagged}, \"list\": [[3]]}}"),
            format!("{{{tagged}, \"list\": {{\"a\": 3}}}}"),
        ] {
            let error = serde_json::from_str::<Object<Outer<'_>>>(&wrong).unwrap_err();
            assert!(error.line() == 1, "{wrong}: {error}");
            let value: Value = serde_json::from_str(&wrong).unwrap();
            let owned = value.get("list").is_none();
            assert!(!owned || serde_json::from_value::<Object<Inner>>(value).is_err(), "{wrong}");
        }
        let error = serde_json::from_str::<Object<Inner>>("[1]").unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid type: sequence, expected a JSON object with named fields at line 1 column 0"
        );
    }
}
