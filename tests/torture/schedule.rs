//! What happens in a round, and when: all of it follows from the seed and the round's number.

use std::time::Duration;

use crate::dice::Dice;

/// What else fails in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// containerd is killed, and comes back a moment later.
    ContainerdDies,
    /// containerd does not answer for a while.
    ContainerdStalls,
    /// containerd does what it is asked, and its answers do not arrive for a while: one stops in the middle.
    AnswersStall,
    /// A shim is killed, and with it whatever it runs.
    ShimDies,
    /// The network plugin fails.
    PluginFails,
    /// The network plugin does its work and then says that it failed.
    PluginFailsLate,
    /// The network plugin takes its time.
    PluginHangs,
    /// Nothing more goes onto the disk that cricket's records are on.
    DiskFull,
}

impl Fault {
    const ALL: [Fault; 8] = [
        Fault::ContainerdDies,
        Fault::PluginHangs,
        Fault::ShimDies,
        Fault::PluginFails,
        Fault::ContainerdStalls,
        Fault::PluginFailsLate,
        Fault::DiskFull,
        Fault::AnswersStall,
    ];
}

/// One thing that is done to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// SIGKILL to the daemon, which is started again at once.
    Kill,
    Begin(Fault),
    End(Fault),
}

/// A round.
#[derive(Debug)]
pub struct Round {
    pub seed: u64,
    pub number: u64,
    /// None: only the daemon is killed.
    pub fault: Option<Fault>,
    /// Each with the pause before it.
    pub acts: Vec<(Duration, Act)>,
}

impl Round {
    /// The round of this number.
    pub fn plan(seed: u64, number: u64) -> Round {
        let mut dice = Dice::new(seed, &[number]);
        let faults = Fault::ALL.len() as u64;
        let which = usize::try_from(number / 2 % faults).expect("small");
        let fault = (number % 2 == 1).then(|| Fault::ALL[which]);
        let kills = 6 + dice.place(9);
        let mut acts: Vec<(Duration, Act)> = (0..kills).map(|_| (pause(&mut dice), Act::Kill)).collect();
        if let Some(fault) = fault {
            // It begins among the kills and lasts for some of them, or for none.
            let begin = dice.place(kills);
            let end = begin + 1 + dice.place(kills - begin);
            acts.insert(begin, (pause(&mut dice), Act::Begin(fault)));
            acts.insert(end, (Duration::from_millis(100 + dice.below(900)), Act::End(fault)));
        }
        Round { seed, number, fault, acts }
    }
}

/// Short ones hit the recovery itself, long ones let something be finished.
fn pause(dice: &mut Dice) -> Duration {
    let most = match dice.below(4) {
        0 => 60,
        1 => 300,
        2 => 800,
        _ => 1800,
    };
    Duration::from_millis(dice.below(most))
}

#[test]
fn a_plan_is_always_the_same_and_every_fault_has_its_turn() {
    let acts = |seed, number| Round::plan(seed, number).acts;
    assert_eq!(acts(1, 3), acts(1, 3));
    assert_ne!(acts(1, 3), acts(2, 3));
    for fault in Fault::ALL {
        let number = (0..16).find(|n| Round::plan(1, *n).fault == Some(fault)).expect("among the first sixteen");
        let acts = acts(1, number);
        let place = |act| acts.iter().position(|(_, a)| *a == act).expect("there");
        assert!(place(Act::Begin(fault)) < place(Act::End(fault)), "{acts:?}");
    }
}
