//! Unexpected completions: an operation completed that was not pending. This is a bug in the broker or in the
//! kernel; the connection concerned is closed, and the broker keeps running.

use crate::base::log_rate;
use crate::base::log_rate::rated;
use std::io;

use super::Executor;
use super::socket::Phase;

impl Executor {
    /// Handles the completion of an operation that was not pending: logs it and closes the socket.
    pub(super) fn handle_unexpected(&mut self, file: u32, what: &'static str) -> io::Result<()> {
        self.core.noted.completions_stray += 1;
        rated!(
            error,
            log_rate::now(),
            file,
            what,
            "an io_uring operation completed that was not pending; please report this bug"
        );
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        match socket.phase {
            Phase::Open => self.end(file),
            Phase::Leaving | Phase::Lingering | Phase::Closing => {
                self.leaving.remove(&file);
                self.begin_closing(file)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::IntoRawFd as _;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use super::super::Executor;
    use super::super::operation::Operation;
    use super::super::ring::Completion;
    use crate::base::clock::Now;
    use crate::base::ids::Peer;
    use crate::base::notifier::Notifier;
    use crate::config::Settings;
    use crate::control::Cores;
    use crate::control::stop::Stop;
    use crate::engine::{AllowAll, Config, Engine, Keys};
    use crate::executor::mesh::Mesh;
    use crate::executor::{Core, Executor as _, Parts};
    use crate::resources::gauges::Place;

    /// An executor of one core without a listener; `None` where io_uring is forbidden.
    fn executor() -> Option<Executor> {
        let mut settings = Settings::default();
        settings.uring.direct_descriptors = false;
        let (bootstrap, waker) = Executor::bootstraps(1).expect("an eventfd").remove(0);
        let engine = Engine::new(
            Place::alone(),
            Config::from(&settings),
            Box::new(AllowAll),
            Keys::fixed(1),
            Now(0),
        );
        let mesh = Mesh::each(1).remove(0);
        let inbox = Cores::new([Notifier::new(waker)].into()).1.remove(0);
        let core = Core::new(engine, mesh, Instant::now(), Stop::new(), inbox, None);
        let (listeners, uring) = (Vec::new(), settings.uring);
        Executor::open(Parts { core, bootstrap, listeners, sockets_max: 100, uring }).ok()
    }

    /// A turn that does not wait.
    fn turn(executor: &mut Executor) {
        rustix::io::write(&executor.bootstrap.event, &1u64.to_ne_bytes()).expect("written");
        executor.turn().expect("a turn");
    }

    /// Connects a client; returns the broker's file and the client's end.
    fn connect(executor: &mut Executor) -> (u32, UnixStream) {
        let (here, there) = UnixStream::pair().expect("descriptors");
        there.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        let file = here.into_raw_fd() as u32;
        executor.admit(file, Peer { address: None, listener: 0 }).expect("admitted");
        turn(executor);
        (file, there)
    }

    #[test]
    fn an_unexpected_completion_closes_one_connection_and_not_the_broker() {
        let Some(mut executor) = executor() else { return };
        let (bystander, mut of_bystander) = connect(&mut executor);
        let operations = [
            Operation::Send,
            Operation::SendZeroCopy,
            Operation::CloseNotify,
            Operation::InstallDescriptor,
        ];
        for (number, operation) in operations.into_iter().enumerate() {
            let (file, mut peer) = connect(&mut executor);
            let gone = file + 1_000;
            for (file, result) in [(gone, 3), (gone, -libc::EPIPE), (file, 3)] {
                let completion =
                    Completion { user_data: operation(file).user_data(), result, flags: 0 };
                // A successful result would be taken for a descriptor, and that closed.
                if operation(file) != Operation::InstallDescriptor(file) || result < 0 {
                    executor.dispatch(completion).expect("the broker keeps running");
                }
            }
            if number < 2 {
                turn(&mut executor);
                turn(&mut executor);
                assert!(executor.sockets.get(file).is_none(), "{:?}", operation(file));
                let mut said = Vec::new();
                peer.read_to_end(&mut said).expect("it is closed");
            }
        }
        let gone = Operation::Receive(bystander + 2_000).user_data();
        executor.dispatch(Completion { user_data: gone, result: 0, flags: 0 }).expect("as well");
        assert!(executor.core.engine.metrics().completions_stray > 0);
        assert!(executor.sockets.get(bystander).is_some());
        of_bystander.set_nonblocking(true).expect("set");
        let read = of_bystander.read(&mut [0; 8]).map_err(|error| error.kind());
        assert_eq!(read, Err(std::io::ErrorKind::WouldBlock), "still connected");
    }
}
