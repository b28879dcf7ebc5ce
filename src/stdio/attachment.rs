//! A client of a container's socket: follows its output, writes its input, has its log opened again.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::wire;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::seqpacket::Connection;

/// How long the relay may take to answer; it is one thread, and a disk may hold it up.
const ANSWER_MS: i64 = 10_000;

/// A buffer for one message.
pub type Buffer = [u8; wire::MOST + 1];

/// What the container said.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// Standard output; with a terminal everything.
    Stdout(&'a [u8]),
    /// Standard error.
    Stderr(&'a [u8]),
    /// So many bytes were dropped here, because we did not read fast enough.
    Missed(u64),
    /// The streams have ended.
    End,
}

/// A connection that gets all output from when it was made. Its methods may be called from several threads at once.
#[derive(Debug)]
pub struct Attachment(Connection);

impl Attachment {
    /// Attaches to the container whose streams are in `dir`.
    ///
    /// # Errors
    /// `NotFound` if nobody relays them (any more); `DeadlineExceeded` if the relay does not answer.
    pub fn open(dir: &Path) -> Result<Attachment> {
        let connection = connect(dir)?;
        ask(&connection, wire::ATTACH).context("attach")?;
        connection.receive_at_most(0).context("attach")?;
        Ok(Attachment(connection))
    }

    /// Blocks for output; each message is given once.
    ///
    /// # Errors
    /// `Unavailable` if the relay is gone without having said that the streams have ended, or after
    /// [`Attachment::detach`].
    pub fn hear<'a>(&self, buffer: &'a mut Buffer) -> Result<Heard<'a>> {
        loop {
            let length = receive(&self.0, buffer)?;
            match buffer[0] {
                wire::STDOUT => return Ok(Heard::Stdout(&buffer[1..length])),
                wire::STDERR => return Ok(Heard::Stderr(&buffer[1..length])),
                wire::END => return Ok(Heard::End),
                wire::MISSED => {
                    let number = buffer[1..length].try_into().map_err(|_| Error::internal("a count that is none"))?;
                    return Ok(Heard::Missed(u64::from_le_bytes(number)));
                }
                // Of a later version.
                _ => {}
            }
        }
    }

    /// Writes to the container's standard input. Blocks while the container does not read. What is written to a container
    /// that takes no input is dropped.
    ///
    /// # Errors
    /// `Unavailable` if the relay is gone.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        bytes.chunks(wire::MOST).try_for_each(|chunk| send(&self.0, wire::STDIN, chunk))
    }

    /// Lets the container read the end of its standard input, after all that was written before.
    ///
    /// # Errors
    /// `Unavailable` if the relay is gone.
    pub fn close_stdin(&self) -> Result<()> {
        send(&self.0, wire::CLOSE_STDIN, &[])
    }

    /// From now on nothing here blocks: [`Attachment::hear`] is `DeadlineExceeded` when there is nothing to hear.
    pub fn set_nonblocking(&self) -> Result<()> {
        self.0.set_nonblocking().context("attach")
    }

    /// As [`Attachment::write`], as many bytes as there is room for now; possibly none.
    ///
    /// # Errors
    /// `Unavailable` if the relay is gone.
    pub fn offer(&self, bytes: &[u8]) -> Result<usize> {
        let bytes = &bytes[..bytes.len().min(wire::MOST)];
        Ok(if self.offer_message(wire::STDIN, bytes)? { bytes.len() } else { 0 })
    }

    /// As [`Attachment::close_stdin`]; whether there was room for it.
    ///
    /// # Errors
    /// `Unavailable` if the relay is gone.
    pub fn offer_close(&self) -> Result<bool> {
        self.offer_message(wire::CLOSE_STDIN, &[])
    }

    fn offer_message(&self, kind: u8, bytes: &[u8]) -> Result<bool> {
        match self.0.send([&[kind], bytes]) {
            Ok(()) => Ok(true),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(false),
            Err(e) => Err(gone(&e)),
        }
    }

    /// Ends the connection: an [`Attachment::hear`] that blocks in another thread returns.
    pub fn detach(&self) {
        self.0.shut_down();
    }
}

impl AsFd for Attachment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Has the relay of the streams in `dir` open the log again, under its path, after it was renamed. When this returns the
/// old file is complete.
///
/// # Errors
/// As [`Attachment::open`]; otherwise why the log cannot be opened, and the old file stays in use.
pub fn reopen_log(dir: &Path) -> Result<()> {
    ask(&connect(dir)?, wire::REOPEN)
}

