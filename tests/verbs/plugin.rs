//! A CNI plugin that is a shell script: it gives addresses, notes who has one, and misbehaves on demand.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The name of the network.
pub const NETWORK: &str = "scripted";

/// What a run of the plugin does instead of working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Does half of its work and reports an error.
    Fail,
    /// Does half of its work and goes on for ever.
    Hang,
    /// Does all of its work and prints what is no result.
    Garbage,
    /// Works, but has no address to give.
    Addressless,
}

impl Mood {
    fn word(self) -> &'static str {
        match self {
            Mood::Fail => "fail",
            Mood::Hang => "hang",
            Mood::Garbage => "garbage",
            Mood::Addressless => "addressless",
        }
    }
}

/// The plugin, its configuration and what it wrote down, below one directory.
pub struct Plugin {
    dir: PathBuf,
}

impl Plugin {
    /// Installs it in `<dir>/cni`.
    pub fn install(dir: &Path) -> Self {
        let plugin = Plugin { dir: dir.join("cni") };
        for name in ["conf", "bin", "attached"] {
            fs::create_dir_all(plugin.dir.join(name)).expect("make a directory");
        }
        plugin.write_script();
        plugin.configure();
        plugin
    }

    /// Written by another process: what we wrote ourselves could be held open for writing by a child that another
    /// test is just starting, and would not be executable ("text file busy").
    fn write_script(&self) {
        let script = SCRIPT.replace("DIR", &self.dir.display().to_string());
        let mut writer = Command::new("sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(self.dir.join("bin/scripted"))
            .stdin(Stdio::piped())
            .spawn()
            .expect("start sh");
        writer.stdin.take().expect("piped").write_all(script.as_bytes()).expect("write the script");
        assert!(writer.wait().expect("wait for sh").success());
    }

    fn conf(&self) -> PathBuf {
        self.dir.join("conf/10-scripted.conflist")
    }

    /// Puts the valid configuration there.
    pub fn configure(&self) {
        self.configure_as(&format!(
            r#"{{"cniVersion":"1.0.0","name":"{NETWORK}","plugins":[{{"type":"scripted","capabilities":{{"portMappings":true}}}}]}}"#
        ));
    }

    /// Puts this text there as the configuration.
    pub fn configure_as(&self, text: &str) {
        fs::write(self.conf(), text).expect("write a configuration");
    }

    /// Leaves the configuration directory empty.
    pub fn unconfigure(&self) {
        fs::remove_file(self.conf()).expect("remove the configuration");
    }

    /// From now on every run of `verb` (`ADD`, `DEL`) is in this mood; `None` is a good one.
    pub fn set(&self, verb: &str, mood: Option<Mood>) {
        let file = self.dir.join(format!("mood.{verb}"));
        match mood {
            Some(mood) => fs::write(file, mood.word()).expect("write a mood"),
            None => fs::remove_file(file).expect("there was a mood"),
        }
    }

    /// What ran, as `ADD <id>`, in order.
    pub fn ran(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("ran")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What `DEL` had in `CNI_NETNS` last.
    pub fn last_netns(&self) -> String {
        fs::read_to_string(self.dir.join("netns.DEL")).expect("DEL has run").trim().to_owned()
    }

    /// Who was added and not deleted, and what the cache keeps of whom.
    pub fn attached(&self) -> Vec<String> {
        let listed = |dir: PathBuf, what: &str| {
            let entries = fs::read_dir(dir).into_iter().flatten();
            let entries = entries.map(|entry| entry.expect("read a directory").file_name());
            entries.map(|name| format!("{what}:{}", name.to_string_lossy())).collect::<Vec<_>>()
        };
        let mut all = listed(self.dir.join("attached"), "attached");
        all.extend(listed(self.dir.join("cache/results"), "cached"));
        all
    }

    /// The lines of the daemon's configuration.
    pub fn settings(&self) -> String {
        let dir = self.dir.display();
        format!(
            "[cni]\nconf_dir = \"{dir}/conf\"\nbin_dirs = [\"{dir}/bin\"]\ncache_dir = \"{dir}/cache\"\ntimeout = 30\n"
        )
    }
}

/// An address is the number of runs so far: good for a few hundred pods.
const SCRIPT: &str = r#"#!/bin/sh
cd 'DIR' || exit 9
mood=$(cat mood.$CNI_COMMAND 2>/dev/null)
cat > stdin.$CNI_COMMAND
echo "$CNI_COMMAND $CNI_CONTAINERID" >> ran
echo "$CNI_NETNS" > netns.$CNI_COMMAND
n=$(wc -l < ran)
case $CNI_COMMAND in
ADD)
    [ -e "$CNI_NETNS" ] || { echo '{"code":3,"msg":"no namespace"}'; exit 1; }
    : > attached/$CNI_CONTAINERID ;;
DEL)
    [ -z "$mood" ] && rm -f attached/$CNI_CONTAINERID ;;
esac
case $mood in
fail) echo '{"cniVersion":"1.0.0","code":11,"msg":"the pool is dry"}'; exit 1 ;;
hang) exec sleep 600 ;;
garbage) echo 'I am fine'; exit 0 ;;
addressless) echo '{"cniVersion":"1.0.0"}'; exit 0 ;;
esac
[ $CNI_COMMAND = DEL ] && exit 0
cat <<END
{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"$CNI_NETNS"}],
 "ips":[{"address":"fd00::$n/64","interface":0},{"address":"10.88.0.$n/16","interface":0}]}
END
"#;
