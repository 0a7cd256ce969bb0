//! Tasks of the interface's thread, work beside it, and connections. The types of futures, closures and sockets are
//! hidden, so that the program has the code of tasks and of HTTP once.

use std::any::Any;
use std::pin::Pin;

use axum::response::Response;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{JoinError, JoinHandle};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Work = Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>;

/// Runs a task on the interface's thread.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    fn spawn(task: Boxed<()>) -> JoinHandle<()> {
        tokio::spawn(task)
    }
    spawn(Box::pin(task))
}

/// Begins to answer a request in a task of its own, so that a panic ends no more than that. The task continues without
/// its handle.
pub fn answer(answering: impl Future<Output = Response> + Send + 'static) -> JoinHandle<Response> {
    fn spawn(answering: Boxed<Response>) -> JoinHandle<Response> {
        tokio::spawn(answering)
    }
    spawn(Box::pin(answering))
}

/// A task that ends when this is dropped.
pub struct Aborting(pub JoinHandle<Response>);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What carries the bytes of a connection.
pub trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carrier for T {}

/// A connection of which the type is hidden, so that the program has the code of HTTP once.
pub type Stream = Box<dyn Carrier>;

/// Runs work that blocks on a thread of its own. The error is its panic.
pub async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    fn begin(work: Work) -> JoinHandle<Box<dyn Any + Send>> {
        tokio::task::spawn_blocking(work)
    }
    let done = begin(Box::new(move || Box::new(work()))).await?;
    Ok(*done.downcast().expect("what the work returns"))
}
