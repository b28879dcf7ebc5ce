//! Limits: processor, memory, huge pages, raw cgroup v2 values, and the score of the out-of-memory killer.

use std::collections::HashMap;

use cricket_proto::runtime::LinuxContainerResources;
use oci_spec::runtime::{Capability, LinuxHugepageLimit, LinuxResources};
use serde_json::Value;

use super::facts::{CgroupMode, HostFacts};
use crate::error::{Error, Result};

/// What the kernel takes for `oom_score_adj`.
const OOM_SCORES: std::ops::RangeInclusive<i64> = -1000..=1000;

/// The score that a container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomScore {
    /// What it gets.
    pub value: i32,
    /// What was asked for, if that was lower than the daemon may give: worth one line in the log.
    pub clamped_from: Option<i32>,
}

/// The `oom_score_adj` for `asked`, which is set even when it is 0. Without CAP_SYS_RESOURCE no process gets below
/// the daemon's own score, so it is raised to that; the container would not start otherwise.
///
/// # Errors
/// `InvalidArgument` outside -1000 to 1000.
pub fn oom_score_adj(asked: &LinuxContainerResources, host: &HostFacts) -> Result<OomScore> {
    let score = asked.oom_score_adj;
    if !OOM_SCORES.contains(&score) {
        return Err(Error::invalid(format!("oom_score_adj {score} is not between -1000 and 1000")));
    }
    let asked = score as i32;
    if asked < host.oom_score_adj && !host.capabilities.contains(Capability::SysResource) {
        return Ok(OomScore { value: host.oom_score_adj, clamped_from: Some(asked) });
    }
    Ok(OomScore { value: asked, clamped_from: None })
}

/// Refuses limits that no cgroup of this host could be given.
pub(super) fn check(asked: &LinuxContainerResources, host: &HostFacts) -> Result<()> {
    oom_score_adj(asked, host)?;
    apply(&mut LinuxResources::default(), asked, host)
}

/// Puts `asked` into `into`: a new container's resources, or those of an existing one to be updated. What `asked`
/// leaves at zero stays as it is. `oom_score_adj` belongs to the process, not here.
///
/// # Errors
/// `InvalidArgument`: a value out of range. `FailedPrecondition`: a limit that this host cannot enforce.
/// `into` may be half changed then.
pub fn apply(into: &mut LinuxResources, asked: &LinuxContainerResources, host: &HostFacts) -> Result<()> {
    cpu(into, asked)?;
    memory(into, asked, host)?;
    hugepages(into, asked, host)?;
    unified(into, asked, host)
}

/// The limits of a container that had `old` ones, after an update with `asked`.
pub fn merged(old: LinuxContainerResources, asked: &LinuxContainerResources) -> LinuxContainerResources {
    let number = |new: i64, old: i64| if new != 0 { new } else { old };
    let text = |new: &str, old: String| if new.is_empty() { old } else { new.to_owned() };
    let mut pages = old.hugepage_limits;
    pages.retain(|page| asked.hugepage_limits.iter().all(|new| new.page_size != page.page_size));
    pages.extend_from_slice(&asked.hugepage_limits);
    let mut unified = old.unified;
    unified.extend(asked.unified.clone());
    LinuxContainerResources {
        cpu_period: number(asked.cpu_period, old.cpu_period),
        cpu_quota: number(asked.cpu_quota, old.cpu_quota),
        cpu_shares: number(asked.cpu_shares, old.cpu_shares),
        memory_limit_in_bytes: number(asked.memory_limit_in_bytes, old.memory_limit_in_bytes),
        memory_swap_limit_in_bytes: number(asked.memory_swap_limit_in_bytes, old.memory_swap_limit_in_bytes),
        cpuset_cpus: text(&asked.cpuset_cpus, old.cpuset_cpus),
        cpuset_mems: text(&asked.cpuset_mems, old.cpuset_mems),
        hugepage_limits: pages,
        unified,
        // The process keeps its score.
        oom_score_adj: old.oom_score_adj,
        ..Default::default()
    }
}

/// Puts the OCI resources `change`, as JSON, over `whole`: as [`apply`] does, for a spec that is not ours to take apart.
pub fn merge_json(whole: &mut Value, change: Value) {
    const PAGES: &str = "hugepageLimits";
    match change {
        Value::Object(changes) if whole.is_object() => {
            for (key, change) in changes {
                match whole.get_mut(&key) {
                    Some(Value::Array(old)) if key == PAGES => {
                        let Value::Array(new) = change else { continue };
                        old.retain(|page| new.iter().all(|n| n["pageSize"] != page["pageSize"]));
                        old.extend(new);
                    }
                    Some(old) => merge_json(old, change),
                    None => whole[key] = change,
                }
            }
        }
        change => *whole = change,
    }
}

