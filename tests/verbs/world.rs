//! A node in a temporary directory: the runtime with its monitor, a fake containerd with an image, a scripted network.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cricket::call::Call;
use cricket::config::{Config, Overrides};
use cricket::containerd::fake::Fake;
use cricket::error::{Error, Kind, Result};
use cricket::host::{base_spec, Host};
use cricket::ids::random_hex;
use cricket::image::build::{self, Bytes, NewFile, NewImage};
use cricket::image::{import, Images};
use cricket::monitor::Monitor;
use cricket::runtime::{Parts, Runtime};
use cricket::stdio::{Hub, Limits};
use cricket::store::image::ImageStore;
use cricket::sys::mount;
use cricket::{container, sandbox};
use cricket_proto::runtime::{
    ContainerState, ContainerStatus, ContainerStatusRequest, PodSandboxStatus, PodSandboxStatusRequest,
    RunPodSandboxRequest,
};

use crate::plugin::Plugin;
use crate::requests::{self, IMAGE};

/// Only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Everything one test has. Dropping it takes down whatever is there.
pub struct World {
    pub fake: Fake,
    pub cni: Plugin,
    pub dir: TempDir,
    config: Config,
    running: Option<Running>,
    /// What the image is in containerd.
    image: Vec<String>,
    /// How many calls its import took.
    importing: usize,
}

/// One life of the daemon.
struct Running {
    rt: Arc<Runtime>,
    monitor: Monitor,
}

impl World {
    /// A node on which nothing runs yet.
    pub fn new() -> Self {
        World::with("")
    }

    /// The same with `settings` at the top of the configuration file.
    pub fn with(settings: &str) -> Self {
        let dir = TempDir::new();
        let cni = Plugin::install(dir.path());
        let at = dir.path().display();
        // The fake plays the part of containerd's own shim.
        let shim = "[runtime.runc]\nshim = \"runc-v2\"\n";
        let (settings, shim) = match settings.contains("[runtime.runc]\n") {
            true => (settings.replace("[runtime.runc]\n", shim), ""),
            false => (settings.to_owned(), shim),
        };
        let text = format!(
            "root = \"{at}/root\"\nstate = \"{at}/state\"\nnetns_dir = \"{at}/netns\"\nsocket = \"{at}/cri.sock\"\n\
             cgroup_driver = \"cgroupfs\"\n{settings}{}\n{shim}",
            cni.settings()
        );
        let config = Config::parse(&text, Overrides::default()).expect("a valid configuration");
        let snapshots = dir.path().join("snapshots");
        fs::create_dir(&snapshots).expect("make the directory of the snapshots");
        let fake = Fake::in_dir(&snapshots);
        import_image(&fake, dir.path());
        fake.collect_garbage_always();
        fs::create_dir(dir.path().join("logs")).expect("make the log directory");
        let (image, importing) = (fake.leftovers(), fake.calls().len());
        let mut world = World { fake, cni, dir, config, running: None, image, importing };
        world.boot();
        world
    }

    /// Starts the daemon and waits until it serves.
    pub fn boot(&mut self) {
        self.begin();
        eventually("the runtime is ready", || self.not_ready().is_none());
    }

    /// Starts the daemon and does not wait.
    pub fn begin(&mut self) {
        let hub = Hub::start(Limits { line_bytes: self.config.log_line_bytes }).expect("a hub");
        let host = Host::read().expect("facts of this host");
        let containerd = Arc::new(self.fake.clone());
        let base_specs = base_spec::read_all(&self.config).expect("base specs");
        let rt = Arc::new(Runtime::new(Parts { config: self.config.clone(), host, containerd, hub, base_specs }));
        let monitor = Monitor::start(rt.clone()).expect("a monitor");
        self.running = Some(Running { rt, monitor });
    }

    /// Ends the daemon as a SIGTERM would; containers go on.
    pub fn shut_down(&mut self) {
        let Running { rt, monitor } = self.running.take().expect("it runs");
        monitor.stop();
        assert!(rt.workers.drain(Instant::now() + PATIENCE), "the workers are idle");
        eventually("nothing else holds the runtime", || Arc::strong_count(&rt) == 1);
    }

    /// Ends the daemon and starts another one.
    pub fn restart(&mut self) {
        self.shut_down();
        self.boot();
    }

    pub fn rt(&self) -> &Arc<Runtime> {
        &self.running.as_ref().expect("it runs").rt
    }

    /// Runs a pod sandbox; its id.
    pub fn pod(&self, name: &str) -> String {
        self.run(self.request(name)).expect("run a pod sandbox")
    }

    /// RunPodSandbox for a pod whose logs are in our directory.
    pub fn request(&self, name: &str) -> RunPodSandboxRequest {
        let mut request = requests::pod(name);
        request.config.mut_or_insert_default().log_directory = self.dir.path().join("logs").display().to_string();
        request
    }

    pub fn run(&self, request: RunPodSandboxRequest) -> Result<String> {
        sandbox::run(self, &call(), request).map(|answer| answer.pod_sandbox_id)
    }

    /// Creates a container; its id.
    pub fn container(&self, pod: &str, name: &str) -> String {
        self.create(requests::container(pod, name)).expect("create a container")
    }

    pub fn create(&self, request: cricket_proto::runtime::CreateContainerRequest) -> Result<String> {
        container::create(self, &call(), request).map(|answer| answer.container_id)
    }

    pub fn start(&self, id: &str) -> Result<()> {
        container::start(self, &call(), requests::start(id)).map(drop)
    }

    /// A pod with a running container of the same name; both ids.
    pub fn running(&self, name: &str) -> (String, String) {
        let pod = self.pod(name);
        let id = self.container(&pod, name);
        self.start(&id).expect("start a container");
        (pod, id)
    }

