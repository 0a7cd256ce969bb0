//! The PROXY protocol, versions 1 and 2: a header with the address of the client for whom a proxy connects
//! (`proxy-protocol.txt` of HAProxy). Expected only from configured proxies: an address from any other peer
//! could be forged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::base::identity::CertificateIdentity;
use crate::config::listener::ProxiedIdentity;

/// First bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// First bytes of version 1.
const NAME: &[u8] = b"PROXY ";
/// Longest header of version 1, with the end of line.
const LINE_BYTES_MAX: usize = 107;
/// Bytes of a version 2 header that its length field does not count.
const FIXED_BYTES: usize = 16;
/// Limit of the length field of version 2: more than any proxy sends.
const EXTRA_BYTES_MAX: usize = 4_096;

/// Longest Common Name, which is kept as long as the connection.
const COMMON_NAME_BYTES_MAX: usize = 256;

/// Extension about the client's TLS (`PP2_TYPE_SSL`), and the sub-extension with the Common Name of its certificate.
const TYPE_TLS: u8 = 0x20;
const TYPE_COMMON_NAME: u8 = 0x22;
/// Bits of the extension: the client uses TLS; it presented a certificate in this connection, or in the session
/// that this connection resumes.
const CLIENT_TLS: u8 = 0x01;
const CLIENT_CERTIFICATE: u8 = 0x02 | 0x04;

/// What is asked of a header.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Identity to read from the certificate.
    pub identity: ProxiedIdentity,
    /// The header has to say that the client uses TLS.
    pub requires_tls: bool,
}

/// A header that may be incomplete.
#[derive(Debug, Default)]
pub struct Header {
    bytes: Vec<u8>,
    rules: Rules,
}

/// Content of a header.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Address of the client; none for a connection of the proxy itself.
    pub address: Option<SocketAddr>,
    /// Identity from the certificate, if the proxy verified one and it is configured.
    pub certificate: Option<Box<CertificateIdentity>>,
}

impl Header {
    /// An empty header.
    pub fn new(rules: Rules) -> Self {
        Self { bytes: Vec::new(), rules }
    }

    /// Memory of an incomplete header.
    pub(super) fn bytes_held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Processes received bytes. Once the header is complete, returns how many of `bytes` belong to it, and its
    /// content.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<(usize, Said)>, &'static str> {
        let before = self.bytes.len();
        // At most the length of a header: the bytes after it are from the client.
        let most = FIXED_BYTES + EXTRA_BYTES_MAX;
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(most - before)]);
        let Some(parsed) = parse(&self.bytes)? else { return Ok(None) };
        debug_assert!(parsed.length > before, "it was not whole before");
        if self.rules.requires_tls && !uses_tls(parsed.extensions)? {
            return Err("a PROXY header that does not say that the client uses TLS");
        }
        let certificate = match self.rules.identity {
            ProxiedIdentity::None => None,
            ProxiedIdentity::Cn => common_name(parsed.extensions)?,
        };
        Ok(Some((parsed.length - before, Said { address: parsed.address, certificate })))
    }
}

/// A complete header.
struct Parsed<'a> {
    length: usize,
    address: Option<SocketAddr>,
    /// Extensions of version 2.
    extensions: &'a [u8],
}

/// The header at the start of `bytes`; none if it is incomplete.
fn parse(bytes: &[u8]) -> Result<Option<Parsed<'_>>, &'static str> {
    let begins = |with: &[u8]| {
        let common = bytes.len().min(with.len());
        bytes[..common] == with[..common]
    };
    match bytes {
        [] => Ok(None),
        _ if begins(SIGNATURE) => parse_binary(bytes),
        _ if begins(NAME) => parse_line(bytes),
        _ => Err("no PROXY header from a configured proxy"),
    }
}