fn cpu(into: &mut LinuxResources, asked: &LinuxContainerResources) -> Result<()> {
    let mut cpu = into.cpu().clone().unwrap_or_default();
    if let Some(period) = positive("cpu_period", asked.cpu_period)? {
        cpu.set_period(Some(period));
    }
    if let Some(shares) = positive("cpu_shares", asked.cpu_shares)? {
        cpu.set_shares(Some(shares));
    }
    if asked.cpu_quota != 0 {
        cpu.set_quota(Some(at_least_unlimited("cpu_quota", asked.cpu_quota)?));
    }
    if !asked.cpuset_cpus.is_empty() {
        cpu.set_cpus(Some(asked.cpuset_cpus.clone()));
    }
    if !asked.cpuset_mems.is_empty() {
        cpu.set_mems(Some(asked.cpuset_mems.clone()));
    }
    if cpu != Default::default() {
        into.set_cpu(Some(cpu));
    }
    Ok(())
}

/// OCI's `swap` is memory and swap together: equal to the limit means none. A container with a limit gets no swap
/// unless it says so, else it would swap where it should be stopped.
fn memory(into: &mut LinuxResources, asked: &LinuxContainerResources, host: &HostFacts) -> Result<()> {
    let limit = at_least_unlimited("memory_limit_in_bytes", asked.memory_limit_in_bytes)?;
    let swap = at_least_unlimited("memory_swap_limit_in_bytes", asked.memory_swap_limit_in_bytes)?;
    let mut memory = into.memory().unwrap_or_default();
    if limit != 0 {
        memory.set_limit(Some(limit));
    }
    // A host that does not account for swap cannot limit it; the kubelet sends the value all the same.
    let swap = if swap != 0 { swap } else { limit };
    if swap != 0 && host.swap {
        memory.set_swap(Some(swap));
    }
    if memory != Default::default() {
        into.set_memory(Some(memory));
    }
    Ok(())
}

/// The kubelet sends a limit of 0 for every page size that the pod does not use.
fn hugepages(into: &mut LinuxResources, asked: &LinuxContainerResources, host: &HostFacts) -> Result<()> {
    let mut all = into.hugepage_limits().clone().unwrap_or_default();
    for one in &asked.hugepage_limits {
        let (size, limit) = (&one.page_size, one.limit);
        if size.is_empty() || !size.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Error::invalid(format!("hugepage limit: {size:?} is not a page size")));
        }
        let limit = i64::try_from(limit)
            .map_err(|_| Error::invalid(format!("hugepage limit: {limit} bytes of {size} pages are too many")))?;
        if !host.hugetlb {
            if limit == 0 {
                continue;
            }
            return Err(Error::precondition(
                "hugepage limit: the hugetlb cgroup controller is not enabled on this host",
            ));
        }
        all.retain(|known| known.page_size() != size);
        let mut known = LinuxHugepageLimit::default();
        known.set_page_size(size.clone()).set_limit(limit);
        all.push(known);
    }
    if !all.is_empty() {
        into.set_hugepage_limits(Some(all));
    }
    Ok(())
}

/// Raw values for files of the container's v2 cgroup.
fn unified(into: &mut LinuxResources, asked: &LinuxContainerResources, host: &HostFacts) -> Result<()> {
    if asked.unified.is_empty() {
        return Ok(());
    }
    if host.cgroups != CgroupMode::V2 {
        return Err(Error::precondition("unified resources need cgroup v2, which this host does not use"));
    }
    if let Some(key) = asked.unified.keys().find(|k| k.contains('/') || !k.contains('.')) {
        return Err(Error::invalid(format!("unified resources: {key:?} is not a file of a cgroup")));
    }
    let all: &mut HashMap<String, String> = into.unified_mut().get_or_insert_default();
    all.extend(asked.unified.iter().map(|(key, value)| (key.clone(), value.clone())));
    Ok(())
}

fn positive(what: &str, value: i64) -> Result<Option<u64>> {
    let value = u64::try_from(value).map_err(|_| Error::invalid(format!("{what} is negative: {value}")))?;
    Ok((value != 0).then_some(value))
}

