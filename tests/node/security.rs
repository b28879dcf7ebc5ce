//! Containers look at themselves: who they are, what they may do, and what filters them.

use std::fs;

use cricket::error::Kind;
use cricket_proto::runtime::security_profile::ProfileType;
use cricket_proto::runtime::{
    ContainerConfig, Int64Value, LinuxContainerSecurityContext, SecurityProfile, SupplementalGroupsPolicy,
};
use protobuf::MessageField;

use crate::cri::{container, pod_config, Pod, POLITE};
use crate::node::Node;

fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.mut_or_insert_default().security_context.mut_or_insert_default()
}

fn profile(kind: ProfileType, name: &str) -> MessageField<SecurityProfile> {
    let profile = SecurityProfile { profile_type: kind.into(), localhost_ref: name.into(), ..Default::default() };
    MessageField::some(profile)
}

fn int(value: i64) -> MessageField<Int64Value> {
    MessageField::some(Int64Value { value, ..Default::default() })
}

/// A line of `/proc/self/status` of a process in the container.
fn line(node: &Node, id: &str, name: &str) -> String {
    let status = node.cri.sh(id, "cat /proc/self/status");
    let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap_or_else(|| panic!("{name} in {status}")).trim().to_owned()
}

#[test]
fn users_are_those_of_the_image() {
    type Bend = fn(&mut LinuxContainerSecurityContext);
    let node = Node::shared();
    let pod = Pod::run(&node, "names");
    // Of the first process; ids, groups.
    let cases: [(&str, Bend, (i64, i64, &str)); 6] = [
        ("by-name", |s| s.run_as_username = "web".into(), (1000, 1001, "1001 50000")),
        ("by-number", |s| s.run_as_user = int(1000), (1000, 1001, "1001 50000")),
        (
            "merged",
            |s| {
                s.run_as_username = "web".into();
                s.supplemental_groups = vec![7];
            },
            (1000, 1001, "7 1001 50000"),
        ),
        (
            "strict",
            |s| {
                s.run_as_username = "web".into();
                s.run_as_group = int(2000);
                s.supplemental_groups = vec![7];
                s.supplemental_groups_policy = SupplementalGroupsPolicy::Strict.into();
            },
            (1000, 2000, "7 2000"),
        ),
        ("nobodys-number", |s| s.run_as_user = int(4711), (4711, 0, "0")),
        ("root", |_| {}, (0, 0, "0")),
    ];
    for (name, bend, (uid, gid, groups)) in cases {
        let mut config = container(name, POLITE);
        bend(security(&mut config));
        let id = pod.start(config);
        assert_eq!(node.cri.sh(&id, "id -u; id -g"), format!("{uid}\n{gid}"), "{name}");
        assert_eq!(line(&node, &id, "Groups"), groups, "{name}");
        let user = node.cri.status(&id).user.linux.clone().unwrap_or_default();
        let shown: Vec<String> = user.supplemental_groups.iter().map(ToString::to_string).collect();
        assert_eq!((user.uid, user.gid, shown.join(" ").as_str()), (uid, gid, groups), "{name}: as the status says");
    }
    let mut config = container("ghost", POLITE);
    security(&mut config).run_as_username = "ghost".into();
    let refused = node.cri.create(&pod.id, &pod.config, config).expect_err("no such user");
    assert_eq!(refused.kind(), Kind::InvalidArgument);
    assert!(refused.to_string().contains("user \"ghost\" is not in /etc/passwd"), "{refused}");
    pod.remove();
}

#[test]
fn the_default_filter_lets_programs_work_and_no_namespaces_be_made() {
    let node = Node::shared();
    let pod = Pod::run(&node, "filtered");
    let mut config = container("filtered", POLITE);
    security(&mut config).seccomp = profile(ProfileType::RuntimeDefault, "");
    let filtered = pod.start(config);
    let mut config = container("free", POLITE);
    security(&mut config).seccomp = profile(ProfileType::Unconfined, "");
    let free = pod.start(config);
    let unset = pod.start(container("unset", POLITE));
    for (id, mode) in [(&filtered, "2"), (&free, "0"), (&unset, "0")] {
        assert_eq!(line(&node, id, "Seccomp"), mode);
        assert_eq!(node.cri.sh(id, "mkdir /tmp/d && echo x | cat > /tmp/d/f && mv /tmp/d/f /tmp/f && cat /tmp/f"), "x");
    }
    // A user namespace takes no capability: only the filter stands in the way.
    let tried = |id: &str| node.cri.sh(id, "unshare -U true 2>&1 && echo made || true");
    assert_eq!(tried(&free), "made");
    assert!(tried(&filtered).contains("Operation not permitted"), "{}", tried(&filtered));

    let mut config = container("admin", POLITE);
    security(&mut config).seccomp = profile(ProfileType::RuntimeDefault, "");
    security(&mut config).capabilities.mut_or_insert_default().add_capabilities = vec!["SYS_ADMIN".into()];
    let admin = pod.start(config);
    assert_eq!(line(&node, &admin, "Seccomp"), "2");
    assert_eq!(tried(&admin), "made", "what was granted is not taken back");
    pod.remove();
}

