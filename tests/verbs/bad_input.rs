//! What cannot be: each refusal has its kind, says what to do, and leaves nothing.

use std::collections::HashMap;

use cricket::call::Call;
use cricket::container;
use cricket::error::{Kind, Result};
use cricket::sandbox;
use cricket_proto::runtime::{
    security_profile::ProfileType, ContainerStatusRequest, CreateContainerRequest, ExecSyncRequest, Int64Value,
    NamespaceMode, PodSandboxMetadata, PodSandboxStatusRequest, ReopenContainerLogRequest, RunPodSandboxRequest,
    SecurityProfile, UserNamespace,
};

use crate::requests::{self, config, namespaces, security};
use crate::world::{assert_refused, call, World};

type Bend<Q> = Box<dyn Fn(&mut Q)>;
type Case<Q> = (&'static str, Bend<Q>, Kind, &'static str);

fn pod_config(request: &mut RunPodSandboxRequest) -> &mut cricket_proto::runtime::PodSandboxConfig {
    request.config.mut_or_insert_default()
}

fn sysctl(name: &'static str) -> Bend<RunPodSandboxRequest> {
    Box::new(move |r| {
        pod_config(r).linux.mut_or_insert_default().sysctls = HashMap::from([(name.to_owned(), "1".to_owned())]);
    })
}

fn named(request: &mut RunPodSandboxRequest) -> &mut PodSandboxMetadata {
    pod_config(request).metadata.mut_or_insert_default()
}

fn pod_cases() -> Vec<Case<RunPodSandboxRequest>> {
    use Kind::InvalidArgument;
    fn userns(request: &mut RunPodSandboxRequest) {
        let user = UserNamespace { mode: NamespaceMode::POD.into(), ..Default::default() };
        namespaces(request).userns_options = Some(user).into();
    }
    vec![
        ("no config", Box::new(|r| r.config.clear()), InvalidArgument, "request has no pod sandbox config"),
        ("no metadata", Box::new(|r| pod_config(r).metadata.clear()), InvalidArgument, "has no metadata"),
        ("no name", Box::new(|r| named(r).name.clear()), InvalidArgument, "no name"),
        (
            "no namespace",
            Box::new(|r| named(r).namespace.clear()),
            InvalidArgument,
            "pod sandbox metadata has no namespace",
        ),
        ("no uid", Box::new(|r| named(r).uid.clear()), InvalidArgument, "has no uid"),
        (
            "unknown handler",
            Box::new(|r| r.runtime_handler = "kata".into()),
            InvalidArgument,
            "runtime handler \"kata\" is not configured (there are: runc)",
        ),
        (
            "long hostname",
            Box::new(|r| pod_config(r).hostname = "h".repeat(65)),
            InvalidArgument,
            "longer than 64 bytes",
        ),
        ("node sysctl", sysctl("vm.swappiness"), InvalidArgument, "would change the whole node"),
        ("hostname sysctl", sysctl("kernel.hostname"), InvalidArgument, "set the pod's hostname instead"),
        ("climbing sysctl", sysctl("net/../vm/swappiness"), InvalidArgument, "sysctl"),
        (
            "shared pid namespace of nobody",
            Box::new(|r| {
                namespaces(r).pid = NamespaceMode::POD.into();
                let linux = pod_config(r).linux.mut_or_insert_default();
                let user = Int64Value { value: -1, ..Default::default() };
                linux.security_context.mut_or_insert_default().run_as_user = Some(user).into();
            }),
            InvalidArgument,
            "run_as_user -1 of the pod sandbox",
        ),
        (
            "target pid namespace",
            Box::new(|r| namespaces(r).pid = NamespaceMode::TARGET.into()),
            InvalidArgument,
            "must be POD, CONTAINER or NODE",
        ),
        (
            "network of a container",
            Box::new(|r| namespaces(r).network = NamespaceMode::CONTAINER.into()),
            InvalidArgument,
            "must be POD or NODE",
        ),
        (
            "ipc of a container",
            Box::new(|r| namespaces(r).ipc = NamespaceMode::TARGET.into()),
            InvalidArgument,
            "must be POD or NODE",
        ),
        ("user namespace without ids", Box::new(userns), InvalidArgument, "uids has 0 mappings"),
        (
            "unknown network mode",
            Box::new(|r| namespaces(r).network = protobuf::EnumOrUnknown::from_i32(9)),
            InvalidArgument,
            "must be POD or NODE",
        ),
        (
            "bad bandwidth",
            Box::new(|r| {
                pod_config(r).annotations.insert("kubernetes.io/ingress-bandwidth".into(), "fast".into());
            }),
            InvalidArgument,
            "such as 10M",
        ),
    ]
}

