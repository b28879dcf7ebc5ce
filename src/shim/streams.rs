//! Where the streams of a process lead: FIFOs, files, a logging program or nowhere, as clients of containerd write it.
//!
//! A FIFO is handed to the process itself, so that no byte passes through us. We keep it open in both directions until
//! the process has ended: it must neither end nor block because a client comes late or goes early.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{fchown, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio as Given};

use super::messages::Stdio;
use super::output::{Hosted, Wanted};
use crate::error::{Context, Error, Kind, Result};
use crate::stdio::Stdin;
use crate::sys::descriptors;

/// Who owns the streams, and what a logging program is told of them.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// containerd's namespace.
    pub namespace: &'a str,
    /// The container.
    pub id: &'a str,
    /// Owner of the pipes, if it is not us.
    pub uid: u32,
    /// Group of the pipes.
    pub gid: u32,
}

/// The streams of a process that is about to start.
#[derive(Debug)]
pub struct Opened {
    /// For the process, by number.
    pub given: [Given; 3],
    /// For us.
    pub held: Held,
    /// Where output of a terminal goes, if there is one.
    pub sink: Option<File>,
    /// Readable, or at its end, once the logging program is ready.
    pub ready: Option<File>,
    /// For us to write down.
    pub hosted: Option<Hosted>,
}

/// What is kept open while a process runs. Dropping it lets readers see the end.
#[derive(Debug, Default)]
pub struct Held {
    stdin: Option<File>,
    outputs: Vec<File>,
}

impl Held {
    /// The process sees the end of its input once the client closes it too.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }
}

/// What a stream's text means.
#[derive(Debug, PartialEq, Eq)]
enum Way<'a> {
    Nowhere,
    Fifo(&'a str),
    File(String),
    /// A program and its arguments.
    Program(String, Vec<String>),
    /// To us.
    Here(Wanted),
}

/// Opens everything. On error nothing is left but perhaps an empty log file.
pub fn open(stdio: &Stdio, owner: &Owner<'_>) -> Result<Opened> {
    let null = || [Given::null(), Given::null(), Given::null()];
    let mut opened = Opened { given: null(), held: Held::default(), sink: None, ready: None, hosted: None };
    if let Way::Here(wanted) = way(&stdio.stdout)? {
        open_here(stdio, owner, wanted, &mut opened)?;
        return Ok(opened);
    }
    if stdio.terminal {
        opened.sink = match way(&stdio.stdout)? {
            Way::Nowhere | Way::Here(_) => None,
            Way::Fifo(path) => Some(twin(path)?),
            Way::File(path) => Some(file(&path)?),
            Way::Program(program, words) => {
                let (reader, writer) = pipe(owner)?;
                opened.ready = Some(log_with(&program, &words, owner, [Some(reader), None])?);
                descriptors::set_nonblocking(&writer).context("make a pipe for a logging program")?;
                Some(writer)
            }
        };
        return Ok(opened);
    }
    let [stdin, stdout, stderr] = &mut opened.given;
    if let Way::Fifo(path) = way(&stdio.stdin)? {
        opened.held.stdin = Some(twin(path)?);
        *stdin = end(path, owner, false)?.into();
    }
    let mut logged = [None, None];
    let mut program = None;
    for (n, (given, uri)) in [(stdout, &stdio.stdout), (stderr, &stdio.stderr)].into_iter().enumerate() {
        match way(uri)? {
            Way::Nowhere | Way::Here(_) => {}
            Way::Fifo(path) => {
                opened.held.outputs.push(twin(path)?);
                *given = end(path, owner, true)?.into();
            }
            Way::File(path) => *given = file(&path)?.into(),
            Way::Program(path, words) => {
                let (reader, writer) = pipe(owner)?;
                logged[n] = Some(reader);
                program = program.or(Some((path, words)));
                *given = writer.into();
            }
        }
    }
    if let Some((path, words)) = program {
        opened.ready = Some(log_with(&path, &words, owner, logged)?);
    }
    Ok(opened)
}

