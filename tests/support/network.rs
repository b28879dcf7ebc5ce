//! A pod network of its own for each node of each process on this machine: a bridge, addresses, host ports.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where Debian and others put plugins.
pub const PLUGIN_DIRS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];
const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

/// A bridge that comes with the first pod, and the addresses behind it.
pub struct Network {
    bridge: String,
    /// `10.101.4`: the first three bytes. A thousand addresses begin there: a bench has hundreds of pods.
    subnet: String,
}

impl Network {
    /// One that nobody else has. Panics with what to install when a plugin is missing.
    pub fn new() -> Network {
        for plugin in PLUGINS {
            plugin_dir(plugin);
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let number = (pid * 16 + count) % (156 * 64);
        let subnet = format!("10.{}.{}", 100 + number / 64, number % 64 * 4);
        Network { bridge: format!("ckn{pid}-{count}"), subnet }
    }

    /// The bridge's address: the host, as pods see it.
    pub fn gateway(&self) -> String {
        format!("{}.1", self.subnet)
    }

    /// Writes its configuration to `<dir>/net.d`.
    pub fn configure(&self, dir: &Path) {
        let (bridge, subnet, conf) = (&self.bridge, &self.subnet, dir.join("net.d"));
        fs::create_dir_all(&conf).expect("make a directory");
        let text = format!(
            r#"{{"cniVersion": "1.0.0", "name": "test", "plugins": [
{{"type": "bridge", "bridge": "{bridge}", "isGateway": true, "ipam":
  {{"type": "host-local", "dataDir": "{}/ipam", "ranges": [[{{"subnet": "{subnet}.0/22"}}]]}}}},
{{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}
"#,
            dir.display()
        );
        fs::write(conf.join("10-test.conflist"), text).expect("write the network");
    }

    /// Takes the bridge away; without a pod there was none.
    pub fn remove(&self) {
        Command::new("ip").args(["link", "del", &self.bridge]).output().ok();
    }
}

/// The folder that has this plugin.
pub fn plugin_dir(plugin: &str) -> &'static str {
    let found = PLUGIN_DIRS.into_iter().find(|dir| Path::new(dir).join(plugin).is_file());
    found.unwrap_or_else(|| {
        panic!("CNI plugin {plugin} is missing: apt-get install containernetworking-plugins iptables")
    })
}
