//! The shim as it is shipped, called as containerd calls it, on a runtime that fails when it is told to.

mod rig;

use std::fs;
use std::path::Path;
use std::process::Command;

use cricket::shim::wire::Message;
use cricket::stdio::{reopen_log, Attachment, Heard};

use rig::{number, refused, until, Rig, TASK};

const NOWHERE: [&str; 3] = ["", "", ""];
/// The status codes that are answered.
const UNKNOWN: u8 = 2;
const INVALID: u8 = 3;
const DEADLINE: u8 = 4;
const NOT_FOUND: u8 = 5;
const EXISTS: u8 = 6;
const EXHAUSTED: u8 = 8;
const PRECONDITION: u8 = 9;
const UNIMPLEMENTED: u8 = 12;

fn of(id: &str) -> Message {
    Message::new().bytes(1, id)
}

fn exec_of(id: &str, exec: &str) -> Message {
    of(id).bytes(2, exec)
}

#[test]
fn a_life_and_its_events_in_order() {
    let mut rig = Rig::new();
    let bundle = rig.bundle("a", "exit 7");
    let (mut shim, _) = rig.start("a", &bundle);
    let pid = number(&shim.call("Create", rig.create("a", NOWHERE)).expect("Create"), 1);
    assert!(pid > 0);
    refused(shim.call("Create", rig.create("a", NOWHERE)), EXISTS, "container a is here already");
    assert_eq!(number(&shim.call("State", of("a")).expect("State"), 4), 1, "created");
    assert_eq!(number(&shim.call("Start", of("a")).expect("Start"), 1), pid);
    let exit = shim.call("Wait", of("a")).expect("Wait");
    assert_eq!(number(&exit, 1), 7);
    refused(shim.call("Start", of("a")), PRECONDITION, "the process is not Created but Stopped");
    refused(shim.call("Kill", of("a").number(3, 9)), NOT_FOUND, "has ended");
    assert_eq!(number(&shim.call("Delete", of("a")).expect("Delete"), 2), 7);
    refused(shim.call("State", of("a")), NOT_FOUND, "no container a here");
    shim.call("Shutdown", of("a")).expect("Shutdown");
    assert!(shim.is_closed(), "nothing keeps it");
    for topic in ["create", "start", "exit", "delete"] {
        assert_eq!(rig.event(), format!("/tasks/{topic}"));
    }
    assert!(rig.states().is_empty());
}

#[test]
fn told_to_end_it_does_so_with_the_last_process() {
    let mut rig = Rig::new();
    let bundle = rig.bundle("a", "exec sleep 1000");
    let (mut shim, pid) = rig.start("a", &bundle);
    shim.call("Create", rig.create("a", NOWHERE)).expect("Create");
    shim.call("Start", of("a")).expect("Start");
    assert!(Command::new("kill").args(["-TERM", &pid.to_string()]).status().expect("kill").success());
    assert_eq!(number(&shim.call("State", of("a")).expect("State"), 4), 2, "it serves on, and the container runs");
    shim.call("Kill", of("a").number(3, 9)).expect("Kill");
    // As at a shutdown of the node: nobody deletes it.
    for topic in ["create", "start", "exit"] {
        assert_eq!(rig.event(), format!("/tasks/{topic}"));
    }
    until("it has ended", || !Path::new(&format!("/proc/{pid}/exe")).exists());
}