/// Pipes to us, unless a terminal will be both.
fn open_here(stdio: &Stdio, owner: &Owner<'_>, wanted: Wanted, opened: &mut Opened) -> Result<()> {
    let mut hosted = wanted.open()?;
    let doing = "make a pipe for a stream";
    if !stdio.terminal {
        if matches!(way(&stdio.stdin)?, Way::Here(_)) {
            let (reader, writer) = descriptors::pipe().context(doing)?;
            own(&reader, owner).context(doing)?;
            descriptors::set_nonblocking(&writer).context(doing)?;
            opened.given[0] = reader.into();
            hosted.stdin = Stdin::Open(writer);
        }
        for (given, stream) in opened.given[1..].iter_mut().zip(&mut hosted.streams) {
            let (reader, writer) = pipe(owner)?;
            descriptors::set_nonblocking(&reader).context(doing)?;
            *given = writer.into();
            *stream = Some(reader);
        }
    }
    opened.hosted = Some(hosted);
    Ok(())
}

/// Whether the input is ours to pass on.
pub fn takes_input_here(stdio: &Stdio) -> bool {
    matches!(way(&stdio.stdin), Ok(Way::Here(_)))
}

/// The client's end of a terminal's input.
pub fn terminal_input(stdio: &Stdio) -> Result<Option<File>> {
    match way(&stdio.stdin)? {
        Way::Fifo(path) => twin(path).map(Some),
        _ => Ok(None),
    }
}

fn way(uri: &str) -> Result<Way<'_>> {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return Ok(if uri.is_empty() { Way::Nowhere } else { Way::Fifo(uri) });
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    match scheme {
        "fifo" => Ok(Way::Fifo(path)),
        "file" => Ok(Way::File(decoded(path))),
        "cricket" => Wanted::read(path, query).map(Way::Here),
        "binary" => {
            let words = query.split('&').filter(|pair| !pair.is_empty()).flat_map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                [key, value].into_iter().filter(|word| !word.is_empty()).map(decoded)
            });
            Ok(Way::Program(decoded(path), words.collect()))
        }
        _ => Err(Error::new(Kind::Unimplemented, format!("streams of the kind {scheme}:// are not supported"))),
    }
}

/// Percent-decoded; what is no escape stays.
pub fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        let escape = (*first == b'%').then(|| after.get(..2)).flatten();
        let value = escape.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Our own hold on a FIFO, which never blocks.
fn twin(path: &str) -> Result<File> {
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    opened.with_context(|| format!("open stream {path}"))
}

/// The process's end of a FIFO that we hold.
fn end(path: &str, owner: &Owner<'_>, output: bool) -> Result<File> {
    let opened = OpenOptions::new().read(!output).write(output).custom_flags(libc::O_NOCTTY).open(path);
    let opened = opened.with_context(|| format!("open stream {path}"))?;
    own(&opened, owner).with_context(|| format!("give stream {path} to its owner"))?;
    Ok(opened)
}

fn file(path: &str) -> Result<File> {
    if let Some(dir) = Path::new(path).parent() {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    }
    let opened = OpenOptions::new().create(true).append(true).mode(0o644).custom_flags(libc::O_NOCTTY).open(path);
    opened.with_context(|| format!("open log {path}"))
}

fn pipe(owner: &Owner<'_>) -> Result<(File, File)> {
    let (reader, writer) = descriptors::pipe().context("make a pipe for a logging program")?;
    own(&writer, owner).context("give a pipe to its owner")?;
    Ok((reader, writer))
}

fn own(file: &File, owner: &Owner<'_>) -> std::io::Result<()> {
    match (owner.uid, owner.gid) {
        (0, 0) => Ok(()),
        (uid, gid) => fchown(file.as_fd(), Some(uid), Some(gid)),
    }
}

