//! The executor on the `monoio` runtime, one instance per core: io_uring reports readiness, and ready sockets are
//! read into the core's shared buffer.

use std::future::Future;
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::monoio::time::TimeDriver;
use ::monoio::{IoUringDriver, RuntimeBuilder};

use crate::base::waker::Waker;
use crate::executor::runtime::{Bootstrap, Runtime, SocketView, Tasks};
use crate::executor::{ListenerSocket, Parts, runtime};

/// One instance of the runtime.
pub struct Monoio(::monoio::Runtime<TimeDriver<IoUringDriver>>);

/// One core's executor.
pub struct Executor(Tasks<Monoio>);

impl crate::executor::Executor for Executor {
    type Socket = std::net::TcpStream;
    type Bootstrap = Bootstrap;

    fn bootstraps(cores: u16) -> io::Result<Vec<(Bootstrap, Waker)>> {
        runtime::bootstraps(cores)
    }

    fn open(parts: Parts<Self>) -> io::Result<Self> {
        let mut flags = io_uring_of_monoio::IoUring::builder();
        if parts.uring.defer_taskrun {
            flags.setup_single_issuer().setup_defer_taskrun();
        }
        let builder = RuntimeBuilder::<IoUringDriver>::new().uring_builder(flags);
        let runtime = builder.with_entries(parts.uring.entries).enable_timer().build()?;
        Ok(Self(Tasks::new(Monoio(runtime), parts)))
    }

    fn run(self) -> io::Result<()> {
        self.0.run()
    }
}

/// A TCP or Unix listener.
pub enum Listener {
    /// A TCP listener.
    Tcp(::monoio::net::TcpListener),
    /// A Unix domain listener.
    Unix(::monoio::net::UnixListener),
}

type Wait = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// A socket, and its pending waits for readiness.
pub struct Stream {
    stream: Rc<::monoio::net::TcpStream>,
    readable: Option<Wait>,
    writable: Option<Wait>,
}

impl Stream {
    fn new(stream: ::monoio::net::TcpStream) -> Self {
        // The CONNECT packet may have arrived already, but waiting first costs one system call either way.
        Self { stream: Rc::new(stream), readable: None, writable: None }
    }
}

impl Runtime for Monoio {
    type Stream = Stream;
    type Listener = Listener;

    fn run(mut self, main: impl Future<Output = io::Result<()>> + 'static) -> io::Result<()> {
        self.0.block_on(main)
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        // Dropping the handle detaches the task.
        drop(::monoio::spawn(task));
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> {
        ::monoio::time::sleep(time)
    }

    fn listen(listener: ListenerSocket) -> io::Result<Self::Listener> {
        match listener {
            ListenerSocket::Tcp(listener) => {
                ::monoio::net::TcpListener::from_std(listener).map(Listener::Tcp)
            }
            ListenerSocket::Unix(listener) => {
                ::monoio::net::UnixListener::from_std(listener).map(Listener::Unix)
            }
        }
    }

    #[expect(unsafe_code, reason = "the runtime releases descriptors as raw numbers")]
    async fn accept(listener: &Self::Listener) -> io::Result<Stream> {
        match listener {
            Listener::Tcp(listener) => {
                listener.accept().await.map(|(stream, _)| Stream::new(stream))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                // SAFETY: the stream has released the descriptor, and no one else owns it.
                Self::adopt(unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) })
            }
        }
    }

    fn adopt(socket: OwnedFd) -> io::Result<Stream> {
        ::monoio::net::TcpStream::from_std(socket.into()).map(Stream::new)
    }

    fn socket(stream: &Stream) -> SocketView {
        runtime::borrow(&*stream.stream)
    }

    fn poll_receive(
        stream: &mut Stream,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let wait = stream.readable.get_or_insert_with(|| {
                let stream = Rc::clone(&stream.stream);
                Box::pin(async move { stream.readable(true).await })
            });
            let waited = ready!(wait.as_mut().poll(context));
            stream.readable = None;
            waited?;
            match (&*Self::socket(stream)).read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn poll_send(
        stream: &mut Stream,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(wait) = &mut stream.writable {
                let waited = ready!(wait.as_mut().poll(context));
                stream.writable = None;
                waited?;
            }
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            match Self::socket(stream).send_with_flags(bytes, flags) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let stream_too = Rc::clone(&stream.stream);
                    let wait = async move { stream_too.writable(true).await };
                    stream.writable = Some(Box::pin(wait));
                }
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}