#[test]
fn a_filter_of_the_node_is_read_and_used() {
    let node = Node::shared();
    let pod = Pod::run(&node, "localhost");
    let file = node.dir().join("volumes/no-mkdir.json");
    let rules = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_CHOWN"]}}]}"#;
    fs::write(&file, rules).expect("write a profile");
    let at = file.display().to_string();
    let start = |name: &str, drop: &[&str], deprecated: bool| {
        let mut config = container(name, POLITE);
        let security = security(&mut config);
        match deprecated {
            true => security.seccomp_profile_path = format!("localhost/{at}"),
            false => security.seccomp = profile(ProfileType::Localhost, &at),
        }
        security.capabilities.mut_or_insert_default().drop_capabilities =
            drop.iter().map(ToString::to_string).collect();
        pod.start(config)
    };
    for (id, chmod) in [
        (start("field", &[], false), "done"),
        (start("path", &[], true), "done"),
        (start("drop", &["CHOWN"], false), ""),
    ] {
        assert_eq!(line(&node, &id, "Seccomp"), "2");
        let refused = node.cri.sh(&id, "mkdir /tmp/d 2>&1 || true");
        assert!(refused.contains("Function not implemented"), "{refused}");
        assert_eq!(node.cri.sh(&id, "chmod 700 /tmp 2>/dev/null && echo done || true"), chmod);
    }
    fs::remove_file(&file).expect("our own file");
    let mut config = container("gone", POLITE);
    security(&mut config).seccomp = profile(ProfileType::Localhost, &at);
    let refused = node.cri.create(&pod.id, &pod.config, config).expect_err("the file is gone");
    assert_eq!(refused.kind(), Kind::InvalidArgument);
    assert!(refused.to_string().contains(&format!("seccomp profile {at}")), "{refused}");
    pod.remove();
}

#[test]
fn rights_are_as_asked() {
    const NET_BIND_SERVICE: &str = "0000000000000400";
    let node = Node::shared();
    let pod = Pod::run(&node, "rights");
    let mut config = container("ambient", POLITE);
    let asked = security(&mut config);
    asked.run_as_user = int(1000);
    asked.no_new_privs = true;
    asked.seccomp = profile(ProfileType::RuntimeDefault, "");
    let capabilities = asked.capabilities.mut_or_insert_default();
    capabilities.drop_capabilities = vec!["ALL".into()];
    capabilities.add_ambient_capabilities = vec!["NET_BIND_SERVICE".into()];
    let id = pod.start(config);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(line(&node, &id, set), NET_BIND_SERVICE, "{set}");
    }
    assert_eq!(line(&node, &id, "NoNewPrivs"), "1");

    let mut config = container("nothing", POLITE);
    security(&mut config).capabilities.mut_or_insert_default().drop_capabilities = vec!["ALL".into()];
    let id = pod.start(config);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(line(&node, &id, set), "0000000000000000", "{set}");
    }
    assert_eq!(line(&node, &id, "NoNewPrivs"), "0");
    pod.remove();
}

#[test]
fn nothing_filters_a_privileged_container() {
    let node = Node::shared();
    let mut config = pod_config(&node, "unfiltered");
    config.linux.mut_or_insert_default().security_context.mut_or_insert_default().privileged = true;
    let pod = Pod::run_as(&node, config);
    let mut config = container("unfiltered", POLITE);
    security(&mut config).privileged = true;
    security(&mut config).seccomp = profile(ProfileType::RuntimeDefault, "");
    let id = pod.start(config);
    assert_eq!(line(&node, &id, "Seccomp"), "0");
    let own = fs::read_to_string("/proc/self/status").expect("mounted");
    let own = own.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("CapEff").trim();
    assert_eq!(line(&node, &id, "CapEff"), own, "all that the daemon has");
    pod.remove();
}
