//! Settings from values of TOML.
//!
//! One deserializer reads files, environment variables and what stands for another broker's file. It asks the visitor of
//! a type only for the kind of value that the type has, so that each type is compiled once, for this one kind: the
//! deserializers of `toml` are two and try all kinds, and were a fifth of the program for routers.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, Expected, Unexpected, Visitor};
use toml::{Table, Value, map};

/// An invalid value: the reason, and its place.
#[derive(Debug)]
pub(super) struct ValueError(Box<Reason>);

#[derive(Debug)]
struct Reason {
    what: String,
    /// The way to the value from the outermost table, in reverse.
    steps: Vec<Step>,
    /// Whether the name of the value is wrong, and not the value.
    is_name: bool,
}

/// A step from a value to one in it.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// To the value of a key.
    Key(String),
    /// To an element of a list.
    Element(usize),
}

impl ValueError {
    /// An error of a value.
    pub fn new(what: impl Into<String>) -> Self {
        Self(Box::new(Reason { what: what.into(), steps: Vec::new(), is_name: false }))
    }

    /// The reason.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// The way to the value from the outermost table.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.0.steps.iter().rev()
    }

    /// Whether the name of the value is wrong, and not the value.
    pub fn is_of_name(&self) -> bool {
        self.0.is_name
    }

    /// The same error of a value that is in another one.
    #[cold]
    pub fn within(mut self, step: Step) -> Self {
        self.0.steps.push(step);
        self
    }

    /// The same error of the name of a value.
    #[cold]
    fn of_name(mut self) -> Self {
        self.0.is_name = true;
        self
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what())
    }
}

impl std::error::Error for ValueError {}

impl de::Error for ValueError {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self::new(what.to_string())
    }
}

/// The value of a type in a table.
pub(super) fn from_table<'de, T: de::Deserialize<'de>>(table: &'de Table) -> Result<T, ValueError> {
    T::deserialize(MapAccessDeserializer::new(Fields::of(table)))
}

/// A value that is read.
struct ValueDeserializer<'de>(&'de Value);

impl ValueDeserializer<'_> {
    /// The error of a value of another kind.
    #[cold]
    #[inline(never)]
    fn unlike(&self, expected: &dyn Expected) -> ValueError {
        let unexpected = match self.0 {
            Value::String(text) => Unexpected::Str(text),
            Value::Integer(number) => Unexpected::Signed(*number),
            Value::Float(number) => Unexpected::Float(*number),
            Value::Boolean(is_true) => Unexpected::Bool(*is_true),
            Value::Datetime(_) => Unexpected::Other("date"),
            Value::Array(_) => Unexpected::Seq,
            Value::Table(_) => Unexpected::Map,
        };
        de::Error::invalid_type(unexpected, expected)
    }
}

/// Methods for types that have one kind of value.
macro_rules! of_one_kind {
    ($($method:ident $kind:ident $inner:ident => $visit:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
            match self.0 {
                Value::$kind($inner) => $visit(visitor),
                _ => Err(self.unlike(&visitor)),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for ValueDeserializer<'de> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::String(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(is_true) => visitor.visit_bool(*is_true),
            Value::Datetime(_) => Err(self.unlike(&visitor)),
            Value::Array(list) => visitor.visit_seq(Elements::of(list)),
            Value::Table(table) => visitor.visit_map(Fields::of(table)),
        }
    }

    of_one_kind! {
        deserialize_bool Boolean is_true => |visitor: V| visitor.visit_bool(*is_true);
        deserialize_i64 Integer number => |visitor: V| visitor.visit_i64(*number);
        deserialize_str String text => |visitor: V| visitor.visit_str(text);
        deserialize_string String text => |visitor: V| visitor.visit_str(text);
        deserialize_seq Array list => |visitor: V| visitor.visit_seq(Elements::of(list));
        deserialize_map Table table => |visitor: V| visitor.visit_map(Fields::of(table));
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(StrDeserializer::new(text)),
            _ => Err(self.unlike(&"a string")),
        }
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple
        tuple_struct identifier ignored_any
    }
}

/// The elements of a list.
struct Elements<'de> {
    list: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
}

impl<'de> Elements<'de> {
    fn of(list: &'de [Value]) -> Self {
        Self { list: list.iter().enumerate() }
    }
}

impl<'de> de::SeqAccess<'de> for Elements<'de> {
    type Error = ValueError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ValueError> {
        let Some((number, value)) = self.list.next() else { return Ok(None) };
        match seed.deserialize(ValueDeserializer(value)) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(error.within(Step::Element(number))),
        }
    }
}

/// The keys of a table with their values.
struct Fields<'de> {
    table: map::Iter<'de, String, Value>,
    /// The key that was read last, and its value, which was not.
    field: Option<(&'de String, &'de Value)>,
}

impl<'de> Fields<'de> {
    fn of(table: &'de Table) -> Self {
        Self { table: table.iter(), field: None }
    }
}

impl<'de> de::MapAccess<'de> for Fields<'de> {
    type Error = ValueError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ValueError> {
        self.field = self.table.next();
        let Some((name, _)) = self.field else { return Ok(None) };
        match seed.deserialize(StrDeserializer::<ValueError>::new(name)) {
            Ok(key) => Ok(Some(key)),
            Err(error) => Err(error.of_name().within(Step::Key(name.clone()))),
        }
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<T::Value, ValueError> {
        let (name, value) = self.field.take().expect("a value is read after its key");
        seed.deserialize(ValueDeserializer(value))
            .map_err(|error| error.within(Step::Key(name.clone())))
    }
}
