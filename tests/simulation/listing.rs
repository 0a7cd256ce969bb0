//! An operator lists the clients of all cores, in small pages, while clients come and go: a client that stays
//! connected is shown exactly once, and no client twice.

use std::collections::BTreeMap;

use ringmq::control::answer::{ClientSummary, Page};
use ringmq::control::question::{ClientFilter, ListingPlace, PageRequest, Question};
use ringmq::control::{EngineCommand, Replies, replies};

use crate::client::Client;
use crate::world::World;

/// Entries of a page: most listings take several.
const LIMIT: usize = 2;

#[derive(Default)]
pub struct Listings(Vec<Listing>);

/// A listing in progress.
struct Listing {
    /// The core that is asked, and what it has not answered yet.
    core: usize,
    page: Replies<Page<ClientSummary>>,
    /// How often each client was shown.
    shown: BTreeMap<String, usize>,
    /// By client, the connection that it has had since the listing began.
    links: Vec<Option<usize>>,
}

impl Listings {
    pub fn begin(&mut self, world: &mut World, clients: &[Client]) {
        let page = ask(world, 0, ListingPlace::default());
        let link = |client: &Client| client.link.filter(|_| client.is_connected);
        let links = clients.iter().map(link).collect();
        self.0.push(Listing { core: 0, page, shown: BTreeMap::new(), links });
    }

    /// The broker has crashed.
    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// Takes answers and asks for the next pages.
    pub fn look(&mut self, world: &mut World, clients: &[Client]) -> Result<(), String> {
        let mut ended = Vec::new();
        for (number, listing) in self.0.iter_mut().enumerate() {
            for (link, client) in listing.links.iter_mut().zip(clients) {
                *link = link.filter(|&link| client.is_connected && client.link == Some(link));
            }
            let Some((_, answer)) = listing.page.try_next() else { continue };
            let page = answer.map_err(|refused| format!("a listing is refused: {refused}"))?;
            for client in page.entries {
                *listing.shown.entry(client.client_id.to_string()).or_default() += 1;
            }
            match page.next {
                Some(place) => listing.page = ask(world, listing.core, place),
                None if listing.core + 1 < world.cores() => {
                    listing.core += 1;
                    listing.page = ask(world, listing.core, ListingPlace::default());
                }
                None => ended.push(number),
            }
        }
        for number in ended.into_iter().rev() {
            self.0.remove(number).check(clients)?;
        }
        Ok(())
    }

    /// Everything is at rest.
    pub fn check_ended(&self) -> Result<(), String> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(format!("{left} listings do not end")),
        }
    }
}

impl Listing {
    fn check(&self, clients: &[Client]) -> Result<(), String> {
        if let Some((client, times)) = self.shown.iter().find(|(_, times)| **times > 1) {
            return Err(format!("a listing shows {client} {times} times"));
        }
        let mut stable = clients.iter().zip(&self.links).filter(|(_, link)| link.is_some());
        match stable.find(|(client, _)| !self.shown.contains_key(&client.name)) {
            Some((client, _)) => Err(format!("a listing leaves {} out", client.name)),
            None => Ok(()),
        }
    }
}

fn ask(world: &mut World, core: usize, from: ListingPlace) -> Replies<Page<ClientSummary>> {
    let (to, replies) = replies();
    let (filter, page) = (Box::<ClientFilter>::default(), PageRequest { from, limit: LIMIT });
    let question = Question::Clients { filter, page, reply: to.core(core) };
    world.command(core, EngineCommand::Ask(question));
    replies
}
