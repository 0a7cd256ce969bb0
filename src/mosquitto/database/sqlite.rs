//! Reads the database of Mosquitto 2.1's plugin `persist-sqlite`: the rows of its tables become the chunks that
//! `mosquitto.db` would have. Unlike that file, it has shared subscriptions and Wills.
//!
//! Columns for topics have the type STRING, which SQLite takes for a number: Mosquitto's `007` is stored as 7, and `1e3`
//! as 1000. Nothing can tell what they were, so such topics are taken as they are stored, with a warning.

use std::fmt::Write as _;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};
use serde::Deserialize;

use super::chunk::{Chunk, Client, Delivery, Message, MessageId, Stage, Subscription, Way, Will};
use super::collect::Collector;
use crate::wire::{ForwardedProperties, UserProperties};

/// The schema that can be read, by its first number.
const SCHEMA: i64 = 1;

/// A database that is open.
pub(super) struct Database(Connection);

type Outcome<T> = Result<T, String>;

fn text(error: rusqlite::Error) -> String {
    format!("SQLite: {error}")
}

impl Database {
    /// Opens a database to read it, and leaves its folder as it is.
    pub(super) fn open(file: &Path) -> Outcome<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let plain = || Connection::open_with_flags(file, flags);
        let connection = match immutable(file) {
            // Without a log of changes, the file is complete: SQLite needs no files beside it.
            Some(address) if !log_of(file).exists() => {
                Connection::open_with_flags(address, flags | OpenFlags::SQLITE_OPEN_URI)
            }
            _ => plain(),
        };
        Ok(Self(connection.map_err(text)?))
    }

    /// The version of the schema.
    pub(super) fn schema(&self) -> Outcome<String> {
        let query =
            "SELECT major, minor, patch FROM version_info WHERE component = 'database_schema'";
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let (major, minor, patch): (i64, i64, i64) = self
            .0
            .query_row(query, [], row)
            .map_err(|error| format!("this is no database of Mosquitto: {error}"))?;
        if major != SCHEMA {
            return Err(format!(
                "the schema has version {major}.{minor}.{patch}; version {SCHEMA} can be read"
            ));
        }
        Ok(format!("{major}.{minor}.{patch}"))
    }

    /// Reads all tables.
    pub(super) fn read(&self, collector: &mut Collector) -> Outcome<()> {
        self.rows(MESSAGES, |row| take_message(row, collector))?;
        self.rows(CLIENTS, |row| {
            let client = Client {
                client: bytes(row, 0)?,
                user: bytes(row, 1)?,
                expires_s: time_s(row, 2)?,
                expiry_interval_s: row.get::<_, i64>(3)? as u32,
            };
            collector.take(&Chunk::Client(client));
            Ok(())
        })?;
        self.rows(SUBSCRIPTIONS, |row| {
            let options: i64 = row.get(2)?;
            let subscription = Subscription {
                client: bytes(row, 0)?,
                filter: bytes(row, 1)?,
                qos: (options & 3).min(2) as u8,
                no_local: options & 1 << 2 != 0,
                retain_as_published: options & 1 << 3 != 0,
                identifier: row.get::<_, i64>(3)? as u32,
            };
            collector.take(&Chunk::Subscription(subscription));
            Ok(())
        })?;
        self.rows(DELIVERIES, |row| take_delivery(row, collector))?;
        self.rows(RETAINED, |row| {
            collector.take(&Chunk::Retained(MessageId(row.get::<_, i64>(0)? as u64)));
            Ok(())
        })?;
        self.rows(WILLS, |row| take_will(row, collector))
    }

    fn rows(
        &self,
        query: &str,
        mut each: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> Outcome<()> {
        let mut read = || {
            let mut statement = self.0.prepare(query)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                each(row)?;
            }
            Ok(())
        };
        read().map_err(text)
    }
}

const MESSAGES: &str = "SELECT store_id, ifnull(expiry_time, 0), CAST(topic AS TEXT), payload, qos, \
     retain, properties, typeof(topic) = 'text' FROM base_msgs";
