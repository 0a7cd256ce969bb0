//! Databases of eight builds, damaged ones, and made ones with what those do not have.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use super::chunk::Chunk;
use super::{Collector, Kind, Options, ReadError, Reader, Reason, Report, import as from_file};
use crate::storage::image::{Image, Session, SharedContent, Whole};

macro_rules! fixture {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../../../tests/fixtures/mosquitto-db/", $name, ".db")))
    };
}

const FORMER: [(&str, &[u8]); 4] =
    [fixture!("v1.4.15"), fixture!("v1.5.5"), fixture!("v1.5.11"), fixture!("v1.6.9")];
const LATER: [(&str, &[u8]); 4] = [
    fixture!("v2.0.11"),
    fixture!("v2.0.22-i386"),
    fixture!("v2.0.22-mips-big-endian"),
    fixture!("v2.1.2"),
];

/// A time of day after the fixtures were written and before anything in them expires.
const NOW_US: u64 = 1_795_891_000_000_000;

const KINDS: [Kind; 6] = [
    Kind::Session,
    Kind::Subscription,
    Kind::Queued,
    Kind::Inflight,
    Kind::Received,
    Kind::Retained,
];

fn collect(bytes: &[u8], options: Options, now_us: u64) -> Result<Collector, ReadError> {
    let mut reader = Reader::new(Cursor::new(bytes), bytes.len() as u64)?;
    let mut collector = Collector::new(String::new(), options, now_us);
    while let Some(chunk) = reader.next_chunk()? {
        collector.take(&chunk);
    }
    Ok(collector)
}

fn import_with(bytes: &[u8], options: Options, now_us: u64) -> (Image, Report) {
    let mut image = Image::default();
    let report = collect(bytes, options, now_us).expect("intact").add_to(&mut image);
    (image, report)
}

fn import(bytes: &[u8]) -> (Image, Report) {
    import_with(bytes, Options::default(), NOW_US)
}

fn session<'a>(image: &'a Image, client: &str) -> &'a Session {
    image.sessions.values().find(|of| &*of.client_identifier == client).expect("a session")
}

fn payloads(contents: impl IntoIterator<Item = Option<SharedContent>>) -> Vec<String> {
    let text = |content: SharedContent| {
        String::from_utf8_lossy(&content.get().expect("known").payload).into_owned()
    };
    contents.into_iter().flatten().map(text).collect()
}

fn counts(report: &Report) -> [u64; 6] {
    KINDS.map(|kind| report.taken(kind))
}

#[test]
fn databases_of_formats_3_4_and_5_are_taken_whole() {
    for (name, bytes) in FORMER {
        let (image, report) = import(bytes);
        assert_eq!(counts(&report), [2, 2, 3, 0, 1, 2], "{name}");
        let away = session(&image, "away");
        assert_eq!(away.expiry_interval_s, u32::MAX, "{name}");
        let filters: Vec<_> = away.subscriptions.iter().map(|(at, of)| (&**at, of.qos)).collect();
        assert_eq!(filters, [("house/#", 2), ("plain", 0)], "{name}");
        let queue = away.queue.iter().map(|of| of.content.clone());
        assert_eq!(payloads(queue), ["21.5", "open", ""], "{name}");
        assert!(session(&image, "qos2-in").received.contains(&77), "{name}");
        assert_eq!(&*image.retained["house/door"].content.as_ref().expect("one").payload, b"open");
    }
}

