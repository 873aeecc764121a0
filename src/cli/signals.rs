//! Signals that end the program, and reads of files that became shorter.

use crate::files;

/// Added to a signal's number in the exit code, as shells do.
#[cfg(unix)]
const KILLED: i32 = 128;

/// Removes half-written files when a signal ends the program. The exit code is then 128 and the signal's number:
/// 130 for an interrupt, 143 for a request to terminate. Call it before any other thread runs.
///
/// # Errors
/// The system's error if signals cannot be handled.
#[cfg(unix)]
pub(super) fn handle() -> std::io::Result<()> {
    use std::io::Error;

    // SAFETY: the calls fill or read the set that they are given.
    let signals = unsafe {
        let mut signals = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut signals);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // The end of a terminal stays ignored if the parent ignores it, as `nohup` asks.
            let mut action = std::mem::zeroed::<libc::sigaction>();
            if libc::sigaction(signal, std::ptr::null(), &raw mut action) != 0 {
                return Err(Error::last_os_error());
            }
            if signal == libc::SIGHUP && action.sa_sigaction == libc::SIG_IGN {
                continue;
            }
            // Shells let what they start in the background ignore interrupts. Some systems drop those then.
            libc::signal(signal, libc::SIG_DFL);
            libc::sigaddset(&raw mut signals, signal);
        }
        // All threads inherit that these signals wait. One thread takes them.
        if libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut()) != 0 {
            return Err(Error::last_os_error());
        }
        signals
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        loop {
            let mut signal = 0;
            // SAFETY: both arguments live on this thread's stack.
            if unsafe { libc::sigwait(&raw const signals, &raw mut signal) } == 0 {
                files::exit_without_partials(KILLED + signal);
            }
        }
    })?;
    handle_truncation()
}

/// Does the same on systems without such signals.
///
/// # Errors
/// The system's error if signals cannot be handled.
#[cfg(not(unix))]
pub(super) fn handle() -> std::io::Result<()> {
    ctrlc::set_handler(|| files::exit_without_partials(130)).map_err(std::io::Error::other)
}

/// Ends the program with a message where a mapped file has become shorter. The system reports that by a signal,
/// to the thread that reads.
#[cfg(unix)]
fn handle_truncation() -> std::io::Result<()> {
    extern "C" fn truncated(_: libc::c_int) {
        const MESSAGE: &[u8] = b"error: a file became shorter while it was read; run the command again\n";
        // SAFETY: the message is a constant. A failed write changes nothing.
        let _ = unsafe { libc::write(libc::STDERR_FILENO, MESSAGE.as_ptr().cast(), MESSAGE.len()) };
        // The signal comes from a read of this thread, so it holds none of the locks that this takes.
        files::exit_without_partials(1);
    }
    // SAFETY: the handler has the type that the system expects.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = truncated as extern "C" fn(libc::c_int) as usize;
        libc::sigemptyset(&raw mut action.sa_mask);
        if libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}
