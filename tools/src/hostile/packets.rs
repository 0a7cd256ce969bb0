//! Packets that a client may send and no well-behaved client does: of maximum length, depth or
//! number. Encodes bytes without a socket.

/// The fields of a CONNECT.
#[derive(Clone, Debug)]
pub struct Connect<'a> {
    /// 4 for MQTT 3.1.1, 5 for MQTT 5.0.
    pub level: u8,
    /// Client Identifier.
    pub client: &'a str,
    /// Clean Session, or Clean Start.
    pub clean: bool,
    /// Session Expiry Interval, in MQTT 5.0, if not 0.
    pub expiry_s: u32,
    /// Encoded User Properties, in MQTT 5.0.
    pub properties: &'a [u8],
    /// Topic and payload of a Will.
    pub will: Option<(&'a str, &'a [u8])>,
    /// Will Delay Interval, in MQTT 5.0, if not 0.
    pub will_delay_s: u32,
    /// User Name and Password.
    pub login: Option<(&'a str, &'a str)>,
}

impl<'a> Connect<'a> {
    /// An MQTT 5.0 session that ends with its connection.
    pub fn clean(client: &'a str) -> Self {
        Self {
            level: 5,
            client,
            clean: true,
            expiry_s: 0,
            properties: &[],
            will: None,
            will_delay_s: 0,
            login: None,
        }
    }

    /// A session that outlives its connection by an hour, and is resumed.
    pub fn kept(client: &'a str) -> Self {
        Self { clean: false, expiry_s: 3_600, ..Self::clean(client) }
    }

    /// The encoded packet. The Keep Alive is longer than any attack.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(64 + self.properties.len());
        put_text("MQTT", &mut body);
        let mut flags = u8::from(self.clean) << 1;
        flags |= if self.will.is_some() { 0b100 } else { 0 };
        flags |= if self.login.is_some() { 0b1100_0000 } else { 0 };
        body.extend_from_slice(&[self.level, flags, 0x0E, 0x10]);
        if self.level == 5 {
            let mut properties = Vec::with_capacity(self.properties.len() + 5);
            if self.expiry_s > 0 {
                properties.push(0x11);
                properties.extend_from_slice(&self.expiry_s.to_be_bytes());
            }
            properties.extend_from_slice(self.properties);
            put_length(properties.len(), &mut body);
            body.extend_from_slice(&properties);
        }
        put_text(self.client, &mut body);
        if let Some((topic, payload)) = self.will {
            match (self.level, self.will_delay_s) {
                (5, 0) => body.push(0),
                (5, delay_s) => {
                    body.extend_from_slice(&[5, 0x18]);
                    body.extend_from_slice(&delay_s.to_be_bytes());
                }
                _ => {}
            }
            put_text(topic, &mut body);
            put_bytes(payload, &mut body);
        }
        if let Some((name, password)) = self.login {
            put_text(name, &mut body);
            put_text(password, &mut body);
        }
        packet(0x10, &body)
    }
}

/// An MQTT 5.0 PUBLISH.
#[derive(Clone, Copy, Debug, Default)]
pub struct Publish<'a> {
    /// Topic Name.
    pub topic: &'a str,
    /// 0 to 2.
    pub qos: u8,
    /// RETAIN.
    pub retain: bool,
    /// Packet Identifier, above QoS 0.
    pub identifier: u16,
    /// Message Expiry Interval, if not 0.
    pub expiry_s: u32,
    /// Encoded User Properties.
    pub properties: &'a [u8],
    /// The Application Message.
    pub payload: &'a [u8],
}

impl Publish<'_> {
    /// Appends the packet to these bytes.
    pub fn append(&self, out: &mut Vec<u8>) {
        self.append_as(5, out);
    }

    /// Appends the packet in this protocol version.
    pub fn append_as(&self, level: u8, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(self.topic.len() + self.payload.len() + 16);
        put_text(self.topic, &mut body);
        if self.qos > 0 {
            body.extend_from_slice(&self.identifier.to_be_bytes());
        }
        if level == 5 {
            let expiry = if self.expiry_s > 0 { 5 } else { 0 };
            put_length(self.properties.len() + expiry, &mut body);
            if self.expiry_s > 0 {
                body.push(0x02);
                body.extend_from_slice(&self.expiry_s.to_be_bytes());
            }
            body.extend_from_slice(self.properties);
        }
        body.extend_from_slice(self.payload);
        put_packet(0x30 | self.qos << 1 | u8::from(self.retain), &body, out);
    }
}

/// SUBSCRIBE of MQTT 5.0.
pub fn subscribe<T: AsRef<str>>(identifier: u16, qos: u8, filters: &[T]) -> Vec<u8> {
    let mut body = identifier.to_be_bytes().to_vec();
    body.push(0);
    for filter in filters {
        put_text(filter.as_ref(), &mut body);
        body.push(qos);
    }
    packet(0x82, &body)
}

