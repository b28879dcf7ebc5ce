//! What CDI devices change in a spec, beside their nodes.

use oci_spec::runtime::{Hook, LinuxIntelRdt, Mount, Spec};

use super::facts::DeviceEdits;
use super::{env, mounts};
use crate::cdi;
use crate::error::{Error, Result};

/// Puts the changes into a spec that is complete otherwise. A mount takes the place of one at the same path.
///
/// # Errors
/// `InvalidArgument` for changes that make no sense.
pub(super) fn apply(spec: &mut Spec, edits: &DeviceEdits) -> Result<()> {
    if let Some(process) = spec.process_mut() {
        let mut all = process.env().clone().unwrap_or_default();
        for entry in &edits.env {
            let named = entry.find('=').is_some_and(|at| at > 0);
            if !named || entry.contains('\0') {
                return Err(Error::invalid(format!("CDI: {entry:?} is not KEY=value")));
            }
            env::set(&mut all, entry.clone());
        }
        process.set_env(Some(all));
        let mut user = process.user().clone();
        let mut gids = user.additional_gids().clone().unwrap_or_default();
        // 0 is how a specification says nothing.
        let new: Vec<u32> = edits.gids.iter().copied().filter(|gid| *gid != 0 && !gids.contains(gid)).collect();
        gids.extend(new);
        user.set_additional_gids(Some(gids));
        process.set_user(user);
    }
    add_mounts(spec, &edits.mounts)?;
    add_hooks(spec, &edits.hooks)?;
    if let (Some(rdt), Some(linux)) = (&edits.intel_rdt, spec.linux_mut()) {
        let text = |value: &String| Some(value.clone()).filter(|v| !v.is_empty());
        let mut made = LinuxIntelRdt::default();
        made.set_clos_id(text(&rdt.clos_id))
            .set_l3_cache_schema(text(&rdt.l3_cache_schema))
            .set_mem_bw_schema(text(&rdt.mem_bw_schema))
            .set_enable_cmt(rdt.enable_cmt.then_some(true))
            .set_enable_mbm(rdt.enable_mbm.then_some(true));
        linux.set_intel_rdt(Some(made));
    }
    Ok(())
}

fn add_mounts(spec: &mut Spec, asked: &[cdi::Mount]) -> Result<()> {
    let Some(all) = spec.mounts_mut().as_mut().filter(|_| !asked.is_empty()) else { return Ok(()) };
    for one in asked {
        if !one.container_path.starts_with('/') || one.host_path.is_empty() {
            return Err(Error::invalid(format!("CDI: mount {:?} of {:?}", one.container_path, one.host_path)));
        }
        let destination = mounts::clean(&one.container_path);
        let kind = if one.r#type.is_empty() { "bind" } else { &one.r#type };
        let mut options = one.options.clone();
        if kind == "bind" && !options.iter().any(|o| o == "bind" || o == "rbind") {
            options.push("rbind".into());
        }
        let mut mount = Mount::default();
        mount
            .set_destination(destination.clone())
            .set_typ(Some(kind.into()))
            .set_source(Some(one.host_path.clone().into()))
            .set_options(Some(options));
        all.retain(|m| *m.destination() != destination);
        // Behind all that it could lie in, before what could lie in it.
        let depth = destination.components().count();
        let deeper =
            |m: &Mount| m.destination().components().count() > depth && m.destination().starts_with(&destination);
        let at = all.iter().position(deeper).unwrap_or(all.len());
        all.insert(at, mount);
    }
    Ok(())
}