#[test]
fn run_pod_sandbox() {
    let world = World::new();
    for (case, bend, kind, text) in pod_cases() {
        let mut request = world.request("a");
        bend(&mut request);
        println!("{case}");
        assert_refused(world.run(request), kind, &[text]);
    }
    assert!(world.cni.ran().is_empty(), "all of it was refused before anything was made");
    world.assert_clean(&["a"]);
}

#[test]
fn a_sysctl_needs_the_namespace_it_is_confined_to() {
    let world = World::new();
    for name in ["net.ipv4.ip_forward", "kernel.shmmax"] {
        let mut request = world.request("a");
        *namespaces(&mut request) = requests::on_host();
        sysctl(name)(&mut request);
        assert_refused(world.run(request), Kind::InvalidArgument, &[name, "namespace of the pod's own"]);
    }
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn a_sysctl_that_the_kernel_refuses_leaves_nothing() {
    let world = World::new();
    let mut request = world.request("a");
    sysctl("net.ipv4.there_is_none")(&mut request);
    assert_refused(world.run(request), Kind::Unknown, &["set sysctl /proc/sys/net/ipv4/there_is_none"]);
    world.assert_clean(&["a"]);
}

fn profile(kind: ProfileType, name: &str) -> protobuf::MessageField<SecurityProfile> {
    let profile = SecurityProfile { profile_type: kind.into(), localhost_ref: name.into(), ..Default::default() };
    protobuf::MessageField::some(profile)
}

fn image(name: &'static str) -> Bend<CreateContainerRequest> {
    Box::new(move |r| config(r).image.mut_or_insert_default().image = name.into())
}

fn container_cases() -> Vec<Case<CreateContainerRequest>> {
    use Kind::{FailedPrecondition, InvalidArgument, NotFound};
    fn target(id: &'static str) -> Bend<CreateContainerRequest> {
        Box::new(move |r| {
            let options = security(r).namespace_options.mut_or_insert_default();
            options.pid = NamespaceMode::TARGET.into();
            options.target_id = id.into();
        })
    }
    vec![
        ("no config", Box::new(|r| r.config.clear()), InvalidArgument, "request has no container config"),
        ("no metadata", Box::new(|r| config(r).metadata.clear()), InvalidArgument, "container config has no metadata"),
        (
            "no name",
            Box::new(|r| config(r).metadata.mut_or_insert_default().name.clear()),
            InvalidArgument,
            "has no name",
        ),
        ("no sandbox id", Box::new(|r| r.pod_sandbox_id.clear()), InvalidArgument, "pod sandbox id is empty"),
        ("unknown sandbox", Box::new(|r| r.pod_sandbox_id = "0".repeat(64)), NotFound, "does not exist"),
        ("no image", Box::new(|r| config(r).image.clear()), InvalidArgument, "names no image"),
        ("empty image", image(""), InvalidArgument, "names no image"),
        ("bad image", image("app:1:2"), InvalidArgument, "image reference \"app:1:2\""),
        ("bad digest", image("app@sha256:12"), InvalidArgument, "image reference"),
        ("absent image", image("example.com/none:1"), NotFound, "the image must be pulled or imported first"),
        (
            "absent id",
            image("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
            NotFound,
            "imported first",
        ),
        (
            "pid of the pod",
            Box::new(|r| security(r).namespace_options.mut_or_insert_default().pid = NamespaceMode::POD.into()),
            FailedPrecondition,
            "no PID namespace to join",
        ),
        (
            "pid of the host",
            Box::new(|r| security(r).namespace_options.mut_or_insert_default().pid = NamespaceMode::NODE.into()),
            InvalidArgument,
            "pid mode NODE is not that of the container's pod sandbox",
        ),
        ("no target", target(""), InvalidArgument, "container id is empty"),
        ("unknown target", target("0000"), NotFound, "PID namespace target"),
        (
            "unknown user",
            Box::new(|r| security(r).run_as_username = "www".into()),
            InvalidArgument,
            "user \"www\" is not in /etc/passwd of the image",
        ),
        (
            "group without user",
            Box::new(|r| security(r).run_as_group.mut_or_insert_default().value = 5),
            InvalidArgument,
            "without run_as_user",
        ),
    ]
}

/// What a container may not be, or not yet.
fn confinement_cases() -> Vec<Case<CreateContainerRequest>> {
    use Kind::InvalidArgument;
    vec![
        (
            "seccomp file that is not there",
            Box::new(|r| security(r).seccomp = profile(ProfileType::Localhost, "/no/such/profile.json")),
            InvalidArgument,
            "seccomp profile /no/such/profile.json",
        ),
        (
            "seccomp file that is no profile",
            Box::new(|r| security(r).seccomp = profile(ProfileType::Localhost, "/proc/version")),
            InvalidArgument,
            "seccomp profile /proc/version: not a profile",
        ),
        (
            "seccomp file by a relative path",
            Box::new(|r| security(r).seccomp = profile(ProfileType::Localhost, "p.json")),
            InvalidArgument,
            "is not an absolute path",
        ),
        (
            "RuntimeDefault of a file",
            Box::new(|r| security(r).seccomp = profile(ProfileType::RuntimeDefault, "/p.json")),
            InvalidArgument,
            "localhost_ref without the profile type Localhost",
        ),
        (
            "privileged in a pod that is not",
            Box::new(|r| security(r).privileged = true),
            InvalidArgument,
            "needs a privileged pod sandbox",
        ),
        ("relative directory", Box::new(|r| config(r).working_dir = "w".into()), InvalidArgument, "absolute"),
        (
            "nameless variable",
            Box::new(|r| config(r).envs.push(cricket_proto::runtime::KeyValue::default())),
            InvalidArgument,
            "cannot name a variable",
        ),
        (
            "CDI device",
            Box::new(|r| config(r).CDI_devices.push(cricket_proto::runtime::CDIDevice::default())),
            InvalidArgument,
            "is not vendor/class=device",
        ),
    ]
}

#[test]
fn create_container() {
    let world = World::new();
    let pod = world.pod("a");
    let before = world.leftovers();
    for (case, bend, kind, text) in container_cases().into_iter().chain(confinement_cases()) {
        let mut request = requests::container(&pod, "a");
        bend(&mut request);
        println!("{case}");
        assert_refused(world.create(request), kind, &[text]);
        assert_eq!(world.leftovers(), before, "{case}");
    }
    world.container(&pod, "a");
}

#[test]
fn names_in_use() {
    let world = World::new();
    let (pod, id) = world.running("a");
    assert_refused(
        world.run(world.request("a")),
        Kind::AlreadyExists,
        &[&pod, "remove it first, or use another attempt"],
    );
    let again = world.create(requests::container(&pod, "a"));
    assert_refused(again, Kind::AlreadyExists, &[&id, "remove it first, or use another attempt"]);
    let mut request = requests::container(&pod, "a");
    config(&mut request).metadata.as_mut().unwrap().attempt = 1;
    world.create(request).expect("the next attempt");
    let other = world.pod("b");
    world.container(&other, "a");
}

#[test]
fn a_target_must_run_and_be_of_the_same_pod() {
    let world = World::new();
    let (_, foreign) = world.running("a");
    let (pod, own) = world.running("b");
    let idle = world.container(&pod, "idle");
    let targeting = |id: &str| {
        let mut request = requests::container(&pod, "debugger");
        let options = security(&mut request).namespace_options.mut_or_insert_default();
        options.pid = NamespaceMode::TARGET.into();
        options.target_id = id.into();
        world.create(request)
    };
    assert_refused(targeting(&foreign), Kind::InvalidArgument, &[&foreign, "is in another pod"]);
    assert_refused(targeting(&idle), Kind::FailedPrecondition, &[&idle, "has not been started"]);
    targeting(&own).expect("this one is right");
}

/// Every verb that is given an id, with what it does about an id that is none.
fn by_id(world: &World, id: &str) -> Vec<(&'static str, Result<()>)> {
    let call = &call();
    let reopen = ReopenContainerLogRequest { container_id: id.into(), ..Default::default() };
    let of_container = ContainerStatusRequest { container_id: id.into(), ..Default::default() };
    let of_pod = PodSandboxStatusRequest { pod_sandbox_id: id.into(), ..Default::default() };
    vec![
        ("StartContainer", world.start(id)),
        ("ExecSync", container::exec_sync(world, call, requests::exec(id, 0)).map(drop)),
        ("ReopenContainerLog", container::reopen_log(world, call, reopen).map(drop)),
        ("ContainerStatus", container::status(world, call, of_container).map(drop)),
        ("PodSandboxStatus", sandbox::status(world, call, of_pod).map(drop)),
        // Idempotent: what is not there is stopped and removed.
        ("StopContainer", world.stop(id, 10)),
        ("RemoveContainer", world.remove(id)),
        ("StopPodSandbox", world.stop_pod(id)),
        ("RemovePodSandbox", world.remove_pod(id)),
    ]
}

#[test]
fn ids() {
    let world = World::new();
    for (n, (verb, done)) in by_id(&world, &"0".repeat(64)).into_iter().enumerate() {
        match n {
            0..=4 => drop(assert_refused(done, Kind::NotFound, &["does not exist"])),
            _ => done.expect(verb),
        }
    }
    for (verb, done) in by_id(&world, "") {
        println!("{verb}");
        assert_refused(done, Kind::InvalidArgument, &["id is empty"]);
    }
}

#[test]
fn a_beginning_of_an_id_must_be_of_one() {
    let world = World::new();
    let (pod, id) = world.running("a");
    assert_eq!(world.status(&id[..12]).id, id);
    assert_eq!(world.pod_status(&pod[..12]).id, pod);
    // With 17 of each there are two that begin alike.
    let mut ids: Vec<String> = (0..16).map(|n| world.container(&pod, &format!("c{n}"))).collect();
    ids.push(id);
    let twice = |digit: &char| ids.iter().filter(|id| id.starts_with(*digit)).count() > 1;
    let digit = ('0'..='9').chain('a'..='f').find(twice).expect("17 ids and 16 digits").to_string();
    for verb in [World::start, World::remove] {
        assert_refused(verb(&world, &digit), Kind::InvalidArgument, &["is ambiguous: give more digits"]);
    }
}

#[test]
fn wrong_states() {
    use Kind::FailedPrecondition;
    let world = World::new();
    let exec = |id: &str| container::exec_sync(&world, &call(), requests::exec(id, 0));
    let reopen = |id: &str| {
        let request = ReopenContainerLogRequest { container_id: id.into(), ..Default::default() };
        container::reopen_log(&world, &call(), request)
    };
    let pod = world.pod("a");
    let id = world.container(&pod, "a");
    assert_refused(exec(&id), FailedPrecondition, &["has not been started"]);
    assert_refused(reopen(&id), FailedPrecondition, &["has not been started"]);
    world.start(&id).expect("start");
    assert_refused(world.start(&id), FailedPrecondition, &["is running"]);
    world.exit(&id, 0);
    assert_refused(world.start(&id), FailedPrecondition, &["has exited"]);
    assert_refused(exec(&id), FailedPrecondition, &["has exited"]);
    let log = world.dir.path().join("logs/a.log");
    std::fs::remove_file(&log).expect("the kubelet moved it");
    assert_refused(reopen(&id), FailedPrecondition, &["has exited"]);
    assert!(!log.exists(), "no file is made");

    let created = world.container(&pod, "b");
    world.stop_pod(&pod).expect("stop");
    assert_refused(world.create(requests::container(&pod, "c")), FailedPrecondition, &["is not ready"]);
    assert_refused(world.start(&created), FailedPrecondition, &["is not ready"]);
    assert_eq!(world.status(&created).exit_code, 0, "it was not tried");
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn an_exec_needs_a_command() {
    let world = World::new();
    let (_, id) = world.running("a");
    let request = ExecSyncRequest { container_id: id, ..Default::default() };
    let done = container::exec_sync(&world, &call(), request);
    assert_refused(done, Kind::InvalidArgument, &["exec without a command"]);
}

#[test]
fn a_cancelled_or_late_request_makes_nothing() {
    let world = World::new();
    let pod = world.pod("a");
    let before = world.leftovers();
    let cancelled = Call::unbounded();
    cancelled.cancel();
    let late = Call::within(std::time::Duration::ZERO);
    for (call, kind) in [(cancelled, Kind::Canceled), (late, Kind::DeadlineExceeded)] {
        assert_refused(sandbox::run(&world, &call, world.request("b")), kind, &[]);
        assert_refused(container::create(&world, &call, requests::container(&pod, "b")), kind, &[]);
        assert_eq!(world.leftovers(), before);
    }
}
