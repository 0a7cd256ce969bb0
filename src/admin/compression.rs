//! Answers packed by gzip, and the lists in headers by which a client says what it accepts.

use std::io::{Read, Write};

use axum::http::HeaderMap;
use axum::http::header::ACCEPT_ENCODING;
use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

/// Packs an answer.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::fast());
    let packed = encoder.write_all(bytes).and_then(|()| encoder.finish());
    packed.expect("writing to a Vec does not fail")
}

/// The contents of a file that was packed while the broker was built.
pub(super) fn unpack(packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut plain).expect("the build has packed it");
    plain
}

/// Whether a request accepts gzip.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let codings = items(headers, ACCEPT_ENCODING.as_str());
    let of = |name: &str| codings.iter().find(|coding| coding.name == name);
    of("gzip").or(of("*")).is_some_and(|coding| coding.weight > 0)
}

/// An item of a list in a header.
pub(super) struct Item<'a> {
    /// Name.
    pub name: &'a str,
    /// Parameters other than the weight.
    pub parameters: Vec<(&'a str, &'a str)>,
    /// The parameter `q` in thousandths.
    pub weight: u32,
}

/// The items of a list in a header.
pub(super) fn items<'a>(headers: &'a HeaderMap, name: &str) -> Vec<Item<'a>> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let items = values.flat_map(|value| value.split(','));
    let item = |item: &'a str| {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let mut parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
        let weight = parameters.iter().position(|(name, _)| name.eq_ignore_ascii_case("q"));
        let weight = weight.map(|at| parameters.remove(at).1.parse().unwrap_or(0.0));
        let weight = (weight.unwrap_or(1.0_f64).clamp(0.0, 1.0) * 1_000.0) as u32;
        Item { name, parameters, weight }
    };
    items.map(item).collect()
}