#[test]
fn databases_of_format_6_are_taken_from_any_word_size_and_byte_order() {
    for (name, bytes) in LATER {
        let (image, report) = import(bytes);
        let retained = if name == "v2.1.2" { 3 } else { 2 };
        assert_eq!(counts(&report), [5, 5, 9, 2, 1, retained], "{name}");
        let qos_0 = u64::from(name == "v2.0.11" || name == "v2.1.2");
        assert_eq!(report.left_out(Kind::Queued, Reason::Qos0), qos_0, "{name}");
        let away = session(&image, "v5-away");
        let since_s = away.away_since_us.expect("away") / 1_000_000;
        assert!((1_795_889_000..=1_795_891_000).contains(&since_s), "{name}: {since_s}");
        assert_eq!(away.expiry_interval_s, 86_400, "{name}");
        let house = &away.subscriptions["house/#"];
        let options = (house.qos, house.no_local, house.retain_as_published, house.identifier);
        assert_eq!(options, (2, true, true, 300), "{name}");
        assert_eq!(away.queue[0].identifiers, [300], "{name}");
        assert_eq!((away.queue[0].retain, away.queue[3].retain), (true, false), "{name}");
        let temperature = away.queue[0].content.as_ref().and_then(|of| of.get()).expect("known");
        let expires_s = temperature.expires_us.expect("expires") / 1_000_000;
        assert!((1_795_896_000..1_795_899_000).contains(&expires_s), "{name}: {expires_s}");
        let properties = b"\x01\x01\x03\0\x0atext/plain\x08\0\x03r/t\x09\0\x02\0\x01\x26\0\x01a\0\x01b\x26\0\x01a\0\x01c";
        let mut encoded = temperature.passed_on.to_vec();
        assert_eq!(encoded.len(), properties.len(), "{name}");
        encoded.sort_unstable();
        let mut expected = properties.to_vec();
        expected.sort_unstable();
        assert_eq!(encoded, expected, "{name}");
        let inflight = session(&image, "v5-inflight");
        let stages: Vec<_> = inflight
            .inflight
            .iter()
            .map(|of| (of.packet_identifier, of.content.is_some()))
            .collect();
        assert_eq!(stages, [(1, true), (2, false)], "{name}");
        let queue = inflight.queue.iter().map(|of| of.content.clone());
        assert_eq!(payloads(queue), ["f2", "f3"], "{name}");
        assert!(session(&image, "v3-qos2-in").received.contains(&77), "{name}");
        let forwards = session(&image, "").queue.iter().map(|of| of.content.clone());
        assert_eq!(payloads(forwards), ["held"], "{name}: published at the start");
    }
}

#[test]
fn a_second_import_takes_nothing() {
    for (name, bytes) in FORMER.into_iter().chain(LATER) {
        let (mut image, first) = import(bytes);
        let before = (image.sessions.clone(), image.retained.clone(), image.delivery_max);
        let again = collect(bytes, Options::default(), NOW_US).expect("intact").add_to(&mut image);
        assert!(again.is_empty(), "{name}: {again}");
        assert_eq!((image.sessions, image.retained, image.delivery_max), before, "{name}");
        let of = |kind| (again.left_out(kind, Reason::InStore), first.taken(kind));
        assert_eq!(of(Kind::Session).0, of(Kind::Session).1, "{name}");
        assert_eq!(of(Kind::Retained).0, of(Kind::Retained).1, "{name}");
    }
}

#[test]
fn an_imported_image_is_the_same_after_it_was_written_as_records() {
    for (name, bytes) in FORMER.into_iter().chain(LATER) {
        let (image, _) = import(bytes);
        let mut again = Image::default();
        again.apply(&image.write(|_| {}), &Whole).expect("records");
        assert_eq!(again.sessions, image.sessions, "{name}");
        assert_eq!(again.retained, image.retained, "{name}");
    }
}

#[test]
fn owners_are_taken_on_request_and_names_with_memory_behind_them_never() {
    let (name, bytes) = LATER[0];
    let (image, report) = import(bytes);
    assert!(image.sessions.values().all(|of| of.owner.is_none()), "{name}");
    assert_eq!(report.taken(Kind::Owner), 0);
    let options = Options { owners: true, ..Options::default() };
    let (image, report) = import_with(bytes, options, NOW_US);
    let owner = |client| session(&image, client).owner.as_deref();
    assert_eq!((owner("v5-away"), owner("v3-away")), (Some("alice"), Some("bob")));
    assert_eq!((owner("v5-never"), owner("v3-qos2-in")), (None, None));
    assert_eq!(report.left_out(Kind::Owner, Reason::Believed), 2);
}

#[test]
fn sessions_and_messages_that_have_expired_are_left_out() {
    let (_, bytes) = LATER[0];
    let (image, report) = import_with(bytes, Options::default(), 1_795_976_000_000_000);
    assert_eq!(report.left_out(Kind::Session, Reason::Expired), 2);
    assert_eq!(report.taken(Kind::Session), 3);
    assert_eq!(report.left_out(Kind::Queued, Reason::OfSession), 7);
    assert_eq!(report.left_out(Kind::Queued, Reason::Expired), 1, "of v3-away");
    assert_eq!(report.left_out(Kind::Retained, Reason::Expired), 1);
    assert!(!image.retained.contains_key("house/kitchen/temp"));
}

/// A database of format 6, as a little-endian machine with 64 bits writes it.
struct Made(Vec<u8>);

impl Made {
    fn new() -> Self {
        Self(b"\x00\xB5\x00mosquitto db\0\0\0\0\0\0\0\x06".to_vec())
    }

    fn chunk(&mut self, kind: u32, parts: &[&[u8]]) {
        self.0.extend(kind.to_be_bytes());
        self.0.extend((parts.concat().len() as u32).to_be_bytes());
        self.0.extend(parts.concat());
    }

