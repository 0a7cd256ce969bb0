//! The start: the log of a node and its stream get what only the other one has, before anything is restored from the log.

use std::time::{Duration, Instant};

use super::plan::{Plan, Range, plan};
use super::shipping::Shipping;
use crate::cluster::nats::{LogServer, LogStream};
use crate::cluster::ship::page::{Frames, Header, Taken};
use crate::cluster::ship::{End, Shipper};
use crate::storage::log::{Store, StoreError};

/// Bytes of pages that wait while the log is shipped.
const AHEAD_BYTES: usize = 8 << 20;

/// Why a node cannot start.
#[derive(Debug)]
pub(super) enum StartError {
    /// The engine does not answer, or refuses: it is tried again.
    Engine(String),
    /// Nothing changes by itself; the text says what to do.
    Final(String),
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self::Final(error.to_string())
    }
}

fn engine(error: String) -> StartError {
    StartError::Engine(error)
}

/// What a stream has.
struct Content {
    /// The sequences of the first and the last message.
    first: u64,
    last: u64,
    seal: Option<String>,
    /// Whole frames.
    frames: Option<Range>,
    /// The store of the last page.
    store: u64,
}

impl Content {
    async fn of(stream: &LogStream) -> Result<Self, StartError> {
        let (first, last) = stream.extent().await.map_err(engine)?;
        let mut content = Self { first, last, seal: None, frames: None, store: 0 };
        if first > last {
            return Ok(content);
        }
        let page = |header: Option<Header>| match header {
            Some(header) => Ok(header),
            None => Err(StartError::Final(format!(
                "the stream {} has a message that is no page of a log; look who else writes there, and remove the \
                 stream if the log of this node is complete",
                stream.name
            ))),
        };
        match page(stream.header(last).await.map_err(engine)?)? {
            Header::Seal(seal) => {
                content.seal = Some(End::Sealed(seal).to_string());
            }
            Header::Page(id) => {
                content.store = id.store;
                let last = if id.part + 1 == id.parts { id.frame } else { id.frame - 1 };
                if let Header::Page(begin) = page(stream.header(first).await.map_err(engine)?)?
                    && begin.frame <= last
                {
                    content.frames = Some(Range { first: begin.frame, last });
                }
            }
        }
        Ok(content)
    }
}

/// Brings log and stream together. What the log has and the stream lacks is shipped when this returns.
pub(super) async fn join(
    server: LogServer,
    store: &mut Store,
    ids: (u64, u64),
) -> Result<Shipping, (LogServer, StartError)> {
    match prepare(&server, store, ids.0).await {
        Ok((stream, last_sequence, frame)) => {
            let shipper = Shipper::new(ids.0, ids.1, last_sequence, frame);
            let mut shipping = Shipping::new(server, stream, shipper);
            let shipped = match ship_rest(&mut shipping, store).await {
                Ok(()) => remove_obsolete(&shipping).await,
                Err(error) => Err(error),
            };
            match shipped {
                Ok(()) => Ok(shipping),
                Err(error) => Err((shipping.into_server(), error)),
            }
        }
        Err(error) => Err((server, error)),
    }
}

