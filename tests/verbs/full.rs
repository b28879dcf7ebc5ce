//! The disk is full: new work is refused, old work can be stopped and removed.

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;

use cricket::error::Kind;
use cricket_proto::runtime::{ContainerState, PodSandboxState};

use crate::world::{assert_refused, World};

#[test]
fn a_full_disk_refuses_new_work_and_lets_old_work_go() {
    let mut world = World::new();
    world.shut_down();
    let root = world.dir.path().join("root");
    fs::create_dir_all(&root).expect("mkdir");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "small"]).arg(&root).status();
    assert!(mounted.expect("run mount").success());
    world.boot();
    let (pod, id) = world.running("a");
    let created = world.container(&pod, "created");
    let before = world.leftovers();

    let filler = root.join("filler");
    let mut file = File::create(&filler).expect("create");
    while file.write_all(&[1; 512]).is_ok() {}
    assert_refused(world.run(world.request("b")), Kind::ResourceExhausted, &["run pod sandbox", "No space left"]);
    let left: Vec<String> = world.leftovers().into_iter().filter(|l| !l.ends_with("/filler")).collect();
    assert_eq!(left, before, "nothing of it is left");
    world.start(&created).expect("what is made already can be started; only a restart will not know when");

    world.stop(&id, 10).expect("stop");
    assert_eq!(world.state(&id), ContainerState::CONTAINER_EXITED);
    world.remove(&id).expect("remove");
    world.stop_pod(&pod).expect("stop the pod");
    assert_eq!(world.pod_status(&pod).state.enum_value(), Ok(PodSandboxState::SANDBOX_NOTREADY));
    world.remove_pod(&pod).expect("remove the pod");
    fs::remove_file(&filler).expect("remove");
    world.assert_clean(&["a", "b"]);
}