/// Version 1: a line of text.
fn parse_line(bytes: &[u8]) -> Result<Option<Parsed<'_>>, &'static str> {
    let seen = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return match seen.len() {
            LINE_BYTES_MAX => Err("a PROXY line without an end"),
            _ => Ok(None),
        };
    };
    let line = std::str::from_utf8(&seen[..end]).map_err(|_| "a PROXY line that is not UTF-8")?;
    let words: Vec<&str> = line.split(' ').collect();
    let address = match words[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family, source, destination, port, destination_port] => {
            let ip = |text: &str| match family {
                "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
                "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
                _ => None,
            };
            let source = ip(source).zip(port.parse().ok());
            let destination = ip(destination).zip(destination_port.parse::<u16>().ok());
            let source = source.filter(|_| destination.is_some());
            Some(SocketAddr::from(source.ok_or("a PROXY line with invalid addresses")?))
        }
        _ => return Err("a PROXY line with missing or extra words"),
    };
    Ok(Some(Parsed { length: end + 2, address, extensions: &[] }))
}

/// Version 2: binary.
fn parse_binary(bytes: &[u8]) -> Result<Option<Parsed<'_>>, &'static str> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > EXTRA_BYTES_MAX {
        return Err("a PROXY header longer than 4,096 bytes");
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err("a PROXY header with an unknown version or command"),
    };
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let short = "a PROXY header too short for its addresses";
    // Addresses and ports of both ends, or names of sockets.
    let addresses = match family {
        _ if is_local => body.len(),
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => 0,
    };
    let address = match family {
        // A connection of the proxy itself, such as a health check, or of an address family without addresses.
        _ if is_local => None,
        0x11 => {
            let body = body.first_chunk::<12>().ok_or(short)?;
            let [a, b, c, d, _, _, _, _, high, low, ..] = *body;
            Some((IpAddr::from([a, b, c, d]), u16::from_be_bytes([high, low])))
        }
        0x21 => {
            let (source, ports) = body.split_first_chunk::<16>().ok_or(short)?;
            let port = ports.get(16..20).ok_or(short)?;
            Some((IpAddr::from(*source), u16::from_be_bytes([port[0], port[1]])))
        }
        0x00 | 0x31 => None,
        _ => return Err("a PROXY header for a protocol other than TCP"),
    };
    Ok(Some(Parsed {
        length: FIXED_BYTES + length,
        address: address.map(SocketAddr::from),
        extensions: body.get(addresses..).unwrap_or_default(),
    }))
}

/// The first extension of a type. An extension is type, length and value.
fn extension(mut extensions: &[u8], wanted: u8) -> Result<Option<&[u8]>, &'static str> {
    let cut = "a PROXY header whose extensions are cut short";
    while let [kind, rest @ ..] = extensions {
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(cut)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (value, rest) = rest.split_at_checked(length).ok_or(cut)?;
        if *kind == wanted {
            return Ok(Some(value));
        }
        extensions = rest;
    }
    Ok(None)
}

/// Whether the client uses TLS. Version 1 does not tell.
fn uses_tls(extensions: &[u8]) -> Result<bool, &'static str> {
    let tls = extension(extensions, TYPE_TLS)?;
    Ok(tls.and_then(<[u8]>::first).is_some_and(|client| client & CLIENT_TLS != 0))
}

