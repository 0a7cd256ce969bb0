//! Kernel TLS on Linux: see Documentation/networking/tls.rst in its sources, and linux/tls.h.
#![expect(unsafe_code, reason = "socket options and messages without a safe interface")]

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::transport::record::{ALERT, CLOSE_NOTIFY};
use crate::transport::tls::{Key, Keys};
use crate::transport::{Cipher, Ciphers};

/// The close_notify alert, which has the level "warning" (RFC 8446, 6).
const CLOSE_NOTIFY_ALERT: [u8; 2] = [1, CLOSE_NOTIFY];

/// Space for one control message with one byte of data, in bytes and in 8-byte words.
// SAFETY: CMSG_SPACE only computes a number.
const CONTROL_BYTES: usize = unsafe { libc::CMSG_SPACE(1) } as usize;
const CONTROL_WORDS: usize = CONTROL_BYTES.div_ceil(8);

/// Size of the longest supported `tls12_crypto_info_*`: version, cipher, nonce, key, sequence number.
const INFO_BYTES_MAX: usize = 2 + 2 + 12 + 32 + 8;

/// Prepares a socket for keys; until they are installed it works as before. Fails if the kernel has no TLS, or
/// if the socket is not a connected TCP socket.
pub fn begin(socket: &impl AsFd) -> io::Result<()> {
    match set(socket, libc::SOL_TCP, libc::TCP_ULP, b"tls") {
        // Prepared by an earlier attempt, for which no keys were available.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        outcome => outcome,
    }
}

/// Installs keys on a socket. From now on the kernel encrypts what is sent and decrypts what is received.
pub fn give_keys(socket: &impl AsFd, keys: &Keys) -> io::Result<()> {
    give_key(socket, libc::TLS_TX, &keys.sending())?;
    give_key(socket, libc::TLS_RX, &keys.receiving())
}

fn give_key(socket: &impl AsFd, direction: libc::c_int, key: &Key<'_>) -> io::Result<()> {
    let mut info = Zeroizing::new([0; INFO_BYTES_MAX]);
    let mut used = 0;
    let mut put = |bytes: &[u8]| {
        info[used..used + bytes.len()].copy_from_slice(bytes);
        used += bytes.len();
    };
    put(&key.version.to_ne_bytes());
    put(&number(key.cipher).to_ne_bytes());
    // In the order of the kernel's structures: nonce, key, salt. AES-GCM has a salt of four bytes.
    match key.cipher {
        Cipher::Aes128Gcm | Cipher::Aes256Gcm => {
            put(&key.iv[4..]);
            put(key.key);
            put(&key.iv[..4]);
        }
        Cipher::Chacha20Poly1305 => {
            put(&key.iv);
            put(key.key);
        }
    }
    put(&key.sequence.to_be_bytes());
    set(socket, libc::SOL_TLS, direction, &info[..used])
}

fn number(cipher: Cipher) -> u16 {
    match cipher {
        Cipher::Aes128Gcm => libc::TLS_CIPHER_AES_GCM_128,
        Cipher::Aes256Gcm => libc::TLS_CIPHER_AES_GCM_256,
        Cipher::Chacha20Poly1305 => libc::TLS_CIPHER_CHACHA20_POLY1305,
    }
}

fn set(
    socket: &impl AsFd,
    level: libc::c_int,
    option: libc::c_int,
    value: &[u8],
) -> io::Result<()> {
    let (fd, len) = (socket.as_fd().as_raw_fd(), value.len() as libc::socklen_t);
    // SAFETY: the kernel reads `len` bytes of `value`, which outlives the call.
    check(unsafe { libc::setsockopt(fd, level, option, value.as_ptr().cast(), len) } as isize)
        .map(drop)
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Whether a receive failed because the next record is not application data: the kernel needs a control
/// message to report another content type.
pub fn is_other_record(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO)
}

/// Whether a receive failed because the next record cannot be decrypted, nor any that follows.
pub fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADMSG)
}