/// Chooses the stream, and adds to the log what only the stream has. Returns the stream, its last sequence, and the last
/// whole frame that it shares with the log.
async fn prepare(
    server: &LogServer,
    store: &mut Store,
    own_store: u64,
) -> Result<(LogStream, u64, u64), StartError> {
    let incarnations = server.incarnations().await.map_err(engine)?;
    let newest = incarnations.last().copied().unwrap_or(1);
    let mut stream = server.open(newest).await.map_err(engine)?;
    let mut content = Content::of(&stream).await?;
    if let Some(seal) = &content.seal {
        let name = format!("set-aside-{newest}");
        let folder = store.set_aside(&name)?;
        tracing::warn!(
            stream = stream.name,
            folder = ?folder,
            why = seal,
            "cluster: the sessions of this node were taken over by others; its log is set aside, and it starts with an empty one"
        );
        stream = server.open(newest + 1).await.map_err(engine)?;
        return Ok((stream, 0, 0));
    }
    if store.first_frame().is_none() {
        // A newer stream is complete only once the older ones that are not sealed are gone.
        for &incarnation in incarnations.iter().rev().skip(1) {
            let older = server.open(incarnation).await.map_err(engine)?;
            let of_older = Content::of(&older).await?;
            if of_older.seal.is_some() || of_older.frames.is_none() {
                break;
            }
            server.remove(stream.incarnation).await.map_err(engine)?;
            (stream, content) = (older, of_older);
        }
    }
    let log = store.first_frame().map(|first| Range { first, last: store.last_frame() });
    match plan(log, content.frames) {
        Plan::Join => join_overlapping(&stream, &content, store, own_store).await?,
        Plan::TakeStream => take_stream(server, &stream, &content, store, own_store).await?,
        Plan::ShipAll => {
            check_store(&stream, &content, own_store)?;
            tracing::warn!(
                stream = stream.name,
                "cluster: the stream lacks frames that the log does not have any more; the whole log goes to a new stream"
            );
            let stream = server.open(stream.incarnation + 1).await.map_err(engine)?;
            return Ok((stream, 0, 0));
        }
    }
    let frame = content.frames.map_or(0, |frames| frames.last);
    Ok((stream, content.last, frame))
}

/// Where no frame can be compared, the number of the store says whether stream and log belong together.
fn check_store(stream: &LogStream, content: &Content, own_store: u64) -> Result<(), StartError> {
    match content.store == own_store {
        true => Ok(()),
        false => Err(of_another(stream)),
    }
}

fn of_another(stream: &LogStream) -> StartError {
    StartError::Final(format!(
        "the log in the folder of the store and the stream {} are not of the same node; to keep the stream, move the files \
         *.log and extent out of the folder; to keep the log, remove the stream (`nats stream rm {}`)",
        stream.name, stream.name
    ))
}

async fn join_overlapping(
    stream: &LogStream,
    content: &Content,
    store: &mut Store,
    own_store: u64,
) -> Result<(), StartError> {
    let (Some(frames), Some(first)) = (content.frames, store.first_frame()) else { return Ok(()) };
    let last = store.last_frame();
    if last + 1 == frames.first || frames.last + 1 == first {
        check_store(stream, content, own_store)?;
    }
    if frames.last <= last {
        let Some(bytes) = last_frame(stream, content, frames.last).await? else { return Ok(()) };
        return match frames.last < first || store.has_same(frames.last, &bytes)? {
            true => Ok(()),
            false => Err(of_another(stream)),
        };
    }
    let own = store.frame(last)?.unwrap_or_default();
    let mut is_same = true;
    let added = add(stream, content, store, |number, bytes| {
        is_same &= number != last || Store::are_same(&own, bytes);
        is_same
    });
    match added.await? {
        Some(frames) => {
            tracing::warn!(
                stream = stream.name,
                frames,
                "cluster: frames of the stream that the log lacked were added"
            );
            Ok(())
        }
        None => Err(of_another(stream)),
    }
}

async fn take_stream(
    server: &LogServer,
    stream: &LogStream,
    content: &Content,
    store: &mut Store,
    own_store: u64,
) -> Result<(), StartError> {
    if store.first_frame().is_some() {
        check_store(stream, content, own_store)?;
        let folder = store.set_aside(&format!("set-aside-outdated-{}", store.last_frame()))?;
        tracing::warn!(
            ?folder,
            "cluster: the log is older than the stream of this node, and is set aside"
        );
    } else if content.store != own_store && server.has_rival(own_store).await.map_err(engine)? {
        return Err(StartError::Final(
            "another broker of this name runs in the cluster: give each node a name of its own (cluster.node)".to_owned(),
        ));
    }
    let begun = Instant::now();
    let frames = add(stream, content, store, |_, _| true).await?;
    tracing::warn!(
        stream = stream.name,
        frames,
        seconds = begun.elapsed().as_secs(),
        "cluster: the log of this node was restored from its stream"
    );
    Ok(())
}

