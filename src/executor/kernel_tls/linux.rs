//! Linux's TLS on a socket: Documentation/networking/tls.rst of its sources, and linux/tls.h.
#![expect(unsafe_code, reason = "socket options and messages that no safe interface has")]

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::transport::record::{ALERT, CLOSE_NOTIFY};
use crate::transport::tls::{Key, Keys};
use crate::transport::{Cipher, Ciphers};

/// An alert that nothing follows; it is a warning (RFC 8446, 6).
const LAST_ALERT: [u8; 2] = [1, CLOSE_NOTIFY];

/// Room for one control message with one byte, and that in eights.
// SAFETY: it reckons with numbers.
const CONTROL_BYTES: usize = unsafe { libc::CMSG_SPACE(1) } as usize;
const CONTROL_WORDS: usize = CONTROL_BYTES.div_ceil(8);

/// The longest `tls12_crypto_info_*` of those here: version and cipher, nonce, key, number.
const INFO_BYTES_MAX: usize = 2 + 2 + 12 + 32 + 8;

/// Readies a socket for keys; it goes on as before until it has some. Fails where the kernel has no
/// TLS, or the socket is not a connected one of TCP.
pub fn begin(socket: &impl AsFd) -> io::Result<()> {
    match set(socket, libc::SOL_TCP, libc::TCP_ULP, b"tls") {
        // It was readied before, and no keys were to be had then.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        outcome => outcome,
    }
}

/// Gives a socket its keys. What is sent from now on is sealed, what is received has been opened.
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
    // In the order of the structures: nonce, key, salt. AES-GCM has four bytes of salt.
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
    // SAFETY: the kernel reads `len` bytes of `value`, which outlive the call.
    check(unsafe { libc::setsockopt(fd, level, option, value.as_ptr().cast(), len) } as isize)
        .map(drop)
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Whether a receive failed because what comes next is no application data: without room for a control
/// message the kernel has no way to say what it is.
pub fn is_other_record(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO)
}

/// Whether a receive failed because what came next cannot be opened, nor what follows it.
pub fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADMSG)
}

/// Reads what comes next, of whatever kind; returns its content type and how many bytes it is.
pub fn read_record(socket: &impl AsFd, bytes: &mut [u8]) -> io::Result<(u8, usize)> {
    let mut control = [0u64; CONTROL_WORDS];
    let mut piece = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut message = message(&raw mut piece, control.as_mut_ptr());
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the message points to memory of these lengths, which outlives the call.
    let received = unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT) };
    let received = check(received)?;
    // SAFETY: the kernel has filled the control buffer as far as the message says.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
    match header {
        Some(header)
            if (header.cmsg_level, header.cmsg_type)
                == (libc::SOL_TLS, libc::TLS_GET_RECORD_TYPE) =>
        {
            // SAFETY: a message of this type has one byte.
            Ok((unsafe { *libc::CMSG_DATA(header) }, received))
        }
        // It is the end of the connection.
        _ => Ok((ALERT, 0)),
    }
}

/// A message of one piece with one control message.
fn message(piece: *mut libc::iovec, control: *mut u64) -> libc::msghdr {
    // SAFETY: plain numbers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = piece;
    message.msg_iovlen = 1;
    message.msg_control = control.cast();
    message.msg_controllen = CONTROL_BYTES as _;
    message
}

/// What says that nothing follows, as sendmsg(2) takes it.
#[derive(Default)]
pub struct Farewell(Box<Parts>);

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
            alert: LAST_ALERT,
        }
    }
}

impl Farewell {
    /// For the kernel to read as long as `self` is there, as often as it is asked for.
    pub fn message(&mut self) -> *const libc::msghdr {
        let Parts { message: whole, piece, control, alert } = &mut *self.0;
        *piece = libc::iovec { iov_base: alert.as_mut_ptr().cast(), iov_len: alert.len() };
        *whole = message(piece, control.as_mut_ptr());
        // SAFETY: the control buffer has room for one header and a byte.
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

/// Says that nothing follows.
pub fn say_end(socket: &impl AsFd) -> io::Result<()> {
    let mut farewell = Farewell::default();
    let (fd, flags) = (socket.as_fd().as_raw_fd(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    // SAFETY: the message and what it points to outlive the call.
    check(unsafe { libc::sendmsg(fd, farewell.message(), flags) }).map(drop)
}

/// The ciphers by which this kernel carries a byte over loopback; an error where it has no TLS.
pub fn try_ciphers() -> io::Result<Ciphers> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut ciphers = Ciphers::default();
    for cipher in Cipher::ALL {
        let here = TcpStream::connect(listener.local_addr()?)?;
        let (there, _) = listener.accept()?;
        begin(&here)?;
        begin(&there)?;
        // One that the kernel was built without, or whose module is not there, is left out.
        if carry_a_byte(&here, &there, cipher).is_ok() {
            ciphers.add(cipher);
        }
    }
    Ok(ciphers)
}

fn carry_a_byte(mut here: &TcpStream, mut there: &TcpStream, cipher: Cipher) -> io::Result<()> {
    let bytes = if cipher == Cipher::Aes128Gcm { 16 } else { 32 };
    // Nobody's secret: it is for this byte alone.
    let (version, key) = (libc::TLS_1_3_VERSION, &[7; 32][..bytes]);
    let key = Key { version, cipher, key, iv: [7; 12], sequence: 0 };
    give_key(&here, libc::TLS_TX, &key)?;
    give_key(&there, libc::TLS_RX, &key)?;
    here.write_all(b"!")?;
    there.set_read_timeout(Some(Duration::from_secs(1)))?;
    there.read_exact(&mut [0])
}