const CLIENTS: &str = "SELECT client_id, username, ifnull(session_expiry_time, 0), \
     ifnull(session_expiry_interval, 0) FROM clients";
const SUBSCRIPTIONS: &str = "SELECT client_id, topic, ifnull(subscription_options, 0), \
     ifnull(subscription_identifier, 0) FROM subscriptions";
const DELIVERIES: &str = "SELECT client_id, store_id, direction, mid, qos, retain, state, \
     ifnull(subscription_identifier, 0) FROM client_msgs ORDER BY client_id, cmsg_id";
const RETAINED: &str = "SELECT store_id FROM retains";
const WILLS: &str = "SELECT wills.client_id, CAST(topic AS TEXT), payload, qos, retain, properties, \
     ifnull(will_delay_time, 0), ifnull(will_delay_interval, 0), typeof(topic) = 'text' \
     FROM wills JOIN clients ON wills.client_id = clients.client_id";

/// The file that has changes which are not in the database yet.
fn log_of(file: &Path) -> std::path::PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// The address of a file that nothing changes.
fn immutable(file: &Path) -> Option<String> {
    if !cfg!(unix) {
        return None;
    }
    let mut address = String::from("file:");
    for character in file.to_str()?.chars() {
        match character {
            '%' | '?' | '#' => write!(address, "%{:02x}", character as u32).ok()?,
            other => address.push(other),
        }
    }
    Some(address + "?immutable=1")
}

/// A text or a blob; nothing for NULL.
fn bytes<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a [u8]> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(&[]),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(bytes),
        other => {
            let (kind, name) = (other.data_type(), row.as_ref().column_name(column)?.to_owned());
            Err(rusqlite::Error::InvalidColumnType(column, name, kind))
        }
    }
}

/// A time of day; none for 0.
fn time_s(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).ok().filter(|seconds| *seconds > 0))
}

fn small(row: &Row<'_>, column: usize, most: u8) -> rusqlite::Result<u8> {
    let value: i64 = row.get(column)?;
    let wrong = rusqlite::Error::IntegralValueOutOfRange(column, value);
    u8::try_from(value).ok().filter(|value| *value <= most).ok_or(wrong)
}

/// Warns of a topic that SQLite has taken for a number.
fn warn_of_number(
    collector: &mut Collector,
    row: &Row<'_>,
    of: (usize, usize),
) -> rusqlite::Result<()> {
    let (topic, is_text) = of;
    if !row.get::<_, bool>(is_text)? {
        let topic = String::from_utf8_lossy(bytes(row, topic)?).into_owned();
        collector.report().warn(format!(
            "the topic {topic:?} looks like a number: Mosquitto may have received it in another spelling, \
             such as 007 or 1e3"
        ));
    }
    Ok(())
}

fn take_message(row: &Row<'_>, collector: &mut Collector) -> rusqlite::Result<()> {
    warn_of_number(collector, row, (2, 7))?;
    let message = Message {
        id: MessageId(row.get::<_, i64>(0)? as u64),
        expires_s: time_s(row, 1)?,
        qos: small(row, 4, 2)?,
        retain: row.get(5)?,
        topic: bytes(row, 2)?,
        payload: bytes(row, 3)?,
        properties: &section(bytes(row, 6)?),
    };
    collector.take(&Chunk::Message(message));
    Ok(())
}