/// Reads the next record of any content type; returns its content type and its length in bytes.
pub fn read_record(socket: &impl AsFd, bytes: &mut [u8]) -> io::Result<(u8, usize)> {
    let mut control = [0u64; CONTROL_WORDS];
    let mut piece = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut message = message(&raw mut piece, control.as_mut_ptr());
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the message points to memory of these lengths, which outlives the call.
    let received = unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT) };
    let received = check(received)?;
    // SAFETY: the kernel has filled the control buffer up to the length in the message.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
    match header {
        Some(header)
            if (header.cmsg_level, header.cmsg_type)
                == (libc::SOL_TLS, libc::TLS_GET_RECORD_TYPE) =>
        {
            // SAFETY: a control message of this type has one byte of data.
            Ok((unsafe { *libc::CMSG_DATA(header) }, received))
        }
        // End of stream.
        _ => Ok((ALERT, 0)),
    }
}

/// A message with one slice of data and one control message.
fn message(piece: *mut libc::iovec, control: *mut u64) -> libc::msghdr {
    // SAFETY: the structure consists of plain numbers and pointers, for which zero is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = piece;
    message.msg_iovlen = 1;
    message.msg_control = control.cast();
    message.msg_controllen = CONTROL_BYTES as _;
    message
}

/// The close_notify alert as a message for sendmsg(2).
#[derive(Default)]
pub struct CloseNotify(Box<Parts>);

struct Parts {
    message: libc::msghdr,
    piece: libc::iovec,
    control: [u64; CONTROL_WORDS],
    alert: [u8; 2],
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            message: message(std::ptr::null_mut(), std::ptr::null_mut()),
            piece: libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
            control: [0; CONTROL_WORDS],
            alert: CLOSE_NOTIFY_ALERT,
        }
    }
}

impl CloseNotify {
    /// The message, valid as long as `self`; may be requested repeatedly.
    pub fn message(&mut self) -> *const libc::msghdr {
        let Parts { message: whole, piece, control, alert } = &mut *self.0;
        *piece = libc::iovec { iov_base: alert.as_mut_ptr().cast(), iov_len: alert.len() };
        *whole = message(piece, control.as_mut_ptr());
        // SAFETY: the control buffer has space for one header and one byte of data.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(whole);
            (*header).cmsg_level = libc::SOL_TLS;
            (*header).cmsg_type = libc::TLS_SET_RECORD_TYPE;
            (*header).cmsg_len = libc::CMSG_LEN(1) as _;
            *libc::CMSG_DATA(header) = ALERT;
        }
        whole
    }
}

/// Sends the close_notify alert.
pub fn send_close_notify(socket: &impl AsFd) -> io::Result<()> {
    let mut close_notify = CloseNotify::default();
    let (fd, flags) = (socket.as_fd().as_raw_fd(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    // SAFETY: the message and the memory it points to outlive the call.
    check(unsafe { libc::sendmsg(fd, close_notify.message(), flags) }).map(drop)
}

/// The ciphers that work in this kernel, tested by sending a byte over loopback; an error if it has no TLS.
pub fn try_ciphers() -> io::Result<Ciphers> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut ciphers = Ciphers::default();
    for cipher in Cipher::ALL {
        let here = TcpStream::connect(listener.local_addr()?)?;
        let (there, _) = listener.accept()?;
        begin(&here)?;
        begin(&there)?;
        // Ciphers that the kernel was built without, or whose module is missing, are left out.
        if send_a_byte(&here, &there, cipher).is_ok() {
            ciphers.add(cipher);
        }
    }
    Ok(ciphers)
}

fn send_a_byte(mut here: &TcpStream, mut there: &TcpStream, cipher: Cipher) -> io::Result<()> {
    let bytes = if cipher == Cipher::Aes128Gcm { 16 } else { 32 };
    // Not a secret: the key encrypts only this test byte.
    let (version, key) = (libc::TLS_1_3_VERSION, &[7; 32][..bytes]);
    let key = Key { version, cipher, key, iv: [7; 12], sequence: 0 };
    give_key(&here, libc::TLS_TX, &key)?;
    give_key(&there, libc::TLS_RX, &key)?;
    here.write_all(b"!")?;
    there.set_read_timeout(Some(Duration::from_secs(1)))?;
    there.read_exact(&mut [0])
}
