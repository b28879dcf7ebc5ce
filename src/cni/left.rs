//! Plugins that a daemon which was killed has left running: they go before anything of theirs is undone.

use std::time::Duration;

use crate::error::{Context, Result};
use crate::sys::orphan::{self, Orphan};

/// The variable that names the container in the environment of a plugin, and of whatever it runs itself.
pub(super) const CONTAINER: &str = "CNI_CONTAINERID";

/// How long one may go on by itself. Killed between two steps it may forget what it has reserved: host-local makes the file of
/// an address, and then writes down whose it is.
const PATIENCE: Duration = Duration::from_secs(3);

/// The plugins that run. Ours do only while a call of ours waits for them, so at start there should be none.
#[derive(Debug)]
pub struct Left(Vec<Orphan>);

impl Left {
    /// Looks for them. Takes a look at every process of the machine.
    pub fn find() -> Left {
        Left(orphan::with(CONTAINER))
    }

    /// Waits for the end of those that are at work on this container, and kills what hangs: a DEL beside an ADD would find
    /// nothing to delete yet. Blocks, some seconds at most.
    pub fn end(&self, container_id: &str) -> Result<()> {
        self.end_after(container_id, PATIENCE)
    }

    fn end_after(&self, container_id: &str, patience: Duration) -> Result<()> {
        for plugin in self.0.iter().filter(|plugin| plugin.value == container_id) {
            let doing = || format!("end the CNI plugin that runs as process {}", plugin.pid);
            if !plugin.end(patience).with_context(doing)? {
                log::warn!("killed CNI plugin {} of {container_id}, which an earlier daemon left running", plugin.pid);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripted::{attachment, Rig};
    use super::*;
    use crate::call::Call;
    use serde_json::json;
    use std::time::Instant;

    #[test]
    fn a_plugin_of_a_dead_daemon_ends_and_those_of_others_do_not() {
        let rig = Rig::new();
        rig.conf("10-net.conflist", &json!({"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "only"}]}));
        rig.plugin("only", "echo > $log/$CNI_CONTAINERID.runs; sleep 1000 & wait");
        let network = rig.cni.network().expect("valid");
        let ids = ["one", "two"].map(|name| format!("left-{name}-{}", std::process::id()));
        let netns = rig.path("netns");
        let add = |id: &str, call: &Call| rig.cni.add(call, &network, &attachment(id, &netns)).map(drop);
        let bounded = Call::within(Duration::from_secs(60));
        std::thread::scope(|scope| {
            let first = scope.spawn(|| add(&ids[0], &bounded));
            let second = scope.spawn(|| add(&ids[1], &bounded));
            let begun = Instant::now();
            while !ids.iter().all(|id| rig.path(&format!("log/{id}.runs")).exists()) {
                assert!(begun.elapsed() < Duration::from_secs(60), "both run");
                std::thread::sleep(Duration::from_millis(5));
            }
            Left::find().end_after(&ids[0], Duration::ZERO).expect("it ends");
            let e = first.join().expect("no panic").expect_err("it was killed");
            assert!(e.to_string().contains("signal: 9"), "{e}");
            let left = Left::find().0;
            assert!(left.iter().any(|plugin| plugin.value == ids[1]), "the other runs on: {left:?}");
            assert!(left.iter().all(|plugin| plugin.value != ids[0]), "with all that it had started: {left:?}");
            Left::find().end_after(&ids[1], Duration::ZERO).expect("it ends");
            second.join().expect("no panic").expect_err("it was killed as well");
        });
    }
}