/// Identity from the client certificate, if the proxy verified it.
fn common_name(extensions: &[u8]) -> Result<Option<Box<CertificateIdentity>>, &'static str> {
    let Some(tls) = extension(extensions, TYPE_TLS)? else { return Ok(None) };
    let short = "a PROXY header with an incomplete TLS extension";
    let (&[client, verify @ ..], within) = tls.split_first_chunk::<5>().ok_or(short)?;
    if client & CLIENT_TLS == 0 || client & CLIENT_CERTIFICATE == 0 || verify != [0; 4] {
        return Ok(None);
    }
    let Some(name) = extension(within, TYPE_COMMON_NAME)? else { return Ok(None) };
    if name.is_empty() || name.len() > COMMON_NAME_BYTES_MAX || name.contains(&0) {
        return Err(
            "a PROXY header with a Common Name that is empty, longer than 256 bytes or not text",
        );
    }
    let name = std::str::from_utf8(name)
        .map_err(|_| "a PROXY header with a Common Name that is not UTF-8")?;
    let identity = CertificateIdentity {
        common_name: Some(name.into()),
        name: Some(name.into()),
        ..CertificateIdentity::default()
    };
    Ok(Some(Box::new(identity)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    /// Whole and in every two pieces, followed by something of the client's.
    fn taken(header: &[u8]) -> Result<Option<SocketAddr>, &'static str> {
        let all = [header, b"\x10\x0c rest"].concat();
        let whole = Header::default().take(&all)?.expect("it is whole");
        assert_eq!(whole.0, header.len());
        for cut in 0..header.len() {
            let mut pieces = Header::default();
            assert_eq!(pieces.take(&all[..cut]), Ok(None), "cut at {cut}");
            let rest = pieces.take(&all[cut..])?.expect("it is whole");
            assert_eq!((rest.0, &rest.1), (header.len() - cut, &whole.1));
        }
        Ok(whole.1.address)
    }

    fn extension_of(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind], &(value.len() as u16).to_be_bytes()[..], value].concat()
    }

    /// What HAProxy says of TLS with `send-proxy-v2-ssl-cn`.
    fn tls(client: u8, verify: u8, name: &[u8]) -> Vec<u8> {
        let version = extension_of(0x21, b"TLSv1.3");
        let name = extension_of(TYPE_COMMON_NAME, name);
        extension_of(TYPE_TLS, &[&[client, 0, 0, 0, verify], &version[..], &name].concat())
    }

    fn of_identity(identity: ProxiedIdentity) -> Header {
        Header::new(Rules { identity, requires_tls: false })
    }

    /// The name that a header brings where Common Names are asked for.
    fn named(
        family: u8,
        addresses: &[u8],
        extensions: &[u8],
    ) -> Result<Option<String>, &'static str> {
        let header = binary(0x21, family, &[addresses, extensions].concat());
        let said = of_identity(ProxiedIdentity::Cn).take(&header)?.expect("it is whole").1;
        let silent = of_identity(ProxiedIdentity::None).take(&header)?.expect("it is whole").1;
        assert_eq!(silent, Said { certificate: None, address: said.address });
        Ok(said.certificate.and_then(|certificate| certificate.name).map(String::from))
    }

    #[test]
    fn the_common_name_of_a_certificate_that_a_proxy_has_verified_is_taken_where_it_is_asked_for() {
        let alpn = extension_of(0x01, b"mqtt");
        let good = [&alpn[..], &tls(7, 0, "pump é".as_bytes())].concat();
        for (family, addresses) in [(0x11, 12), (0x21, 36), (0x31, 216), (0x00, 0)] {
            let name = named(family, &vec![1; addresses], &good);
            assert_eq!(name, Ok(Some("pump é".to_owned())), "{family:#x}");
        }
        // In clear, without a certificate, with one that is not good, or not said.
        for other in [
            tls(0, 0, b"pump"),
            tls(1, 0, b"pump"),
            tls(6, 0, b"pump"),
            tls(7, 1, b"pump"),
            extension_of(TYPE_TLS, &[7, 0, 0, 0, 0]),
            alpn,
            Vec::new(),
        ] {
            assert_eq!(named(0x11, &[1; 12], &other), Ok(None), "{other:?}");
        }
        // Its own connection, such as a health check, is nobody's.
        let header = binary(0x20, 0x11, &[&[1; 12][..], &tls(7, 0, b"pump")].concat());
        let said = of_identity(ProxiedIdentity::Cn).take(&header).expect("good").expect("whole").1;
        assert_eq!(said, Said::default());
        for wrong in [
            tls(7, 0, b""),
            tls(7, 0, b"a\0b"),
            tls(7, 0, b"\xFF"),
            tls(7, 0, &[b'x'; 257]),
            extension_of(TYPE_TLS, &[7, 0, 0]),
            tls(7, 0, b"pump")[..9].to_vec(),
        ] {
            let header = binary(0x21, 0x11, &[&[1; 12][..], &wrong].concat());
            assert!(of_identity(ProxiedIdentity::Cn).take(&header).is_err(), "{wrong:?}");
            assert!(of_identity(ProxiedIdentity::None).take(&header).is_ok(), "{wrong:?}");
        }
    }

    #[test]
    fn where_tls_is_required_a_header_has_to_say_that_the_client_uses_it() {
        let take = |header: &[u8]| {
            let rules = Rules { requires_tls: true, ..Rules::default() };
            Header::new(rules).take(header).map(|said| said.is_some())
        };
        let of = |extensions: &[u8]| binary(0x21, 0x11, &[&[1; 12][..], extensions].concat());
        assert_eq!(take(&of(&tls(1, 0, b""))), Ok(true), "without a certificate");
        assert_eq!(take(&of(&tls(7, 0, b"pump"))), Ok(true));
        for without in [
            of(&tls(0, 0, b"")),
            of(&[]),
            of(&extension_of(TYPE_TLS, &[])),
            binary(0x20, 0x11, &[1; 12]),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 5 1883\r\n".to_vec(),
        ] {
            let error = take(&without).expect_err("no TLS");
            assert!(error.contains("uses TLS"), "{error}");
            assert!(Header::default().take(&without).is_ok_and(|said| said.is_some()));
        }
    }

    #[test]
    fn a_proxy_says_where_its_client_is_in_both_versions() {
        let v4 = Ok(Some("192.0.2.7:5".parse().expect("an address")));
        let v6 = Ok(Some("[2001:db8::7]:65535".parse().expect("an address")));
        assert_eq!(taken(b"PROXY TCP4 192.0.2.7 198.51.100.1 5 1883\r\n"), v4);
        assert_eq!(taken(b"PROXY TCP6 2001:db8::7 ::1 65535 1\r\n"), v6);
        let body = b"\xc0\x00\x02\x07\xc6\x33\x64\x01\x00\x05\x07\x5b";
        assert_eq!(taken(&binary(0x21, 0x11, body)), v4);
        let with_more = [&body[..], b"\x04\x00\x01x"].concat();
        assert_eq!(taken(&binary(0x21, 0x11, &with_more)), v4);
        let ip: Ipv6Addr = "2001:db8::7".parse().expect("an address");
        let body = [&ip.octets()[..], &[0; 16], b"\xff\xff\x00\x01"].concat();
        assert_eq!(taken(&binary(0x21, 0x21, &body)), v6);
    }

    #[test]
    fn a_proxy_that_speaks_for_itself_keeps_its_address() {
        for header in [
            &b"PROXY UNKNOWN\r\n"[..],
            b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
            &binary(0x20, 0x00, &[]),
            &binary(0x20, 0x11, &[1; 12]),
            &binary(0x21, 0x00, b"x"),
            &binary(0x21, 0x31, &[0; 216]),
        ] {
            assert_eq!(taken(header), Ok(None), "{header:?}");
        }
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        for wrong in [
            &b"\x10\x0c\x00\x04MQTT"[..],
            b"GET / HTTP/1.1\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
            &[&b"PROXY "[..], &[b'x'; 120]].concat(),
            &binary(0x11, 0x11, &[0; 12]),
            &binary(0x21, 0x11, &[0; 11]),
            &binary(0x21, 0x21, &[0; 35]),
            &binary(0x21, 0x12, &[0; 12]),
            &[&SIGNATURE[..], b"\x21\x11\xff\xff"].concat(),
        ] {
            assert!(Header::default().take(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_in_whatever_pieces_is_judged_alike(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            cut in 0usize..200,
            is_binary in any::<bool>(),
        ) {
            let all = match is_binary {
                true => [&SIGNATURE[..], &bytes].concat(),
                false => [NAME, &bytes].concat(),
            };
            let identity = if cut % 2 == 0 { ProxiedIdentity::Cn } else { ProxiedIdentity::None };
            let whole = of_identity(identity).take(&all);
            let mut pieces = of_identity(identity);
            let (first, second) = all.split_at(cut.min(all.len()));
            let split = match pieces.take(first) {
                Ok(None) => pieces.take(second).map(|t| t.map(|(n, a)| (n + first.len(), a))),
                early => early,
            };
            prop_assert_eq!(whole, split);
        }
    }
}
