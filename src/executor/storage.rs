//! A core's access to the store: restores the core's part of the stored state before the core serves, exchanges
//! with the other cores what they restored, and passes records to the store from then on.

use std::io;
use std::sync::Arc;

use crate::base::notifier::Notifier;
use crate::engine::Restored;
use crate::executor::Core;
use crate::storage::commit::JournalConfig;
use crate::storage::image::Image;
use crate::storage::log::{Progress, Reader, Store, StoreClient};

/// The access of one core.
pub struct CoreStore {
    client: StoreClient,
    reader: Arc<Reader>,
    config: JournalConfig,
    /// To every core, this one included.
    senders: Vec<flume::Sender<RestoredPart>>,
    receiver: flume::Receiver<RestoredPart>,
}

/// The restored state that one core announces to the others.
type RestoredPart = Arc<Restored>;

impl CoreStore {
    /// One for each core, which the store notifies.
    pub fn each(store: &mut Store, notifiers: &Arc<[Notifier]>) -> io::Result<Vec<Self>> {
        let reader = Arc::new(store.reader());
        let waits = store.waits();
        let clients = store.start(notifiers).map_err(io::Error::other)?;
        let wall_at_zero_us = store.started_us();
        let (senders, receivers): (Vec<_>, Vec<_>) =
            clients.iter().map(|_| flume::unbounded()).unzip();
        let of_core = |(client, receiver)| Self {
            client,
            reader: Arc::clone(&reader),
            config: JournalConfig { wall_at_zero_us, waits },
            senders: senders.clone(),
            receiver,
        };
        Ok(clients.into_iter().zip(receivers).map(of_core).collect())
    }

    /// Restores this core's part; returns when all cores know what the others have restored.
    pub fn restore<S>(self, mut of: Core<S>) -> io::Result<Core<S>> {
        let Self { client, reader, config, senders, receiver } = self;
        let engine = &mut of.engine;
        engine.open_journal(config);
        let core = engine.core();
        let mut image = Image::default();
        let mut progress = Progress::new(reader.bytes(), core.0 == 0);
        let read = reader.read(&mut progress, |batch| engine.read_records(&mut image, batch));
        read.map_err(io::Error::other)?;
        let restored = engine.restore(image);
        let (sessions, wills) = (restored.sessions, restored.wills);
        if sessions + wills > 0 {
            let messages = restored.messages;
            tracing::info!(core = core.0, sessions, messages, wills, "restored");
        }
        let cores = senders.len();
        let restored = Arc::new(restored);
        for sender in senders {
            // A core that has ended has failed, and reports that itself.
            let _ = sender.send(Arc::clone(&restored));
        }
        for _ in 0..cores {
            let other = receiver.recv().map_err(|_| io::Error::other("another core failed"))?;
            engine.learn_restored(&other);
        }
        engine.end_restore();
        of.set_store(client);
        Ok(of)
    }
}
