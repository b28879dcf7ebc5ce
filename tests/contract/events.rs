//! The event stream.

use std::thread;
use std::time::{Duration, Instant};

use cricket::containerd::{Descriptor, Event, ImageRecord, Next};

use crate::content::digest;
use crate::World;

pub fn exits(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let mut stream = c.subscribe().expect("subscribe");
    let first = world.running("ev", "sleep");
    world.prepared_exec("ev", "three", "3");
    let pid = c.start_task(call, "ev", Some("three")).expect("start");
    world.ended("ev", Some("three"), 3);
    let exit = c.wait_task(call, "ev", Some("three")).expect("wait");
    let event = stream.next(None).expect("an event");
    assert_eq!(event, Next::Event(Event::TaskExit { id: "ev".into(), exec_id: Some("three".into()), pid, exit }));
    c.kill(call, "ev", None, 9, true).expect("kill");
    let exit = c.wait_task(call, "ev", None).expect("wait");
    let event = stream.next(None).expect("an event");
    assert_eq!(event, Next::Event(Event::TaskExit { id: "ev".into(), exec_id: None, pid: first, exit }));
    world.remove("ev");
}

pub fn out_of_memory(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let mut stream = c.subscribe().expect("subscribe");
    let pid = world.running("oom", "eat");
    if let Some(fake) = &world.fake {
        fake.oom("oom");
    }
    world.ended("oom", None, 137);
    let exit = c.wait_task(call, "oom", None).expect("wait");
    assert_eq!(exit.code, 137);
    // They come from two threads of the shim, in either order.
    let mut both = [stream.next(None).expect("an event"), stream.next(None).expect("an event")];
    both.sort_by_key(|event| matches!(event, Next::Event(Event::TaskExit { .. })));
    let exited = Event::TaskExit { id: "oom".into(), exec_id: None, pid, exit };
    assert_eq!(both, [Next::Event(Event::TaskOom { id: "oom".into() }), Next::Event(exited)]);
    world.remove("oom");
}

pub fn images_change(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let mut stream = c.subscribe().expect("subscribe");
    let target = Descriptor {
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        digest: digest(b"event"),
        size_bytes: 5,
        ..Descriptor::default()
    };
    let image = ImageRecord { name: "e".into(), target, ..ImageRecord::default() };
    c.put_image(call, &image).expect("create");
    c.put_image(call, &image).expect("update");
    c.delete_image(call, "e", false).expect("delete");
    for _ in 0..3 {
        assert_eq!(stream.next(None).expect("an event"), Next::Event(Event::ImageChanged { name: "e".into() }));
    }
}

pub fn cancelled(world: &World) {
    let mut stream = world.containerd.subscribe().expect("subscribe");
    let cancel = stream.canceller();
    let blocked = thread::Builder::new().name("subscriber".into()).spawn(move || {
        let ended = stream.next(None).expect("no error");
        (ended, stream.next(None).expect("no error either"))
    });
    cancel();
    assert_eq!(blocked.expect("a thread").join().expect("it ends"), (Next::Cancelled, Next::Cancelled));
}

pub fn woken(world: &World) {
    let mut stream = world.containerd.subscribe().expect("subscribe");
    let wake = stream.waker();
    wake();
    assert_eq!(stream.next(None).expect("no error"), Next::Nothing);
    let soon = Instant::now() + Duration::from_millis(20);
    assert_eq!(stream.next(Some(soon)).expect("no error"), Next::Nothing);
    assert!(Instant::now() >= soon, "once was enough");
    let blocked = thread::Builder::new().name("subscriber".into()).spawn(move || stream.next(None).expect("no error"));
    wake();
    assert_eq!(blocked.expect("a thread").join().expect("it ends"), Next::Nothing);
}