/// -1 is no limit.
fn at_least_unlimited(what: &str, value: i64) -> Result<i64> {
    if value < -1 {
        return Err(Error::invalid(format!("{what} is negative: {value}")));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::oci::capabilities::CapSet;
    use cricket_proto::runtime::HugepageLimit;
    use serde_json::json;

    fn host(cgroups: CgroupMode) -> HostFacts {
        HostFacts { cgroups, swap: true, hugetlb: true, ..Default::default() }
    }

    fn built(asked: &LinuxContainerResources, host: &HostFacts) -> Result<Value, Kind> {
        let mut into = LinuxResources::default();
        apply(&mut into, asked, host).map_err(|e| e.kind())?;
        Ok(serde_json::to_value(into).expect("JSON"))
    }

    #[test]
    fn zero_is_unset() {
        assert_eq!(built(&LinuxContainerResources::default(), &host(CgroupMode::V2)), Ok(json!({})));
    }

    #[test]
    fn memory_limits_swap_unless_told_otherwise() {
        let asked = |memory_limit_in_bytes, memory_swap_limit_in_bytes| LinuxContainerResources {
            memory_limit_in_bytes,
            memory_swap_limit_in_bytes,
            ..Default::default()
        };
        let with = host(CgroupMode::V1);
        let without = HostFacts { swap: false, ..host(CgroupMode::V1) };
        let cases = [
            (100, 0, &with, json!({"memory": {"limit": 100, "swap": 100}})),
            (100, 150, &with, json!({"memory": {"limit": 100, "swap": 150}})),
            (100, -1, &with, json!({"memory": {"limit": 100, "swap": -1}})),
            (-1, 0, &with, json!({"memory": {"limit": -1, "swap": -1}})),
            (0, 150, &with, json!({"memory": {"swap": 150}})),
            (100, 0, &without, json!({"memory": {"limit": 100}})),
            (100, 150, &without, json!({"memory": {"limit": 100}})),
            (0, 150, &without, json!({})),
        ];
        for (limit, swap, host, expected) in cases {
            assert_eq!(built(&asked(limit, swap), host), Ok(expected), "{limit} {swap} {}", host.swap);
        }
    }

    #[test]
    fn an_update_leaves_the_rest() {
        let mut into = LinuxResources::default();
        let first = LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 50_000,
            cpu_shares: 512,
            cpuset_cpus: "0-1".into(),
            memory_limit_in_bytes: 1000,
            hugepage_limits: vec![HugepageLimit { page_size: "2MB".into(), limit: 4, ..Default::default() }],
            unified: [("memory.low".to_string(), "5".to_string())].into(),
            ..Default::default()
        };
        apply(&mut into, &first, &host(CgroupMode::V2)).expect("valid");
        let second = LinuxContainerResources {
            cpu_quota: -1,
            memory_limit_in_bytes: 2000,
            hugepage_limits: vec![HugepageLimit { page_size: "2MB".into(), limit: 8, ..Default::default() }],
            unified: [("memory.high".to_string(), "7".to_string())].into(),
            ..Default::default()
        };
        apply(&mut into, &second, &host(CgroupMode::V2)).expect("valid");
        assert_eq!(
            serde_json::to_value(&into).expect("JSON"),
            json!({
                "cpu": {"period": 100_000, "quota": -1, "shares": 512, "cpus": "0-1"},
                "memory": {"limit": 2000, "swap": 2000},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 8}],
                "unified": {"memory.low": "5", "memory.high": "7"},
            })
        );
    }

    #[test]
    fn an_update_of_json_is_an_update() {
        let page = |page_size: &str, limit| HugepageLimit { page_size: page_size.into(), limit, ..Default::default() };
        let first = LinuxContainerResources {
            cpu_shares: 512,
            cpuset_cpus: "0".into(),
            memory_limit_in_bytes: 100,
            hugepage_limits: vec![page("2MB", 4), page("1GB", 1)],
            ..Default::default()
        };
        let second = LinuxContainerResources {
            cpu_quota: -1,
            cpu_shares: 256,
            memory_limit_in_bytes: 200,
            hugepage_limits: vec![page("1GB", 2)],
            unified: [("memory.high".to_string(), "7".to_string())].into(),
            ..Default::default()
        };
        let host = host(CgroupMode::V2);
        let mut whole = built(&first, &host).expect("valid");
        whole["devices"] = json!([{"allow": false, "access": "rwm"}]);
        merge_json(&mut whole, built(&second, &host).expect("valid"));
        let mut expected = LinuxResources::default();
        for asked in [&first, &second] {
            apply(&mut expected, asked, &host).expect("valid");
        }
        let mut expected = serde_json::to_value(expected).expect("JSON");
        expected["devices"] = json!([{"allow": false, "access": "rwm"}]);
        assert_eq!(whole, expected);
        assert_eq!(built(&merged(first, &second), &host).expect("valid")["memory"], whole["memory"]);
        let mut none = Value::Null;
        merge_json(&mut none, json!({"cpu": {"shares": 2}}));
        assert_eq!(none, json!({"cpu": {"shares": 2}}));
    }

    #[test]
    fn an_update_keeps_what_it_does_not_name() {
        let old = LinuxContainerResources {
            cpu_shares: 512,
            oom_score_adj: 900,
            cpuset_mems: "0".into(),
            memory_limit_in_bytes: 100,
            ..Default::default()
        };
        let asked = LinuxContainerResources { memory_limit_in_bytes: 50, oom_score_adj: -5, ..Default::default() };
        assert_eq!(merged(old.clone(), &asked), LinuxContainerResources { memory_limit_in_bytes: 50, ..old });
    }

    #[test]
    fn without_hugetlb_only_zero_limits_pass() {
        let bare = HostFacts { hugetlb: false, ..host(CgroupMode::V2) };
        let asked = |limit| LinuxContainerResources {
            hugepage_limits: vec![HugepageLimit { page_size: "1GB".into(), limit, ..Default::default() }],
            ..Default::default()
        };
        assert_eq!(built(&asked(0), &bare), Ok(json!({})));
        assert_eq!(built(&asked(1), &bare), Err(Kind::FailedPrecondition));
        assert_eq!(
            built(&asked(0), &host(CgroupMode::V2)),
            Ok(json!({"hugepageLimits": [{"pageSize": "1GB", "limit": 0}]}))
        );
    }

    #[test]
    fn refused() {
        let default = LinuxContainerResources::default;
        let page = |size: &str, limit| vec![HugepageLimit { page_size: size.into(), limit, ..Default::default() }];
        let raw = |key: &str| [(key.to_string(), "1".to_string())].into();
        let cases = [
            (LinuxContainerResources { cpu_period: -1, ..default() }, Kind::InvalidArgument),
            (LinuxContainerResources { cpu_shares: -1, ..default() }, Kind::InvalidArgument),
            (LinuxContainerResources { cpu_quota: -2, ..default() }, Kind::InvalidArgument),
            (LinuxContainerResources { memory_limit_in_bytes: -2, ..default() }, Kind::InvalidArgument),
            (LinuxContainerResources { memory_swap_limit_in_bytes: -2, ..default() }, Kind::InvalidArgument),
            (LinuxContainerResources { hugepage_limits: page("2MB", u64::MAX), ..default() }, Kind::InvalidArgument),
            (LinuxContainerResources { hugepage_limits: page("../2MB", 1), ..default() }, Kind::InvalidArgument),
            (LinuxContainerResources { unified: raw("../memory.max"), ..default() }, Kind::InvalidArgument),
            (LinuxContainerResources { unified: raw("memory"), ..default() }, Kind::InvalidArgument),
        ];
        for (asked, expected) in cases {
            assert_eq!(built(&asked, &host(CgroupMode::V2)), Err(expected), "{asked:?}");
        }
        let v2_only = LinuxContainerResources { unified: raw("memory.high"), ..default() };
        assert_eq!(built(&v2_only, &host(CgroupMode::Hybrid)), Err(Kind::FailedPrecondition));
    }

    #[test]
    fn the_oom_score_stops_at_the_daemons() {
        let able = CapSet::from_iter([Capability::SysResource]);
        let unable = CapSet::default();
        let cases = [
            (-998, 0, able, OomScore { value: -998, clamped_from: None }),
            (-998, 0, unable, OomScore { value: 0, clamped_from: Some(-998) }),
            (-998, -999, unable, OomScore { value: -998, clamped_from: None }),
            (0, 0, unable, OomScore { value: 0, clamped_from: None }),
            (1000, 0, unable, OomScore { value: 1000, clamped_from: None }),
        ];
        for (asked, own, capabilities, expected) in cases {
            let host = HostFacts { oom_score_adj: own, capabilities, ..Default::default() };
            let asked = LinuxContainerResources { oom_score_adj: asked, ..Default::default() };
            assert_eq!(oom_score_adj(&asked, &host).expect("valid"), expected);
        }
        for wrong in [-1001, 1001] {
            let asked = LinuxContainerResources { oom_score_adj: wrong, ..Default::default() };
            let refused = check(&asked, &HostFacts::default()).map_err(|e| e.kind());
            assert_eq!(refused, Err(Kind::InvalidArgument));
        }
    }
}
