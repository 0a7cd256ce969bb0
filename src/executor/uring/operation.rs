//! Encodes which operation a completion belongs to in its 64-bit user data.

/// A pending operation, with the direct descriptor or the number that it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A pending accept, by its number.
    Accept(u32),
    /// Multishot receive.
    Receive(u32),
    /// A non-blocking send; it completes only if the kernel did not take all of it.
    SendNow(u32),
    /// A send that waits until the socket buffer has room.
    Send(u32),
    /// A zero-copy send, whose memory the kernel uses until its second completion.
    SendZeroCopy(u32),
    /// Cancelling the operations of a socket.
    Cancel(u32),
    /// Shutting down the sending side of a connection.
    Shutdown(u32),
    /// Closing a direct descriptor.
    Close(u32),
    /// Sending a socket to another core's ring.
    HandOver(u32),
    /// Waking another core.
    Wake(u32),
    /// Another core woke this one.
    Woken,
    /// The eventfd by which threads without a ring wake this core.
    Event,
    /// A completion on another ring of this core, signalled by its eventfd.
    RingCompleted(u32),
    /// Installing a temporary file descriptor for a socket, for system calls without an io_uring operation.
    InstallDescriptor(u32),
    /// Querying how many sent bytes the peer has not acknowledged.
    Progress(u32),
    /// Installing a temporary file descriptor for that query.
    ProgressDescriptor(u32),
    /// Sending the TLS close_notify alert with kernel TLS.
    CloseNotify(u32),
    /// Putting a bridge's socket into the table of direct descriptors.
    Adopt(u32),
}

impl Operation {
    /// Encodes the operation as 64-bit user data.
    pub fn user_data(self) -> u64 {
        let (kind, index) = match self {
            Self::Accept(number) => (0, number),
            Self::Receive(file) => (1, file),
            Self::SendNow(file) => (2, file),
            Self::Send(file) => (3, file),
            Self::SendZeroCopy(file) => (4, file),
            Self::Cancel(file) => (5, file),
            Self::Shutdown(file) => (6, file),
            Self::Close(file) => (7, file),
            Self::HandOver(file) => (8, file),
            Self::Wake(core) => (9, core),
            Self::Woken => (10, 0),
            Self::Event => (11, 0),
            Self::RingCompleted(ring) => (12, ring),
            Self::InstallDescriptor(file) => (13, file),
            Self::CloseNotify(file) => (14, file),
            Self::Progress(file) => (15, file),
            Self::Adopt(number) => (16, number),
            Self::ProgressDescriptor(file) => (17, file),
        };
        kind << 32 | u64::from(index)
    }

    /// Decodes user data created by [`Self::user_data`].
    pub fn of(user_data: u64) -> Self {
        let index = user_data as u32;
        match user_data >> 32 {
            0 => Self::Accept(index),
            1 => Self::Receive(index),
            2 => Self::SendNow(index),
            3 => Self::Send(index),
            4 => Self::SendZeroCopy(index),
            5 => Self::Cancel(index),
            6 => Self::Shutdown(index),
            7 => Self::Close(index),
            8 => Self::HandOver(index),
            9 => Self::Wake(index),
            10 => Self::Woken,
            11 => Self::Event,
            12 => Self::RingCompleted(index),
            13 => Self::InstallDescriptor(index),
            14 => Self::CloseNotify(index),
            15 => Self::Progress(index),
            16 => Self::Adopt(index),
            17 => Self::ProgressDescriptor(index),
            other => unreachable!("no operation has number {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_decoded_from_its_user_data() {
        let all = [
            Operation::Accept(1),
            Operation::Receive(u32::MAX),
            Operation::SendNow(3),
            Operation::Send(4),
            Operation::SendZeroCopy(5),
            Operation::Cancel(6),
            Operation::Shutdown(7),
            Operation::Close(8),
            Operation::HandOver(9),
            Operation::Wake(10),
            Operation::Woken,
            Operation::Event,
            Operation::RingCompleted(12),
            Operation::InstallDescriptor(13),
            Operation::CloseNotify(14),
            Operation::Progress(15),
            Operation::Adopt(16),
            Operation::ProgressDescriptor(17),
        ];
        for operation in all {
            assert_eq!(Operation::of(operation.user_data()), operation);
        }
    }
}
