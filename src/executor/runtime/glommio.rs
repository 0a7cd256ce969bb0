//! The executor on the `glommio` runtime, one instance per core: io_uring reports readiness, and ready sockets are
//! read into the core's shared buffer.

use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use futures_lite::{AsyncRead as _, AsyncWrite as _};

use crate::base::waker::Waker;
use crate::executor::runtime::{Bootstrap, Runtime, SocketView, Tasks};
use crate::executor::{ListenerSocket, Parts, runtime};

/// One instance of the runtime.
pub struct Glommio(LocalExecutor);

/// One core's executor.
pub struct Executor(Tasks<Glommio>);

impl crate::executor::Executor for Executor {
    type Socket = std::net::TcpStream;
    type Bootstrap = Bootstrap;

    fn bootstraps(cores: u16) -> io::Result<Vec<(Bootstrap, Waker)>> {
        runtime::bootstraps(cores)
    }

    fn open(parts: Parts<Self>) -> io::Result<Self> {
        let builder = LocalExecutorBuilder::new(Placement::Unbound);
        let runtime = builder.ring_depth(parts.uring.entries as usize).make();
        let runtime = runtime.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self(Tasks::new(Glommio(runtime), parts)))
    }

    fn run(self) -> io::Result<()> {
        self.0.run()
    }
}

impl Runtime for Glommio {
    type Stream = ::glommio::net::TcpStream;
    type Listener = ::glommio::net::TcpListener;

    fn run(self, main: impl Future<Output = io::Result<()>> + 'static) -> io::Result<()> {
        self.0.run(main)
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        let later = async move {
            // glommio polls a new task immediately, inside the code that spawns it.
            runtime::yield_now().await;
            task.await;
        };
        ::glommio::spawn_local(later).detach();
    }

    async fn sleep(time: Duration) {
        ::glommio::timer::sleep(time).await;
    }

    #[expect(
        unsafe_code,
        reason = "the runtime takes a preconfigured listener only as a raw descriptor"
    )]
    fn listen(listener: ListenerSocket) -> io::Result<Self::Listener> {
        // Unix listeners work too, because accepting does not inspect addresses.
        let listener = OwnedFd::from(listener).into_raw_fd();
        // SAFETY: the descriptor is a listener's, and its ownership is passed on.
        Ok(unsafe { ::glommio::net::TcpListener::from_raw_fd(listener) })
    }

    async fn accept(listener: &Self::Listener) -> io::Result<Self::Stream> {
        listener.accept().await.map_err(io::Error::from)
    }

    #[expect(unsafe_code, reason = "the runtime takes an existing socket only as a raw descriptor")]
    fn adopt(socket: OwnedFd) -> io::Result<Self::Stream> {
        // SAFETY: the descriptor is a stream socket's, and its ownership is passed on.
        Ok(unsafe { ::glommio::net::TcpStream::from_raw_fd(socket.into_raw_fd()) })
    }

    fn socket(stream: &Self::Stream) -> SocketView {
        runtime::borrow(stream)
    }

    fn poll_receive(
        stream: &mut Self::Stream,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(stream).poll_read(context, buffer)
    }

    fn poll_send(
        stream: &mut Self::Stream,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(stream).poll_write(context, bytes)
    }
}