    fn message(
        &mut self,
        id: u64,
        topic: &str,
        payload: &str,
        (qos, retain): (u8, bool),
        properties: &[u8],
    ) {
        let parts: [&[u8]; 9] = [
            &id.to_le_bytes(),
            &[0; 8],
            &(payload.len() as u32).to_be_bytes(),
            &[0; 6],
            &(topic.len() as u16).to_be_bytes(),
            &[0, 0, qos, retain.into()],
            topic.as_bytes(),
            payload.as_bytes(),
            properties,
        ];
        self.chunk(2, &parts);
    }

    fn client(&mut self, client: &str, expiry_interval_s: u32) {
        let parts: [&[u8]; 6] = [
            &[0; 8],
            &expiry_interval_s.to_be_bytes(),
            &[0; 2],
            &(client.len() as u16).to_be_bytes(),
            &[0; 8],
            client.as_bytes(),
        ];
        self.chunk(6, &parts);
    }

    /// A delivery with its Packet Identifier, state and direction.
    fn delivery(
        &mut self,
        client: &str,
        id: u64,
        identifier: u16,
        qos: u8,
        (state, way): (u8, u8),
    ) {
        let parts: [&[u8]; 5] = [
            &id.to_le_bytes(),
            &identifier.to_be_bytes(),
            &(client.len() as u16).to_be_bytes(),
            &[qos, state, 0, way],
            client.as_bytes(),
        ];
        self.chunk(3, &parts);
    }

    fn subscription(&mut self, client: &str, filter: &str) {
        let parts: [&[u8]; 6] = [
            &[0; 4],
            &(client.len() as u16).to_be_bytes(),
            &(filter.len() as u16).to_be_bytes(),
            &[1, 0, 0, 0],
            client.as_bytes(),
            filter.as_bytes(),
        ];
        self.chunk(5, &parts);
    }

    fn retained(&mut self, id: u64) {
        self.chunk(4, &[&id.to_le_bytes()]);
    }
}

const OUT: u8 = 1;
const IN: u8 = 0;
const QUEUED: u8 = 11;

#[test]
fn sessions_of_bridges_topics_of_the_broker_and_what_is_not_valid_are_left_out_and_counted() {
    let mut made = Made::new();
    made.message(1, "$SYS/broker/version", "2", (1, true), &[]);
    made.message(2, "a/b", "x", (1, true), &[]);
    made.message(3, "a/+", "x", (1, true), &[]);
    made.message(4, "with/properties", "x", (1, true), &[3, 1, 1, 1]);
    made.client("local.host.bridge", u32::MAX);
    made.delivery("local.host.bridge", 2, 1, 1, (QUEUED, OUT));
    made.client("c", u32::MAX);
    made.client("c", u32::MAX);
    made.client("short", 0);
    made.delivery("c", 1, 1, 1, (QUEUED, OUT));
    made.delivery("c", 9, 2, 1, (QUEUED, OUT));
    made.delivery("nobody", 2, 2, 1, (QUEUED, OUT));
    made.subscription("local.host.bridge", "a/#");
    made.subscription("c", "a/#/b");
    (1..=4).for_each(|id| made.retained(id));
    let (image, report) = import(&made.0);
    assert_eq!(counts(&report), [1, 0, 0, 0, 0, 2]);
    let left_out = [
        (Kind::Session, Reason::Bridge),
        (Kind::Session, Reason::Twice),
        (Kind::Session, Reason::Ends),
        (Kind::Subscription, Reason::OfSession),
        (Kind::Subscription, Reason::Name),
        (Kind::Queued, Reason::OfSession),
        (Kind::Queued, Reason::Sys),
        (Kind::Queued, Reason::NoMessage),
        (Kind::Queued, Reason::NoSession),
        (Kind::Retained, Reason::Sys),
        (Kind::Retained, Reason::Name),
    ];
    for (kind, reason) in left_out {
        assert_eq!(report.left_out(kind, reason), 1, "{kind:?} {reason:?}: {report}");
    }
    assert_eq!(report.without_properties, 1);
    assert!(report.to_string().contains("1 sessions: of a bridge"), "{report}");
    let topics: Vec<_> =
        image.retained.keys().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
    assert_eq!(topics, [&Box::from("a/b"), &Box::from("with/properties")]);
}