#[test]
fn execs_come_and_go_by_the_hundred() {
    let mut rig = Rig::new();
    let bundle = rig.bundle("a", "exec sleep 1000");
    let (mut shim, pid) = rig.start("a", &bundle);
    shim.call("Create", rig.create("a", NOWHERE)).expect("Create");
    refused(shim.call("Exec", exec_of("a", "early")), PRECONDITION, "container a does not run");
    shim.call("Start", of("a")).expect("Start");
    let process = |code: u32| Message::new().bytes(1, "process").bytes(2, format!("exit {code}"));
    let mut once = |code: u32| {
        let exec = exec_of("a", "e").message(7, process(code));
        shim.call("Exec", exec.clone()).expect("Exec");
        refused(shim.call("Exec", exec), EXISTS, "has a process e already");
        refused(shim.call("Kill", exec_of("a", "e").number(3, 9)), PRECONDITION, "is not started");
        shim.call("Start", exec_of("a", "e")).expect("Start");
        assert_eq!(number(&shim.call("Wait", exec_of("a", "e")).expect("Wait"), 1), u64::from(code));
        assert_eq!(number(&shim.call("Delete", exec_of("a", "e")).expect("Delete"), 2), u64::from(code));
    };
    (0..20).for_each(&mut once);
    let held = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).expect("it lives").count();
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS").trim().to_owned();
        line.trim_end_matches(" kB").parse::<usize>().expect("a number")
    };
    let before = (held("fd"), held("task"), fs::read_dir(&bundle).expect("there").count(), resident());
    (0..200).for_each(|n| once(n % 200));
    // The connection on which it tells containerd comes and goes.
    until("no file and no thread is left", || held("fd") <= before.0 + 1 && held("task") == 1);
    assert_eq!(fs::read_dir(&bundle).expect("there").count(), before.2, "nor anything in the bundle");
    assert!(resident() <= before.3 + 128, "{} kB before, {} kB after", before.3, resident());
    refused(shim.call("Delete", of("a")), PRECONDITION, "runs");
    shim.call("Kill", of("a").number(3, 9).number(4, 1)).expect("Kill");
    assert_eq!(number(&shim.call("Wait", of("a")).expect("Wait"), 1), 137);
    shim.call("Delete", of("a")).expect("Delete");
}

#[test]
fn what_is_wrong_is_refused_with_its_code() {
    let mut rig = Rig::new();
    let bundle = rig.bundle("a", "exec sleep 1000");
    let (mut shim, _) = rig.start("a", &bundle);
    refused(shim.call("Fly", of("a")), UNIMPLEMENTED, "method Fly");
    let stream = shim.send("some.Service", "State", 0, of("a"));
    refused(shim.receive(stream), UNIMPLEMENTED, "service some.Service");
    let stream = shim.send("containerd.task.v3.Task", "State", 0, of("nobody"));
    refused(shim.receive(stream), NOT_FOUND, "no container nobody here");
    for method in ["State", "Start", "Delete", "Exec", "Kill", "Pids", "Wait", "Stats", "Pause", "Resume", "ResizePty"]
    {
        refused(shim.call(method, of("nobody")), NOT_FOUND, "no container nobody here");
    }
    refused(shim.call("Create", of("a").bytes(2, "relative")), INVALID, "absolute bundle");
    refused(shim.call("Create", rig.create("a", NOWHERE).bytes(8, "/c")), UNIMPLEMENTED, "checkpoint");
    refused(shim.call("Create", rig.create("a", ["", "/none/such", ""])), UNKNOWN, "open stream /none/such");
    refused(shim.call("Create", rig.create("a", ["", "ftp://x", ""])), UNIMPLEMENTED, "ftp://");
    // A request that is none, and a frame that is too long: what comes after them is served.
    shim.raw(&[0, 0, 0, 2, 0, 0, 1, 1, 1, 0, 0xff, 0xff]);
    refused(shim.receive(257), INVALID, "cut off or malformed");
    let mut long = (5u32 << 20).to_be_bytes().to_vec();
    long.extend([0, 0, 1, 3, 1, 0]);
    long.resize((5 << 20) + 10, 0);
    shim.raw(&long);
    refused(shim.receive(259), EXHAUSTED, "longer than");
    shim.call("Create", rig.create("a", NOWHERE)).expect("Create");
    refused(shim.call("State", exec_of("a", "x")), NOT_FOUND, "no process x");
    shim.call("Delete", of("a")).expect("Delete");
    assert!(rig.states().is_empty());
}

