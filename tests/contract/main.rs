//! The fake tells the truth: one suite of checks, run on the fake and on a real, private containerd.

mod content;
mod events;
mod images;
mod program;
mod records;
mod restart;
mod snapshots;
#[path = "../support/containerd.rs"]
mod support;
mod tasks;

use std::fmt::Debug;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use cricket::call::Call;
use cricket::config::{Config, Overrides, RUNC};
use cricket::containerd::fake::Fake;
use cricket::containerd::{Any, Client, Containerd, Labels, SnapshotRef};
use cricket::error::{Kind, Result};
use cricket::shipped::Shipped;
use support::PrivateContainerd;

/// A containerd under test.
struct World {
    containerd: Arc<dyn Containerd>,
    fake: Option<Fake>,
    call: Call,
    /// Shim options: the real runc keeps its state in a directory of the test's own.
    options: Option<Any>,
    /// containerd's name for the shim.
    runtime: String,
}

impl World {
    fn fake() -> Self {
        let fake = Fake::new();
        World {
            containerd: Arc::new(fake.clone()),
            fake: Some(fake),
            call: patience(),
            options: None,
            runtime: RUNC.to_owned(),
        }
    }

    /// The same with our own shim.
    fn ours(private: &PrivateContainerd) -> Self {
        let shipped = Shipped::new(private.dir().join("shim"), private.socket().into());
        let config = Config::parse("[runtime.runc]\nshim = \"cricket\"", Overrides::default()).expect("valid");
        let runtime = shipped.runtime_type(&config.runtimes["runc"]).expect("containerd can run it");
        World { runtime, ..World::real(private) }
    }

    fn real(private: &PrivateContainerd) -> Self {
        let client = Client::new(&private.socket()).expect("a socket");
        client.ensure_namespace(&patience()).expect("a namespace");
        let options = Some(private.runc_options());
        let runtime = RUNC.to_owned();
        World { containerd: Arc::new(client), fake: None, call: patience(), options, runtime }
    }

    /// Nothing but blobs, which only the garbage collection deletes.
    fn assert_empty(&self, check: &str) {
        let (c, call) = (&self.containerd, &self.call);
        assert_eq!(c.tasks(call).expect("tasks"), [], "after {check}");
        assert_eq!(c.containers(call, &[]).expect("containers"), [], "after {check}");
        assert_eq!(c.images(call).expect("images"), [], "after {check}");
        assert_eq!(c.leases(call).expect("leases"), Vec::<String>::new(), "after {check}");
        for snapshotter in ["overlayfs", "native"] {
            assert_eq!(c.snapshots(call, snapshotter).expect("snapshots"), [], "after {check}");
        }
    }
}

/// Long enough for a slow machine; a check that needs it has failed.
fn patience() -> Call {
    Call::within(Duration::from_secs(60))
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// Labels that keep an object which nothing refers to: containerd may collect garbage at any time.
fn kept() -> Labels {
    labels(&[("containerd.io/gc.root", "kept")])
}

fn overlay(key: &str) -> SnapshotRef<'_> {
    SnapshotRef { snapshotter: "overlayfs", key }
}

/// The call failed with this kind.
#[track_caller]
fn assert_fails<T: Debug>(kind: Kind, result: Result<T>) {
    match result {
        Err(e) => assert_eq!(e.kind(), kind, "{e}"),
        Ok(answer) => panic!("expected {kind:?}, got {answer:?}"),
    }
}

macro_rules! suite {
    ($($room:ident: $($check:ident)+;)+) => {
        mod on_the_fake {
            $(mod $room { $(
                #[test]
                fn $check() {
                    let world = crate::World::fake();
                    crate::$room::$check(&world);
                    world.assert_empty(stringify!($check));
                }
            )+ })+
        }

        #[test]
        fn on_a_real_containerd() {
            all_on(World::real);
        }

        #[test]
        fn on_a_real_containerd_with_our_shim() {
            all_on(World::ours);
        }

        /// All checks on one containerd, one after the other; every failure is reported.
        fn all_on(make: fn(&PrivateContainerd) -> World) {
            let private = PrivateContainerd::start();
            let mut failed = Vec::new();
            $($({
                let world = make(&private);
                let name = concat!(stringify!($room), "::", stringify!($check));
                let run = || { $room::$check(&world); world.assert_empty(name) };
                if catch_unwind(AssertUnwindSafe(run)).is_err() {
                    failed.push(name);
                }
            })+)+
            assert!(failed.is_empty(), "not true of a real containerd: {failed:?}");
        }
    };
}

suite! {
    records: create_get_list_update_delete what_is_refused;
    snapshots: a_chain_of_parents mounts_by_kind what_is_refused;
    content: write_read_label what_is_refused resume what_is_new_is_not_asked_for a_wrong_blob_is_dropped leases_must_exist;
    images: put_update_delete what_is_refused leases garbage layers;
    tasks: a_life exit_codes signals execs execs_die_with_the_first_process created_and_killed what_is_refused
        a_snapshot_that_is_gone no_record_no_way_to_the_task resources waiting_has_a_deadline;
    events: exits out_of_memory images_change cancelled woken;
}

#[test]
fn plugins_and_version() {
    let private = PrivateContainerd::start();
    for world in [World::fake(), World::real(&private)] {
        let version = world.containerd.version(&world.call).expect("a version");
        assert!(version.version.trim_start_matches('v').starts_with(['1', '2']), "{version:?}");
        world.containerd.ensure_namespace(&world.call).expect("again is fine");
        let plugins = world.containerd.plugins(&world.call, "io.containerd.snapshotter.v1").expect("plugins");
        let overlayfs = plugins.iter().find(|plugin| plugin.id == "overlayfs").expect("overlayfs");
        assert_eq!((overlayfs.kind.as_str(), &overlayfs.error), ("io.containerd.snapshotter.v1", &None));
        assert!(overlayfs.exports["root"].ends_with("overlayfs"), "{overlayfs:?}");
        assert!(plugins.iter().all(|plugin| plugin.kind == "io.containerd.snapshotter.v1"));
        assert!(world.containerd.plugins(&world.call, "").expect("plugins").len() >= plugins.len());
    }
}
