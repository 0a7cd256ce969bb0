//! Values of TOML from settings: the reverse of the deserializer.

use serde::ser::{self, Impossible, Serialize, Serializer};
use toml::{Table, Value};

use super::deserializer::ValueError;

/// The table of settings as in a file.
pub(super) fn to_table<T: Serialize>(settings: &T) -> Result<Table, ValueError> {
    match settings.serialize(ValueSerializer)? {
        Some(Value::Table(table)) => Ok(table),
        _ => Err(ValueError::new("not a table")),
    }
}

impl ser::Error for ValueError {
    fn custom<T: std::fmt::Display>(what: T) -> Self {
        Self::new(what.to_string())
    }
}

/// A value that is left out, as options are, is none.
type Written = Result<Option<Value>, ValueError>;

struct ValueSerializer;

impl Serializer for ValueSerializer {
    type Ok = Option<Value>;
    type Error = ValueError;
    type SerializeSeq = Elements;
    type SerializeTuple = Impossible<Option<Value>, ValueError>;
    type SerializeTupleStruct = Impossible<Option<Value>, ValueError>;
    type SerializeTupleVariant = Impossible<Option<Value>, ValueError>;
    type SerializeMap = Fields;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Impossible<Option<Value>, ValueError>;

    fn serialize_bool(self, is_true: bool) -> Written {
        Ok(Some(is_true.into()))
    }

    fn serialize_i8(self, number: i8) -> Written {
        self.serialize_i64(number.into())
    }

    fn serialize_i16(self, number: i16) -> Written {
        self.serialize_i64(number.into())
    }

    fn serialize_i32(self, number: i32) -> Written {
        self.serialize_i64(number.into())
    }

    fn serialize_i64(self, number: i64) -> Written {
        Ok(Some(number.into()))
    }

    fn serialize_u8(self, number: u8) -> Written {
        self.serialize_i64(number.into())
    }

    fn serialize_u16(self, number: u16) -> Written {
        self.serialize_i64(number.into())
    }

    fn serialize_u32(self, number: u32) -> Written {
        self.serialize_i64(number.into())
    }

    fn serialize_u64(self, number: u64) -> Written {
        match i64::try_from(number) {
            Ok(number) => self.serialize_i64(number),
            Err(_) => Err(ValueError::new(format!("{number} is more than {}", i64::MAX))),
        }
    }

    fn serialize_f32(self, number: f32) -> Written {
        self.serialize_f64(number.into())
    }

    fn serialize_f64(self, number: f64) -> Written {
        Ok(Some(number.into()))
    }

    fn serialize_char(self, char: char) -> Written {
        Ok(Some(char.to_string().into()))
    }

    fn serialize_str(self, text: &str) -> Written {
        Ok(Some(text.into()))
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Written {
        Ok(Some(bytes.iter().map(|&byte| Value::from(byte)).collect::<Vec<_>>().into()))
    }

    fn serialize_none(self) -> Written {
        Ok(None)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Written {
        Ok(None)
    }

    fn serialize_unit_struct(self, name: &'static str) -> Written {
        Err(no_value(name))
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Written {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Written {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Written {
        Err(no_value(name))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Elements, ValueError> {
        Ok(Elements(Vec::new()))
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, ValueError> {
        Err(no_value("tuple"))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, ValueError> {
        Err(no_value(name))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, ValueError> {
        Err(no_value(name))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Fields, ValueError> {
        Ok(Fields { table: Table::new(), name: String::new() })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields, ValueError> {
        self.serialize_map(None)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, ValueError> {
        Err(no_value(name))
    }
}

/// The error of a type that no key has.
#[cold]
fn no_value(name: &str) -> ValueError {
    ValueError::new(format!("{name} is no value of a configuration file"))
}

/// A list that is written.
struct Elements(Vec<Value>);

impl ser::SerializeSeq for Elements {
    type Ok = Option<Value>;
    type Error = ValueError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
        self.0.extend(value.serialize(ValueSerializer)?);
        Ok(())
    }

    fn end(self) -> Written {
        Ok(Some(Value::Array(self.0)))
    }
}

/// A table that is written.
struct Fields {
    table: Table,
    /// The key of the next value.
    name: String,
}

impl Fields {
    /// Adds a value, unless it is left out. Not inlined: a hundred keys are written.
    #[inline(never)]
    fn add(&mut self, name: &str, written: Written) -> Result<(), ValueError> {
        if let Some(value) = written? {
            self.table.insert(name.to_owned(), value);
        }
        Ok(())
    }
}

impl ser::SerializeMap for Fields {
    type Ok = Option<Value>;
    type Error = ValueError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), ValueError> {
        match key.serialize(ValueSerializer)? {
            Some(Value::String(name)) => self.name = name,
            _ => return Err(no_value("a key that is not a string")),
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
        let name = std::mem::take(&mut self.name);
        self.add(&name, value.serialize(ValueSerializer))
    }

    fn end(self) -> Written {
        Ok(Some(Value::Table(self.table)))
    }
}

impl ser::SerializeStruct for Fields {
    type Ok = Option<Value>;
    type Error = ValueError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), ValueError> {
        self.add(name, value.serialize(ValueSerializer))
    }

    fn end(self) -> Written {
        Ok(Some(Value::Table(self.table)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;

    #[test]
    fn a_table_has_the_values_that_other_serializers_of_toml_write() {
        let text = "cores = \"0,2\"\n[[listeners]]\nbind = \"127.0.0.1:1\"\nanonymous = false\n[[listeners]]\nbind = \
                    \":2\"\nversions = [\"5.0\"]\n[telemetry]\ntraces = 0.5\n[admin.tls.roles]\nadmin = \"admin\"\n";
        for settings in [Settings::default(), Settings::from_toml(text).expect("valid")] {
            let table = to_table(&settings).expect("a table");
            assert_eq!(table, Table::try_from(&settings).expect("a table"));
        }
    }
}