#[test]
fn a_qos_2_message_before_pubrel_is_published_and_retained_with_the_session_of_its_client() {
    let mut made = Made::new();
    made.message(1, "state", "old", (1, true), &[]);
    made.message(2, "state", "new", (2, true), &[]);
    made.message(3, "gone", "old", (1, true), &[]);
    made.message(4, "gone", "", (2, true), &[]);
    made.client("c", u32::MAX);
    made.delivery("c", 2, 7, 2, (7, IN));
    made.delivery("c", 4, 8, 2, (7, IN));
    made.delivery("c", 4, 8, 2, (7, IN));
    made.retained(1);
    made.retained(3);
    let (image, report) = import(&made.0);
    assert_eq!(session(&image, "c").received.iter().copied().collect::<Vec<_>>(), [7, 8]);
    assert_eq!(report.left_out(Kind::Received, Reason::Identifier), 1);
    let retained: BTreeMap<_, _> = image.retained.iter().collect();
    assert_eq!(retained.len(), 1);
    assert_eq!(&*image.retained["state"].content.as_ref().expect("one").payload, b"new");
    let forwards: Vec<_> = session(&image, "").queue.iter().map(|of| (of.qos, of.retain)).collect();
    assert_eq!(forwards, [(2, true), (2, true)]);
}

#[test]
fn a_database_that_is_empty_zero_or_something_else_is_said_to_be_that() {
    let error = |bytes: &[u8]| Reader::new(Cursor::new(bytes), bytes.len() as u64).err();
    assert!(matches!(error(b""), Some(ReadError::Empty)));
    assert!(matches!(error(&[0; 10]), Some(ReadError::Zeros)));
    assert!(matches!(error(&[0; 100_000]), Some(ReadError::Zeros)));
    let mut rest = vec![0; 100_000];
    rest[99_999] = 1;
    assert!(matches!(error(&rest), Some(ReadError::NoDatabase)));
    assert!(matches!(error(b"listener 1883\nallow_anonymous true\n"), Some(ReadError::NoDatabase)));
    assert!(matches!(error(&Made::new().0[..20]), Some(ReadError::NoDatabase)));
    for format in [2_u8, 7] {
        let mut bytes = Made::new().0;
        *bytes.last_mut().expect("bytes") = format;
        assert!(
            matches!(error(&bytes), Some(ReadError::Format(found)) if found == u32::from(format))
        );
    }
}

/// Reads to the end; what was read, and where the damage is.
fn read(bytes: &[u8]) -> (usize, Option<u64>) {
    let mut reader = Reader::new(Cursor::new(bytes), bytes.len() as u64).expect("a beginning");
    let mut chunks = 0;
    loop {
        match reader.next_chunk() {
            Ok(None) => return (chunks, None),
            Ok(Some(Chunk::Settings)) | Ok(Some(_)) => chunks += 1,
            Err(ReadError::Damaged(damage)) => return (chunks, Some(damage.at)),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_cut_database_is_damaged_at_the_chunk_that_is_cut() {
    for (name, bytes) in FORMER.into_iter().chain(LATER) {
        let (all, None) = read(bytes) else { panic!("{name} is intact") };
        let mut begin = 23;
        let mut chunks = 0;
        for length in 23..bytes.len() {
            match read(&bytes[..length]) {
                (read, None) => {
                    assert_eq!(read, chunks + usize::from(length > 23), "{name} {length}");
                    (chunks, begin) = (read, length as u64);
                }
                (read, Some(at)) => assert_eq!((read, at), (chunks, begin), "{name} {length}"),
            }
        }
        assert_eq!(chunks + 1, all, "{name}");
    }
}

#[test]
fn damaged_lengths_allocate_nothing() {
    for (name, bytes) in FORMER.into_iter().chain(LATER) {
        for at in 23..bytes.len() - 4 {
            let mut damaged = bytes.to_vec();
            damaged[at..at + 4].fill(0xFF);
            let mut reader =
                Reader::new(Cursor::new(&damaged), bytes.len() as u64).expect("a beginning");
            while let Ok(Some(_)) = reader.next_chunk() {}
            assert!(reader.buffer_bytes() <= 2 * bytes.len().max(64), "{name} {at}");
        }
    }
}

#[test]
fn the_first_start_imports_a_database_into_an_empty_store_only() {
    let folder = std::env::temp_dir().join(format!("ringmq-first-start-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let start = |file: &Path| {
        let data = folder.join("data");
        from_file::import_at_first_start(&data, file, Options::default()).expect("no error")
    };
    let (_, bytes) = FORMER[0];
    let file = folder.join("mosquitto.db");
    assert_eq!(start(&file), None, "there is no file");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(&file, bytes).expect("written");
    let report = start(&file).expect("the first start");
    assert_eq!(counts(&report), [2, 2, 3, 0, 1, 2]);
    let (_, other) = FORMER[3];
    std::fs::write(&file, other).expect("written");
    assert_eq!(start(&file), None, "the store is not empty");
    assert_eq!(std::fs::read(&file).expect("there"), other, "the file stays");
    std::fs::remove_dir_all(&folder).expect("removed");
}
