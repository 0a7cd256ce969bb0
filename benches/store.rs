//! Compares stores for a broker's durable state: our own log, fjall and redb.
//!
//! ```text
//! cargo bench -p stores                     all stores, restoring a million sessions
//! RINGMQ_BENCH_SHORT=1 cargo bench -p stores     the short form of the CI check
//! RINGMQ_STORE_DIR=/mnt/flash cargo bench -p stores   on another disk
//! ```
//!
//! Each round writes the records of a turn of QoS 1 (a message for a disconnected client, and the
//! end of an older one), commits once and syncs once. Restore reads a million sessions with one
//! subscription and one message each. Every engine is used as its documentation specifies for a
//! durable commit.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use redb::ReadableDatabase;

const MESSAGE_BYTES: usize = 110;
const SESSION_BYTES: usize = 60;
/// Messages queued at a time: each round ends as many as it adds.
const WAITING: usize = 20_000;

/// The operations required of a store. Keys are sixteen bytes: session and number.
trait Store {
    const NAME: &'static str;
    fn open(folder: &Path) -> Self;
    /// Commits; everything is on disk on return.
    fn commit(&mut self, put: &[([u8; 16], Vec<u8>)], end: &[[u8; 16]]);
    /// Reads all entries; returns their number.
    fn restore(&self) -> usize;
}

struct Fjall {
    database: fjall::Database,
    keyspace: fjall::Keyspace,
}

impl Store for Fjall {
    const NAME: &'static str = "fjall";

    fn open(folder: &Path) -> Self {
        let database = fjall::Database::builder(folder).open().expect("the store opens");
        let keyspace = database.keyspace("all", fjall::KeyspaceCreateOptions::default);
        Self { keyspace: keyspace.expect("the store opens"), database }
    }

    fn commit(&mut self, put: &[([u8; 16], Vec<u8>)], end: &[[u8; 16]]) {
        let mut batch = self.database.batch();
        put.iter().for_each(|(key, value)| batch.insert(&self.keyspace, &key[..], &value[..]));
        end.iter().for_each(|key| batch.remove(&self.keyspace, &key[..]));
        batch.commit().expect("the commit succeeds");
        self.database.persist(fjall::PersistMode::SyncData).expect("the sync succeeds");
    }

    fn restore(&self) -> usize {
        let entries = self.keyspace.iter().map(|entry| entry.into_inner());
        entries.filter(|entry| entry.is_ok()).count()
    }
}

const TABLE: redb::TableDefinition<'_, &[u8; 16], &[u8]> = redb::TableDefinition::new("all");

struct Redb(redb::Database);

impl Store for Redb {
    const NAME: &'static str = "redb";

    fn open(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder");
        let database = redb::Database::create(folder.join("all")).expect("the store opens");
        let begun = database.begin_write().expect("the operation starts");
        begun.open_table(TABLE).expect("the store opens");
        begun.commit().expect("the commit succeeds");
        Self(database)
    }

    fn commit(&mut self, put: &[([u8; 16], Vec<u8>)], end: &[[u8; 16]]) {
        let begun = self.0.begin_write().expect("the operation starts");
        {
            let mut table = begun.open_table(TABLE).expect("the store opens");
            for (key, value) in put {
                table.insert(key, &value[..]).expect("the insert succeeds");
            }
            for key in end {
                table.remove(key).expect("the removal succeeds");
            }
        }
        begun.commit().expect("a synced commit");
    }

    fn restore(&self) -> usize {
        let begun = self.0.begin_read().expect("the operation starts");
        let table = begun.open_table(TABLE).expect("the store opens");
        table
            .range::<&[u8; 16]>(..)
            .expect("the process reads its input")
            .filter(|entry| entry.is_ok())
            .count()
    }
}

/// A log with a checksum per commit, rewritten when more than half of it is obsolete.
struct Log {
    folder: PathBuf,
    file: File,
    bytes: usize,
    live: std::collections::BTreeMap<[u8; 16], Vec<u8>>,
    live_bytes: usize,
}

impl Log {
    fn write(&mut self, body: &[u8]) {
        let mut frame = Vec::with_capacity(body.len() + 8);
        frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
        frame.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
        frame.extend_from_slice(body);
        self.file.write_all(&frame).expect("the write succeeds");
        self.bytes += frame.len();
    }
}

fn entry(key: &[u8; 16], value: Option<&[u8]>, out: &mut Vec<u8>) {
    out.push(u8::from(value.is_some()));
    out.extend_from_slice(key);
    if let Some(value) = value {
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(value);
    }
}

impl Store for Log {
    const NAME: &'static str = "log";

    fn open(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder");
        let path = folder.join("log");
        let file = File::options().create(true).append(true).open(path).expect("the store opens");
        let folder = folder.to_owned();
        Self { folder, file, bytes: 0, live: Default::default(), live_bytes: 0 }
    }

