//! The same for images: pulled from a registry, and removed.

use std::fs;
use std::process::Command;

use cricket::error::Result;
use cricket_proto::runtime::PodSandboxConfig;

use crate::cri::{container, image_spec, Cri};
use crate::node::BUSYBOX;
use crate::registry::{noise, Layer, Registry};
use crate::rig::Rig;
use crate::OnePod;

/// A registry beside the node, with an image of three layers.
struct Image {
    _registry: Registry,
    name: String,
    id: String,
    containerd: String,
    /// What containerd holds without the image.
    content: String,
    pod: PodSandboxConfig,
}

impl Image {
    fn offered(rig: &Rig) -> Image {
        let registry = Registry::start(rig.containerd().dir(), "", "");
        let busybox = fs::read(BUSYBOX).expect("busybox");
        let noise = Layer::gzip("noise", &noise(1_100_000, 1));
        let layers = [Layer::gzip("bin/busybox", &busybox), Layer::plain("etc/hello", b"hello"), noise];
        let id = registry.push("app", "1", &layers);
        let (name, containerd) = (format!("{}/app:1", registry.address), rig.containerd().socket());
        let content = held(&containerd);
        Image { _registry: registry, name, id, containerd, content, pod: rig.pod_config(false) }
    }

    fn pull(&self, cri: &Cri) -> Result<String> {
        cri.pull(&self.name, None)
    }

    /// The names that it is listed with, if it is. Then it is whole, and a container runs from it.
    fn names(&self, cri: &Cri) -> Option<Vec<String>> {
        let image = cri.images().expect("ListImages").into_iter().find(|image| image.id == self.id)?;
        let pod = OnePod { id: cri.run_pod(&self.pod).expect("RunPodSandbox"), config: self.pod.clone() };
        let mut config = container("a", "");
        config.image = image_spec(&self.id);
        config.command = [BUSYBOX, "grep", "hello", "/etc/hello"].map(str::to_owned).to_vec();
        config.args.clear();
        let id = cri.create(&pod.id, &pod.config, config).expect("CreateContainer");
        cri.start(&id).expect("StartContainer");
        assert_eq!(cri.ended(&id).exit_code, 0);
        pod.remove(cri);
        Some(image.repo_tags)
    }

    /// Once it is removed, nothing of it is there.
    fn goes(&self, cri: &Cri) {
        cri.remove_image(&self.id).expect("RemoveImage");
        assert_eq!(self.names(cri), None);
        assert_eq!(held(&self.containerd), self.content);
    }
}

/// All blobs of a containerd, and those that are being written.
fn held(containerd: &str) -> String {
    let list = |arguments: &[&str]| {
        let mut ctr = Command::new("ctr");
        ctr.args(["--address", containerd, "--namespace", "k8s.io", "content"]).args(arguments);
        let done = ctr.output().expect("ctr comes with containerd");
        assert!(done.status.success(), "ctr content {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("text")
    };
    list(&["list", "--quiet"]) + &list(&["active"])
}

#[test]
fn pull_image() {
    let mut rig = Rig::start();
    let image = Image::offered(&rig);
    let effects = rig.killed_after_every_effect(
        |_| (),
        |cri, ()| image.pull(cri),
        |cri, (), done: Result<String>| {
            let there = image.names(cri);
            assert!(done.is_err() || there.is_some(), "{done:?}, and it is not there");
            assert_eq!(image.pull(cri).expect("the same request"), image.id);
            assert_eq!(image.names(cri).as_deref(), Some(&[image.name.clone()][..]));
            image.goes(cri);
        },
    );
    assert!(effects > 20, "{effects}");
}

#[test]
fn remove_image() {
    let mut rig = Rig::start();
    let image = Image::offered(&rig);
    let effects = rig.killed_after_every_effect(
        |rig| assert_eq!(image.pull(rig.cri()).expect("PullImage"), image.id),
        |cri, ()| cri.remove_image(&image.name),
        |cri, (), done: Result<()>| {
            let there = image.names(cri);
            assert!(done.is_err() || there.is_none(), "{done:?}, and it has the names {there:?}");
            cri.remove_image(&image.name).expect("the same request");
            assert_eq!(image.pull(cri).expect("and back"), image.id);
            image.goes(cri);
        },
    );
    assert!(effects > 1, "{effects}");
}
