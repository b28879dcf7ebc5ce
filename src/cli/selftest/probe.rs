//! `cricket probe`: what the selftest's container runs. Not for people.

use std::io::Write;
use std::net::{IpAddr, UdpSocket};

use crate::error::{Context, Error, Result};
use crate::sys::signal::{Blocked, SIGTERM};

/// What the container prints before it waits to be stopped.
pub const GREETING: &str = "cricket selftest says hello";
/// What it prints on standard error.
pub const GREETING_ERR: &str = "and this is standard error";
/// Its exit code after the stop signal.
pub const STOPPED: u8 = 7;

/// Runs a probe; returns the exit code.
///
/// - no argument: greets on both streams, waits for SIGTERM, exits with [`STOPPED`]
/// - `hostname`: prints the host name
/// - `has-address IP`: succeeds if the address is one of the network namespace's own
/// - `exit CODE`: prints the code on both streams and exits with it
pub fn run(args: &[String], out: &mut dyn Write, err: &mut dyn Write) -> Result<u8> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [] => {
            // Before the greeting: whoever reads it may send the signal at once.
            let term = Blocked::new(&[SIGTERM]).context("block SIGTERM")?;
            writeln!(out, "{GREETING}").and_then(|()| writeln!(err, "{GREETING_ERR}")).context("print")?;
            term.wait();
            Ok(STOPPED)
        }
        ["hostname"] => {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").context("read host name")?;
            out.write_all(name.as_bytes()).context("print")?;
            Ok(0)
        }
        ["has-address", ip] => {
            let ip: IpAddr = ip.parse().map_err(|_| Error::invalid(format!("{ip:?} is not an address")))?;
            UdpSocket::bind((ip, 0)).with_context(|| format!("{ip} is not an address of this pod"))?;
            Ok(0)
        }
        ["exit", code] => {
            let code = code.parse().map_err(|_| Error::invalid(format!("{code:?} is not an exit code")))?;
            write!(out, "out {code}").and_then(|()| write!(err, "err {code}")).context("print")?;
            Ok(code)
        }
        other => Err(Error::invalid(format!("no probe {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(args: &[&str]) -> (Result<u8>, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args: Vec<String> = args.iter().map(|s| (*s).to_owned()).collect();
        let code = run(&args, &mut out, &mut err);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn probes_answer() {
        let (code, out, err) = probe(&["exit", "3"]);
        assert_eq!((code.unwrap(), out.as_str(), err.as_str()), (3, "out 3", "err 3"));
        assert_eq!(probe(&["has-address", "127.0.0.1"]).0.unwrap(), 0);
        assert!(probe(&["has-address", "192.0.2.1"]).0.is_err());
        assert!(probe(&["exit", "300"]).0.is_err());
        assert!(probe(&["dance"]).0.is_err());
    }
}
