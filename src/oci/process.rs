//! The first process of a container, and the later ones made from it: arguments, directory, rights.

use std::path::PathBuf;

use cricket_proto::runtime::ContainerConfig;
use oci_spec::runtime::{Process, User as SpecUser};
use serde_json::Value;

use super::container::Input;
use super::facts::ImageFacts;
use super::{capabilities, env, resources};
use crate::error::{Error, Result};

/// Refuses arguments, environments and directories that cannot be.
pub(super) fn check(config: &ContainerConfig, image: &ImageFacts) -> Result<()> {
    env::check(&config.envs)?;
    args(config, image)?;
    cwd(config, image)?;
    Ok(())
}

/// The OCI `process` of the container.
pub(super) fn of(input: &Input<'_>) -> Result<Process> {
    let (config, image) = (input.request.config, input.request.image);
    let security = &config.linux.security_context;
    let mut user = SpecUser::default();
    user.set_uid(input.user.uid).set_gid(input.user.gid).set_additional_gids(Some(input.user.additional_gids.clone()));
    // Every field with a preset of its own is set here: oci-spec's default process is a shell with 1024 open files.
    let mut process = Process::default();
    process
        .set_terminal(Some(config.tty))
        .set_user(user)
        .set_args(Some(args(config, image)?))
        .set_env(Some(env::merge(input.hostname, config.tty, &image.env, &config.envs)))
        .set_cwd(cwd(config, image)?)
        .set_capabilities(Some(capabilities::of(&input.request)?.into()))
        .set_rlimits(None)
        .set_apparmor_profile(input.profiles.apparmor.clone())
        .set_selinux_label(input.profiles.selinux.as_ref().and_then(|labels| labels.process.clone()))
        .set_no_new_privileges(Some(security.no_new_privs));
    if let Some(resources) = config.linux.resources.as_ref() {
        process.set_oom_score_adj(Some(resources::oom_score_adj(resources, input.request.host)?.value));
    }
    Ok(process)
}

/// The OCI `process` of an exec, as JSON: the one of the container's `spec` with other arguments and maybe a terminal. A
/// `TERM` that the container has already stays.
///
/// JSON in and out, because reading it into oci-spec's types would bring their checks along, and with those a regular
/// expression engine of half a megabyte.
///
/// # Errors
/// `InvalidArgument` if `args` is empty; `Internal` for a spec without a process.
pub fn exec(mut spec: Value, args: &[String], tty: bool) -> Result<Value> {
    if args.is_empty() {
        return Err(Error::invalid("exec: no command specified"));
    }
    let mut process = spec["process"].take();
    let fields = process.as_object_mut().ok_or_else(|| Error::internal("the container's spec has no process"))?;
    fields.insert("args".into(), args.into());
    fields.insert("terminal".into(), tty.into());
    fields.remove("consoleSize");
    if tty {
        let own = fields.get("env").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut all = vec![env::TERM.to_string()];
        own.iter().filter_map(Value::as_str).for_each(|entry| env::set(&mut all, entry.into()));
        fields.insert("env".into(), all.into());
    }
    Ok(process)
}

/// `command` replaces the image's ENTRYPOINT and CMD, `args` only its CMD.
fn args(config: &ContainerConfig, image: &ImageFacts) -> Result<Vec<String>> {
    let mut all = config.command.clone();
    if !config.command.is_empty() {
        all.extend_from_slice(&config.args);
    } else {
        // ENTRYPOINT [""] is how an image says that it has none although its base has.
        if image.entrypoint != [""] {
            all.extend_from_slice(&image.entrypoint);
        }
        all.extend_from_slice(if config.args.is_empty() { &image.cmd } else { &config.args });
    }
    if all.is_empty() {
        return Err(Error::invalid("no command specified: neither the container config nor the image has one"));
    }
    if all.iter().any(|a| a.contains('\0')) {
        return Err(Error::invalid("an argument of the command holds a NUL byte"));
    }
    Ok(all)
}

