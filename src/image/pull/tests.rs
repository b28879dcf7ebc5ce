//! Pulls from a scripted registry onto the fake: what comes of them, and what they leave when they fail.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::super::testing::*;
use super::*;
use crate::containerd::fake::Fault;
use crate::registry::testing::{Answer, Received, Server};

/// What a registry does to an answer.
type Bend = Box<dyn Fn(&Received, Answer) -> Answer + Send + Sync>;

/// A registry with one image, under any name.
fn registry(sample: &Sample, bend: Option<Bend>) -> Server {
    let mut blobs = sample.blobs();
    blobs.retain(|(_, bytes)| !bytes.is_empty());
    let manifest = sample.manifest();
    Server::start(move |request| {
        let wanted = request.path.rsplit('/').next().unwrap_or_default();
        let by_digest = blobs.iter().find(|(_, bytes)| digest::of(bytes) == wanted).map(|(_, bytes)| bytes);
        let is_manifest = request.path.contains("/manifests/");
        let answer = match by_digest.or_else(|| (is_manifest && wanted == "1").then_some(&manifest)) {
            None => Answer::new(404, b""),
            Some(bytes) if is_manifest => Answer::new(200, bytes)
                .with("Docker-Content-Digest", digest::of(bytes))
                .with("Content-Type", "application/vnd.oci.image.manifest.v1+json"),
            Some(bytes) => ranged(request, bytes),
        };
        match &bend {
            Some(bend) => bend(request, answer),
            None => answer,
        }
    })
}

fn ranged(request: &Received, bytes: &[u8]) -> Answer {
    let from: Option<usize> =
        request.header("range").strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')?.parse().ok());
    match from {
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Answer::new(206, &bytes[from..]).with("Content-Range", range)
        }
        None => Answer::new(200, bytes),
    }
}

struct World {
    node: Node,
    pulls: Arc<Pulls>,
    options: Options,
    discard: bool,
}

impl World {
    fn new() -> Self {
        let options = Options { dirs: Vec::new(), progress_timeout: Duration::from_secs(30) };
        World { node: Node::new(), pulls: Arc::new(Pulls::new(3)), options, discard: false }
    }

    fn pull(&self, call: &Call, name: &str) -> Result<String> {
        let puller = Puller {
            containerd: Arc::new(self.node.fake.clone()),
            store: &self.node.store,
            snapshotter: "overlayfs",
            pulls: &self.pulls,
            options: &self.options,
            unpacker: None,
            discard_unpacked_layers: self.discard,
            sole: true,
            report: Arc::new(|_| ()),
        };
        puller.pull(call, &Reference::parse(name).unwrap(), &Credentials::default())
    }

    fn collect(&self) {
        let (fake, call) = (&self.node.fake, Call::unbounded());
        fake.create_lease(&call, "collect", Duration::from_secs(1)).unwrap();
        fake.delete_lease(&call, "collect", true).unwrap();
    }

    fn assert_whole(&self, sample: &Sample, names: usize) {
        self.collect();
        assert_eq!(self.node.left("content").len(), if self.discard { 2 } else { 5 });
        assert_eq!(self.node.left("snapshot").len(), 3);
        assert_eq!(
            self.node.left("ingest").len() + self.node.left("lease").len(),
            0,
            "{:?}",
            self.node.fake.leftovers()
        );
        let image = self.node.store.get(&sample.id()).unwrap();
        assert_eq!((self.node.left("image"), image.names.len()), (image.names.clone(), names));
        assert!(self.node.left("snapshot").contains(&image.chain_id));
    }
}

fn name(server: &Server) -> String {
    format!("{}/a/app:1", server.address)
}

fn blobs_asked(server: &Server) -> Vec<String> {
    server.received().iter().filter(|r| r.path.contains("/blobs/")).map(|r| r.path.clone()).collect()
}

#[test]
fn an_image_is_pulled_whole_and_only_once() {
    let (sample, world) = (Sample::new(), World::new());
    world.node.fake.collect_garbage_always();
    let server = registry(&sample, None);
    assert_eq!(world.pull(&Call::unbounded(), &name(&server)).unwrap(), sample.id());
    world.assert_whole(&sample, 3);
    let image = world.node.store.get(&name(&server)).unwrap();
    assert_eq!(image.repo_tags, [name(&server)]);
    assert_eq!(image.repo_digests, [format!("{}/a/app@{}", server.address, digest::of(&sample.manifest()))]);
    let labels = |bytes: &[u8]| world.node.fake.content(&Call::unbounded(), &digest::of(bytes)).unwrap().labels;
    let source = labels::of_source(&server.address, "a/app");
    for bytes in [sample.config(), sample.manifest(), sample.layers[0].0.clone()] {
        assert!(source.iter().all(|(key, value)| labels(&bytes).get(key) == Some(value)));
    }
    assert_eq!(blobs_asked(&server).len(), 4, "three layers and the configuration");
    assert_eq!(world.pull(&Call::unbounded(), &name(&server)).unwrap(), sample.id());
    assert_eq!(blobs_asked(&server).len(), 4);
    assert_eq!(server.received().last().unwrap().method, "HEAD", "not even the manifest is fetched again");
    world.assert_whole(&sample, 3);
}

