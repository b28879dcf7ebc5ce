//! ExecSync: output, its cap, its timeout.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use cricket::call::Call;
use cricket::container;
use cricket::containerd::fake::Fake;
use cricket::containerd::Containerd;
use cricket::error::Kind;
use cricket_proto::runtime::ExecSyncResponse;

use crate::requests;
use crate::world::{assert_refused, call, World};

/// What an answer may hold: the kubelet takes 16 MiB in all.
const CAP: usize = 15 << 20;

/// The only exec of container `id`.
fn only_exec(fake: &Fake, id: &str) -> String {
    let all = fake.leftovers();
    let execs: Vec<&str> = all.iter().filter_map(|l| l.strip_prefix(&format!("exec:{id}/"))).collect();
    let [exec] = execs.as_slice() else { panic!("one exec: {execs:?}") };
    (*exec).to_owned()
}

/// Runs a command that writes so much and ends with `code`.
fn exec(world: &World, id: &str, stdout_bytes: usize, stderr: &'static [u8], code: u32) -> ExecSyncResponse {
    let (fake, same) = (world.fake.clone(), id.to_owned());
    world.fake.after("start_task", move || {
        let exec = only_exec(&fake, &same);
        let process = fake.task(&call(), &same, Some(&exec)).expect("the exec");
        let open = |path: &str| OpenOptions::new().write(true).open(path).expect("a FIFO with a reader");
        let (mut out, mut err) = (open(&process.stdout), open(&process.stderr));
        assert_eq!((process.stdin.as_str(), process.terminal), ("", false));
        err.write_all(stderr).expect("somebody reads");
        let chunk = vec![b'x'; 64 << 10];
        let mut left = stdout_bytes;
        while left > 0 {
            let now = left.min(chunk.len());
            out.write_all(&chunk[..now]).expect("somebody reads on");
            left -= now;
        }
        drop((out, err));
        fake.exit(&same, Some(&exec), code);
    });
    container::exec_sync(world, &call(), requests::exec(id, 0)).expect("exec")
}

#[test]
fn output_and_code() {
    let world = World::new();
    let (_, id) = world.running("a");
    let before = world.leftovers();
    let answer = exec(&world, &id, 5, b"oops", 0);
    assert_eq!(
        (answer.stdout.as_slice(), answer.stderr.as_slice(), answer.exit_code),
        (&b"xxxxx"[..], &b"oops"[..], 0)
    );
    let answer = exec(&world, &id, 0, b"", 42);
    assert_eq!((answer.stdout.len(), answer.stderr.len(), answer.exit_code), (0, 0, 42));
    assert_eq!(world.leftovers(), before);
}

#[test]
fn output_beyond_the_cap_is_dropped_and_the_command_goes_on() {
    let world = World::new();
    let (_, id) = world.running("a");
    let answer = exec(&world, &id, CAP + (1 << 20), b"first", 7);
    assert_eq!(answer.exit_code, 7);
    assert_eq!(answer.stdout.len() + answer.stderr.len(), CAP);
}

#[test]
fn a_command_that_takes_too_long_is_destroyed() {
    let world = World::new();
    let (_, id) = world.running("a");
    let before = world.leftovers();
    let done = container::exec_sync(&world, &call(), requests::exec(&id, 1));
    assert_refused(done, Kind::DeadlineExceeded, &[&id, "command timed out after 1 s"]);
    assert_eq!(world.leftovers(), before);
    let short = Call::within(Duration::from_millis(50));
    assert_refused(container::exec_sync(&world, &short, requests::exec(&id, 0)), Kind::DeadlineExceeded, &[&id]);
    assert_eq!(world.leftovers(), before);
}

#[test]
fn a_command_ends_with_its_container() {
    let world = World::new();
    let (pod, id) = world.running("a");
    let (fake, same) = (world.fake.clone(), id.clone());
    world.fake.after("start_task", move || fake.exit(&same, None, 0));
    // Whether its end or the container's comes first is open.
    match container::exec_sync(&world, &call(), requests::exec(&id, 0)) {
        Ok(answer) => assert_eq!(answer.exit_code, 137),
        Err(e) => assert_eq!(e.kind(), Kind::NotFound, "{e}"),
    }
    world.await_exit(&id);
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}
