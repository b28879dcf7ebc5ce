//! The life of a pod, call by call.

use cricket::error::Result;

use crate::group::Cpu;
use crate::interrupt;
use crate::setting::Setting;
use crate::shell::BUSYBOX;
use crate::side::{polite, Side};
use crate::stopwatch::Times;
use crate::table::{Goal, Row, Table};

/// The calls of a pod's life in their order, with the goals of some.
const CALLS: [(&str, Option<Goal>); 8] = [
    ("RunPodSandbox", Some(Goal::RatioAtMost(0.35))),
    ("CreateContainer", None),
    ("StartContainer", None),
    ("ExecSync", None),
    ("StopContainer", None),
    ("RemoveContainer", None),
    ("StopPodSandbox", Some(Goal::RatioAtMost(0.5))),
    ("RemovePodSandbox", None),
];

/// Pods of each side before those that count.
const WARM_UP: usize = 2;

/// What one side has taken.
#[derive(Default)]
struct Taken {
    calls: [Times; CALLS.len()],
    create_and_start: Times,
    life: Times,
    cpu: Vec<Cpu>,
}

/// Makes pods of one container on each side in turn, and takes them down call by call.
pub fn measure(setting: &Setting, table: &mut Table) -> Result<()> {
    let sides = Side::both(setting)?;
    let mut taken = [Taken::default(), Taken::default()];
    for run in 0..WARM_UP + setting.runs {
        for (side, taken) in sides.iter().zip(&mut taken) {
            interrupt::check()?;
            let before = side.group.cpu()?;
            let mut one = Taken::default();
            life(side, &format!("pod-{run}"), &mut one)?;
            let cpu = side.group.cpu()? - before;
            if run >= WARM_UP {
                taken.add(&one, cpu);
            }
        }
    }
    let [ours, peer] = &taken;
    table.group(
        "The life of a pod",
        &format!(
            "{} pods of one idle container on each side, a pod here and a pod there; the time of each call at the client.",
            setting.runs
        ),
    );
    for (n, (name, goal)) in CALLS.iter().enumerate() {
        table.row(Row { goal: *goal, ..Row::new(name, "ms", &ours.calls[n], &peer.calls[n]) });
    }
    let both = Row::new("CreateContainer + StartContainer", "ms", &ours.create_and_start, &peer.create_and_start);
    table.row(both.goal(Goal::RatioAtMost(0.9)));
    table.row(Row::new("all eight calls", "ms", &ours.life, &peer.life));
    table.note("CPU: of all processes of the side for a whole life, from the kernel's count for its control group.");
    let system = |taken: &Taken| mean(taken.cpu.iter().map(|c| c.system.as_secs_f64() * 1000.0));
    let pods = |taken: &Taken| mean(taken.cpu.iter().map(|c| c.pods.as_secs_f64() * 1000.0));
    table.row(Row::new("CPU of daemons, shims, runc, CNI", "ms", system(ours), system(peer)));
    table.row(Row::new("CPU in the pod's control groups", "ms", pods(ours), pods(peer)));
    Ok(())
}

impl Taken {
    fn add(&mut self, one: &Taken, cpu: Cpu) {
        for (all, new) in self.calls.iter_mut().zip(&one.calls) {
            all.merge(new);
        }
        self.create_and_start.add(one.calls[1].sum() + one.calls[2].sum());
        self.life.add(one.calls.iter().map(Times::sum).sum());
        self.cpu.push(cpu);
    }
}

fn life(side: &Side, name: &str, taken: &mut Taken) -> Result<()> {
    let cri = side.cri();
    let mut config = side.pod_config(name);
    config.annotations.insert("kubernetes.io/config.source".into(), "api".into());
    let mut times =
        taken.calls.iter_mut().zip(CALLS).map(|(times, (call, _))| (times, format!("{}: {call}", side.name)));
    let mut next = || times.next().expect("a time for each call");
    let (time, what) = next();
    let pod = time.take(&what, || cri.run_pod(&config))?;
    let (time, what) = next();
    let id = time.take(&what, || cri.create(&pod, &config, polite("c")))?;
    let (time, what) = next();
    time.take(&what, || cri.start(&id))?;
    let (time, what) = next();
    time.take(&what, || cri.exec(&id, &[BUSYBOX, "true"], 30))?;
    let (time, what) = next();
    time.take(&what, || cri.stop(&id, 30))?;
    let (time, what) = next();
    time.take(&what, || cri.remove(&id))?;
    let (time, what) = next();
    time.take(&what, || cri.stop_pod(&pod))?;
    let (time, what) = next();
    time.take(&what, || cri.remove_pod(&pod))
}

fn mean(figures: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = figures.len().max(1) as f64;
    figures.sum::<f64>() / count
}