fn connect(dir: &Path) -> Result<Connection> {
    let doing = || format!("connect to the streams in {}", dir.display());
    let connection = Connection::open(dir, wire::SOCKET).map_err(|e| {
        let gone = matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused);
        Error::new(if gone { Kind::NotFound } else { Kind::Unknown }, e.to_string()).context(doing())
    })?;
    connection.receive_at_most(ANSWER_MS).with_context(doing)?;
    let mut hello = [0; wire::MOST + 1];
    let length = receive(&connection, &mut hello).with_context(doing)?;
    match hello[..length] {
        [wire::HELLO, ..] => Ok(connection),
        _ => Err(Error::internal("it does not greet").context(doing())),
    }
}

/// Sends a request and waits for its answer. Output may come before it.
fn ask(connection: &Connection, request: u8) -> Result<()> {
    send(connection, request, &[])?;
    let mut buffer = [0; wire::MOST + 1];
    loop {
        let length = receive(connection, &mut buffer)?;
        if buffer[0] == wire::DONE {
            return wire::outcome(&buffer[1..length]);
        }
    }
}

fn send(connection: &Connection, kind: u8, bytes: &[u8]) -> Result<()> {
    loop {
        match connection.send([&[kind], bytes]) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => return other.map_err(|e| gone(&e)),
        }
    }
}

/// One message of at least one byte.
fn receive(connection: &Connection, buffer: &mut [u8]) -> Result<usize> {
    loop {
        match connection.receive(buffer) {
            Ok(0) => return Err(gone(&ErrorKind::UnexpectedEof.into())),
            Ok(length) => return Ok(length),
            // A reset is told once, before what was sent earlier: the relay closed with messages of ours unread.
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionReset) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                return Err(Error::new(Kind::DeadlineExceeded, "the relay of the streams does not answer"));
            }
            Err(e) => return Err(gone(&e)),
        }
    }
}