/// Adds the frames of a stream to the log, those that it has excepted, and returns their number; none once `is_right` says
/// that a frame is wrong.
async fn add(
    stream: &LogStream,
    content: &Content,
    store: &mut Store,
    mut is_right: impl FnMut(u64, &[u8]) -> bool,
) -> Result<Option<u64>, StartError> {
    let before = store.last_frame();
    let (mut frames, mut adding) = (Frames::default(), store.add_frames());
    let (mut failure, mut is_wrong) = (None, false);
    let read = stream.read(content.first, content.last, |message| {
        let stop = || Err("stopped".to_owned());
        match frames.take(message) {
            Ok(Taken::Frame { number, bytes }) if is_right(number, &bytes) => {
                match adding.add(number, &bytes) {
                    Ok(()) => Ok(()),
                    Err(error) => {
                        failure = Some(StartError::from(error));
                        stop()
                    }
                }
            }
            Ok(Taken::Frame { .. }) => {
                is_wrong = true;
                stop()
            }
            Ok(Taken::Nothing | Taken::Sealed(_)) => Ok(()),
            Err(error) => {
                failure = Some(StartError::Final(format!(
                    "a message of the stream {} is damaged: {error}; if the log of this node is complete, remove the stream",
                    stream.name
                )));
                stop()
            }
        }
    });
    let read = read.await;
    adding.finish()?;
    match (is_wrong, failure) {
        (true, _) => Ok(None),
        (false, Some(error)) => Err(error),
        (false, None) => read.map_err(engine).map(|()| Some(store.last_frame() - before)),
    }
}

/// The last whole frame of a stream.
async fn last_frame(
    stream: &LogStream,
    content: &Content,
    frame: u64,
) -> Result<Option<Vec<u8>>, StartError> {
    let mut end = content.last;
    let parts = loop {
        match stream.header(end).await.map_err(engine)? {
            Some(Header::Page(id)) if id.frame == frame && id.part + 1 == id.parts => {
                break id.parts;
            }
            _ if end <= content.first => return Ok(None),
            _ => end -= 1,
        }
    };
    let mut frames = Frames::default();
    for sequence in end + 1 - u64::from(parts)..=end {
        let message = stream.message(sequence).await.map_err(engine)?;
        if let Ok(Taken::Frame { bytes, .. }) = frames.take(&message) {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// Ships the frames of the log that the stream lacks, and waits until it has them.
async fn ship_rest(shipping: &mut Shipping, store: &Store) -> Result<(), StartError> {
    let (mut next, last) = (shipping.shipper.released() + 1, store.last_frame());
    let begun = Instant::now();
    let mut told = begun;
    loop {
        if next <= last && shipping.shipper.bytes_waiting() < AHEAD_BYTES / 2 {
            let now = shipping.now();
            store.read_frames(next, |number, bytes, begins_segment| {
                shipping.shipper.push(now, number, bytes, begins_segment);
                next = number + 1;
                shipping.shipper.bytes_waiting() < AHEAD_BYTES
            })?;
        }
        shipping.turn().await;
        if let Some(end) = shipping.shipper.end_reason() {
            // Sealed or written by another one in this moment: what is there now is looked at again.
            return Err(StartError::Engine(end.to_string()));
        }
        if shipping.shipper.released() >= last {
            return Ok(());
        }
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            let (released, seconds) = (shipping.shipper.released(), begun.elapsed().as_secs());
            tracing::info!(released, last, seconds, "cluster: the log goes to its stream");
        }
        shipping.wait().await;
    }
}

/// Removes older streams: those that this one replaces, and those that were taken over completely, of which the seal is left.
async fn remove_obsolete(shipping: &Shipping) -> Result<(), StartError> {
    let (server, own) = (shipping.server(), shipping.stream().incarnation);
    let incarnations = server.incarnations().await.map_err(engine)?;
    for incarnation in incarnations.into_iter().filter(|&older| older < own) {
        let older = server.open(incarnation).await.map_err(engine)?;
        let content = Content::of(&older).await?;
        if content.seal.is_none() || content.first == content.last {
            server.remove(incarnation).await.map_err(engine)?;
        }
    }
    Ok(())
}
