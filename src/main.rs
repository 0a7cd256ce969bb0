//! The `broker` command.

use ringmq::clock::Now;
use ringmq::config::Settings;
use ringmq::engine::{AllowAll, CoreId, Engine};
use ringmq::executor::{Stop, poll::Executor};

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let at = args.iter().position(|a| a == "--listen").map_or("127.0.0.1:1883", |i| &args[i + 1]);
    let listener = std::net::TcpListener::bind(at)?;
    eprintln!("{{\"fields\":{{\"message\":\"listening\",\"address\":\"{}\"}}}}", listener.local_addr()?);
    let engine = Engine::new(CoreId(0), Settings::default(), Box::new(AllowAll), 1, Now(0));
    Executor::new(engine, vec![listener], Stop::new())?.run()
}