#[test]
fn a_pull_by_digest_has_no_tag() {
    let (sample, world) = (Sample::new(), World::new());
    let server = registry(&sample, None);
    let name = format!("{}/a/app:ignored@{}", server.address, digest::of(&sample.manifest()));
    assert_eq!(world.pull(&Call::unbounded(), &name).unwrap(), sample.id());
    world.assert_whole(&sample, 2);
    let image = world.node.store.get(&sample.id()).unwrap();
    assert_eq!((image.repo_tags.len(), image.repo_digests.len()), (0, 1));
}

#[test]
fn discarded_layers_are_not_fetched_again() {
    let (sample, world) = (Sample::new(), World { discard: true, ..World::new() });
    let server = registry(&sample, None);
    for _ in 0..2 {
        world.pull(&Call::unbounded(), &name(&server)).unwrap();
        world.assert_whole(&sample, 3);
    }
    assert_eq!(blobs_asked(&server).len(), 4);
    let more =
        Sample { layers: [sample.layers.clone(), vec![(layer("d"), "", layer("d"))]].concat(), ..sample.clone() };
    let second = registry(&more, None);
    assert_eq!(world.pull(&Call::unbounded(), &name(&second)).unwrap(), more.id());
    assert_eq!(blobs_asked(&second).len(), 2, "the configuration and the new layer");
}

#[test]
fn broken_connections_are_made_again() {
    let (sample, world) = (Sample::new(), World::new());
    let cut = |request: &Received, answer: Answer| match request.path.contains("/blobs/") {
        true => Answer { cut: Some(answer.body.len().div_ceil(2)), ..answer },
        false => answer,
    };
    let server = registry(&sample, Some(Box::new(cut)));
    // The configuration is one request: whole or not at all.
    let config = digest::of(&sample.config());
    let whole = registry(
        &sample,
        Some(Box::new(
            move |request, answer| {
                if request.path.ends_with(&config) {
                    answer
                } else {
                    cut(request, answer)
                }
            },
        )),
    );
    assert!(world.pull(&Call::unbounded(), &name(&server)).is_err());
    world.pull(&Call::unbounded(), &name(&whole)).unwrap();
    world.assert_whole(&sample, 3);
    assert!(whole.received().iter().any(|r| !r.header("range").is_empty()));
}

#[test]
fn what_is_not_what_it_should_be_is_refused_and_leaves_nothing() {
    let sample = Sample::new();
    let layer = digest::of(&sample.layers[1].0);
    let wrong_layer = move |request: &Received, mut answer: Answer| {
        if request.path.ends_with(&layer) {
            answer.body.reverse();
        }
        answer
    };
    let config = digest::of(&sample.config());
    let wrong_config = move |request: &Received, mut answer: Answer| {
        if request.path.ends_with(&config) {
            answer.body.reverse();
        }
        answer
    };
    let wrong_manifest = |request: &Received, mut answer: Answer| {
        if request.path.contains("/manifests/") && request.method == "GET" {
            answer.body.reverse();
        }
        answer
    };
    let bends: [Bend; 3] = [Box::new(wrong_layer), Box::new(wrong_config), Box::new(wrong_manifest)];
    for bend in bends {
        let (world, server) = (World::new(), registry(&sample, Some(bend)));
        let e = world.pull(&Call::unbounded(), &name(&server)).unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidArgument, "{e}");
        assert_eq!(world.node.fake.leftovers(), [""; 0], "{e}");
    }
    let (world, mut liar) = (World::new(), sample);
    liar.layers[2].2 = b"something else".to_vec();
    let server = registry(&liar, None);
    let e = world.pull(&Call::unbounded(), &name(&server)).unwrap_err();
    assert!(e.to_string().contains("unpacks to"), "{e}");
    assert_eq!(world.node.fake.leftovers(), [""; 0]);
}

#[test]
fn errors_have_the_kind_that_the_kubelet_knows() {
    let (sample, world) = (Sample::new(), World::new());
    let server = registry(&sample, None);
    let e = world.pull(&Call::unbounded(), &format!("{}/a/app:2", server.address)).unwrap_err();
    assert_eq!(e.kind(), Kind::NotFound, "{e}");
    let down = registry(&sample, Some(Box::new(|_, _| Answer::new(503, b""))));
    let e = world.pull(&Call::unbounded(), &name(&down)).unwrap_err();
    assert_eq!(e.kind(), Kind::Unknown, "{e}");
    assert!(e.to_string().starts_with("RegistryUnavailable: pull image "), "{e}");
    let denied = registry(&sample, Some(Box::new(|_, _| Answer::new(401, b"").with("WWW-Authenticate", "Basic"))));
    assert_eq!(world.pull(&Call::unbounded(), &name(&denied)).unwrap_err().kind(), Kind::PermissionDenied);
    let late = world.pull(&Call::within(Duration::ZERO), &name(&server)).unwrap_err();
    assert_eq!(late.kind(), Kind::DeadlineExceeded);
    let foreign = registry(&Sample::foreign(), None);
    assert_eq!(world.pull(&Call::unbounded(), &name(&foreign)).unwrap_err().kind(), Kind::FailedPrecondition);
    assert_eq!(world.node.fake.leftovers(), [""; 0]);
}