    fn commit(&mut self, put: &[([u8; 16], Vec<u8>)], end: &[[u8; 16]]) {
        let mut body = Vec::new();
        for (key, value) in put {
            entry(key, Some(value), &mut body);
            self.live_bytes += value.len() + 21;
            self.live.insert(*key, value.clone());
        }
        for key in end {
            entry(key, None, &mut body);
            self.live_bytes -= self.live.remove(key).map_or(0, |value| value.len() + 21);
        }
        self.write(&body);
        self.file.sync_data().expect("the sync succeeds");
        if self.bytes > 16 * 1024 * 1024 && self.bytes > 3 * self.live_bytes {
            let next = self.folder.join("next");
            self.file = File::create(&next).expect("the store opens");
            self.bytes = 0;
            let mut body = Vec::new();
            for (key, value) in &self.live {
                entry(key, Some(value), &mut body);
            }
            self.write(&body);
            self.file.sync_data().expect("the sync succeeds");
            fs::rename(next, self.folder.join("log")).expect("the rename succeeds");
        }
    }

    fn restore(&self) -> usize {
        let mut file = File::open(self.folder.join("log")).expect("the store opens");
        let mut live = std::collections::HashMap::new();
        let mut head = [0; 8];
        while file.read_exact(&mut head).is_ok() {
            let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four"));
            let mut body = vec![0; number(0) as usize];
            file.read_exact(&mut body).expect("the process reads its input");
            assert_eq!(crc32fast::hash(&body), number(4));
            let mut rest = &body[..];
            while let Some((&kind, after)) = rest.split_first() {
                let (key, after) = after.split_at(16);
                rest = after;
                if kind == 0 {
                    live.remove(key);
                    continue;
                }
                let (bytes, after) = after.split_at(4);
                let bytes = u32::from_le_bytes(bytes.try_into().expect("four")) as usize;
                let (value, after) = after.split_at(bytes);
                live.insert(key.to_vec(), value.to_vec());
                rest = after;
            }
        }
        live.len()
    }
}

fn key(session: u64, number: u64) -> [u8; 16] {
    // Sessions are distributed like Client Identifiers.
    let spread = session.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&spread.to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// A value in a file of /proc/self.
fn proc_value(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// CPU time of all threads so far, including ended ones, in microseconds.
fn cpu_us() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) * 10_000.0
}

fn measure<S: Store>(base: &Path, is_short: bool) {
    let folder = base.join(S::NAME);
    let mut store = S::open(&folder);
    let mut waiting: VecDeque<[u8; 16]> = VecDeque::new();
    let mut next = 0_u64;
    for records in [2, 64, 1_024, 16_384] {
        let seconds = if is_short { 0.3 } else { 6.0 };
        let (written, cpu) = (proc_value("io", "write_bytes"), cpu_us());
        let (begin, mut count, mut syncs, mut payload) = (Instant::now(), 0, 0, 0);
        while begin.elapsed().as_secs_f64() < seconds {
            let put: Vec<_> = (0..records / 2)
                .map(|_| {
                    next += 1;
                    (key(next % 10_000, next), vec![b'm'; MESSAGE_BYTES])
                })
                .collect();
            let surplus = (waiting.len() + put.len()).saturating_sub(WAITING);
            let end: Vec<_> = waiting.drain(..surplus.min(waiting.len())).collect();
            store.commit(&put, &end);
            waiting.extend(put.iter().map(|(key, _)| *key));
            count += put.len() + end.len();
            payload += put.len() * MESSAGE_BYTES;
            syncs += 1;
        }
        let elapsed = begin.elapsed().as_secs_f64();
        let written = (proc_value("io", "write_bytes") - written) as f64;
        println!(
            "{:6} {records:6} a commit: {:9.0} records/s {:7.0} commits/s {:7.2} CPU us/record {:7.2} bytes written/byte",
            S::NAME,
            count as f64 / elapsed,
            f64::from(syncs) / elapsed,
            (cpu_us() - cpu) / count as f64,
            written / payload as f64,
        );
    }
    drop(store);
    fs::remove_dir_all(folder).expect("removed");
}

fn restore<S: Store>(base: &Path, sessions: u64) {
    let folder = base.join(format!("{}-restore", S::NAME));
    let mut store = S::open(&folder);
    for chunk in 0..sessions / 10_000 {
        let of_chunk = chunk * 10_000..(chunk + 1) * 10_000;
        let put: Vec<_> = of_chunk
            .flat_map(|n| {
                [(key(n, 0), vec![b's'; SESSION_BYTES]), (key(n, 1), vec![b'm'; MESSAGE_BYTES])]
            })
            .collect();
        store.commit(&put, &[]);
    }
    drop(store);
    let resident = proc_value("status", "VmRSS");
    let begin = Instant::now();
    let store = S::open(&folder);
    let entries = store.restore();
    println!(
        "{:6} restore of {entries} entries: {:.2} s, {} MiB more than before",
        S::NAME,
        begin.elapsed().as_secs_f64(),
        proc_value("status", "VmRSS").saturating_sub(resident) / 1024,
    );
    drop(store);
    fs::remove_dir_all(folder).expect("removed");
}

fn main() {
    let is_short = std::env::var_os("RINGMQ_BENCH_SHORT").is_some();
    let base = std::env::var_os("RINGMQ_STORE_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from)
        .join("store-bench");
    let _ = fs::remove_dir_all(&base);
    fs::create_dir_all(&base).expect("a folder");
    measure::<Log>(&base, is_short);
    measure::<Fjall>(&base, is_short);
    measure::<Redb>(&base, is_short);
    let sessions = if is_short { 20_000 } else { 1_000_000 };
    restore::<Log>(&base, sessions);
    restore::<Fjall>(&base, sessions);
    restore::<Redb>(&base, sessions);
    fs::remove_dir_all(base).expect("removed");
}
