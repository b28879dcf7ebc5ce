//! The pod network: reads the CNI configuration and runs its plugins (CNI specification up to 1.1.0).
//!
//! Nothing is kept in memory and no lock is taken: each call reads the directory, so that a network add-on takes effect
//! when its file appears, and attachments of different containers are made in parallel. The caller sees to it that
//! no two calls are for the same container.
//!
//! A record of the attachment is on disk before the first plugin runs and is replaced by one with the result after the
//! last one. Whenever we are killed, DEL is run with the configuration that ADD had.

mod attachment;
mod cache;
mod conf;
mod exec;
mod left;
mod result;
#[cfg(test)]
mod scripted;
mod torn;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::attachment::{Attachment, Bandwidth, Capabilities, Dns, PortMapping, Protocol};
use self::cache::{Found, Record};
pub use self::conf::Network;
use self::exec::Operation;
pub use self::left::Left;
pub use self::result::Outcome;
use crate::call::Call;
use crate::error::{Context, Error, Result};

/// The client side of CNI. Cheap to make and to clone; usable from any thread.
#[derive(Clone, Debug)]
pub struct Cni {
    conf_dir: PathBuf,
    bin_dirs: Vec<PathBuf>,
    cache_dir: PathBuf,
    timeout: Duration,
}

impl Cni {
    /// `cache_dir` is `/var/lib/cni` except in tests: other CNI tools look there. `timeout` is for all plugins of a
    /// network together. Touches no file.
    pub fn new(
        conf_dir: impl Into<PathBuf>,
        bin_dirs: Vec<PathBuf>,
        cache_dir: impl Into<PathBuf>,
        timeout: Duration,
    ) -> Cni {
        Cni { conf_dir: conf_dir.into(), bin_dirs, cache_dir: cache_dir.into(), timeout }
    }

    /// The network that pods join now: the lexically first valid file of the directory. Reads it anew every time.
    ///
    /// # Errors
    /// `FailedPrecondition` if there is none; the message says what is wrong with each file. Never `Unavailable`,
    /// which a client may take for the daemon being away.
    pub fn network(&self) -> Result<Network> {
        Network::load(&self.conf_dir)
    }

    /// Whether pods could be attached, for the NetworkReady condition: a valid network whose plugins are all installed.
    /// Runs none of them (no `STATUS`), so it is cheap and cannot hang.
    ///
    /// # Errors
    /// `FailedPrecondition`, with what to do.
    pub fn ready(&self) -> Result<()> {
        let network = self.network()?;
        self.binaries(&network).map(|_| ()).with_context(|| format!("network {}", network.name()))
    }

    /// Attaches a container: runs the plugins in order, each with the result of the one before. Blocks, at most until
    /// the call's deadline or our own timeout; a cancelled call stops before the next plugin.
    ///
    /// A failed ADD may have done half of its work. The caller runs [`Cni::del`] after it, always.
    ///
    /// # Errors
    /// `InvalidArgument` for an attachment that CNI cannot express; `FailedPrecondition` for a missing plugin: in both
    /// cases nothing was done. `Unknown` with the plugin's message if one failed or printed no result;
    /// `DeadlineExceeded` if one was killed, `Canceled`, `ResourceExhausted`.
    pub fn add(&self, call: &Call, network: &Network, at: &Attachment<'_>) -> Result<Outcome> {
        self.attach(&call.at_most(self.timeout), network, at)
            .with_context(|| format!("add sandbox {} to network {}", at.container_id, network.name()))
    }

    /// Detaches a container: runs the plugins in reverse. With the configuration, arguments and result that are on
    /// record from the ADD; without a record with today's network and `at`; without that, or its plugins, it has nothing to do. If the
    /// ADD had failed and DEL fails as well, today's network is tried instead: what was wrong with the configuration
    /// may be repaired by now. The record goes when all plugins have succeeded. Idempotent. Blocks like [`Cni::add`].
    ///
    /// # Errors
    /// As [`Cni::add`]. It stops at the first plugin that fails (specification, section 3), and may be repeated.
    pub fn del(&self, call: &Call, at: &Attachment<'_>) -> Result<()> {
        self.detach_all(call, at).with_context(|| format!("remove sandbox {} from its network", at.container_id))
    }

    /// Attachments on record, by container, each with the network namespace that it was made in. What cannot be read is
    /// somebody else's.
    pub fn attachments(&self) -> Result<Vec<(String, PathBuf)>> {
        cache::all(&self.cache_dir)
    }

