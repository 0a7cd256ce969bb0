//! A TCP proxy, of which each direction can be cut: what is sent there waits, as if the network had lost it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// A direction of the proxy.
#[derive(Clone, Copy, Debug)]
pub enum Direction {
    /// From the broker to its engine server.
    Out = 0,
    /// From the engine server to the broker.
    In = 1,
}

/// Forwards connections to a port of this machine.
pub struct Proxy {
    pub port: u16,
    cuts: Arc<[AtomicBool; 2]>,
}

impl Proxy {
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let own = listener.local_addr().expect("its address").port();
        let cuts: Arc<[AtomicBool; 2]> = Arc::default();
        let of_threads = Arc::clone(&cuts);
        // Ends with the process.
        std::thread::spawn(move || {
            for from in listener.incoming().map_while(Result::ok) {
                let Ok(to) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                for (direction, from, to) in [(0, &from, &to), (1, &to, &from)] {
                    let (from, to) = (from.try_clone(), to.try_clone());
                    let (from, to) = (from.expect("a socket"), to.expect("a socket"));
                    let cuts = Arc::clone(&of_threads);
                    std::thread::spawn(move || forward(from, to, &cuts[direction]));
                }
            }
        });
        Self { port: own, cuts }
    }

    /// Cuts a direction, or opens it again.
    pub fn set_cut(&self, direction: Direction, is_cut: bool) {
        self.cuts[direction as usize].store(is_cut, Relaxed);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        while is_cut.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    // The end is not told through a cut either.
    while is_cut.load(Relaxed) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
