//! Connections of a runtime that linger: see [`crate::executor::linger`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Instant;

use crate::base::ids::ConnectionId;
use crate::base::send_buffer::SendBuffer;
use crate::executor::linger::{LINGERING_MAX, LingerTime};
use crate::executor::progress;
use crate::executor::runtime::{Runtime, Shared, SocketView, State, first_of, poll_write};

/// The engine has closed a connection, except for the last bytes.
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
        let lingering = Lingering::new();
        let deadline = await_deadline::<R>(R::socket(&stream), &lingering);
        first_of(send_last::<R>(&shared, &mut stream, rest, &lingering), deadline).await;
        let state = &mut *shared.borrow_mut();
        state.lingering -= 1;
        if !lingering.is_written.get() {
            state.unwritten -= 1;
        }
    });
}

/// A connection that lingers.
struct Lingering {
    linger_time: RefCell<LingerTime>,
    is_written: Cell<bool>,
}

impl Lingering {
    fn new() -> Self {
        let linger_time = RefCell::new(LingerTime::new(Instant::now()));
        Self { linger_time, is_written: Cell::new(false) }
    }
}

/// Waits until the peer's time is up.
async fn await_deadline<R: Runtime>(socket: SocketView, lingering: &Lingering) {
    let note_unacknowledged = || {
        let unacknowledged = progress::unacknowledged(&*socket);
        lingering.linger_time.borrow_mut().note_unacknowledged(unacknowledged);
    };
    note_unacknowledged();
    loop {
        let until = lingering.linger_time.borrow().until();
        R::sleep(until.saturating_duration_since(Instant::now())).await;
        let has_unwritten = !lingering.is_written.get();
        note_unacknowledged();
        if !lingering.linger_time.borrow_mut().extend(Instant::now(), has_unwritten) {
            return;
        }
    }
}

/// Writes the last bytes, shuts down our side, and discards input until the peer closes too.
async fn send_last<R: Runtime>(
    shared: &Shared<R>,
    stream: &mut R::Stream,
    mut rest: VecDeque<SendBuffer>,
    lingering: &Lingering,
) {
    while let Some(buffer) = rest.front_mut() {
        let written = poll_fn(|context| poll_write(stream, buffer, context, R::poll_send)).await;
        match written {
            Ok(_) if buffer.is_empty() => drop(rest.pop_front()),
            Ok(bytes) => lingering.linger_time.borrow_mut().note_written(bytes),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
    let is_shut = R::socket(stream).shutdown(Shutdown::Write);
    lingering.is_written.set(true);
    shared.borrow_mut().unwritten -= 1;
    if is_shut.is_err() {
        return;
    }
    loop {
        let received =
            poll_fn(|context| R::poll_receive(stream, context, &mut shared.borrow_mut().buffer));
        match received.await {
            Ok(0) => return,
            Ok(bytes) if lingering.linger_time.borrow_mut().discard(bytes) => {}
            Ok(_) => return,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
