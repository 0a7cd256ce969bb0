//! TLS of a bridge. As in Mosquitto, a bridge uses it if the authorities of the other broker are named.

use toml::Value;

use super::super::listener::{take_ciphers, take_ciphers_of_1_3, unless_false};
use super::super::syntax::Line;
use super::super::translation::{Effect, Outcome, Translator};
use super::super::{ignored, refused};
use super::Draft;

/// Options that name authorities, the first of which counts.
const AUTHORITIES: [&str; 3] = ["bridge_cafile", "bridge_capath", "bridge_tls_use_os_certs"];

/// Takes an option of TLS; none if the option is of another kind.
pub(super) fn take(
    translator: &mut Translator,
    bridge: usize,
    line: &Line,
    place: usize,
) -> Option<Outcome> {
    let draft = &mut translator.bridges[bridge];
    let outcome = match line.option.as_str() {
        "bridge_cafile" | "bridge_capath" => line.text().map(|_| note(draft, line, place)),
        "bridge_tls_use_os_certs" => line.boolean().map(|is_asked| match is_asked {
            true => note(draft, line, place),
            false => Effect::Taken,
        }),
        "bridge_certfile" => set(draft, line, place, "tls.certificate"),
        "bridge_keyfile" => set(draft, line, place, "tls.key"),
        "bridge_alpn" => line.text().map(str::to_owned).map(|protocol| {
            draft.set("tls.alpn", vec![Value::from(protocol)], Some(place));
            note(draft, line, place)
        }),
        "bridge_insecure" => line.boolean().map(|is_asked| {
            if is_asked {
                draft.set("tls.verify_name", false, Some(place));
            }
            note(draft, line, place)
        }),
        "bridge_tls_version" => take_version(draft, line, place),
        "bridge_ciphers" => take_ciphers(line),
        "bridge_ciphers_tls1.3" => take_ciphers_of_1_3(line),
        "bridge_require_ocsp" => {
            unless_false(line, "certificates are not asked for by OCSP; remove the line")
        }
        "bridge_identity" | "bridge_psk" => {
            refused("pre-shared keys are not supported; use certificates, or passwords over TLS")
        }
        _ => return None,
    };
    Some(outcome)
}

/// Notes the place of an option that has an effect with TLS only.
fn note(draft: &mut Draft, line: &Line, place: usize) -> Effect {
    draft.options.insert(line.option.clone(), place);
    Effect::Taken
}

fn set(draft: &mut Draft, line: &Line, place: usize, key: &str) -> Outcome {
    draft.set(key, line.text()?, Some(place));
    Ok(note(draft, line, place))
}

/// The least version.
fn take_version(draft: &mut Draft, line: &Line, place: usize) -> Outcome {
    let versions: &[&str] = match line.word()? {
        "tlsv1.3" => &["1.3"],
        "tlsv1.2" => &["1.2", "1.3"],
        "tlsv1.1" | "tlsv1" => {
            return refused("TLS 1.0 and 1.1 are not supported; use tlsv1.2, or remove the line");
        }
        other => return refused(format!("{other:?} is neither tlsv1.3 nor tlsv1.2")),
    };
    let versions: Vec<Value> = versions.iter().map(|&version| version.into()).collect();
    draft.set("tls.versions", versions, Some(place));
    Ok(note(draft, line, place))
}

/// Sets the authorities, or takes the keys of TLS away if there are none. Whether the bridge uses TLS.
pub(super) fn finish(translator: &mut Translator, draft: &mut Draft) -> bool {
    let places = AUTHORITIES.map(|name| draft.options.get(name).copied());
    let mut named = AUTHORITIES.iter().zip(places).filter_map(|(name, at)| Some((*name, at?)));
    let Some((name, place)) = named.next() else {
        let of_tls = draft.keys.extract_if(.., |key, _| key.starts_with("tls."));
        for place in of_tls
            .filter_map(|(_, (_, by))| by)
            .chain(draft.options.get("bridge_insecure").copied())
        {
            translator.outcomes[place] = ignored(
                "no effect without bridge_cafile, bridge_capath or bridge_tls_use_os_certs, as in Mosquitto",
            );
        }
        return false;
    };
    let authorities = match name {
        "bridge_tls_use_os_certs" => "system".to_owned(),
        _ => translator.lines[place].value.clone(),
    };
    draft.set("tls.ca", authorities, Some(place));
    for (_, other) in named {
        translator.outcomes[other] = refused(format!(
            "authorities are read from one place ({}); remove one of them",
            translator.set_at(place)
        ));
    }
    let files = ["tls.certificate", "tls.key"].map(|key| draft.keys.get(key).and_then(|of| of.1));
    if let [Some(place), None] | [None, Some(place)] = files {
        translator.outcomes[place] =
            refused("bridge_certfile and bridge_keyfile belong together; add the other one");
    }
    true
}
