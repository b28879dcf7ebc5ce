//! Tells systemd how far we are: `sd_notify` without its library.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `state` (`READY=1`, `STOPPING=1`, `STATUS=…`) to the service manager, if one asked for it.
pub fn notify(state: &str) -> io::Result<()> {
    match env::var_os("NOTIFY_SOCKET") {
        Some(name) if !name.is_empty() => send(&name, state),
        _ => Ok(()),
    }
}

/// A name that starts with `@` is in the abstract namespace.
fn send(name: &OsStr, state: &str) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reaches_a_path_and_an_abstract_name() {
        let path = env::temp_dir().join(format!("cricket-notify-{}", std::process::id()));
        let abstract_name = format!("cricket-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).expect("short enough");
        for (socket, name) in [
            (UnixDatagram::bind(&path).expect("free"), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&address).expect("free"), format!("@{abstract_name}").into()),
        ] {
            send(&name, "READY=1").expect("somebody listens");
            let mut buffer = [0; 16];
            let n = socket.recv(&mut buffer).expect("a datagram");
            assert_eq!(&buffer[..n], b"READY=1");
        }
        std::fs::remove_file(&path).expect("ours");
    }

    #[test]
    fn a_manager_that_is_not_there_is_an_error() {
        assert!(send(OsStr::new("/nonexistent/notify"), "READY=1").is_err());
    }
}