/// Starts a logging program: it reads the outputs at 3 and 4, and closes 5 when it is ready.
fn log_with(program: &str, words: &[String], owner: &Owner<'_>, outputs: [Option<File>; 2]) -> Result<File> {
    let doing = || format!("start logging program {program}");
    let (ready, signal) = descriptors::pipe().with_context(doing)?;
    let nothing = || File::open("/dev/null").with_context(doing);
    let [stdout, stderr] = outputs.map(|output| output.map_or_else(nothing, Ok));
    let mut command = Command::new(program);
    command.args(words).env("CONTAINER_ID", owner.id).env("CONTAINER_NAMESPACE", owner.namespace);
    command.stdin(Given::null()).stdout(Given::null()).stderr(Given::null());
    descriptors::give(&mut command, vec![stdout?.into(), stderr?.into(), signal.into()]);
    command.spawn().with_context(doing)?;
    Ok(ready)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fifo;
    use std::io::Read;

    #[test]
    fn ways_are_told_apart() {
        assert_eq!(way("").expect("none"), Way::Nowhere);
        assert_eq!(way("/a b").expect("plain"), Way::Fifo("/a b"));
        assert_eq!(way("fifo:///a").expect("fifo"), Way::Fifo("/a"));
        assert_eq!(way("file:///a%20b?x=y").expect("file"), Way::File("/a b".into()));
        let words = ["--id", "a=b", "flag"].map(str::to_owned).to_vec();
        assert_eq!(way("binary:///bin/l?--id=a%3Db&flag").expect("program"), Way::Program("/bin/l".into(), words));
        assert_eq!(way("http://x").expect_err("unknown").kind(), Kind::Unimplemented);
        assert_eq!(decoded("%4"), "%4");
        assert_eq!(decoded("%zz%41%"), "%zzA%");
    }

    #[test]
    fn a_fifo_neither_ends_nor_blocks_until_it_is_let_go() {
        let path = std::env::temp_dir().join(format!("cricket-streams-{}", std::process::id()));
        fs::remove_file(&path).ok();
        fifo::make(&path).expect("fresh");
        let stdio = Stdio { stdout: path.display().to_string(), stdin: path.display().to_string(), ..Stdio::default() };
        let owner = Owner { namespace: "n", id: "i", uid: 0, gid: 0 };
        let mut opened = open(&stdio, &owner).expect("nobody else is needed");
        let mut client = fifo::open_reader(&path).expect("a fifo");
        assert_eq!(client.read(&mut [0]).expect_err("open").kind(), std::io::ErrorKind::WouldBlock);
        opened.held.close_stdin();
        opened.given = [Given::null(), Given::null(), Given::null()];
        assert_eq!(client.read(&mut [0]).expect_err("held").kind(), std::io::ErrorKind::WouldBlock);
        opened.held = Held::default();
        assert_eq!(client.read(&mut [0]).expect("the end"), 0);
        fs::remove_file(&path).expect("ours");
        assert!(open(&stdio, &owner).is_err());
    }

    #[test]
    fn a_logging_program_gets_the_output_and_says_when_it_is_ready() {
        let dir = std::env::temp_dir().join(format!("cricket-logger-{}", std::process::id()));
        fs::remove_dir_all(&dir).ok();
        fs::create_dir(&dir).expect("fresh");
        let (script, log) = (dir.join("l.sh"), dir.join("out"));
        let text = "#!/bin/sh\nexec 5>&-\n{ echo \"$CONTAINER_NAMESPACE $CONTAINER_ID $1 $2\"; cat <&3; } >$2\n";
        fs::write(&script, text).expect("writable");
        fifo::make(&log).expect("fresh");
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
        let stdout = format!("binary://{}?to={}", script.display(), log.display());
        let owner = Owner { namespace: "n", id: "i", uid: 0, gid: 0 };
        let opened = open(&Stdio { stdout, ..Stdio::default() }, &owner).expect("started");
        let Opened { given: [_, stdout, _], ready, .. } = opened;
        ready.expect("a program").read_to_end(&mut Vec::new()).expect("its end means ready");
        let mut echo = Command::new("echo").arg("said").stdout(stdout).spawn().expect("echo");
        assert!(echo.wait().expect("ours").success());
        assert_eq!(fs::read_to_string(&log).expect("until it ends"), format!("n i to {}\nsaid\n", log.display()));
        fs::remove_dir_all(&dir).expect("ours");
    }
}