    pub fn stop(&self, id: &str, timeout: i64) -> Result<()> {
        container::stop(self, &call(), requests::stop(id, timeout)).map(drop)
    }

    pub fn remove(&self, id: &str) -> Result<()> {
        container::remove(self, &call(), requests::remove(id)).map(drop)
    }

    pub fn stop_pod(&self, id: &str) -> Result<()> {
        sandbox::stop(self, &call(), requests::stop_pod(id)).map(drop)
    }

    pub fn remove_pod(&self, id: &str) -> Result<()> {
        sandbox::remove(self, &call(), requests::remove_pod(id)).map(drop)
    }

    pub fn status(&self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: id.into(), ..Default::default() };
        container::status(self, &call(), request).expect("a status").status.unwrap_or_default()
    }

    pub fn state(&self, id: &str) -> ContainerState {
        self.status(id).state.enum_value().expect("a known state")
    }

    pub fn pod_status(&self, id: &str) -> PodSandboxStatus {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.into(), ..Default::default() };
        sandbox::status(self, &call(), request).expect("a status").status.unwrap_or_default()
    }

    /// The process of a container, or an exec in it, ends, and we wait until the container's end is known.
    pub fn exit(&self, id: &str, code: u32) {
        self.fake.exit(id, None, code);
        self.await_exit(id);
    }

    pub fn await_exit(&self, id: &str) {
        eventually("the container has exited", || self.state(id) == ContainerState::CONTAINER_EXITED);
    }

    /// Waits until the monitor has handled every event so far: it takes them in order, and this one leaves a trace.
    pub fn sync_events(&self, id: &str) {
        self.fake.oom(id);
        let container = self.rt().containers.get(id).expect("the container");
        eventually("the monitor is through", || container.saw_oom());
    }

    /// How often containerd was asked this since there is a daemon.
    pub fn count(&self, call: &str) -> usize {
        self.fake.calls().iter().skip(self.importing).filter(|name| **name == call).count()
    }

    /// Everything there is beside the image: in containerd, on disk, mounted, attached to the network, sorted.
    pub fn leftovers(&self) -> Vec<String> {
        let mut all: Vec<String> = self.fake.leftovers().into_iter().filter(|l| !self.image.contains(l)).collect();
        let bases = ["root", "state", "netns"].map(|name| self.dir.path().join(name));
        all.extend(mounts_below(self.dir.path()).iter().filter(|m| !bases.contains(m)).map(|m| shown("mount", m)));
        for base in &bases {
            walk(base, &mut all);
        }
        all.extend(self.cni.attached());
        all.sort();
        all
    }

    /// Nothing is left, and no name either: each of these pods can run again.
    pub fn assert_clean(&self, names: &[&str]) {
        assert_eq!(self.leftovers(), Vec::<String>::new());
        for name in names {
            let pod = self.pod(name);
            self.remove_pod(&pod).expect("remove it again");
        }
        assert_eq!(self.leftovers(), Vec::<String>::new());
    }
}

impl Deref for World {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.rt()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(Running { rt, monitor }) = self.running.take() {
            monitor.stop();
            rt.workers.drain(Instant::now() + PATIENCE);
        }
    }
}

/// Records and parents stay; what a directory of ours must not keep is an object.
fn walk(dir: &Path, all: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.expect("read a directory").path();
        // Made once for all pods.
        if path.ends_with("root/pause") {
            continue;
        }
        // The parents of the objects, and of a container's execs.
        let parent = ["sandboxes", "containers", "exec"].iter().any(|name| path.ends_with(name));
        if !parent {
            all.push(shown("file", &path));
        }
        if path.is_dir() && !path.is_symlink() {
            walk(&path, all);
        }
    }
}

fn shown(what: &str, path: &Path) -> String {
    format!("{what}:{}", path.display())
}

fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read the mount table");
    let paths = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    paths.filter(|path| path.starts_with(dir)).collect()
}

fn import_image(fake: &Fake, dir: &Path) {
    let image = NewImage {
        name: IMAGE,
        files: vec![NewFile { path: "bin/app", mode: 0o755, bytes: Bytes::Inline(b"app") }],
        entrypoint: vec!["/bin/app"],
        ..NewImage::default()
    };
    let mut bytes = Vec::new();
    build::write(&image, &mut bytes).expect("build an image");
    let file = dir.join("image.tar");
    fs::write(&file, bytes).expect("write the image");
    let at = Images { containerd: fake, store: &ImageStore::new(), snapshotter: "overlayfs" };
    import::import(&at, &call(), &file, dir, None).expect("import the image");
}

/// A directory that goes away with everything mounted below it.
pub struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("cricket-verbs-{}", &random_hex().expect("random")[..12]));
        fs::create_dir(&path).expect("a fresh directory");
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        for path in mounts_below(&self.0).iter().rev() {
            mount::detach(path).ok(); // the removal below would fail and leave it to be seen
        }
        fs::remove_dir_all(&self.0).ok(); // nothing depends on it
    }
}

/// A request without a deadline worth mentioning.
pub fn call() -> Call {
    Call::within(PATIENCE)
}

/// Waits for what another thread brings about; panics if it never does.
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "it never came about that {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A failure of this kind whose message holds each of these texts.
#[track_caller]
pub fn assert_refused<T: std::fmt::Debug>(result: Result<T>, kind: Kind, texts: &[&str]) -> Error {
    let e = result.expect_err("refused");
    assert_eq!(e.kind(), kind, "{e}");
    for text in texts {
        assert!(e.to_string().contains(text), "{text:?} is not in: {e}");
    }
    e
}