fn add_hooks(spec: &mut Spec, asked: &[cdi::Hook]) -> Result<()> {
    if asked.is_empty() {
        return Ok(());
    }
    let mut all = spec.hooks().clone().unwrap_or_default();
    for one in asked {
        if !one.path.starts_with('/') {
            return Err(Error::invalid(format!("CDI: the path of hook {:?} is not absolute", one.path)));
        }
        let mut hook = Hook::default();
        hook.set_path(one.path.clone().into())
            .set_args((!one.args.is_empty()).then(|| one.args.clone()))
            .set_env((!one.env.is_empty()).then(|| one.env.clone()))
            .set_timeout(one.timeout);
        let place = match one.hook_name.as_str() {
            "createRuntime" => all.create_runtime_mut(),
            "createContainer" => all.create_container_mut(),
            "startContainer" => all.start_container_mut(),
            "poststart" => all.poststart_mut(),
            "poststop" => all.poststop_mut(),
            // Deprecated by the OCI, and still what older files say; runtimes run it.
            #[allow(deprecated)]
            "prestart" => all.prestart_mut(),
            other => return Err(Error::invalid(format!("CDI: there is no hook {other:?}"))),
        };
        place.get_or_insert_default().push(hook);
    }
    spec.set_hooks(Some(all));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::oci::container::tests::Case;
    use std::path::Path;

    #[test]
    fn all_of_it_is_in_the_spec() {
        let edits = DeviceEdits {
            env: vec!["GPU=0".into(), "PATH=/acme".into()],
            gids: vec![0, 44, 44],
            mounts: vec![
                cdi::Mount { host_path: "/h".into(), container_path: "/etc/hosts".into(), ..Default::default() },
                cdi::Mount {
                    host_path: "/t".into(),
                    container_path: "/etc".into(),
                    options: vec!["bind".into(), "ro".into()],
                    ..Default::default()
                },
            ],
            hooks: vec![cdi::Hook {
                hook_name: "createContainer".into(),
                path: "/bin/hook".into(),
                ..Default::default()
            }],
            intel_rdt: Some(cdi::IntelRdt { clos_id: "fast".into(), ..Default::default() }),
            ..Default::default()
        };
        let case = Case { edits, ..Case::default() };
        let spec = case.spec().expect("valid");
        let process = spec.process().as_ref().expect("a process");
        let env = process.env().clone().unwrap_or_default();
        assert!(env.contains(&"GPU=0".into()) && env.contains(&"PATH=/acme".into()), "{env:?}");
        assert_eq!(env.iter().filter(|e| e.starts_with("PATH=")).count(), 1);
        assert!(process.user().additional_gids().clone().unwrap_or_default().ends_with(&[44]));
        let mounts = spec.mounts().clone().unwrap_or_default();
        let at = |path: &str| mounts.iter().position(|m| m.destination() == Path::new(path)).expect("there");
        assert!(at("/etc") < at("/etc/hosts") && at("/etc") < at("/etc/hostname"), "{mounts:?}");
        assert_eq!(mounts.iter().filter(|m| m.destination() == Path::new("/etc/hosts")).count(), 1);
        let hooks = spec.hooks().clone().expect("hooks");
        assert_eq!(hooks.create_container().as_ref().map(Vec::len), Some(1));
        let rdt = spec.linux().as_ref().and_then(|l| l.intel_rdt().clone()).expect("a class");
        assert_eq!(rdt.clos_id().as_deref(), Some("fast"));
    }

    #[test]
    fn nonsense_is_refused() {
        let hook = |name: &str, path: &str| {
            vec![cdi::Hook { hook_name: name.into(), path: path.into(), ..Default::default() }]
        };
        let cases = [
            DeviceEdits { env: vec!["GPU".into()], ..Default::default() },
            DeviceEdits { env: vec!["=1".into()], ..Default::default() },
            DeviceEdits { hooks: hook("never", "/x"), ..Default::default() },
            DeviceEdits { hooks: hook("poststop", "x"), ..Default::default() },
            DeviceEdits { mounts: vec![cdi::Mount::default()], ..Default::default() },
        ];
        for edits in cases {
            let case = Case { edits: edits.clone(), ..Case::default() };
            assert_eq!(case.spec().map_err(|e| e.kind()).err(), Some(Kind::InvalidArgument), "{edits:?}");
        }
    }
}