fn gone(e: &io::Error) -> Error {
    Error::new(Kind::Unavailable, format!("the relay of the streams is gone: {e}"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::io::{Read, Write};
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::stdio::{Attach, Door, Ending, Feed, Hub, Limits, Output, Relay, Sink, Stdin, Streams};
    use crate::sys::epoll::Epoll;
    use crate::sys::fifo;

    /// A container that is its FIFOs, and a hub that relays them.
    struct Rig {
        hub: Hub,
        dir: PathBuf,
    }

    impl Rig {
        fn new(name: &str, stdin: bool) -> Rig {
            let dir = std::env::temp_dir().join(format!("cricket-attach-{}-{name}", std::process::id()));
            fs::remove_dir_all(&dir).ok();
            fs::create_dir(&dir).unwrap();
            for name in ["stdin", "stdout", "stderr"] {
                fifo::make(&dir.join(name)).unwrap();
            }
            let rig = Rig { hub: Hub::start(Limits::default()).unwrap(), dir };
            let streams = Streams {
                stdout: Some(rig.dir.join("stdout")),
                stderr: Some(rig.dir.join("stderr")),
                sink: Sink::Log { path: Some(rig.dir.join("0.log")) },
                attach: Some(Attach { dir: rig.dir.clone(), stdin: stdin.then(|| rig.dir.join("stdin")) }),
            };
            rig.hub.open("c", streams).unwrap();
            rig
        }

        fn attach(&self) -> Attachment {
            Attachment::open(&self.dir).unwrap()
        }

        fn writer(&self, name: &str) -> File {
            OpenOptions::new().write(true).open(self.dir.join(name)).unwrap()
        }

        /// The container's side of its input, held open like a shim does so that only a close is an end.
        fn stdin(&self) -> File {
            OpenOptions::new().read(true).write(true).open(self.dir.join("stdin")).unwrap()
        }

        fn finish(&self) -> Ending {
            self.hub.finish("c", Instant::now() + Duration::from_secs(60)).unwrap()
        }

        fn log(&self) -> String {
            let text = fs::read_to_string(self.dir.join("0.log")).unwrap();
            text.lines().map(|line| &line[31..]).collect::<Vec<_>>().join("|")
        }
    }

    impl Drop for Rig {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.dir).ok();
        }
    }

    /// Everything until the end: stdout, stderr, how many bytes were missed.
    fn follow(attachment: &Attachment) -> (Vec<u8>, Vec<u8>, u64) {
        let (mut out, mut err, mut missed) = (Vec::new(), Vec::new(), 0);
        let mut buffer = [0; wire::MOST + 1];
        loop {
            match attachment.hear(&mut buffer).unwrap() {
                Heard::Stdout(bytes) => out.extend_from_slice(bytes),
                Heard::Stderr(bytes) => err.extend_from_slice(bytes),
                Heard::Missed(n) => missed += n,
                Heard::End => return (out, err, missed),
            }
        }
    }

    #[test]
    fn all_who_are_attached_hear_what_the_log_gets_from_then_on() {
        let rig = Rig::new("all", false);
        let (mut out, mut err) = (rig.writer("stdout"), rig.writer("stderr"));
        let first = rig.attach();
        out.write_all(b"one\n").unwrap();
        // Heard, so it was relayed before the second one came.
        assert_eq!(first.hear(&mut [0; wire::MOST + 1]).unwrap(), Heard::Stdout(b"one\n"));
        let second = rig.attach();
        err.write_all(b"two\n").unwrap();
        assert_eq!(second.hear(&mut [0; wire::MOST + 1]).unwrap(), Heard::Stderr(b"two\n"));
        out.write_all(b"three").unwrap();
        drop((out, err));
        assert_eq!(rig.finish(), Ending::Complete);
        assert_eq!(follow(&first), (b"three".to_vec(), b"two\n".to_vec(), 0));
        assert_eq!(follow(&second), (b"three".to_vec(), vec![], 0));
        assert_eq!(rig.log(), "stdout F one|stderr F two|stdout P three");
        assert_eq!(Attachment::open(&rig.dir).unwrap_err().kind(), Kind::NotFound);
        assert!(!rig.dir.join(wire::SOCKET).exists());
    }

    #[test]
    fn input_arrives_whole_and_in_order_however_slowly_it_is_read() {
        let rig = Rig::new("input", true);
        let (attachment, mut stdin) = (rig.attach(), rig.stdin());
        let sent: Vec<u8> = (0..1_000_000u32).flat_map(|n| (n as u16).to_le_bytes()).collect();
        let expected = sent.clone();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                attachment.write(&sent).unwrap();
                attachment.close_stdin().unwrap();
            });
            let mut got = vec![0; expected.len()];
            stdin.read_exact(&mut got).unwrap();
            assert!(got == expected);
        });
        // The relay's end is closed: once ours is too, there is no writer.
        let mut reader = fifo::open_reader(&rig.dir.join("stdin")).unwrap();
        drop(stdin);
        crate::stdio::attachment::ask(&connect(&rig.dir).unwrap(), wire::ATTACH).unwrap();
        assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
        attachment.write(b"too late").unwrap();
    }

    #[test]
    fn input_of_two_and_of_one_who_left() {
        let rig = Rig::new("two", true);
        let mut stdin = rig.stdin();
        // More than the pipe holds: it waits, and its sender goes.
        let gone = rig.attach();
        (0..3).for_each(|_| gone.write(&[b'g'; wire::MOST]).unwrap());
        drop(gone);
        let other = rig.attach();
        other.write(b"other").unwrap();
        let mut got = vec![0; 3 * wire::MOST + 5];
        stdin.read_exact(&mut got).unwrap();
        let (first, second) = got.split_at(3 * wire::MOST);
        assert!(first.iter().all(|byte| *byte == b'g'));
        assert_eq!(second, b"other");
    }

    #[test]
    fn one_that_does_not_block_says_so() {
        let rig = Rig::new("nonblocking", true);
        let (attachment, mut stdin) = (rig.attach(), rig.stdin());
        attachment.set_nonblocking().unwrap();
        let nothing = attachment.hear(&mut [0; wire::MOST + 1]).map(drop).map_err(|e| e.kind());
        assert_eq!(nothing, Err(Kind::DeadlineExceeded));
        let mut offered = 0;
        // Nobody reads: the pipe, the relay's message and the socket fill up.
        loop {
            match attachment.offer(&[b'x'; wire::MOST]).unwrap() {
                0 => break,
                n => offered += n,
            }
        }
        let mut got = vec![0; offered];
        stdin.read_exact(&mut got).unwrap();
        while !attachment.offer_close().unwrap() {
            std::thread::yield_now();
        }
        attachment.detach();
        assert!(attachment.offer(b"x").is_err());
    }

    #[test]
    fn a_container_that_takes_no_input_drops_it() {
        let rig = Rig::new("none", false);
        let attachment = rig.attach();
        (0..100).for_each(|_| attachment.write(&[0; wire::MOST]).unwrap());
        attachment.close_stdin().unwrap();
        rig.writer("stdout").write_all(b"still here\n").unwrap();
        assert_eq!(rig.finish(), Ending::Complete);
        assert_eq!(follow(&attachment).0, b"still here\n");
    }

    #[test]
    fn who_does_not_read_misses_output_and_is_told_and_holds_up_nobody() {
        let rig = Rig::new("slow", false);
        let (slow, quick) = (rig.attach(), rig.attach());
        let mut out = rig.writer("stdout");
        let line = [&[b'x'; 99][..], b"\n"].concat();
        let total = 80_000 * line.len();
        std::thread::scope(|scope| {
            let quick = scope.spawn(|| follow(&quick));
            (0..80_000).for_each(|_| out.write_all(&line).unwrap());
            drop(out);
            assert_eq!(rig.finish(), Ending::Complete);
            let (got, _, missed) = quick.join().unwrap();
            assert_eq!(got.len() as u64 + missed, total as u64);
        });
        let log = fs::metadata(rig.dir.join("0.log")).unwrap().len();
        assert_eq!(log, 80_000 * (31 + 9 + line.len() as u64), "the log has everything");
        // There was no room to tell it of the end either; the connection is closed all the same.
        let mut buffer = [0; wire::MOST + 1];
        let mut got = 0;
        let end = loop {
            match slow.hear(&mut buffer) {
                Ok(Heard::Stdout(bytes)) => got += bytes.len(),
                other => break other.map(|_| ()).map_err(|e| e.kind()),
            }
        };
        assert!(got < total, "{got}");
        assert_eq!(end, Err(Kind::Unavailable));
    }

    #[test]
    fn the_log_can_be_rotated_through_the_socket() {
        let rig = Rig::new("rotate", false);
        let attachment = rig.attach();
        let mut out = rig.writer("stdout");
        out.write_all(b"old\n").unwrap();
        assert_eq!(attachment.hear(&mut [0; wire::MOST + 1]).unwrap(), Heard::Stdout(b"old\n"));
        fs::rename(rig.dir.join("0.log"), rig.dir.join("0.log.1")).unwrap();
        reopen_log(&rig.dir).unwrap();
        out.write_all(b"new\n").unwrap();
        assert_eq!(attachment.hear(&mut [0; wire::MOST + 1]).unwrap(), Heard::Stdout(b"new\n"));
        assert_eq!(rig.log(), "stdout F new");
        fs::remove_file(rig.dir.join("0.log")).unwrap();
        std::os::unix::fs::symlink("elsewhere", rig.dir.join("0.log")).unwrap();
        assert_eq!(reopen_log(&rig.dir).unwrap_err().kind(), Kind::InvalidArgument);
    }

    #[test]
    fn a_relay_that_dies_is_told_apart_from_a_container_that_ends() {
        let rig = Rig::new("dies", false);
        let dir = rig.dir.clone();
        let attachment = rig.attach();
        attachment.detach();
        assert_eq!(attachment.hear(&mut [0; wire::MOST + 1]).unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(attachment.write(b"x").unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(Attachment::open(&dir.join("nowhere")).unwrap_err().kind(), Kind::NotFound);
        // A socket that nobody listens on, as after a SIGKILL.
        let dead = dir.join("dead");
        fs::create_dir(&dead).unwrap();
        drop(Door::open(&dead, Stdin::Closed).unwrap());
        assert_eq!(Attachment::open(&dead).unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn the_engine_can_be_driven_by_a_loop_that_watches_it() {
        let rig = Rig::new("engine", false);
        let dir = rig.dir.join("inner");
        fs::create_dir(&dir).unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut relay = Relay::new(16 << 10).unwrap();
        let path = dir.join("0.log");
        let log = crate::stdio::LogFile::new(path.clone(), crate::stdio::open_log(&path).unwrap());
        let door = Some(Door::open(&dir, Stdin::Closed).unwrap());
        let file = File::from(std::os::fd::OwnedFd::from(reader));
        relay.open("c", Feed { streams: [Some(file), None], output: Output::Log(log), door }).unwrap();
        let (epoll, mut ready) = (Epoll::new().unwrap(), Vec::new());
        epoll.add(&relay, 7).unwrap();
        epoll.poll(&mut ready).unwrap();
        assert!(ready.is_empty());
        writer.write_all(b"line\n").unwrap();
        epoll.wait(&mut ready).unwrap();
        assert_eq!(ready, [7]);
        assert!(!relay.turn(false).unwrap());
        assert!(fs::read_to_string(&path).unwrap().ends_with(" stdout F line\n"));
        epoll.poll(&mut ready).unwrap();
        assert!(ready.is_empty(), "all that was ready is done");
        relay.rest();
        drop(writer);
        assert!(relay.finish("c"));
        assert!(relay.take_finished().is_empty(), "it was over already");
        assert!(!dir.join(wire::SOCKET).exists());
    }
}
