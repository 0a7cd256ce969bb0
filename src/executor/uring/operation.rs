//! Which operation a completion belongs to: the 64 bits that travel with it.

/// An operation under way, with the direct descriptor or the number it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Accept, number so and so of those that wait.
    Accept(u32),
    /// Multishot receive.
    Receive(u32),
    /// A send that the kernel takes at once or not at all; it completes only when that fails.
    SendNow(u32),
    /// A send that waits until the peer takes something.
    Send(u32),
    /// A send whose memory the kernel goes on using until it says so.
    SendZeroCopy(u32),
    /// Ending the operations of a socket.
    Cancel(u32),
    /// Ending our side of a connection.
    Shutdown(u32),
    /// Closing a direct descriptor.
    Close(u32),
    /// Giving a socket to another core's ring.
    HandOver(u32),
    /// Waking another core.
    Wake(u32),
    /// Another core woke this one.
    Woken,
    /// The eventfd by which threads without a ring wake this core.
    Event,
    /// Something completed on another ring of this core.
    Rung(u32),
    /// Lending a socket to the process's table, for what has no operation of its own.
    Lend(u32),
    /// Asking how far a peer has come.
    Progress(u32),
    /// Saying that nothing follows, where the kernel has TLS.
    Farewell(u32),
}

impl Operation {
    /// As the 64 bits.
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
            Self::Rung(ring) => (12, ring),
            Self::Lend(file) => (13, file),
            Self::Farewell(file) => (14, file),
            Self::Progress(file) => (15, file),
        };
        kind << 32 | u64::from(index)
    }

    /// From the 64 bits, which only [`Self::user_data`] makes.
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
            12 => Self::Rung(index),
            13 => Self::Lend(index),
            14 => Self::Farewell(index),
            15 => Self::Progress(index),
            other => unreachable!("no operation has number {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_told_from_its_bits() {
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
            Operation::Rung(12),
            Operation::Lend(13),
            Operation::Farewell(14),
            Operation::Progress(15),
        ];
        for operation in all {
            assert_eq!(Operation::of(operation.user_data()), operation);
        }
    }
}