/// SUBSCRIBE to one filter with a Subscription Identifier, from 1 to 16,383.
pub fn subscribe_as(identifier: u16, filter: &str, subscription: u16) -> Vec<u8> {
    let mut body = identifier.to_be_bytes().to_vec();
    let mut property = vec![0x0B];
    put_length(usize::from(subscription), &mut property);
    put_length(property.len(), &mut body);
    body.extend_from_slice(&property);
    put_text(filter, &mut body);
    body.push(0);
    packet(0x82, &body)
}

/// UNSUBSCRIBE of MQTT 5.0.
pub fn unsubscribe<T: AsRef<str>>(identifier: u16, filters: &[T]) -> Vec<u8> {
    let mut body = identifier.to_be_bytes().to_vec();
    body.push(0);
    filters.iter().for_each(|filter| put_text(filter.as_ref(), &mut body));
    packet(0xA2, &body)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP with success, by the first byte.
pub fn append_acknowledgement(first_byte: u8, identifier: u16, out: &mut Vec<u8>) {
    let [high, low] = identifier.to_be_bytes();
    out.extend_from_slice(&[first_byte, 2, high, low]);
}

/// PINGREQ.
pub const PINGREQ: [u8; 2] = [0xC0, 0];

/// DISCONNECT with success.
pub const DISCONNECT: [u8; 2] = [0xE0, 0];

/// At most this many bytes of User Properties: as many names and values of one letter as fit.
pub fn user_properties(bytes: usize) -> Vec<u8> {
    [0x26, 0, 1, b'n', 0, 1, b'v'].repeat(bytes / 7)
}

/// Distinct texts, shortest first: printable, without wildcards, `/` and `$`.
pub fn short_names(count: usize) -> Vec<String> {
    let letters: Vec<char> = ('!'..='~').filter(|letter| !"#+/$".contains(*letter)).collect();
    let mut names = Vec::with_capacity(count);
    for number in 0..count {
        let (mut rest, mut name) = (number, String::new());
        loop {
            name.push(letters[rest % letters.len()]);
            rest /= letters.len();
            if rest == 0 {
                break;
            }
            rest -= 1;
        }
        names.push(name);
    }
    names
}

/// A text of this many levels; the bits of `number` select one of two texts for each level.
pub fn levels_by_bits(number: usize, levels: usize, zero: &str, one: &str) -> String {
    let level =
        |at: usize| if at < usize::BITS as usize && number >> at & 1 == 1 { one } else { zero };
    (0..levels).map(level).collect::<Vec<_>>().join("/")
}

/// A packet from its first byte and the bytes after the Remaining Length.
pub fn packet(first_byte: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 5);
    put_packet(first_byte, body, &mut out);
    out
}

fn put_packet(first_byte: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(first_byte);
    put_length(body.len(), out);
    out.extend_from_slice(body);
}

fn put_length(mut rest: usize, out: &mut Vec<u8>) {
    assert!(rest < 1 << 28, "a Remaining Length has four bytes");
    loop {
        let low = (rest & 0x7F) as u8;
        rest >>= 7;
        out.push(if rest == 0 { low } else { low | 0x80 });
        if rest == 0 {
            return;
        }
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_bytes(text.as_bytes(), out);
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(bytes.len()).expect("strings of MQTT are 65,535 bytes at most");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn packets_are_encoded_as_specified() {
        let mut publish = Vec::new();
        Publish { topic: "a", qos: 1, identifier: 7, payload: b"x", ..Publish::default() }
            .append(&mut publish);
        assert_eq!(publish, [0x32, 7, 0, 1, b'a', 0, 7, 0, b'x']);
        assert_eq!(subscribe(1, 0, &["#"]), [0x82, 7, 0, 1, 0, 0, 1, b'#', 0]);
        assert_eq!(subscribe_as(1, "#", 200), [0x82, 10, 0, 1, 3, 0x0B, 200, 1, 0, 1, b'#', 0]);
        assert_eq!(unsubscribe(1, &["#"]), [0xA2, 6, 0, 1, 0, 0, 1, b'#']);
        let connect = Connect { expiry_s: 1, clean: false, ..Connect::clean("c") }.encode();
        assert_eq!(connect[..2], [0x10, 19]);
        assert_eq!(connect[8..], [5, 0, 0x0E, 0x10, 5, 0x11, 0, 0, 0, 1, 0, 1, b'c']);
    }

    #[test]
    fn the_length_field_of_a_long_packet_has_the_required_size() {
        assert_eq!(packet(0x30, &[0; 127])[..2], [0x30, 127]);
        assert_eq!(packet(0x30, &[0; 128])[..3], [0x30, 0x80, 1]);
        assert_eq!(packet(0x30, &vec![0; 16_384])[..4], [0x30, 0x80, 0x80, 1]);
    }

    #[test]
    fn short_names_are_distinct_and_as_short_as_possible() {
        let names = short_names(10_000);
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        assert!(names.iter().all(|name| (1..=3).contains(&name.len())));
        assert!(names[..90].iter().all(|name| name.len() == 1));
    }

    #[test]
    fn deep_filters_are_distinct_and_have_the_requested_depth() {
        let filters: HashSet<_> = (0..1_000).map(|it| levels_by_bits(it, 250, "a", "+")).collect();
        assert_eq!(filters.len(), 1_000);
        assert!(filters.iter().all(|filter| filter.split('/').count() == 250));
    }
}
