//! containerd goes away and comes back.

use cricket::containerd::{Event, Next, TaskState};
use cricket::error::Kind;

use crate::support::PrivateContainerd;
use crate::{assert_fails, World};

/// The fake's broken stream, and what it means.
#[test]
fn a_broken_stream_on_the_fake() {
    let world = World::fake();
    let mut stream = world.containerd.subscribe().expect("subscribe");
    let fake = world.fake.as_ref().expect("it is");
    fake.break_streams();
    assert_fails(Kind::Unavailable, stream.next(None));
    assert_fails(Kind::Unavailable, stream.next(None));
    let mut stream = world.containerd.subscribe().expect("subscribe again");
    fake.oom("x");
    assert_eq!(stream.next(None).expect("an event"), Next::Event(Event::TaskOom { id: "x".into() }));
}

#[test]
fn a_restart_of_a_real_containerd() {
    let mut private = PrivateContainerd::start();
    let world = World::real(&private);
    let (c, call) = (&world.containerd, &world.call);
    let mut stream = c.subscribe().expect("subscribe");
    let pid = world.running("survivor", "sleep");

    private.kill();
    assert_fails(Kind::Unavailable, stream.next(None));
    assert_fails(Kind::Unavailable, c.tasks(call));
    let e = c.subscribe().err().expect("nobody there");
    assert_eq!(e.kind(), Kind::Unavailable);
    assert!(e.message().contains(&private.socket()), "{e}");

    private.start_again();
    // The connection comes back within its back-off; until then calls fail at once.
    let task = loop {
        match c.task(call, "survivor", None) {
            Err(e) if e.kind() == Kind::Unavailable => std::thread::yield_now(),
            answer => break answer.expect("the shim has survived"),
        }
    };
    assert_eq!((task.pid, task.state), (pid, TaskState::Running));
    let mut stream = c.subscribe().expect("subscribe again");
    c.kill(call, "survivor", None, 9, true).expect("kill");
    let exit = c.wait_task(call, "survivor", None).expect("wait");
    let event = stream.next(None).expect("an event");
    assert_eq!(event, Next::Event(Event::TaskExit { id: "survivor".into(), exec_id: None, pid, exit }));
    world.remove("survivor");
}
