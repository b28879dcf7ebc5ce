//! Exec, Attach and PortForward: whom they hand a URL; and the command behind an exec.

use std::sync::Arc;

use cricket::container::{self, Command, Wanted};
use cricket::error::{Kind, Result};
use cricket::sandbox;
use cricket::store::sessions::{Door, Session};
use cricket_proto::runtime::{AttachRequest, ExecRequest, PortForwardRequest};

use crate::faults::creates_all_or_nothing;
use crate::world::{assert_refused, call, World};

struct Open;

impl Door for Open {
    fn open(self: Arc<Self>) -> Result<String> {
        Ok("http://door".into())
    }
}

fn world() -> World {
    let world = World::new();
    world.sessions.set_door(Some(Arc::new(Open)));
    world
}

fn exec(id: &str) -> ExecRequest {
    ExecRequest { container_id: id.into(), cmd: vec!["/bin/true".into()], stdout: true, ..Default::default() }
}

fn attach(id: &str) -> AttachRequest {
    AttachRequest { container_id: id.into(), stdout: true, ..Default::default() }
}

fn ports(pod: &str, port: &[i32]) -> PortForwardRequest {
    PortForwardRequest { pod_sandbox_id: pod.into(), port: port.to_vec(), ..Default::default() }
}

#[test]
fn a_url_is_for_what_was_asked_with_the_whole_id() {
    let world = world();
    let (pod, id) = world.running("a");
    let calls = world.fake.calls().len();
    let url = container::exec(&world, &call(), exec(&id[..10])).expect("Exec").url;
    let path = url.strip_prefix("http://door").expect("behind the door");
    assert_eq!(world.sessions.take(path), Some(Session::Exec(exec(&id))));
    let url = container::attach(&world, &call(), attach(&id)).expect("Attach").url;
    assert!(url.starts_with("http://door/attach/"), "{url}");
    let url = sandbox::port_forward(&world, &call(), ports(&pod, &[80])).expect("PortForward").url;
    assert!(url.starts_with("http://door/portforward/"), "{url}");
    assert_eq!(world.fake.calls().len(), calls, "containerd is not asked");
}

#[test]
fn bad_input() {
    let world = world();
    let (pod, id) = world.running("a");
    let exec_of = |change: fn(&mut ExecRequest)| {
        let mut request = exec(&id);
        change(&mut request);
        container::exec(&world, &call(), request)
    };
    assert_refused(exec_of(|r| r.cmd.clear()), Kind::InvalidArgument, &["without a command"]);
    assert_refused(exec_of(|r| r.container_id.clear()), Kind::InvalidArgument, &["empty"]);
    assert_refused(exec_of(|r| r.container_id = "x".into()), Kind::NotFound, &["\"x\""]);
    assert_refused(exec_of(|r| r.stdout = false), Kind::InvalidArgument, &["stdin, stdout and stderr"]);
    assert_refused(exec_of(|r| (r.tty, r.stderr) = (true, true)), Kind::InvalidArgument, &["tty and stderr"]);
    let attach_of = |change: fn(&mut AttachRequest)| {
        let mut request = attach(&id);
        change(&mut request);
        container::attach(&world, &call(), request)
    };
    assert_refused(attach_of(|r| r.tty = true), Kind::InvalidArgument, &["has no terminal"]);
    assert_refused(attach_of(|r| r.stdout = false), Kind::InvalidArgument, &["stdin, stdout and stderr"]);
    assert_refused(attach_of(|r| r.container_id = "x".into()), Kind::NotFound, &["\"x\""]);
    for port in [0, -1, 65536] {
        assert_refused(
            sandbox::port_forward(&world, &call(), ports(&pod, &[80, port])),
            Kind::InvalidArgument,
            &["port"],
        );
    }
    assert_refused(sandbox::port_forward(&world, &call(), ports("x", &[])), Kind::NotFound, &["\"x\""]);

    let created = world.container(&pod, "b");
    assert_refused(container::exec(&world, &call(), exec(&created)), Kind::FailedPrecondition, &["not been started"]);
    assert_refused(
        container::attach(&world, &call(), attach(&created)),
        Kind::FailedPrecondition,
        &["not been started"],
    );
    world.stop_pod(&pod).expect("stop");
    assert_refused(container::exec(&world, &call(), exec(&id)), Kind::FailedPrecondition, &["has exited"]);
    assert_refused(sandbox::port_forward(&world, &call(), ports(&pod, &[])), Kind::FailedPrecondition, &["not ready"]);
}

#[test]
fn without_a_server_there_is_no_url() {
    let world = World::new();
    let (_, id) = world.running("a");
    assert_refused(container::exec(&world, &call(), exec(&id)), Kind::Unavailable, &["streaming server"]);
}

const ALL: Wanted = Wanted { stdin: true, tty: false };

fn start(world: &World, id: &str) -> Result<Command> {
    let container = world.containers.get(id)?;
    Command::start(world.rt(), &container, &["/bin/true".into()], ALL).map(|(command, _)| command)
}

#[test]
fn a_command_is_started_whole_or_not_at_all() {
    let prepare = |world: &World| {
        world.fake.execs_exit(Some(3));
        world.running("a")
    };
    let verb = |world: &World, (_, id): &(String, String)| {
        let command = start(world, id)?;
        assert_eq!(command.wait()?.code, 3);
        command.delete()
    };
    assert!(creates_all_or_nothing(prepare, verb) >= 5);
}

#[test]
fn a_command_that_is_let_go_is_killed() {
    let world = World::new();
    let (pod, id) = world.running("a");
    let before = world.leftovers();
    let command = Arc::new(start(&world, &id).expect("start"));
    let waiting = command.clone();
    let waiter = std::thread::Builder::new().spawn(move || waiting.wait().map(|exit| exit.code)).expect("a thread");
    command.end();
    assert_eq!(waiter.join().expect("no panic").ok().unwrap_or(137), 137);
    drop(command);
    assert_eq!(world.leftovers(), before);
    drop(start(&world, &id).expect("start"));
    assert_eq!(world.leftovers(), before);
    // One that outlives its container.
    let command = start(&world, &id).expect("start");
    world.exit(&id, 0);
    drop(command);
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}