    /// Addresses of today's network that a power cut has torn from their owners: the files that hold them.
    pub fn torn(&self) -> Vec<PathBuf> {
        self.network().map(|network| torn::find(&network)).unwrap_or_default()
    }

    /// Gives one of [`Cni::torn`] back. Idempotent; what is not torn after all is left alone.
    ///
    /// # Errors
    /// `Unavailable` while a plugin is at work there.
    pub fn remove_torn(&self, address: &Path) -> Result<()> {
        torn::remove(address)
    }

    fn attach(&self, call: &Call, network: &Network, at: &Attachment<'_>) -> Result<Outcome> {
        at.check()?;
        if at.netns.is_none() {
            return Err(Error::invalid("an ADD needs a network namespace"));
        }
        let binaries = self.binaries(network)?;
        let mut record = Record::new(network, at);
        call.check()?;
        record.write(&self.cache_dir)?;
        let made = self.run_adds(call, network, &binaries, &mut record, at.netns);
        record.incomplete = made.is_err();
        // A half-made ADD too leaves a result: some plugins find what to delete in nothing else.
        let recorded = if record.result.is_some() { record.write(&self.cache_dir) } else { Ok(()) };
        made.and(recorded)?;
        let raw = record.result.ok_or_else(|| Error::internal("a network without plugins"))?;
        Ok(Outcome { ips: result::ips(&raw, at.interface)?, raw })
    }

    /// Runs the plugins in order; what the last one that succeeded printed is `record.result`, also after an error.
    fn run_adds(
        &self,
        call: &Call,
        network: &Network,
        binaries: &[PathBuf],
        record: &mut Record,
        netns: Option<&Path>,
    ) -> Result<()> {
        for (plugin, binary) in network.plugins().iter().zip(binaries) {
            let request = network.request(plugin, record.result.as_ref(), &record.capability_args);
            let add = Operation { verb: "ADD", record, netns, dirs: &self.bin_dirs };
            let result = add
                .run(call, binary, &request)
                .and_then(|stdout| result::parse(&stdout, network.version()))
                .with_context(|| format!("CNI plugin {}", plugin.kind))?;
            record.result = Some(result);
        }
        Ok(())
    }

    fn detach_all(&self, call: &Call, at: &Attachment<'_>) -> Result<()> {
        at.check_names()?;
        // Namespaces do not survive a reboot; plugins want an empty name then and not one that leads nowhere.
        let netns = at.netns.filter(|path| path.exists());
        let found = cache::find(&self.cache_dir, at.container_id, at.interface)?;
        if found.is_empty() {
            return match self.network().and_then(|network| self.binaries(&network).map(|_| network)) {
                Ok(network) => self.detach(call, &network, &Record::new(&network, at), netns),
                Err(e) => {
                    // An ADD of ours leaves a record before it does anything, so there was none. To fail here would
                    // hold every pod of a node that never had a network.
                    log::debug!("nothing to remove sandbox {} from: {e}", at.container_id);
                    Ok(())
                }
            };
        }
        for Found { path, record } in found {
            match record.and_then(|record| Ok((Network::from_list(record.config.clone())?, record))) {
                Ok((network, record)) => self
                    .detach(call, &network, &record, netns)
                    .or_else(|e| self.detach_repaired(call, e, &record, netns))?,
                Err(e) => {
                    log::warn!("use today's network instead: {e}");
                    let network = self.network()?;
                    self.detach(call, &network, &Record::new(&network, at), netns)?;
                }
            }
            cache::remove(&path)?;
        }
        Ok(())
    }

    /// After the DEL of a half-made ADD failed: what today's network can do about it.
    fn detach_repaired(&self, call: &Call, failed: Error, record: &Record, netns: Option<&Path>) -> Result<()> {
        match self.network() {
            Ok(today) if record.incomplete && today.config() != record.config => {
                log::warn!("use today's network instead: {failed}");
                self.detach(call, &today, record, netns)
            }
            _ => Err(failed),
        }
    }

    fn detach(&self, call: &Call, network: &Network, record: &Record, netns: Option<&Path>) -> Result<()> {
        let call = &call.at_most(self.timeout);
        let binaries = self.binaries(network)?;
        let del = Operation { verb: "DEL", record, netns, dirs: &self.bin_dirs };
        let result = record.result.as_ref().filter(|_| network.del_has_result());
        for (plugin, binary) in network.plugins().iter().zip(&binaries).rev() {
            let request = network.request(plugin, result, &record.capability_args);
            del.run(call, binary, &request)
                .with_context(|| format!("network {}: CNI plugin {}", network.name(), plugin.kind))?;
        }
        Ok(())
    }

