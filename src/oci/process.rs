//! The first process of a container, and the later ones made from it: arguments, directory, rights.

use std::path::PathBuf;

use cricket_proto::runtime::ContainerConfig;
use oci_spec::runtime::{Process, User as SpecUser};

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
        .set_no_new_privileges(Some(security.no_new_privs));
    if let Some(resources) = config.linux.resources.as_ref() {
        process.set_oom_score_adj(Some(resources::oom_score_adj(resources, input.request.host)?.value));
    }
    Ok(process)
}

/// The OCI `process` of an exec: `first`, the container's own, with other arguments and maybe a terminal. A `TERM` that
/// the container has already stays.
///
/// # Errors
/// `InvalidArgument` if `args` is empty.
pub fn exec(first: &Process, args: &[String], tty: bool) -> Result<Process> {
    if args.is_empty() {
        return Err(Error::invalid("exec: no command specified"));
    }
    let mut process = first.clone();
    process.set_args(Some(args.to_vec())).set_terminal(Some(tty));
    if tty {
        let mut all = vec![env::TERM.to_string()];
        first.env().iter().flatten().for_each(|entry| env::set(&mut all, entry.clone()));
        process.set_env(Some(all));
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
        let mut first = Process::default();
        first.set_env(Some(strings(&["A=1"]))).set_cwd("/app".into());
        let plain = exec(&first, &strings(&["ls"]), false).expect("valid");
        assert_eq!((plain.args().as_deref(), plain.terminal()), (Some(&strings(&["ls"])[..]), Some(false)));
        assert_eq!((plain.env().as_deref(), plain.cwd()), (Some(&strings(&["A=1"])[..]), first.cwd()));
        let tty = exec(&first, &strings(&["sh"]), true).expect("valid");
        assert_eq!(tty.env().as_deref(), Some(&strings(&["TERM=xterm", "A=1"])[..]));
        first.set_env(Some(strings(&["TERM=screen"])));
        let own = exec(&first, &strings(&["sh"]), true).expect("valid");
        assert_eq!(own.env().as_deref(), Some(&strings(&["TERM=screen"])[..]));
        assert_eq!(exec(&first, &[], false).map_err(|e| e.kind()), Err(Kind::InvalidArgument));
    }
}