fn take_delivery(row: &Row<'_>, collector: &mut Collector) -> rusqlite::Result<()> {
    let state = small(row, 6, u8::MAX)?;
    let stage = Stage::of_state(state);
    let stage = stage.ok_or(rusqlite::Error::IntegralValueOutOfRange(6, state.into()))?;
    let identifier = row.get::<_, i64>(7)? as u32;
    let mut properties = Vec::new();
    if identifier != 0 {
        let mut value = Vec::new();
        push_variable(&mut value, identifier as usize);
        properties = [&[value.len() as u8 + 1, 0x0B][..], &value].concat();
    }
    let delivery = Delivery {
        client: bytes(row, 0)?,
        message: MessageId(row.get::<_, i64>(1)? as u64),
        packet_identifier: row.get::<_, u16>(3)?,
        qos: small(row, 4, 2)?,
        retain: row.get(5)?,
        way: if small(row, 2, 1)? == 0 { Way::In } else { Way::Out },
        stage,
        properties: &properties,
    };
    collector.take(&Chunk::Delivery(delivery));
    Ok(())
}

fn take_will(row: &Row<'_>, collector: &mut Collector) -> rusqlite::Result<()> {
    warn_of_number(collector, row, (1, 8))?;
    collector.take_will(&Will {
        client: bytes(row, 0)?,
        topic: bytes(row, 1)?,
        payload: bytes(row, 2)?,
        qos: small(row, 3, 2)?,
        retain: row.get(4)?,
        properties: &section(bytes(row, 5)?),
        due_s: time_s(row, 6)?,
        delay_interval_s: row.get::<_, i64>(7)? as u32,
    });
    Ok(())
}

/// A property as Mosquitto writes it.
#[derive(Deserialize)]
struct Property {
    identifier: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    value: serde_json::Value,
}

/// Encodes properties as packets have them: a Property Length and the properties. The result for a text that is none
/// of Mosquitto's is no valid section.
fn section(json: &[u8]) -> Vec<u8> {
    const INVALID: u8 = 0xFF;
    if json.is_empty() {
        return Vec::new();
    }
    let encoded = serde_json::from_slice::<Vec<Property>>(json).ok().and_then(|list| encode(&list));
    let Some(encoded) = encoded else { return vec![INVALID] };
    let mut section = Vec::with_capacity(encoded.len() + 4);
    push_variable(&mut section, encoded.len());
    section.extend(encoded);
    section
}

/// None when a property does not fit.
fn encode(list: &[Property]) -> Option<Vec<u8>> {
    let fits = |text: &str| text.len() <= usize::from(u16::MAX) && !text.contains('\0');
    let (mut data, mut users) = (Vec::new(), Vec::new());
    let mut properties = ForwardedProperties::default();
    for Property { identifier, name, value } in list {
        let text = value.as_str().filter(|text| fits(text));
        match &**identifier {
            "payload-format-indicator" => {
                let indicator = value.as_u64().filter(|indicator| *indicator <= 1)?;
                properties.payload_format_indicator = Some(indicator as u8);
            }
            "content-type" => properties.content_type = Some(text?),
            "response-topic" => properties.response_topic = Some(text?),
            "correlation-data" => data = from_hex(value.as_str()?)?,
            "user-property" if fits(name) => UserProperties::push(&mut users, name, text?),
            "user-property" => return None,
            // Not forwarded to subscribers.
            _ => {}
        }
    }
    if !data.is_empty() {
        properties.correlation_data = Some(&data);
    }
    properties.user_properties = UserProperties::encoded(&users);
    let mut out = Vec::new();
    properties.encode(&mut out);
    Some(out)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect::<Option<Vec<u8>>>().filter(|data| data.len() <= usize::from(u16::MAX))
}

