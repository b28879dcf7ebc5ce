//! Whatever is asked in whatever order, with faults and restarts in between, pods and containers are what a small model of
//! them says. A failure is shrunk to the shortest sequence that still fails.

use std::collections::BTreeMap;

use cricket::containerd::fake::Fault;
use cricket::error::{Kind, Result};
use cricket_proto::runtime::{ContainerState, PodSandboxState};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::requests;
use crate::world::{eventually, World};

/// Sequences, and the most steps in one of them.
const SEQUENCES: u32 = 48;
const STEPS: usize = 24;
/// Names of pods, and of the containers in each.
const NAMES: [&str; 3] = ["a", "b", "c"];
/// Calls that no verb comes to.
const NEVER: usize = 1 << 30;

/// One thing that is asked. Numbers choose among the objects that there are.
#[derive(Clone, Debug)]
enum Ask {
    RunPod(usize),
    Create(usize, usize),
    Start(usize),
    Stop(usize),
    Remove(usize),
    StopPod(usize),
    RemovePod(usize),
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Ask(Ask),
    /// The same, and containerd fails at this call of it; `true`: it had done it.
    Faulty(Ask, usize, bool),
    /// A process ends with this code.
    Exits(usize, u32),
    /// The daemon ends, and another one starts.
    Restart,
    /// The connection to containerd breaks.
    Reconnect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Created,
    Running,
    Exited(i32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Container {
    pod: String,
    name: String,
    life: Life,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pod {
    name: String,
    ready: bool,
}

/// Everything that there is, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    pods: BTreeMap<String, Pod>,
    containers: BTreeMap<String, Container>,
}

fn ask() -> impl Strategy<Value = Ask> {
    let any = || 0..6_usize;
    prop_oneof![
        2 => (0..NAMES.len()).prop_map(Ask::RunPod),
        4 => (any(), 0..NAMES.len()).prop_map(|(pod, name)| Ask::Create(pod, name)),
        4 => any().prop_map(Ask::Start),
        2 => any().prop_map(Ask::Stop),
        2 => any().prop_map(Ask::Remove),
        1 => any().prop_map(Ask::StopPod),
        1 => any().prop_map(Ask::RemovePod),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => ask().prop_map(Step::Ask),
        4 => (ask(), 1..12_usize, any::<bool>()).prop_map(|(ask, at, done)| Step::Faulty(ask, at, done)),
        2 => (0..6_usize, 0..200_u32).prop_map(|(which, code)| Step::Exits(which, code)),
        1 => Just(Step::Restart),
        1 => Just(Step::Reconnect),
    ]
}

impl Model {
    /// What lists and statuses say.
    fn of(world: &World) -> Model {
        let mut model = Model::default();
        for pod in world.sandboxes.list() {
            let ready = world.pod_status(pod.id.as_str()).state == PodSandboxState::SANDBOX_READY.into();
            model.pods.insert(pod.id.to_string(), Pod { name: pod.config.metadata.name.clone(), ready });
        }
        for container in world.containers.list() {
            let status = world.status(container.id.as_str());
            let life = match status.state.enum_value_or_default() {
                ContainerState::CONTAINER_CREATED => Life::Created,
                ContainerState::CONTAINER_RUNNING => Life::Running,
                ContainerState::CONTAINER_EXITED => Life::Exited(status.exit_code),
                ContainerState::CONTAINER_UNKNOWN => panic!("nobody can say: {status:?}"),
            };
            let (pod, name) = (container.sandbox_id.to_string(), status.metadata.name.clone());
            model.containers.insert(container.id.to_string(), Container { pod, name, life });
        }
        model
    }

    /// One of the pods that there are, in the order of their names: ids are another each time.
    fn pod(&self, which: usize) -> Option<String> {
        let mut all: Vec<_> = self.pods.iter().map(|(id, pod)| (&pod.name, id)).collect();
        all.sort();
        which.checked_rem(all.len()).map(|at| all[at].1.clone())
    }

    /// One of the containers, likewise.
    fn container(&self, which: usize) -> Option<String> {
        let name = |c: &Container| (self.pods.get(&c.pod).map(|pod| pod.name.clone()), c.name.clone());
        let mut all: Vec<_> = self.containers.iter().map(|(id, container)| (name(container), id)).collect();
        all.sort();
        which.checked_rem(all.len()).map(|at| all[at].1.clone())
    }

    fn ready(&self, pod: &str) -> bool {
        self.pods.get(pod).is_some_and(|pod| pod.ready)
    }

    fn end(&mut self, id: &str) {
        if let Some(container) = self.containers.get_mut(id).filter(|c| c.life == Life::Running) {
            container.life = Life::Exited(137);
        }
    }

    /// Asks the world, and takes in what must come of it. With a fault in the way it may be refused as `Unavailable`: then
    /// whether what there is may have come of that.
    fn ask(&mut self, world: &World, ask: &Ask, faulty: bool) {
        let before = self.clone();
        let done = self.expect(world, ask);
        match done {
            None | Some(Ok(())) => {}
            Some(Err(e)) if faulty && e.kind() == Kind::Unavailable => {
                let now = Model::of(world);
                before.may_become(&now, ask);
                *self = now;
            }
            Some(Err(e)) => panic!("{ask:?}: {:?}: {e}", e.kind()),
        }
    }

    /// What must come of a request, taken in; `None` if there is nothing to ask it of. A refusal that must come is none.
    fn expect(&mut self, world: &World, ask: &Ask) -> Option<Result<()>> {
        let must_refuse = |answer: Result<()>, kind: Kind| match answer {
            Err(e) if e.kind() == kind => Ok(()),
            Err(e) => Err(e),
            Ok(()) => panic!("{ask:?} was not refused"),
        };
        Some(match ask {
            Ask::RunPod(name) => {
                let there = self.pods.iter().find(|(_, pod)| pod.name == NAMES[*name]).map(|(id, _)| id.clone());
                self.made(world.run(world.request(NAMES[*name])), there).map(|id| {
                    self.pods.entry(id).or_insert(Pod { name: NAMES[*name].to_owned(), ready: true });
                })
            }
            Ask::Create(pod, name) => {
                let pod = self.pod(*pod)?;
                let mut named = self.containers.iter().filter(|(_, c)| c.pod == pod && c.name == NAMES[*name]);
                let there = named.next().map(|(id, _)| id.clone());
                let answer = world.create(requests::container(&pod, NAMES[*name]));
                if !self.ready(&pod) {
                    return Some(must_refuse(answer.map(drop), Kind::FailedPrecondition));
                }
                self.made(answer, there).map(|id| {
                    let new = Container { pod, name: NAMES[*name].to_owned(), life: Life::Created };
                    self.containers.entry(id).or_insert(new);
                })
            }
            Ask::Start(which) => {
                let id = self.container(*which)?;
                let (answer, container) = (world.start(&id), self.containers.get(&id)?.clone());
                if container.life != Life::Created || !self.ready(&container.pod) {
                    return Some(must_refuse(answer, Kind::FailedPrecondition));
                }
                answer.map(|()| self.containers.get_mut(&id).expect("there").life = Life::Running)
            }
            Ask::Stop(which) => {
                let id = self.container(*which)?;
                world.stop(&id, 0).map(|()| self.end(&id))
            }
            Ask::Remove(which) => {
                let id = self.container(*which)?;
                world.remove(&id).map(|()| drop(self.containers.remove(&id)))
            }
            Ask::StopPod(which) => {
                let id = self.pod(*which)?;
                world.stop_pod(&id).map(|()| {
                    self.pods.get_mut(&id).expect("there").ready = false;
                    self.containers.values_mut().filter(|c| c.pod == id && c.life == Life::Running).for_each(|c| {
                        c.life = Life::Exited(137);
                    });
                })
            }
            Ask::RemovePod(which) => {
                let id = self.pod(*which)?;
                world.remove_pod(&id).map(|()| {
                    self.pods.remove(&id);
                    self.containers.retain(|_, c| c.pod != id);
                })
            }
        })
    }

    /// The id of what was made; of what is there already if the answer was given again. `Err` that must come is kept.
    fn made(&self, answer: Result<String>, there: Option<String>) -> Result<String> {
        match (answer, there) {
            (Ok(id), Some(there)) => {
                assert_eq!(id, there, "a second one of that name");
                Ok(id)
            }
            (Err(e), Some(there)) if e.kind() == Kind::AlreadyExists => Ok(there),
            (answer, _) => answer,
        }
    }

    /// Panics unless `now` may have come of a request that failed midway.
    fn may_become(&self, now: &Model, ask: &Ask) {
        let new = now.pods.keys().any(|id| !self.pods.contains_key(id))
            || now.containers.keys().any(|id| !self.containers.contains_key(id));
        assert!(!new, "{ask:?} failed, and something is there");
        let (started, stopped, ended) = match ask {
            Ask::RunPod(_) | Ask::Create(..) => (None, None, None),
            Ask::Start(which) => (self.container(*which), None, None),
            Ask::Stop(which) | Ask::Remove(which) => (None, None, self.container(*which)),
            Ask::StopPod(which) | Ask::RemovePod(which) => (None, self.pod(*which), None),
        };
        for (id, pod) in &self.pods {
            let touched = stopped.as_ref() == Some(id);
            match now.pods.get(id) {
                Some(is) => assert!(is.ready == pod.ready || (touched && !is.ready), "{ask:?}: pod {id} is {is:?}"),
                None => assert!(touched && matches!(ask, Ask::RemovePod(_)), "{ask:?}: pod {id} is gone"),
            }
        }
        for (id, container) in &self.containers {
            let touched = ended.as_ref() == Some(id) || stopped.as_ref() == Some(&container.pod);
            let may_be = |is: Life| match (container.life, is) {
                (was, is) if was == is && started.as_ref() != Some(id) => true,
                (Life::Created, Life::Exited(128)) => started.as_ref() == Some(id),
                (Life::Running, Life::Exited(137)) => touched,
                _ => false,
            };
            let removes = matches!(ask, Ask::Remove(_) | Ask::RemovePod(_));
            match now.containers.get(id) {
                Some(is) => assert!(may_be(is.life), "{ask:?}: {container:?} is {is:?}"),
                None => assert!(touched && removes, "{ask:?}: {container:?} is gone"),
            }
        }
    }
}

fn take(world: &mut World, model: &mut Model, step: &Step) {
    match step {
        Step::Ask(ask) => model.ask(world, ask, false),
        Step::Faulty(ask, at, done) => {
            world.fake.fail_at(*at, if *done { Fault::LostReply } else { Fault::Refused });
            model.ask(world, ask, true);
            world.fake.fail_at(NEVER, Fault::Refused);
        }
        Step::Exits(which, code) => {
            let Some(id) = model.container(*which) else { return };
            let container = model.containers.get_mut(&id).expect("picked");
            if container.life == Life::Running {
                world.exit(&id, *code);
                container.life = Life::Exited(i32::try_from(*code).expect("small"));
            }
        }
        Step::Restart => world.restart(),
        Step::Reconnect => {
            world.fake.break_streams();
            let rt = world.rt().clone();
            eventually("it is connected again", || rt.connected());
        }
    }
}

#[test]
fn pods_and_containers_are_what_the_model_says() {
    let config = Config { cases: SEQUENCES, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let sequences = proptest::collection::vec(step(), 1..STEPS);
    let result = TestRunner::new_with_rng(config, rng).run(&sequences, |steps| {
        let (mut world, mut model) = (World::new(), Model::default());
        for step in &steps {
            take(&mut world, &mut model, step);
            prop_assert_eq!(&Model::of(&world), &model, "after {:?}", step);
        }
        for pod in model.pods.keys() {
            world.remove_pod(pod).expect("RemovePodSandbox");
        }
        world.assert_clean(&NAMES);
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{e}"));
}
