//! Numbers of listeners, which connections, metrics and access control know a listener by while the broker runs.

use super::{Bind, ConfigError, Listener, Settings, keys};

/// Numbers that a process uses at most: one for each address that it has ever listened on.
const NUMBERS_MAX: usize = 4_096;

/// The numbers of the listeners of a configuration. A reload keeps the number of a listener whose address stays, and
/// that of one that is gone. What numbers stand for is private: only a reload changes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerNumbers {
    /// The address or path of each number.
    binds: Vec<Bind>,
    /// The numbers in the order of the configuration.
    of_listeners: Vec<u16>,
}

impl ListenerNumbers {
    /// The numbers at a start: the order of the configuration.
    fn first(settings: &Settings) -> Self {
        let binds: Vec<Bind> = settings.every_listener().map(|listener| listener.bind).collect();
        Self { of_listeners: (0..binds.len() as u16).collect(), binds }
    }

    /// The numbers after a reload.
    fn next(&self, wanted: &Settings) -> Result<Self, ConfigError> {
        let mut next = Self { binds: self.binds.clone(), of_listeners: Vec::new() };
        for listener in wanted.every_listener() {
            let is_free = |number: &usize| !next.of_listeners.contains(&(*number as u16));
            let mut known = next.binds.iter().enumerate().filter(|(_, of)| **of == listener.bind);
            let number = known.find_map(|(number, _)| Some(number).filter(is_free));
            let number = number.unwrap_or(next.binds.len());
            if number == next.binds.len() {
                next.binds.push(listener.bind);
            }
            next.of_listeners.push(number as u16);
        }
        match next.binds.len() > NUMBERS_MAX {
            false => Ok(next),
            true => Err(ConfigError::at(
                keys::LISTENERS,
                format!(
                    "listen, [[listeners]]: this process has listened on {NUMBERS_MAX} different addresses; restart it \
                     to listen on others"
                ),
            )),
        }
    }
}

impl Settings {
    /// All listeners with their numbers.
    pub fn numbered_listeners(&self) -> impl Iterator<Item = (u16, Listener)> + '_ {
        let numbers = self.listener_numbers.of_listeners.iter().copied();
        // At a start the order of the configuration.
        let count = numbers.len() as u16;
        numbers.chain(count..).zip(self.every_listener())
    }

    /// How many numbers of listeners there are, those of listeners that are gone included.
    pub fn listener_numbers(&self) -> usize {
        self.listener_numbers.binds.len().max(self.listen.len() + self.listeners.len())
    }

    /// The port of the first listener at the start, which a reload does not change.
    pub(super) fn first_port(&self) -> Option<u16> {
        let port = |bind: &Bind| match bind {
            Bind::Address(address) => Some(address.port()),
            Bind::Path(_) => None,
        };
        match self.listener_numbers.binds.is_empty() {
            true => self.every_listener().find_map(|listener| port(&listener.bind)),
            false => self.listener_numbers.binds.iter().find_map(port),
        }
    }

    /// Numbers the listeners of a reload after those of the settings in force.
    pub(super) fn number_listeners(&mut self, running: &Self) -> Result<(), ConfigError> {
        let before = match running.listener_numbers.binds.is_empty() {
            true => &ListenerNumbers::first(running),
            false => &running.listener_numbers,
        };
        self.listener_numbers = before.next(self)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(binds: &[&str]) -> Settings {
        let listen = binds.iter().map(|bind| bind.parse().expect("an address")).collect();
        Settings { listen, ..Settings::default() }
    }

    fn numbers(of: &Settings) -> Vec<u16> {
        of.numbered_listeners().map(|(number, _)| number).collect()
    }

    #[test]
    fn a_listener_keeps_its_number_and_a_new_one_has_one_that_no_other_had() {
        let (a, b, c, any) = ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:0");
        let first = settings(&[a, b, any, any]);
        assert_eq!((numbers(&first), first.listener_numbers()), (vec![0, 1, 2, 3], 4));
        let mut second = settings(&[any, c, b]);
        second.number_listeners(&first).expect("few");
        assert_eq!((numbers(&second), second.listener_numbers()), (vec![2, 4, 1], 5));
        assert_eq!(second.first_port(), Some(1), "the folder of the store stays");
        let mut third = settings(&[any, a, any, any]);
        third.number_listeners(&second).expect("few");
        assert_eq!(numbers(&third), [2, 0, 3, 5]);
        let many: Vec<String> = (1..6_000).map(|port| format!("127.0.0.1:{port}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(settings(&many).number_listeners(&first).is_err());
    }
}
