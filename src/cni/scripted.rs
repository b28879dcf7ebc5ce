//! A CNI whose plugins are shell scripts that note what they were given, for the tests of this room.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::{Attachment, Capabilities, Cni};

/// Long enough for any machine; only a failing test waits for it.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A directory of its own, removed at the end.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("cricket-cni-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("make a temporary directory");
        Dir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok(); // nothing depends on it
    }
}

/// `conf/`, `bin/`, `cache/` and `log/` in one temporary directory, and a [`Cni`] on them.
pub struct Rig {
    pub dir: Dir,
    pub cni: Cni,
}

impl Rig {
    pub fn new() -> Self {
        Rig::with_timeout(TIMEOUT)
    }

    pub fn with_timeout(timeout: Duration) -> Self {
        let dir = Dir::new();
        for name in ["conf", "bin", "log", "netns"] {
            fs::create_dir(dir.path().join(name)).expect("make a directory");
        }
        let bin = vec![dir.path().join("missing"), dir.path().join("bin")];
        Rig { cni: Cni::new(dir.path().join("conf"), bin, dir.path().join("cache"), timeout), dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file in the configuration directory.
    pub fn conf(&self, name: &str, content: &Value) {
        fs::write(self.path("conf").join(name), content.to_string()).expect("write a configuration");
    }

    /// A plugin that notes its environment and stdin, and then does what `body` says.
    ///
    /// Written by another process: a plugin that we wrote ourselves could be held open for writing by the child that
    /// another test is just starting, and would not be executable ("text file busy").
    pub fn plugin(&self, kind: &str, body: &str) {
        let script = format!(
            "#!/bin/sh\n\
             log='{log}'\n\
             echo \"$CNI_COMMAND {kind}\" >> $log/order\n\
             env | grep ^CNI_ | sort > $log/{kind}.$CNI_COMMAND.env\n\
             cat > $log/{kind}.$CNI_COMMAND.json\n\
             {body}\n",
            log = self.path("log").display(),
        );
        let mut writer = Command::new("sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(self.path("bin").join(kind))
            .stdin(Stdio::piped())
            .spawn()
            .expect("start sh");
        writer.stdin.take().expect("piped").write_all(script.as_bytes()).expect("write a script");
        assert!(writer.wait().expect("wait for sh").success());
    }

    /// What ran, as `ADD first`, in order; forgets it.
    pub fn ran(&self) -> Vec<String> {
        let order = self.path("log/order");
        let text = fs::read_to_string(&order).unwrap_or_default();
        fs::remove_file(order).ok(); // nothing ran
        text.lines().map(str::to_owned).collect()
    }

    /// What a plugin read on stdin.
    pub fn stdin(&self, kind: &str, verb: &str) -> Value {
        let text = fs::read(self.path(&format!("log/{kind}.{verb}.json"))).expect("the plugin ran");
        serde_json::from_slice(&text).expect("JSON on stdin")
    }

    /// The `CNI_` variables of a plugin, sorted.
    pub fn env(&self, kind: &str, verb: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(&format!("log/{kind}.{verb}.env"))).expect("the plugin ran");
        text.lines().map(str::to_owned).collect()
    }

    /// The files in libcni's cache.
    pub fn records(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("cache/results")).into_iter().flatten();
        entries.map(|e| e.expect("read a directory").file_name().to_string_lossy().into_owned()).collect()
    }
}

/// `eth0` of container `id` in the namespace at `netns`.
pub fn attachment<'a>(id: &'a str, netns: &'a Path) -> Attachment<'a> {
    Attachment {
        container_id: id,
        netns: Some(netns),
        interface: "eth0",
        args: &[("IgnoreUnknown", "1"), ("K8S_POD_NAME", "web")],
        capabilities: Capabilities::default(),
    }
}
