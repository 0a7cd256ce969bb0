//! Connections that the engine is done with, until the peer has read the last bytes.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::Shutdown;
use std::rc::Rc;

use crate::base::ids::ConnectionId;
use crate::base::send_buffer::SendBuffer;
use crate::executor::runtime::{Runtime, Shared, State, first_of, poll_write};
use crate::executor::{LINGER, LINGERING_MAX, LINGERS_MAX};

/// Input discarded at most.
const DISCARDED_BYTES_MAX: usize = 64 * 1024;

/// The engine is done with a connection, but for its last words.
pub(crate) fn linger<R: Runtime>(
    shared: &Shared<R>,
    state: &mut State<R>,
    id: ConnectionId,
    last: Option<SendBuffer>,
) {
    let Some(socket) = state.remove(id) else { return };
    let rest: VecDeque<SendBuffer> = socket.pending.into_iter().chain(last).collect();
    if rest.is_empty() || state.lingering >= LINGERING_MAX {
        return;
    }
    state.lingering += 1;
    state.unwritten += 1;
    let (shared, mut stream) = (Rc::clone(shared), socket.stream);
    R::spawn(async move {
        let goodbye = Goodbye::default();
        let until = lose_patience::<R>(&goodbye);
        first_of(say_goodbye::<R>(&shared, &mut stream, rest, &goodbye), until).await;
        let state = &mut *shared.borrow_mut();
        state.lingering -= 1;
        if !goodbye.is_written.get() {
            state.unwritten -= 1;
        }
    });
}

/// How far the last bytes of a connection are.
#[derive(Default)]
struct Goodbye {
    /// The peer has taken something since it was looked at.
    has_taken: Cell<bool>,
    is_written: Cell<bool>,
}

/// Waits until a peer has had its time: it has more while it takes what it has still to take.
async fn lose_patience<R: Runtime>(goodbye: &Goodbye) {
    for _ in 0..LINGERS_MAX {
        R::sleep(LINGER).await;
        if !goodbye.has_taken.take() || goodbye.is_written.get() {
            return;
        }
    }
}

/// Writes the last bytes, shuts our side, and discards input until the peer closes too: see
/// `lingering.rs`.
async fn say_goodbye<R: Runtime>(
    shared: &Shared<R>,
    stream: &mut R::Stream,
    mut rest: VecDeque<SendBuffer>,
    goodbye: &Goodbye,
) {
    while let Some(buffer) = rest.front_mut() {
        let written = poll_fn(|context| poll_write(stream, buffer, context, R::poll_send)).await;
        match written {
            Ok(_) if buffer.is_empty() => drop(rest.pop_front()),
            Ok(bytes) => goodbye.has_taken.set(goodbye.has_taken.get() || bytes > 0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
    let is_shut = R::socket(stream).shutdown(Shutdown::Write);
    goodbye.is_written.set(true);
    shared.borrow_mut().unwritten -= 1;
    if is_shut.is_err() {
        return;
    }
    let mut discarded = 0;
    while discarded < DISCARDED_BYTES_MAX {
        let received =
            poll_fn(|context| R::poll_receive(stream, context, &mut shared.borrow_mut().buffer));
        match received.await {
            Ok(0) => return,
            Ok(bytes) => discarded += bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
