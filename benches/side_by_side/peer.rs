//! The other side: containerd with its own CRI plugin, as much like cricket's node as can be.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use cricket::image::build::{self, Bytes, NewFile, NewImage};
use cricket_proto::methods::runtime_service;
use cricket_proto::runtime::RuntimeStatus;

use crate::containerd::{Flavour, PrivateContainerd};
use crate::cri::Cri;
use crate::network::{plugin_dir, Network};
use crate::node::{binary, until};
use crate::pause;

/// The image of its sandboxes.
const PAUSE: &str = "localhost/cricket-bench-pause:1";

/// A containerd that serves the CRI. Dropping it takes everything down.
pub struct Peer {
    pub containerd: PrivateContainerd,
    network: Network,
    /// A client of its socket.
    pub cri: Cri,
}

impl Peer {
    /// Starts it, with the pause image; returns when it answers.
    pub fn start(flavour: Flavour) -> Peer {
        let network = Network::new();
        let containerd = PrivateContainerd::start_as(Flavour { cri: true, tables: Some(tables), ..flavour });
        let dir = containerd.dir();
        network.configure(dir);
        fs::create_dir(dir.join("logs")).expect("make a directory");
        // For `cricket import`, which puts images into any containerd.
        let config = format!("root = \"{0}/lib\"\n[containerd]\naddress = \"{0}/containerd.sock\"\n", dir.display());
        fs::write(dir.join("cricket.toml"), config).expect("write cricket.toml");
        let cri = Cri::connect(Path::new(&containerd.socket()));
        let peer = Peer { containerd, network, cri };
        // It watches the folder of networks, and has made it if it was faster.
        until("the CRI plugin is ready, its network too", || peer.ready());
        peer.import_pause();
        peer
    }

    fn ready(&self) -> bool {
        let status = self.cri.call(&runtime_service::STATUS, &Default::default());
        // It has another one, that nothing is used which is to go one day.
        let ready = |name: &str, of: &RuntimeStatus| of.conditions.iter().any(|of| of.type_ == name && of.status);
        status.is_ok_and(|answer| ["RuntimeReady", "NetworkReady"].iter().all(|name| ready(name, &answer.status)))
    }

    fn import_pause(&self) {
        let program = pause::program();
        let files = vec![NewFile { path: "pause", mode: 0o755, bytes: Bytes::Inline(&program) }];
        let image = NewImage { name: PAUSE, files, entrypoint: vec!["/pause"], ..NewImage::default() };
        let archive = self.containerd.dir().join("pause.tar");
        build::write(&image, &mut File::create(&archive).expect("make the archive")).expect("build the image");
        self.import(&archive, PAUSE);
    }

    /// Imports an archive that holds the image `name`.
    pub fn import(&self, archive: &Path, name: &str) {
        let config = self.containerd.dir().join("cricket.toml");
        let output = Command::new(binary()).arg("import").arg(archive).arg("--config").arg(config).output();
        let output = output.expect("run cricket");
        assert!(output.status.success(), "cricket import: {}", String::from_utf8_lossy(&output.stderr));
        until("the CRI plugin hears of the image", || self.cri.has_image(name));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.network.remove();
    }
}

/// Everything in its own directory, and no lower score for the out-of-memory killer than this machine allows.
fn tables(flavour: &Flavour, dir: &Path) -> String {
    let (plugins, dir) = (plugin_dir("bridge"), dir.display());
    // Empty is the shim's own default.
    let runtime = flavour.runtime.as_deref().unwrap_or(Path::new("")).display();
    format!(
        r#"[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{dir}/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{runtime}"
        Root = "{dir}/runc"
        SystemdCgroup = false
"#
    )
}
