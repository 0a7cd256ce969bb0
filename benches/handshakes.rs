//! Cost of a TLS handshake for the broker, step by step: `cargo bench --bench handshakes`.
//! `tls_handshakes_per_turn_max` limits these steps: the first answers the ClientHello, the second
//! completes the handshake. With `RINGMQ_BENCH_SHORT=1` it only verifies that the benchmarks run.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use divan::{Bencher, Divan};
use ringmq::base::ids::Peer;
use ringmq::base::send_buffer::SendBuffer;
use ringmq::config::listener::{Listener, Transport as Kind};
use ringmq::transport::{Handshake, ListenerPolicy, Scratch, Transport, tls::TlsConfig};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};

fn main() {
    let is_short = std::env::var_os("RINGMQ_BENCH_SHORT").is_some_and(|value| value == "1");
    let divan = Divan::from_args();
    let divan = if is_short {
        divan.sample_count(2).sample_size(1).max_time(Duration::from_millis(50))
    } else {
        divan.sample_count(1_000).sample_size(1)
    };
    divan.main();
}

/// A kind of key, and how clients connect with it.
#[derive(Clone, Copy, Debug)]
enum Case {
    EcdsaP256,
    Rsa2048,
    Resumed,
    EcdsaP256Tls12,
    ResumedTls12,
}

const CASES: [Case; 5] =
    [Case::EcdsaP256, Case::Rsa2048, Case::Resumed, Case::EcdsaP256Tls12, Case::ResumedTls12];

/// A listener, and the configuration of its clients.
struct Place {
    policy: ListenerPolicy,
    client: Arc<ClientConfig>,
    is_resumed: bool,
}

impl Place {
    /// `None` without `openssl`, which generates the RSA key, as *ring* cannot.
    fn of(case: Case) -> Option<Self> {
        let key = match case {
            Case::Rsa2048 => rcgen::KeyPair::from_pem(RSA.as_deref()?).expect("PKCS #8"),
            _ => rcgen::KeyPair::generate().expect("a key"),
        };
        let names = vec!["localhost".to_owned()];
        let params = rcgen::CertificateParams::new(names).expect("a name");
        let certificate = params.self_signed(&key).expect("self-signed");
        let mut listener = Listener::tcp("127.0.0.1:0".parse().expect("an address"));
        listener.transport = Kind::Tls;
        (listener.tls.certificate, listener.tls.key) = ("certificate".into(), "key".into());
        let read = |path: &Path| -> io::Result<Vec<u8>> {
            let is_key = path == Path::new("key");
            Ok(if is_key { key.serialize_pem() } else { certificate.pem() }.into_bytes())
        };
        let tls_config = TlsConfig::open(&listener, &read).expect("a matching pair");
        let version: &SupportedProtocolVersion = match case {
            Case::EcdsaP256Tls12 | Case::ResumedTls12 => &version::TLS12,
            _ => &version::TLS13,
        };
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("a valid certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let is_resumed = matches!(case, Case::Resumed | Case::ResumedTls12);
        let policy = ListenerPolicy::new(&listener, Some(tls_config));
        Some(Self { policy, client: Arc::new(client), is_resumed })
    }

    /// A connection whose client has created its ClientHello.
    fn come(&self) -> Coming {
        if self.is_resumed {
            // A ticket can be used once.
            self.begin().finish();
        }
        self.begin()
    }

    fn begin(&self) -> Coming {
        let mut client = Arc::clone(&self.client);
        if !self.is_resumed {
            Arc::make_mut(&mut client).resumption = rustls::client::Resumption::disabled();
        }
        let peer = Peer { address: None, listener: 0 };
        let transport = self.policy.transport_for(&peer).expect("TLS");
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(client, name).expect("a valid configuration");
        let mut coming = Coming { transport, client, hello: Vec::new(), handshake: None };
        coming.say();
        coming
    }
}

/// Created once, which takes a second.
static RSA: LazyLock<Option<String>> = LazyLock::new(|| {
    let arguments = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
    let made = Command::new("openssl").args(arguments).output().ok()?;
    String::from_utf8(made.stdout).ok().filter(|_| made.status.success())
});

/// A connection during the handshake, and the client's last message.
struct Coming {
    transport: Box<Transport>,
    client: ClientConnection,
    hello: Vec<u8>,
    handshake: Option<Handshake>,
}

impl Coming {
    fn say(&mut self) {
        self.hello.clear();
        while self.client.wants_write() {
            self.client.write_tls(&mut self.hello).expect("memory takes all");
        }
    }

    /// One step of the broker.
    fn step(&mut self, scratch: &mut Scratch) {
        let received = self.transport.receive(&self.hello, scratch).expect("a valid message");
        self.handshake = self.handshake.or(received.handshake);
    }

    /// The client processes the broker's output.
    fn hear(&mut self, scratch: &mut Scratch) {
        let (empty, spare) = (SendBuffer::default(), SendBuffer::default());
        let (mut said, _) = self.transport.wrap(empty, spare, scratch);
        let mut bytes = Vec::new();
        said.take(usize::MAX, &mut bytes);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).expect("memory is read");
            self.client.process_new_packets().expect("a valid message");
        }
        self.client.writer().flush().expect("memory takes all");
    }

    fn finish(mut self) {
        let mut scratch = Scratch::default();
        while self.handshake.is_none() {
            self.step(&mut scratch);
            self.hear(&mut scratch);
            self.say();
        }
    }
}

#[divan::bench(args = CASES)]
fn answers_the_hello(bencher: Bencher<'_, '_>, case: Case) {
    let Some(place) = Place::of(case) else { return };
    let mut scratch = Scratch::default();
    bencher.with_inputs(|| place.come()).bench_local_values(|mut coming| {
        coming.step(&mut scratch);
        coming
    });
}

#[divan::bench(args = CASES)]
fn lets_in(bencher: Bencher<'_, '_>, case: Case) {
    let Some(place) = Place::of(case) else { return };
    let mut scratch = Scratch::default();
    let half_through = || {
        let (mut coming, mut scratch) = (place.come(), Scratch::default());
        coming.step(&mut scratch);
        coming.hear(&mut scratch);
        coming.say();
        coming
    };
    bencher.with_inputs(half_through).bench_local_values(|mut coming| {
        coming.step(&mut scratch);
        let kind = if place.is_resumed { Handshake::Resumed } else { Handshake::Full };
        assert_eq!(coming.handshake, Some(kind));
        coming
    });
}
