//! The real runc takes our specs: this very binary, which is static, is the container's only file and lists its tests.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use cricket::host::{devices, Host};
use cricket::oci::facts::{Namespaces, Propagation};
use cricket_proto::runtime::{LinuxContainerResources, Mount, NamespaceMode};

use super::fixture::{source, Case};

/// What a variant has of its own.
type Change = fn(&mut Case);

#[test]
fn runc_runs_them() {
    let me = fs::metadata("/proc/self").expect("mounted").uid();
    assert_eq!(me, 0, "run the tests as root: runc makes namespaces and mounts");
    let variants: [(&str, Change); 5] = [
        ("plain", |_| {}),
        ("limited", |case| {
            *case.resources() = LinuxContainerResources {
                cpu_shares: 512,
                cpu_period: 100_000,
                cpu_quota: 50_000,
                memory_limit_in_bytes: 64 << 20,
                oom_score_adj: 500,
                ..Default::default()
            };
            case.security().capabilities.mut_or_insert_default().drop_capabilities = vec!["ALL".into()];
            case.security().no_new_privs = true;
        }),
        ("readonly", |case| {
            let security = case.security();
            security.readonly_rootfs = true;
            security.masked_paths = ["/proc/kcore", "/sys/firmware"].map(String::from).into();
            security.readonly_paths = ["/proc/bus", "/proc/sys"].map(String::from).into();
            security.supplemental_groups = vec![1234];
            let mount = Mount {
                container_path: "/tmp/host".into(),
                host_path: "/tmp".into(),
                readonly: true,
                ..Default::default()
            };
            case.mount(mount, source("/tmp", Propagation::Private));
        }),
        ("privileged", |case| {
            case.privileged();
            case.devices = devices::resolve(&[], true).expect("the host has devices");
        }),
        ("host", |case| {
            case.modes(NamespaceMode::NODE, NamespaceMode::NODE, NamespaceMode::NODE);
            case.namespaces = Namespaces::default();
            case.files.shm = "/dev/shm".into();
        }),
    ];
    for (name, change) in variants {
        let bench = Bench::new(name);
        let mut case = bench.case();
        change(&mut case);
        let output = bench.run(&case);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name}: {stderr}");
        assert!(stdout.contains("runc::runc_runs_them: test"), "{name}: {stdout}");
    }
}

/// A bundle, a sandbox's files and its namespaces, gone when dropped.
struct Bench {
    dir: PathBuf,
    id: String,
    holder: Child,
}

impl Bench {
    fn new(name: &str) -> Bench {
        let id = format!("cricket-golden-{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(&id);
        fs::create_dir_all(dir.join("rootfs")).expect("mkdir");
        fs::create_dir_all(dir.join("shm")).expect("mkdir");
        for file in ["hostname", "hosts", "resolv.conf"] {
            fs::write(dir.join(file), "").expect("write");
        }
        fs::copy(std::env::current_exe().expect("known"), dir.join("rootfs/probe")).expect("copy");
        // `read` returns when the pipe to it closes, with this process at the latest.
        let holder = Command::new("unshare")
            .args(["--net", "--ipc", "--uts", "sh", "-c", "echo; read x"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut bench = Bench { dir, id, holder };
        let mut ready = [0];
        let stdout = bench.holder.stdout.as_mut().expect("piped");
        std::io::Read::read_exact(stdout, &mut ready).expect("the namespaces exist");
        bench
    }

    fn case(&self) -> Case {
        let mut case = Case::new();
        case.id = cricket::ids::ContainerId::from_record(&self.id);
        // runc removes a container's own cgroup, but no parent that it had to make.
        case.sandbox.linux.mut_or_insert_default().cgroup_parent = "/".into();
        case.host = Host::read().expect("readable").facts;
        case.config.command = vec!["/probe".into(), "--list".into()];
        let namespace = |kind: &str| Some(format!("/proc/{}/ns/{kind}", self.holder.id()).into());
        case.namespaces =
            Namespaces { net: namespace("net"), ipc: namespace("ipc"), uts: namespace("uts"), ..Default::default() };
        case.files.hostname = self.dir.join("hostname");
        case.files.hosts = self.dir.join("hosts");
        case.files.resolv_conf = self.dir.join("resolv.conf");
        case.files.shm = self.dir.join("shm");
        case
    }

    fn run(&self, case: &Case) -> Output {
        let json = serde_json::to_vec(&case.spec()).expect("JSON");
        fs::write(self.dir.join("config.json"), json).expect("write");
        self.runc(&["run", "--bundle", path(&self.dir), &self.id])
            .stdin(Stdio::null())
            .output()
            .expect("apt-get install runc")
    }

    fn runc(&self, args: &[&str]) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.dir.join("runc")).args(args);
        command
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // After a clean run there is nothing left to delete, and it says so.
        self.runc(&["delete", "--force", &self.id]).output().ok();
        drop(self.holder.stdin.take());
        self.holder.wait().expect("our own child");
        fs::remove_dir_all(&self.dir).expect("our own directory");
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
