//! Keys of a process, and the Client Identifiers that the broker assigns.
//!
//! Peers see assigned Client Identifiers. They are a keyed function of a counter, SipHash-2-4
//! (Aumasson and Bernstein, 2012), whose key is used for nothing else: identifiers reveal
//! neither the next one nor anything about the key of the hash tables.

use crate::base::ids::CoreId;

/// Secrets of a process, the same for all its cores, drawn independently of each other.
#[derive(Clone, Copy)]
pub struct Keys {
    /// Of hash tables whose keys peers choose.
    pub tables: u64,
    /// Of assigned Client Identifiers.
    pub identifiers: [u64; 2],
}

impl Keys {
    /// Keys that depend on a seed alone, for repeatable tests and simulations.
    pub fn fixed(seed: u64) -> Self {
        Self { tables: seed, identifiers: [seed, !seed] }
    }
}

impl std::fmt::Debug for Keys {
    /// Keys do not reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

/// The Client Identifiers that one core assigns.
#[derive(Debug)]
pub(super) struct AssignedIdentifiers {
    keys: Keys,
    core: CoreId,
    drawn: u64,
}

impl AssignedIdentifiers {
    pub(super) fn new(keys: Keys, core: CoreId) -> Self {
        Self { keys, core, drawn: 0 }
    }

    /// The next identifier, which begins with `prefix`.
    pub(super) fn draw(&mut self, prefix: &str) -> String {
        let number = self.draw_number();
        let digit = |place| DIGITS[(number >> (4 * place)) as usize & 0xF] as char;
        let mut identifier = String::with_capacity(prefix.len() + NUMBER_DIGITS);
        identifier.push_str(prefix);
        identifier.extend((0..NUMBER_DIGITS).rev().map(digit));
        identifier
    }

    fn draw_number(&mut self) -> u64 {
        self.drawn += 1;
        sip_hash(self.keys.identifiers, [self.core.0.into(), self.drawn])
    }
}

/// The length of the hexadecimal number that follows the prefix.
const NUMBER_DIGITS: usize = 16;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Whether a Client Identifier has the form of those that are assigned with this prefix: its client gets another one when it
/// comes back.
pub fn is_assigned(client_identifier: &str, prefix: &str) -> bool {
    client_identifier.strip_prefix(prefix).is_some_and(|number| {
        number.len() == NUMBER_DIGITS
            && number.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// SipHash-2-4 of two words.
fn sip_hash([k0, k1]: [u64; 2], words: [u64; 2]) -> u64 {
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let bytes = size_of_val(&words) as u64;
    for word in words.into_iter().chain([bytes << 56]) {
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    (0..4).for_each(|_| round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_function_of_the_reference_implementation() {
        // vectors_sip64 of the reference: key 00…0f, message 00…0f.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        assert_eq!(sip_hash(key, key), 0x3f2a_cc7f_57c2_9bdb);
    }

    #[test]
    fn assigned_identifiers_depend_on_their_own_key_and_core_alone() {
        let draw = |keys, core| {
            let mut names = AssignedIdentifiers::new(keys, CoreId(core));
            [names.draw_number(), names.draw_number(), names.draw_number()]
        };
        let keys = Keys::fixed(7);
        assert_eq!(draw(keys, 0), draw(Keys { tables: 8, ..keys }, 0));
        assert_ne!(draw(keys, 0), draw(keys, 1));
        assert_ne!(draw(keys, 0), draw(Keys { identifiers: [7, 0], ..keys }, 0));
    }

    #[test]
    fn an_assigned_identifier_has_its_prefix_and_is_recognized_by_it() {
        let mut names = AssignedIdentifiers::new(Keys::fixed(7), CoreId(0));
        for prefix in ["auto-", "x"] {
            let name = names.draw(prefix);
            assert!(name.starts_with(prefix) && is_assigned(&name, prefix), "{name}");
            assert!(!is_assigned(&name, "other-") && !is_assigned(&format!("{name}0"), prefix));
        }
    }

    /// Identifiers used to be SplitMix64 from the seed of the tables, whose state any output reveals.
    #[test]
    fn an_assigned_identifier_does_not_give_away_the_next_one_or_the_key_of_the_tables() {
        let unshift = |mixed: u64, bits: u32| {
            let mut word = mixed;
            (0..3).for_each(|_| word = mixed ^ word >> bits);
            word
        };
        let state_of = |output: u64| {
            let mut word = unshift(output, 31).wrapping_mul(0x3196_42b2_d24d_8ec3);
            word = unshift(word, 27).wrapping_mul(0x96de_1b17_3f11_9089);
            unshift(word, 30)
        };
        let split_mix = |state: u64| {
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed ^ (mixed >> 31)
        };
        let step = 0x9E37_79B9_7F4A_7C15_u64;
        assert_eq!(state_of(split_mix(42_u64.wrapping_add(step))).wrapping_sub(step), 42);
        let keys = Keys::fixed(42);
        let mut names = AssignedIdentifiers::new(keys, CoreId(0));
        let state = state_of(names.draw_number());
        assert_ne!(state.wrapping_sub(step), keys.tables);
        assert_ne!(split_mix(state.wrapping_add(step)), names.draw_number());
    }
}