/// A registry whose second layer comes half and then no further, until `go`.
fn stalling(sample: &Sample, go: &Arc<AtomicBool>) -> Server {
    let (second, go) = (digest::of(&sample.layers[1].0), go.clone());
    registry(
        sample,
        Some(Box::new(move |request, answer| {
            if !request.path.ends_with(&second) || go.load(Ordering::Acquire) {
                return answer;
            }
            match request.header("range") {
                "" => Answer { cut: Some(answer.body.len() / 2), ..answer },
                _ => Answer { stall: true, ..answer },
            }
        })),
    )
}

#[test]
fn a_cancelled_pull_is_gone_on_with() {
    let (sample, world) = (Sample::new(), World::new());
    let go = Arc::new(AtomicBool::new(false));
    let server = stalling(&sample, &go);
    let call = Call::unbounded();
    thread::scope(|scope| {
        let pulling = scope.spawn(|| world.pull(&call, &name(&server)));
        while !server.received().iter().any(|r| !r.header("range").is_empty()) {
            thread::yield_now();
        }
        call.cancel();
        assert_eq!(pulling.join().unwrap().unwrap_err().kind(), Kind::Canceled);
    });
    world.collect();
    assert_eq!(world.node.left("lease").len(), 1, "what is here is kept");
    assert_eq!(world.node.left("image"), [""; 0]);
    let asked = blobs_asked(&server).len();
    go.store(true, Ordering::Release);
    world.pull(&Call::unbounded(), &name(&server)).unwrap();
    world.assert_whole(&sample, 3);
    let again: BTreeSet<String> = blobs_asked(&server)[asked..].iter().cloned().collect();
    assert!(again.len() < 3, "the first layer and the configuration were here: {again:?}");
    let half = sample.layers[1].0.len() / 2;
    assert!(server.received().iter().any(|r| r.header("range") == format!("bytes={half}-")));
}

#[test]
fn equal_pulls_are_one_and_the_same_blob_is_fetched_once() {
    let (sample, world) = (Sample::new(), World::new());
    let go = Arc::new(AtomicBool::new(false));
    let server = stalling(&sample, &go);
    let other = format!("{}/another/name:1", server.address);
    thread::scope(|scope| {
        let same: Vec<_> = (0..3).map(|_| scope.spawn(|| world.pull(&Call::unbounded(), &name(&server)))).collect();
        let different = scope.spawn(|| world.pull(&Call::unbounded(), &other));
        while !server.received().iter().any(|r| !r.header("range").is_empty()) {
            thread::yield_now();
        }
        go.store(true, Ordering::Release);
        // The stalled connection is given up by the client only when the server ends it.
        server.release();
        for pull in same.into_iter().chain([different]) {
            assert_eq!(pull.join().unwrap().unwrap(), sample.id());
        }
    });
    let asked = blobs_asked(&server);
    for layer in [&sample.layers[0].0, &sample.layers[2].0] {
        assert_eq!(asked.iter().filter(|path| path.ends_with(&digest::of(layer))).count(), 1);
    }
    world.assert_whole(&sample, 5);
}

#[test]
fn whichever_call_fails_nothing_is_left_and_the_next_pull_works() {
    let sample = Sample::new();
    for fault in [Fault::Refused, Fault::LostReply] {
        let calls = AtomicUsize::new(0);
        for n in 1..200 {
            let (world, server) = (World::new(), registry(&sample, None));
            world.node.fake.collect_garbage_always();
            world.node.fake.fail_at(n, fault);
            let pulled = world.pull(&Call::unbounded(), &name(&server));
            if world.node.fake.fault_pending() {
                pulled.unwrap();
                calls.store(n, Ordering::Relaxed);
                break;
            }
            match pulled {
                Err(e) => {
                    assert_eq!(e.kind(), Kind::Unavailable, "{fault:?} at call {n}: {e}");
                    world.collect();
                    // A lease whose deletion failed as well is left to expire.
                    let left = world.node.fake.leftovers();
                    assert!(left.is_empty(), "{fault:?} at call {n}: {e}: {left:?}");
                }
                Ok(_) => assert!(world.node.fake.image(&Call::undo(), &sample.id()).is_ok(), "{fault:?} at call {n}"),
            }
            assert_eq!(world.pull(&Call::unbounded(), &name(&server)).unwrap(), sample.id(), "{fault:?} at call {n}");
        }
        assert!(calls.load(Ordering::Relaxed) > 25, "too few calls for a pull");
    }
}