#[test]
fn a_runtime_that_fails_leaves_nothing_and_is_quoted() {
    let mut rig = Rig::new();
    let bundle = rig.bundle("a", "exec sleep 1000");
    let (mut shim, _) = rig.start("a", &bundle);
    let missing = rig.create_with("a", NOWHERE, Path::new("/none/such"));
    refused(shim.call("Create", missing), UNKNOWN, "start /none/such: install it or name another runtime");
    let told = rig.tell_runtime("create.fail");
    refused(shim.call("Create", rig.create("a", NOWHERE)), UNKNOWN, "create failed with exit code 1: told to fail");
    fs::remove_file(told).expect("there");
    let told = rig.tell_runtime("create.rubbish");
    refused(shim.call("Create", rig.create("a", NOWHERE)), UNKNOWN, "read the pid that the runtime wrote");
    fs::remove_file(told).expect("there");
    shim.call("Create", rig.create("a", NOWHERE)).expect("Create");
    let told = rig.tell_runtime("start.fail");
    refused(shim.call("Start", of("a")), UNKNOWN, "start failed with exit code 1: told to fail");
    fs::remove_file(told).expect("there");
    shim.call("Start", of("a")).expect("Start after all");
    for verb in ["pause", "update", "exec"] {
        let told = rig.tell_runtime(&format!("{verb}.fail"));
        let result = match verb {
            "pause" => shim.call("Pause", of("a")),
            "update" => shim.call("Update", of("a")),
            _ => {
                shim.call("Exec", exec_of("a", "e")).expect("Exec");
                shim.call("Start", exec_of("a", "e"))
            }
        };
        refused(result, UNKNOWN, "told to fail");
        fs::remove_file(told).expect("there");
    }
    assert_eq!(number(&shim.call("State", of("a")).expect("State"), 4), 2, "it runs all the same");
    assert_eq!(number(&shim.call("State", exec_of("a", "e")).expect("State"), 4), 1, "it can be tried again");
    shim.call("Kill", of("a").number(3, 9)).expect("Kill");
    let told = rig.tell_runtime("delete.fail");
    shim.call("Wait", of("a")).expect("Wait");
    refused(shim.call("Delete", of("a")), UNKNOWN, "told to fail");
    fs::remove_file(told).expect("there");
    shim.call("Delete", of("a")).expect("Delete");
    assert!(rig.states().is_empty());
}

#[test]
fn a_container_that_is_deleted_while_it_is_made_is_gone_once_it_is_made() {
    for fails in [false, true] {
        let mut rig = Rig::new();
        let bundle = rig.bundle("a", "exec sleep 1000");
        let (mut shim, _) = rig.start("a", &bundle);
        let busy = rig.tell_runtime("create.wait");
        let making = shim.send(TASK, "Create", 0, rig.create("a", NOWHERE));
        refused(shim.call("State", of("a")), NOT_FOUND, "no container a here");
        // As containerd does when whoever asked for the container has left.
        let mut other = rig.connect(&bundle);
        let deleting = other.send(TASK, "Delete", 0, of("a"));
        // It has heard that, and waits.
        refused(other.call("State", of("a")), NOT_FOUND, "no container a here");
        if fails {
            rig.tell_runtime("create.fail");
        }
        fs::remove_file(busy).expect("there");
        if fails {
            refused(shim.receive(making), UNKNOWN, "told to fail");
            refused(other.receive(deleting), NOT_FOUND, "no container a here");
        } else {
            shim.receive(making).expect("Create");
            assert_eq!(number(&other.receive(deleting).expect("Delete"), 2), 137);
        }
        drop(other);
        assert!(rig.states().is_empty(), "the runtime has nothing of it");
        shim.call("Shutdown", of("a")).expect("Shutdown");
        assert!(shim.is_closed(), "nor has the shim");
    }
}

#[test]
fn a_runtime_that_hangs_holds_up_nobody_else_and_is_killed_in_the_end() {
    let mut rig = Rig::new();
    let bundle = rig.bundle("a", "exec sleep 1000");
    let (mut shim, _) = rig.start("a", &bundle);
    let told = rig.tell_runtime("create.hang");
    let create = rig.create("a", NOWHERE);
    let stream = shim.send(TASK, "Create", 2_000_000_000, create);
    // Another container of the pod meanwhile, as far as it needs no runtime that hangs.
    refused(shim.call("State", of("a")), NOT_FOUND, "no container a here");
    shim.call("Connect", of("a")).expect("Connect");
    refused(shim.receive(stream), DEADLINE, "create is thinking");
    fs::remove_file(told).expect("there");
    shim.call("Create", rig.create("a", NOWHERE)).expect("Create");
    shim.call("Delete", of("a")).expect("Delete");
    assert!(rig.states().is_empty());
}