/// Appends a Variable Byte Integer.
fn push_variable(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{Kind, Options, Reason, Report, import};
    use super::*;
    use crate::storage::image::{Image, Session};

    /// The tables of schema 1.1.0.
    const TABLES: &str = "
        CREATE TABLE base_msgs (store_id INT64 PRIMARY KEY, expiry_time INT64, topic STRING NOT NULL,
            payload BLOB, source_id STRING, source_username STRING, payloadlen INTEGER,
            source_mid INTEGER, source_port INTEGER, qos INTEGER, retain INTEGER, properties STRING);
        CREATE TABLE retains (topic STRING PRIMARY KEY, store_id INT64);
        CREATE TABLE clients (client_id TEXT PRIMARY KEY, username TEXT, connection_time INT64,
            will_delay_time INT64, session_expiry_time INT64, listener_port INT, max_packet_size INT,
            max_qos INT, retain_available INT, session_expiry_interval INT, will_delay_interval INT);
        CREATE TABLE subscriptions (client_id TEXT NOT NULL, topic TEXT NOT NULL,
            subscription_options INTEGER, subscription_identifier INTEGER,
            PRIMARY KEY (client_id, topic));
        CREATE TABLE client_msgs (client_id TEXT NOT NULL, cmsg_id INT64, store_id INT64, dup INTEGER,
            direction INTEGER, mid INTEGER, qos INTEGER, retain INTEGER, state INTEGER,
            subscription_identifier INTEGER);
        CREATE TABLE wills (client_id TEXT PRIMARY KEY, payload BLOB, topic STRING NOT NULL,
            payloadlen INTEGER, qos INTEGER, retain INTEGER, properties STRING);
        CREATE TABLE version_info (component TEXT NOT NULL, major INTEGER NOT NULL,
            minor INTEGER NOT NULL, patch INTEGER NOT NULL);
        INSERT INTO version_info VALUES ('database_schema', 1, 1, 0);";

    /// A file that is removed on drop.
    struct Made(PathBuf);

    impl Made {
        fn new(name: &str, statements: &str) -> Self {
            let file = format!("ringmq-sqlite {name}?#%-{}", std::process::id());
            let made = Self(std::env::temp_dir().join(file));
            let _ = std::fs::remove_file(&made.0);
            let connection = Connection::open(&made.0).expect("a file");
            connection.execute_batch(statements).expect("statements");
            made
        }

        fn collect(&self) -> Outcome<Collector> {
            let database = Database::open(&self.0)?;
            database.schema()?;
            let now_us = 1_795_891_000_000_000;
            let mut collector = Collector::new(String::new(), Options::default(), now_us);
            database.read(&mut collector)?;
            Ok(collector)
        }

        fn import(&self) -> (Image, Report) {
            let mut image = Image::default();
            let report = self.collect().expect("intact").add_to(&mut image);
            (image, report)
        }
    }

    impl Drop for Made {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn session<'a>(image: &'a Image, client: &str) -> &'a Session {
        image.sessions.values().find(|of| &*of.client_identifier == client).expect("a session")
    }

    #[test]
    fn rows_become_sessions_with_shared_subscriptions_messages_and_wills() {
        let statements = [
            TABLES,
            r#"INSERT INTO base_msgs VALUES (9, 1795999999, 'a/b', X'0001', 'p', NULL, 2, 1, 1883, 1, 0,
                '[{"identifier":"payload-format-indicator","value":1},
                  {"identifier":"correlation-data","value":"00FF"},
                  {"identifier":"user-property","name":"k","value":"v"}]');
               INSERT INTO base_msgs VALUES (8, 0, 'a/c', NULL, 'p', NULL, 0, 1, 1883, 2, 1, '{}');
               INSERT INTO clients VALUES ('c', 'u', 0, 0, 1795892000, 1883, 0, 2, 1, 3600, 0);
               INSERT INTO clients VALUES ('online', NULL, 0, 0, 0, 1883, 0, 2, 1, 4294967295, 5);
               INSERT INTO clients VALUES ('delayed', NULL, 0, 1795895000, 0, 1883, 0, 2, 1, 9000, 60);
               INSERT INTO subscriptions VALUES ('c', '$share/g/a/#', 1, 300);
               INSERT INTO subscriptions VALUES ('c', '007', 14, 0);
               INSERT INTO client_msgs VALUES ('c', 2, 8, 0, 1, 4, 2, 0, 11, 0);
               INSERT INTO client_msgs VALUES ('c', 1, 9, 0, 1, 3, 1, 1, 3, 300);
               INSERT INTO wills VALUES ('online', X'78', 'state', 1, 1, 1, NULL);
               INSERT INTO wills VALUES ('delayed', X'79', 'state/2', 1, 0, 0, NULL);
               INSERT INTO wills VALUES ('nobody', X'79', 'state/3', 1, 0, 0, NULL);"#,
        ];
        let (image, report) = Made::new("rows", &statements.concat()).import();
        let of = session(&image, "c");
        assert_eq!((of.expiry_interval_s, of.away_since_us), (3_600, Some(1_795_888_400_000_000)));
        let shared = &of.subscriptions["$share/g/a/#"];
        assert_eq!((shared.qos, shared.identifier), (1, 300));
        let number = &of.subscriptions["007"];
        assert_eq!((number.qos, number.no_local, number.retain_as_published), (2, true, true));
        let [inflight] = &of.inflight[..] else { panic!("{of:?}") };
        assert_eq!((inflight.packet_identifier, &inflight.identifiers[..]), (3, &[300][..]));
        let content = inflight.content.as_ref().and_then(|content| content.get()).expect("known");
        assert_eq!(&*content.payload, [0, 1]);
        assert_eq!(&*content.passed_on, b"\x01\x01\x09\0\x02\0\xFF\x26\0\x01k\0\x01v");
        assert_eq!(content.expires_us, Some(1_795_999_999_000_000));
        assert_eq!(of.queue.len(), 1);
        assert_eq!(report.without_properties, 1, "an object instead of a list");
        let held: Vec<_> = image.wills.values().map(|of| (&*of.content.topic, of.retain)).collect();
        assert_eq!(held, [("state", true)]);
        let delayed = session(&image, "delayed").will.as_ref().expect("a Will");
        assert_eq!((&*delayed.content.topic, delayed.due_us), ("state/2", 1_795_895_000_000_000));
        assert_eq!(report.taken(Kind::Will), 2);
    }

    #[test]
    fn topics_like_numbers_are_taken_as_stored_with_a_warning_each() {
        let fixture = "tests/fixtures/mosquitto-db/v2.1.2.sqlite3";
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(fixture);
        let copy = Made::new("numbers", "");
        std::fs::copy(file, &copy.0).expect("a copy");
        let (image, report) = copy.import();
        let mut topics: Vec<_> = image.retained.keys().map(|topic| &**topic).collect();
        topics.sort_unstable();
        assert_eq!(topics, ["1000", "12/3", "7"]);
        let text = report.to_string();
        assert_eq!(text.matches("looks like a number").count(), 2, "{text}");
        assert_eq!(report.left_out(Kind::Retained, Reason::Name), 0);
    }

    #[test]
    fn other_schemas_and_other_databases_are_refused() {
        let later = format!("{TABLES} UPDATE version_info SET major = 2;");
        let error = Made::new("later", &later).collect().expect_err("a later schema");
        assert!(error.contains("version 2.1.0"), "{error}");
        let error = Made::new("other", "CREATE TABLE t (a)").collect().expect_err("another");
        assert!(error.contains("no database of Mosquitto"), "{error}");
    }

    #[test]
    fn a_damaged_row_ends_the_import_and_salvage_keeps_what_came_before() {
        let statements = format!(
            "{TABLES}
             INSERT INTO clients VALUES ('c', 'u', 0, 0, 0, 1883, 0, 2, 1, 4294967295, 0);
             INSERT INTO client_msgs VALUES ('c', 1, 9, 0, 7, 3, 1, 1, 3, 300);"
        );
        let made = Made::new("damaged", &statements);
        let error = made.collect().expect_err("direction 7");
        assert!(error.contains("out of range"), "{error}");
        let folder = std::env::temp_dir().join(format!("ringmq-sqlite-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let options = Options { salvage: true, ..Options::default() };
        let report = import::import(&folder, &made.0, options).expect("salvaged").expect("new");
        assert_eq!(report.taken(Kind::Session), 1);
        assert!(report.damage.is_some_and(|damage| damage.contains("out of range")));
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