/// The runtime makes the directory if the image lacks it.
fn cwd(config: &ContainerConfig, image: &ImageFacts) -> Result<PathBuf> {
    let cwd = [&config.working_dir, &image.working_dir].into_iter().find(|d| !d.is_empty());
    match cwd {
        None => Ok("/".into()),
        Some(cwd) if cwd.starts_with('/') => Ok(cwd.into()),
        Some(cwd) => Err(Error::invalid(format!("the working directory {cwd:?} is not an absolute path"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use serde_json::json;

    fn strings(of: &[&str]) -> Vec<String> {
        of.iter().map(|s| s.to_string()).collect()
    }

    #[test]
    fn the_argument_rule() {
        type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], &'a [&'a str], Option<&'a [&'a str]>);
        // command, args, ENTRYPOINT, CMD → all
        let cases: &[Case] = &[
            (&[], &[], &["e"], &["m"], Some(&["e", "m"])),
            (&[], &["a"], &["e"], &["m"], Some(&["e", "a"])),
            (&["c"], &[], &["e"], &["m"], Some(&["c"])),
            (&["c"], &["a"], &["e"], &["m"], Some(&["c", "a"])),
            (&[], &[], &[], &["m", "n"], Some(&["m", "n"])),
            (&[], &["a"], &[], &["m"], Some(&["a"])),
            (&[], &[], &["e"], &[], Some(&["e"])),
            (&[], &[], &[""], &["m"], Some(&["m"])),
            (&[], &["a"], &[""], &[], Some(&["a"])),
            (&[], &[], &[""], &[], None),
            (&[], &[], &[], &[], None),
            (&["c\0"], &[], &[], &[], None),
            // Only the lone empty string means none.
            (&[], &[], &["", "e"], &[], Some(&["", "e"])),
        ];
        for (command, a, entrypoint, cmd, expected) in cases {
            let config = ContainerConfig { command: strings(command), args: strings(a), ..Default::default() };
            let image = ImageFacts { entrypoint: strings(entrypoint), cmd: strings(cmd), ..Default::default() };
            let all = args(&config, &image).map_err(|e| e.kind());
            match expected {
                Some(expected) => assert_eq!(all, Ok(strings(expected)), "{command:?} {a:?} {entrypoint:?} {cmd:?}"),
                None => assert_eq!(all, Err(Kind::InvalidArgument), "{command:?} {a:?} {entrypoint:?} {cmd:?}"),
            }
        }
    }

    #[test]
    fn the_directory() {
        for (of_config, of_image, expected) in
            [("", "", Some("/")), ("", "/app", Some("/app")), ("/w", "/app", Some("/w")), ("w", "", None)]
        {
            let config = ContainerConfig { working_dir: of_config.into(), ..Default::default() };
            let image = ImageFacts { working_dir: of_image.into(), ..Default::default() };
            assert_eq!(
                cwd(&config, &image).map_err(|e| e.kind()),
                expected.map(PathBuf::from).ok_or(Kind::InvalidArgument)
            );
        }
    }

    #[test]
    fn an_exec_keeps_everything_but_arguments_and_terminal() {
        let spec = |env: &str| json!({"process": {"args": ["a"], "cwd": "/app", "env": [env]}, "root": {}});
        let made = |env, args: &[&str], tty| exec(spec(env), &strings(args), tty).map_err(|e| e.kind());
        let plain = json!({"args": ["ls"], "cwd": "/app", "env": ["A=1"], "terminal": false});
        assert_eq!(made("A=1", &["ls"], false), Ok(plain));
        let tty = json!({"args": ["sh"], "cwd": "/app", "env": ["TERM=xterm", "A=1"], "terminal": true});
        assert_eq!(made("A=1", &["sh"], true), Ok(tty));
        assert_eq!(made("TERM=screen", &["sh"], true).expect("valid")["env"], json!(["TERM=screen"]));
        assert_eq!(made("A=1", &[], false), Err(Kind::InvalidArgument));
        assert_eq!(exec(json!({}), &strings(&["x"]), false).map_err(|e| e.kind()), Err(Kind::Internal));
    }
}
