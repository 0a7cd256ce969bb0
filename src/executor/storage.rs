//! A core's share in the store: it takes up its part of what was kept before it serves, hears what
//! the other cores took up, and hands over what is to be kept from then on.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::base::notifier::Notifier;
use crate::engine::Restored;
use crate::executor::Core;
use crate::storage::commit::Keeping;
use crate::storage::image::Image;
use crate::storage::log::{Progress, Reader, Store, StoreClient};

/// What one core needs.
pub struct Keeper {
    client: StoreClient,
    reader: Arc<Reader>,
    keeping: Keeping,
    /// To every core, this one included.
    tell: Vec<Sender<Told>>,
    hear: Receiver<Told>,
}

/// What one core says to the others.
type Told = Arc<Restored>;

impl Keeper {
    /// One for each core, which the store notifies.
    pub fn each(store: &mut Store, notifiers: &Arc<[Notifier]>) -> io::Result<Vec<Self>> {
        let reader = Arc::new(store.reader());
        let waits = store.waits();
        let clients = store.start(notifiers).map_err(io::Error::other)?;
        let wall_at_zero_us = store.started_us();
        let (tell, hear): (Vec<_>, Vec<_>) = clients.iter().map(|_| channel()).unzip();
        let keeper = |(client, hear)| Self {
            client,
            reader: Arc::clone(&reader),
            keeping: Keeping { wall_at_zero_us, waits },
            tell: tell.clone(),
            hear,
        };
        Ok(clients.into_iter().zip(hear).map(keeper).collect())
    }

    /// Takes up this core's part; done when all cores know of each other's.
    pub fn restore<S>(self, mut of: Core<S>) -> io::Result<Core<S>> {
        let Self { client, reader, keeping, tell, hear } = self;
        let engine = &mut of.engine;
        engine.keep(keeping);
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
        let cores = tell.len();
        let restored = Arc::new(restored);
        for tell in tell {
            // A core that is gone has failed, and says so itself.
            let _ = tell.send(Arc::clone(&restored));
        }
        for _ in 0..cores {
            let other = hear.recv().map_err(|_| io::Error::other("another core failed"))?;
            engine.learn_restored(&other);
        }
        of.keep_at(client);
        Ok(of)
    }
}
