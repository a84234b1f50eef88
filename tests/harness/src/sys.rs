//! The few calls that the standard library does not have.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Makes the kernel kill the child when the thread that starts it ends, for whatever reason: also
/// on a panic, also on SIGKILL.
///
/// The thread, not the process: start the child from a thread that lives as long as it should.
pub(crate) fn die_with_us(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec the closure makes one system call, which is async-signal-safe,
    // and touches no memory of ours.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        })
    }
}

/// Closes a connection with a reset instead of an orderly end.
pub(crate) fn reset(stream: TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let length = libc::socklen_t::try_from(size_of::<libc::linger>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open while `stream` lives, and the pointer and length are those of
    // a `linger` that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
