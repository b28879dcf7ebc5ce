//! Mounts of other kinds than a directory of the node, devices by their vendor's name, and limits that change.

use std::fs;
use std::os::unix::fs::{chown, symlink, PermissionsExt};
use std::path::Path;

use cricket_proto::methods::runtime_service as rpc;
use cricket_proto::runtime::{
    CDIDevice, LinuxContainerResources, Mount, StatusRequest, UpdateContainerResourcesRequest,
};
use protobuf::MessageField;

use crate::archive;
use crate::census::Census;
use crate::cri::{container, image_spec, Pod, POLITE};
use crate::node::{Node, Tuning, BUSYBOX, IMAGE};

fn image(path: &str, sub_path: &str) -> Mount {
    Mount {
        container_path: path.into(),
        readonly: true,
        image: image_spec(IMAGE),
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

/// An image of a database, as it were: its user, a directory of its own, and a helper that everybody may run as root.
fn database(tree: &Path) {
    for dir in ["bin", "etc", "data/deep", "proc", "sys", "dev", "var/run"] {
        fs::create_dir_all(tree.join(dir)).expect("mkdir");
    }
    fs::copy(BUSYBOX, tree.join("bin/busybox")).expect("copy");
    fs::copy(BUSYBOX, tree.join("data/helper")).expect("copy");
    fs::write(tree.join("etc/passwd"), "root:x:0:0::/:/bin/sh\ndb:x:70:71::/data:/bin/sh\n").expect("write");
    fs::write(tree.join("data/deep/table"), "of the image").expect("write");
    fs::hard_link(tree.join("data/deep/table"), tree.join("data/again")).expect("link");
    symlink("/data/deep/table", tree.join("data/link")).expect("symlink");
    for (path, owner, mode) in
        [("data", 70, 0o700), ("data/deep", 70, 0o2750), ("data/deep/table", 70, 0o640), ("data/helper", 0, 0o4755)]
    {
        chown(tree.join(path), Some(owner), Some(owner + 1)).expect("chown");
        fs::set_permissions(tree.join(path), fs::Permissions::from_mode(mode)).expect("chmod");
    }
    cricket::sys::xattr::set(&tree.join("data/deep/table"), c"user.made", b"by us").expect("set an attribute");
}

#[test]
fn what_an_image_declares_is_a_volume_of_the_containers_own() {
    const DATABASE: &str = "localhost/cricket-test-database:1";
    let node = Node::start();
    let (tree, file) = (node.dir().join("database"), node.dir().join("database.tar"));
    database(&tree);
    let volumes = serde_json::json!({"/data": {}, "/var/run/new": {}, "/sys/fs/cgroup": {}});
    let settings = serde_json::json!({"Entrypoint": [BUSYBOX, "sh", "-c"], "User": "db", "Volumes": volumes,
        "Env": ["PATH=/bin"]});
    archive::write(&file, DATABASE, &tree, settings);
    node.import(&file, DATABASE);
    let empty = Census::take(&node);
    let pod = Pod::run(&node, "database");
    let of_image = |name: &str| {
        let mut config = container(name, POLITE);
        config.image.mut_or_insert_default().image = DATABASE.into();
        config.linux.mut_or_insert_default().security_context.mut_or_insert_default().readonly_rootfs = true;
        config
    };
    let (one, two) = (pod.start(of_image("one")), pod.start(of_image("two")));
    assert_eq!(node.cri.sh(&one, "id -u; cat /data/link"), "70\nof the image");
    let shown = node.cri.sh(&one, "stat -c '%n %u:%g %a %h' /data /data/deep /data/again /data/helper /var/run/new");
    let lines = [
        "/data 70:71 700 3",
        "/data/deep 70:71 2750 2",
        "/data/again 70:71 640 2",
        "/data/helper 0:1 4755 1",
        "/var/run/new 0:0 755 2",
    ];
    assert_eq!(shown, lines.join("\n"));
    node.cri.sh(&one, "echo mine > /data/deep/table && echo x > /data/new");
    let refused = node.cri.sh(&one, "(echo x > /file) 2>&1 || true");
    assert!(refused.contains("Read-only file system"), "{refused}");
    assert_eq!(node.cri.sh(&two, "cat /data/again; [ -e /data/new ] || echo -none"), "of the image-none");
    assert!(node.cri.sh(&two, "ls /sys/fs/cgroup | wc -l").parse::<u32>().expect("a number") > 0, "cgroups still");

    let own = |id: &str| node.dir().join("lib/containers").join(id).join("volumes");
    let table = own(&two).join("0/deep/table");
    let value = cricket::sys::xattr::value(&table, c"user.made").expect("the attribute came along");
    assert_eq!(value, b"by us");
    let by_nobody = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "ls"])
        .arg(own(&one).join("0"))
        .output()
        .expect("run setpriv");
    assert!(!by_nobody.status.success(), "a user of the node came to the image's set-user-id program");
    node.cri.stop(&one, 0).expect("StopContainer");
    assert_eq!(fs::read_to_string(own(&one).join("0/again")).expect("until it is removed"), "mine\n");
    node.cri.remove(&one).expect("RemoveContainer");
    assert!(!own(&one).exists() && table.exists());
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