#[test]
fn output_is_written_down_by_the_shim_itself() {
    let mut rig = Rig::new();
    let bundle = rig.bundle("a", "echo one; echo two >&2; cat; echo end");
    let (mut shim, _) = rig.start("a", &bundle);
    let (dir, log) = (rig.dir.join("io"), rig.dir.join("0.log"));
    fs::create_dir(&dir).expect("fresh");
    let asked =
        |version: u32, log: &Path| format!("cricket://{}?v={version}&line=16&log={}", dir.display(), log.display());
    let (later, lost) = (asked(2, &log), asked(1, &rig.dir.join("none/0.log")));
    refused(shim.call("Create", rig.create("a", [&later, &later, &later])), UNIMPLEMENTED, "streams of version 2");
    refused(shim.call("Create", rig.create("a", [&lost, &lost, &lost])), PRECONDITION, "directory does not exist");
    let here = asked(1, &log);
    shim.call("Create", rig.create("a", [&here, &here, &here])).expect("Create");
    let client = Attachment::open(&dir).expect("a socket");
    shim.call("Start", of("a")).expect("Start");
    let mut buffer = [0; (32 << 10) + 1];
    let mut heard = Vec::new();
    let mut hear = |wanted: usize| {
        while heard.len() < wanted {
            match client.hear(&mut buffer).expect("it lives") {
                Heard::Stdout(bytes) | Heard::Stderr(bytes) => heard.extend_from_slice(bytes),
                other => panic!("{other:?}"),
            }
        }
    };
    hear("one\ntwo\n".len());
    client.write(b"three\n").expect("room");
    hear("one\ntwo\nthree\n".len());
    let moved = rig.dir.join("0.moved");
    fs::rename(&log, &moved).expect("ours");
    reopen_log(&dir).expect("answered");
    client.write(b"a line of twenty one\n").expect("room");
    client.close_stdin().expect("room");
    let exit = shim.call("Wait", of("a")).expect("Wait");
    assert_eq!(number(&exit, 1), 0);
    shim.call("Delete", of("a")).expect("Delete");
    let said = |log: &Path| -> Vec<String> {
        let text = fs::read_to_string(log).expect("a log");
        text.lines().map(|line| line.split_once(' ').expect("a time").1.to_owned()).collect()
    };
    let mut old = said(&moved);
    old[..2].sort();
    assert_eq!(old, ["stderr F two", "stdout F one", "stdout F three"]);
    assert_eq!(said(&log), ["stdout P a line of twenty", "stdout F  one", "stdout F end"]);
    assert!(!dir.join("stdio.sock").exists(), "nobody can attach any more");
}

#[test]
fn a_group_has_one_shim_and_a_killed_one_is_cleaned_up_after() {
    let mut rig = Rig::new();
    // To the runtime of this test a script; to the shim a spec: a comment in one, an annotation in the other.
    let script = |id: &str| format!("{{ :; }}\n#\nexec sleep 1000 {id}");
    let spec = "{\"annotations\":{\"io.kubernetes.cri.sandbox-id\":\"pod\"}}";
    let (first, second) = (rig.bundle("a", spec), rig.bundle("b", spec));
    let (mut shim, pid) = rig.start("a", &first);
    let (mut again, same) = rig.start("b", &second);
    assert_eq!(pid, same);
    fs::write(first.join("config.json"), script("a")).expect("writable");
    fs::write(second.join("config.json"), script("b")).expect("writable");
    shim.call("Create", rig.create("a", NOWHERE)).expect("Create");
    again.call("Create", rig.create("b", NOWHERE)).expect("Create");
    shim.call("Delete", of("a")).expect("Delete");
    shim.call("Shutdown", of("a")).expect("Shutdown");
    again.call("State", of("b")).expect("it serves the other one");
    assert!(std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("kill").success());
    assert!(again.is_closed());
    assert_eq!(rig.states(), ["b"]);
    let answer = rig.run("b", &second, "delete");
    assert_eq!(number(&answer, 2), 137);
    assert!(rig.states().is_empty(), "the container is gone");
    let sockets = || fs::read_dir(&rig.dir).expect("there").flatten().filter(|e| e.file_name().len() == 32).count();
    assert_eq!(sockets(), 0, "and the socket");
    // One whose containerd gave up before it could call anybody.
    drop(std::os::unix::net::UnixListener::bind(rig.dir.join("0".repeat(32))).expect("free"));
    rig.run("b", &second, "delete");
    assert_eq!(sockets(), 0);
    let (mut anew, other) = rig.start("b", &second);
    assert_ne!(other, pid);
    anew.call("Shutdown", of("b")).expect("Shutdown");
}