    fn binaries(&self, network: &Network) -> Result<Vec<PathBuf>> {
        network.plugins().iter().map(|plugin| exec::find(&plugin.kind, &self.bin_dirs)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::scripted::{attachment, Rig};
    use super::*;
    use crate::error::Kind;
    use serde_json::{json, Value};
    use std::fs;

    const RESULT: &str = r#"echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/x"}],
        "ips":[{"address":"10.9.0.2/24","interface":0}]}'"#;
    const FAIL: &str = r#"echo '{"cniVersion":"1.0.0","code":7,"msg":"no room","details":"the pool is dry"}'; exit 1"#;

    /// A network of these plugins, in cniVersion 1.0.0.
    fn list(name: &str, plugins: &[&str]) -> Value {
        let plugins: Vec<_> = plugins.iter().map(|kind| json!({"type": kind, "own": kind})).collect();
        json!({"cniVersion": "1.0.0", "name": name, "plugins": plugins})
    }

    fn two(rig: &Rig) -> Network {
        rig.conf("10-net.conflist", &list("net", &["first", "second"]));
        rig.plugin("first", RESULT);
        rig.plugin("second", RESULT);
        rig.cni.network().expect("a valid network")
    }

    #[test]
    fn add_goes_forward_and_del_back_with_the_result() {
        let rig = Rig::new();
        let network = two(&rig);
        let netns = rig.path("netns");
        let at = attachment("c1", &netns);
        rig.plugin("second", RESULT.replace("10.9.0.2", "10.9.0.3").as_str());
        let outcome = rig.cni.add(&Call::unbounded(), &network, &at).expect("add");
        assert_eq!(outcome.ips, ["10.9.0.3".parse::<std::net::IpAddr>().expect("address")]);
        assert_eq!(rig.ran(), ["ADD first", "ADD second"]);
        assert_eq!(
            rig.stdin("first", "ADD"),
            json!({"cniVersion": "1.0.0", "name": "net", "type": "first", "own": "first"})
        );
        assert_eq!(rig.stdin("second", "ADD")["prevResult"]["ips"][0]["address"], "10.9.0.2/24");
        assert_eq!(rig.records(), ["net-c1-eth0"]);
        assert_eq!(
            rig.env("first", "ADD"),
            [
                "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=web".to_owned(),
                "CNI_COMMAND=ADD".into(),
                "CNI_CONTAINERID=c1".into(),
                "CNI_IFNAME=eth0".into(),
                format!("CNI_NETNS={}", netns.display()),
                format!("CNI_PATH={}:{}", rig.path("missing").display(), rig.path("bin").display()),
            ]
        );

        rig.cni.del(&Call::unbounded(), &at).expect("del");
        assert_eq!(rig.ran(), ["DEL second", "DEL first"]);
        for kind in ["first", "second"] {
            assert_eq!(rig.stdin(kind, "DEL")["prevResult"], outcome.raw);
        }
        assert_eq!(
            rig.env("first", "DEL"),
            rig.env("first", "ADD").iter().map(|v| v.replace("ADD", "DEL")).collect::<Vec<_>>()
        );
        assert!(rig.records().is_empty());
        rig.cni.del(&Call::unbounded(), &at).expect("del is idempotent");
    }

    #[test]
    fn del_undoes_what_add_did_whatever_the_directory_says_now() {
        let rig = Rig::new();
        let network = two(&rig);
        let netns = rig.path("netns");
        rig.cni.add(&Call::unbounded(), &network, &attachment("c1", &netns)).expect("add");
        rig.ran();
        rig.conf("10-net.conflist", &list("other", &["third"]));
        let forgetful = Attachment { args: &[], netns: None, ..attachment("c1", &netns) };
        rig.cni.del(&Call::unbounded(), &forgetful).expect("del");
        assert_eq!(rig.ran(), ["DEL second", "DEL first"]);
        let env = rig.env("first", "DEL");
        assert_eq!(env[0], "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=web", "the arguments of the ADD");
        assert_eq!(env[4], "CNI_NETNS=");
        assert!(rig.records().is_empty());
    }

    #[test]
    fn del_with_a_namespace_that_is_gone_has_an_empty_one() {
        let rig = Rig::new();
        two(&rig);
        rig.cni.del(&Call::unbounded(), &attachment("c1", &rig.path("netns/gone"))).expect("del");
        assert_eq!(rig.env("first", "DEL")[4], "CNI_NETNS=");
    }

    #[test]
    fn del_without_record_uses_todays_network_and_without_that_has_nothing_to_do() {
        let rig = Rig::new();
        let netns = rig.path("netns");
        rig.cni.del(&Call::unbounded(), &attachment("c1", &netns)).expect("nothing to do");
        two(&rig);
        rig.cni.del(&Call::unbounded(), &attachment("c1", &netns)).expect("del");
        assert_eq!(rig.ran(), ["DEL second", "DEL first"]);
        assert_eq!(rig.stdin("first", "DEL").get("prevResult"), None);
    }

    #[test]
    fn a_half_made_add_is_on_record_with_what_there_is() {
        let rig = Rig::new();
        let network = two(&rig);
        rig.plugin("second", &format!("[ $CNI_COMMAND = DEL ] || {{ {FAIL}; }}"));
        let netns = rig.path("netns");
        let at = attachment("c1", &netns);
        let e = rig.cni.add(&Call::unbounded(), &network, &at).expect_err("the second fails");
        assert_eq!(e.kind(), Kind::Unknown);
        assert_eq!(
            e.to_string(),
            "add sandbox c1 to network net: CNI plugin second: no room; the pool is dry (CNI error code 7)"
        );
        rig.conf("10-net.conflist", &list("other", &["third"]));
        rig.ran();
        rig.cni.del(&Call::unbounded(), &at).expect("del");
        assert_eq!(rig.ran(), ["DEL second", "DEL first"]);
        assert_eq!(rig.stdin("second", "DEL")["prevResult"]["ips"][0]["address"], "10.9.0.2/24");
    }

    #[test]
    fn a_half_made_add_that_cannot_be_undone_is_undone_by_the_repaired_network() {
        let rig = Rig::new();
        let network = two(&rig);
        rig.plugin("second", FAIL);
        let netns = rig.path("netns");
        let at = attachment("c1", &netns);
        rig.cni.add(&Call::unbounded(), &network, &at).expect_err("the second fails");
        assert_eq!(rig.cni.del(&Call::unbounded(), &at).map_err(|e| e.kind()), Err(Kind::Unknown));
        assert_eq!(rig.ran(), ["ADD first", "ADD second", "DEL second"], "the same network is not tried twice");
        rig.conf("10-net.conflist", &list("net", &["first"]));
        rig.cni.del(&Call::unbounded(), &at).expect("del");
        assert_eq!(rig.ran(), ["DEL second", "DEL first"]);
        assert_eq!(rig.stdin("first", "DEL")["prevResult"]["ips"][0]["address"], "10.9.0.2/24");
        assert!(rig.records().is_empty());
    }

    #[test]
    fn an_add_that_was_killed_is_on_record_from_before_its_first_plugin() {
        let rig = Rig::new();
        rig.conf("10-net.conflist", &list("net", &["only"]));
        // What is on disk while the plugin runs is what is there after a SIGKILL.
        rig.plugin("only", &format!("cp {}/cache/results/* $log/seen; {RESULT}", rig.dir.path().display()));
        let netns = rig.path("netns");
        let network = rig.cni.network().expect("valid");
        rig.cni.add(&Call::unbounded(), &network, &attachment("c1", &netns)).expect("add");
        fs::copy(rig.path("log/seen"), rig.path("cache/results/net-c1-eth0")).expect("go back in time");
        rig.conf("10-net.conflist", &list("other", &["third"]));
        rig.plugin("only", "");
        rig.ran();
        rig.cni.del(&Call::unbounded(), &attachment("c1", &netns)).expect("del");
        assert_eq!(rig.ran(), ["DEL only"]);
        assert_eq!(rig.stdin("only", "DEL").get("prevResult"), None);
    }

    #[test]
    fn a_failed_del_stops_keeps_the_record_and_can_be_repeated() {
        let rig = Rig::new();
        let network = two(&rig);
        let netns = rig.path("netns");
        let at = attachment("c1", &netns);
        rig.cni.add(&Call::unbounded(), &network, &at).expect("add");
        rig.ran();
        rig.plugin("second", FAIL);
        assert_eq!(rig.cni.del(&Call::unbounded(), &at).map_err(|e| e.kind()), Err(Kind::Unknown));
        assert_eq!(rig.ran(), ["DEL second"]);
        assert_eq!(rig.records(), ["net-c1-eth0"]);
        // A whole attachment is undone by its own network or not at all.
        rig.conf("10-net.conflist", &list("net", &["first"]));
        assert_eq!(rig.cni.del(&Call::unbounded(), &at).map_err(|e| e.kind()), Err(Kind::Unknown));
        assert_eq!(rig.ran(), ["DEL second"]);
        rig.plugin("second", "");
        rig.cni.del(&Call::unbounded(), &at).expect("del");
        assert_eq!(rig.ran(), ["DEL second", "DEL first"]);
    }

    #[test]
    fn a_broken_record_falls_back_to_todays_network() {
        let rig = Rig::new();
        fs::create_dir_all(rig.path("cache/results")).expect("mkdir");
        fs::write(rig.path("cache/results/net-c1-eth0"), "{").expect("write");
        let netns = rig.path("netns");
        let at = attachment("c1", &netns);
        assert_eq!(rig.cni.del(&Call::unbounded(), &at).map_err(|e| e.kind()), Err(Kind::FailedPrecondition));
        two(&rig);
        rig.cni.del(&Call::unbounded(), &at).expect("del");
        assert_eq!(rig.ran(), ["DEL second", "DEL first"]);
        assert!(rig.records().is_empty());
    }

    #[test]
    fn before_0_4_0_del_has_no_result() {
        let rig = Rig::new();
        let mut old = list("net", &["only"]);
        old["cniVersion"] = "0.3.1".into();
        rig.conf("10-net.conflist", &old);
        rig.plugin("only", "echo '{\"ips\":[{\"version\":\"4\",\"address\":\"10.9.0.2/24\"}]}'");
        let netns = rig.path("netns");
        let at = attachment("c1", &netns);
        let outcome = rig.cni.add(&Call::unbounded(), &rig.cni.network().expect("valid"), &at).expect("add");
        assert_eq!(outcome.raw["cniVersion"], "0.3.1", "that of the configuration");
        rig.cni.del(&Call::unbounded(), &at).expect("del");
        assert_eq!(rig.stdin("only", "DEL").get("prevResult"), None);
    }

    #[test]
    fn plugins_get_the_capabilities_that_they_declare() {
        let rig = Rig::new();
        rig.conf(
            "10-net.conflist",
            &json!({"name": "net", "cniVersion": "1.0.0", "plugins": [
                {"type": "first", "capabilities": {"portMappings": true, "dns": false, "unheard": true}},
                {"type": "second"},
            ]}),
        );
        rig.plugin("first", RESULT);
        rig.plugin("second", RESULT);
        let netns = rig.path("netns");
        let mapping = PortMapping { host_port: 80, container_port: 8080, protocol: Protocol::Tcp, host_ip: None };
        let capabilities =
            Capabilities { port_mappings: vec![mapping], dns: Some(Dns::default()), ..Capabilities::default() };
        let at = Attachment { capabilities, ..attachment("c1", &netns) };
        rig.cni.add(&Call::unbounded(), &rig.cni.network().expect("valid"), &at).expect("add");
        let expected = json!({"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}]});
        assert_eq!(rig.stdin("first", "ADD")["runtimeConfig"], expected);
        assert_eq!(rig.stdin("second", "ADD").get("runtimeConfig"), None);
        // DEL has them from the record.
        rig.cni.del(&Call::unbounded(), &attachment("c1", &netns)).expect("del");
        assert_eq!(rig.stdin("first", "DEL")["runtimeConfig"], expected);
    }

    #[test]
    fn a_plugin_that_misbehaves_is_named_with_its_kind() {
        let cases = [
            ("echo oops >&2; exit 3", Kind::Unknown, "exit status: 3 without a CNI error: oops"),
            ("exit 3", Kind::Unknown, "exit status: 3 without a CNI error: it said nothing"),
            ("echo not json; exit 1", Kind::Unknown, "without a CNI error: not json"),
            ("kill -9 $$", Kind::Unknown, "signal: 9"),
            ("echo not json", Kind::Unknown, "invalid result: not JSON"),
            ("", Kind::Unknown, "invalid result: not JSON"),
            ("echo '[]'", Kind::Unknown, "invalid result: not a JSON object"),
            ("echo '{\"ips\":[{\"address\":\"here\"}]}'", Kind::Unknown, "\"here\" is not an address with a prefix"),
            ("yes", Kind::ResourceExhausted, "more than 1048576 bytes"),
        ];
        for (body, kind, text) in cases {
            let rig = Rig::new();
            rig.conf("10-net.conflist", &list("net", &["only"]));
            rig.plugin("only", body);
            let network = rig.cni.network().expect("valid");
            let e = rig.cni.add(&Call::unbounded(), &network, &attachment("c1", &rig.path("netns"))).expect_err(body);
            assert_eq!(e.kind(), kind, "{body}: {e}");
            assert!(e.to_string().contains(text), "{body}: {e}");
            assert_eq!(rig.records(), ["net-c1-eth0"], "{body}: DEL has its record");
        }
    }

    #[test]
    fn a_hung_plugin_is_killed_at_the_calls_deadline_and_at_our_own() {
        let soon = Duration::from_millis(200);
        for (call, timeout) in [(Call::within(soon), Duration::from_secs(60)), (Call::unbounded(), soon)] {
            let rig = Rig::with_timeout(timeout);
            rig.conf("10-net.conflist", &list("net", &["only"]));
            rig.plugin("only", "sleep 1000");
            let network = rig.cni.network().expect("valid");
            let e = rig.cni.add(&call, &network, &attachment("c1", &rig.path("netns"))).expect_err("killed");
            assert_eq!(e.kind(), Kind::DeadlineExceeded, "{e}");
        }
    }

    #[test]
    fn nothing_runs_for_a_bad_attachment_a_missing_plugin_or_a_dead_call() {
        let rig = Rig::new();
        let network = two(&rig);
        let netns = rig.path("netns");
        let at = attachment("c1", &netns);
        let add = |call: &Call, at: &Attachment<'_>| rig.cni.add(call, &network, at).map_err(|e| e.kind()).map(|_| ());
        let call = Call::unbounded();
        assert_eq!(add(&call, &attachment("../c1", &netns)), Err(Kind::InvalidArgument));
        assert_eq!(add(&call, &Attachment { netns: None, ..at.clone() }), Err(Kind::InvalidArgument));
        assert_eq!(rig.cni.del(&call, &attachment("", &netns)).map_err(|e| e.kind()), Err(Kind::InvalidArgument));
        call.cancel();
        assert_eq!(add(&call, &at), Err(Kind::Canceled));
        assert_eq!(add(&Call::within(Duration::ZERO), &at), Err(Kind::DeadlineExceeded));
        fs::remove_file(rig.path("bin/second")).expect("remove");
        assert_eq!(add(&Call::unbounded(), &at), Err(Kind::FailedPrecondition));
        rig.cni.del(&Call::unbounded(), &at).expect("nothing to undo");
        assert!(rig.ran().is_empty());
        assert!(rig.records().is_empty());
    }

    #[test]
    fn ready_when_every_plugin_is_installed() {
        let rig = Rig::new();
        assert_eq!(rig.cni.ready().map_err(|e| e.kind()), Err(Kind::FailedPrecondition));
        two(&rig);
        rig.cni.ready().expect("ready");
        fs::remove_file(rig.path("bin/second")).expect("remove");
        let e = rig.cni.ready().expect_err("one is missing");
        assert_eq!(e.kind(), Kind::FailedPrecondition);
        for part in ["network net", "\"second\"", &*rig.path("missing").to_string_lossy()] {
            assert!(e.to_string().contains(part), "{e}");
        }
        assert!(rig.ran().is_empty(), "and nothing was run");
    }

    #[test]
    fn containers_are_attached_in_parallel() {
        let rig = Rig::new();
        rig.conf("10-net.conflist", &list("net", &["only"]));
        // Each half of the FIFO is opened by one container's plugin: neither ends unless both run.
        let gate = rig.path("gate");
        assert!(std::process::Command::new("mkfifo").arg(&gate).status().expect("mkfifo").success());
        let gate = gate.display();
        rig.plugin("only", &format!("case $CNI_CONTAINERID in c1) : < {gate};; c2) : > {gate};; esac; {RESULT}"));
        let network = rig.cni.network().expect("valid");
        let netns = rig.path("netns");
        std::thread::scope(|scope| {
            let other = scope.spawn(|| rig.cni.add(&Call::unbounded(), &network, &attachment("c1", &netns)));
            rig.cni.add(&Call::unbounded(), &network, &attachment("c2", &netns)).expect("add c2");
            other.join().expect("no panic").expect("add c1");
        });
    }
}
