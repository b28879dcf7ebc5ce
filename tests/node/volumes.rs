//! Mounts of other kinds than a directory of the node, devices by their vendor's name, and limits that change.

use std::fs;
use std::path::Path;

use cricket_proto::methods::runtime_service as rpc;
use cricket_proto::runtime::{
    CDIDevice, ImageSpec, LinuxContainerResources, Mount, StatusRequest, UpdateContainerResourcesRequest,
};
use protobuf::MessageField;

use crate::census::Census;
use crate::cri::{container, Pod, POLITE};
use crate::node::{Node, Tuning, IMAGE};

fn image(path: &str, sub_path: &str) -> Mount {
    Mount {
        container_path: path.into(),
        readonly: true,
        image: Some(ImageSpec { image: IMAGE.into(), ..Default::default() }).into(),
        image_sub_path: sub_path.into(),
        ..Default::default()
    }
}

#[test]
fn an_image_is_a_volume_of_a_pod() {
    let node = Node::start();
    let empty = Census::take(&node);
    let pod = Pod::run(&node, "images");
    let mut config = container("one", POLITE);
    config.mounts = vec![image("/content", ""), image("/settings", "etc")];
    let one = pod.start(config);
    let mut config = container("two", POLITE);
    config.mounts = vec![image("/content", "")];
    let two = pod.start(config);
    let passwd = node.cri.sh(&one, "cat /etc/passwd");
    for (id, path) in [(&one, "/content/etc/passwd"), (&one, "/settings/passwd"), (&two, "/content/etc/passwd")] {
        assert_eq!(node.cri.sh(id, &format!("cat {path}")), passwd, "{path}");
    }
    let refused = node.cri.sh(&one, "(echo x > /content/new) 2>&1 || true");
    assert!(refused.contains("Read-only file system"), "{refused}");
    let mounted: Vec<_> =
        Census::take(&node).0["mounts"].iter().filter(|m| m.contains("/sandboxes/")).cloned().collect();
    assert_eq!(mounted.iter().filter(|m| m.contains("/images/")).count(), 1, "{mounted:?}");

    let mut config = container("none", POLITE);
    config.mounts = vec![image("/content", "no/such")];
    let e = node.cri.create(&pod.id, &pod.config, config).expect_err("no such directory");
    assert!(e.to_string().contains("ImageVolumeMountFailed: "), "{e}");
    pod.remove();
    let left = Census::take(&node).new_since(&empty);
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn read_only_with_everything_below() {
    let node = Node::shared();
    let answer = node.cri.call(&rpc::STATUS, &StatusRequest::default()).expect("Status");
    let able = answer.runtime_handlers.iter().all(|h| h.features.recursive_read_only_mounts);
    assert!(able, "runc 1.1 and Linux 5.12 can: {:?}", answer.runtime_handlers);
    let pod = Pod::run(&node, "rro");
    let volume = node.dir().join("volumes/rro");
    fs::create_dir_all(volume.join("below")).expect("a volume");
    let below = volume.join("below");
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&below).status();
    assert!(mounted.expect("run mount").success());
    let mount = |path: &str, recursive_read_only| Mount {
        container_path: path.into(),
        host_path: volume.display().to_string(),
        readonly: true,
        recursive_read_only,
        ..Default::default()
    };
    let mut config = container("c", POLITE);
    config.mounts = vec![mount("/plain", false), mount("/all", true)];
    let id = pod.start(config);
    node.cri.sh(&id, "echo x > /plain/below/file");
    let refused = node.cri.sh(&id, "(echo x > /all/below/file) 2>&1 || true");
    assert!(refused.contains("Read-only file system"), "{refused}");
    pod.remove();
    assert!(std::process::Command::new("umount").arg(&below).status().expect("run umount").success());
}

#[test]
fn a_device_by_its_vendors_name() {
    let cdi = std::env::temp_dir().join(format!("cricket-node-cdi-{}", std::process::id()));
    fs::create_dir_all(&cdi).expect("a folder");
    let node =
        Node::start_as(Tuning { top: format!("cdi_dirs = [{:?}]", cdi.display().to_string()), ..Tuning::default() });
    let spec = format!(
        "cdiVersion: 0.6.0\nkind: acme.com/null\ncontainerEdits:\n  env: [ACME=yes]\ndevices:\n- name: '0'\n  \
         containerEdits:\n    deviceNodes:\n    - path: /dev/acme0\n      hostPath: /dev/null\n    mounts:\n    - \
         hostPath: {}\n      containerPath: /acme\n      options: [ro, rbind]\n",
        cdi.display()
    );
    fs::write(cdi.join("acme.yaml"), spec).expect("write a specification");
    let pod = Pod::run(&node, "cdi");
    let mut config = container("c", POLITE);
    config.CDI_devices = vec![CDIDevice { name: "acme.com/null=0".into(), ..Default::default() }];
    let id = pod.start(config);
    assert_eq!(node.cri.sh(&id, "echo x > /dev/acme0 && [ -c /dev/acme0 ] && echo $ACME"), "yes");
    assert!(node.cri.sh(&id, "cat /acme/acme.yaml").contains("kind: acme.com/null"));
    let mut config = container("d", POLITE);
    config.CDI_devices = vec![CDIDevice { name: "acme.com/null=1".into(), ..Default::default() }];
    let e = node.cri.create(&pod.id, &pod.config, config).expect_err("no such device");
    assert!(e.to_string().contains("acme.com/null=1"), "{e}");
    pod.remove();
    fs::remove_dir_all(&cdi).expect("our own folder");
}

/// A file of the memory cgroup of a process, v1 or v2.
fn memory_limit(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    let v1 = text.lines().find_map(|line| line.split_once(":memory:").map(|(_, path)| path.to_owned()));
    let path = match v1 {
        Some(path) => format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"),
        None => {
            let path = text.lines().find_map(|line| line.strip_prefix("0::")).expect("cgroup v2");
            format!("/sys/fs/cgroup{path}/memory.max")
        }
    };
    fs::read_to_string(Path::new(&path)).unwrap_or_else(|e| panic!("{path}: {e}")).trim().to_owned()
}

#[test]
fn limits_change_while_it_runs_and_before() {
    let node = Node::shared();
    let pod = Pod::run(&node, "resize");
    let update = |id: &str, megabytes: i64| {
        let linux = LinuxContainerResources { memory_limit_in_bytes: megabytes << 20, ..Default::default() };
        let request = UpdateContainerResourcesRequest {
            container_id: id.into(),
            linux: MessageField::some(linux),
            ..Default::default()
        };
        node.cri.call(&rpc::UPDATE_CONTAINER_RESOURCES, &request).expect("UpdateContainerResources");
        assert_eq!(node.cri.status(id).resources.linux.memory_limit_in_bytes, megabytes << 20);
    };
    let mut config = container("running", POLITE);
    config.linux.mut_or_insert_default().resources =
        MessageField::some(LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() });
    let running = pod.start(config);
    let pid = node.cri.pid(&running);
    for megabytes in [128, 32] {
        update(&running, megabytes);
        assert_eq!(memory_limit(pid), (megabytes << 20).to_string());
    }
    let created = pod.create(container("created", POLITE));
    update(&created, 48);
    node.cri.start(&created).expect("StartContainer");
    assert_eq!(memory_limit(node.cri.pid(&created)), (48 << 20).to_string());
    pod.remove();
}
