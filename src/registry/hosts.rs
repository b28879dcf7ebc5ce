//! `hosts.toml`: where to pull from instead of, or before, the registry that a reference names. containerd's files,
//! read anew for each pull.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::secret::Secret;
use super::url::Url;
use crate::error::{Context, Error, Result};

/// One server to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Scheme, host and port, and the path below which the API is: `https://registry-1.docker.io/v2`.
    pub base: Url,
    /// Content may be fetched here.
    pub pull: bool,
    /// Tags may be resolved here.
    pub resolve: bool,
    /// More certificates to trust, PEM.
    pub ca: Vec<PathBuf>,
    /// Certificates and keys to show, PEM; without a second file the key is in the first.
    pub clients: Vec<(PathBuf, Option<PathBuf>)>,
    /// Trust any certificate.
    pub skip_verify: bool,
    /// To be sent with every request.
    pub headers: Vec<(String, Secret)>,
    /// Bound on making a connection.
    pub dial_timeout: Option<Duration>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    server: String,
    host: HashMap<Spanned<String>, Entry>,
    #[serde(flatten)]
    root: Entry,
}

/// The keys of a `[host."…"]`, and of the file itself for the server.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMore>,
    client: Option<Clients>,
    skip_verify: Option<bool>,
    header: BTreeMap<String, OneOrMore>,
    override_path: bool,
    dial_timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Clients {
    One(String),
    Files(Vec<String>),
    Pairs(Vec<Vec<String>>),
}

impl OneOrMore {
    fn all(self) -> Vec<String> {
        match self {
            OneOrMore::One(one) => vec![one],
            OneOrMore::More(more) => more,
        }
    }
}

/// The servers to ask for images of `registry`, in order; the registry itself comes last. `dirs` are searched for a
/// folder of its name, or `_default`.
///
/// # Errors
/// `InvalidArgument` with the file's name if one is broken: to pull from elsewhere than configured would be worse.
pub fn hosts_of(registry: &str, dirs: &[PathBuf]) -> Result<Vec<HostConfig>> {
    let Some(dir) = dirs.iter().find_map(|root| folder(root, registry)) else {
        return Ok(vec![server(registry, None, Entry::default(), Path::new("/"))?]);
    };
    let path = dir.join("hosts.toml");
    match fs::read_to_string(&path) {
        Ok(text) => parse(registry, &text, &dir).with_context(|| path.display().to_string()),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let entry = docker_style(&dir).with_context(|| format!("read {}", dir.display()))?;
            Ok(vec![server(registry, None, entry, &dir)?])
        }
        Err(e) => Err(Error::from(e).context(format!("read {}", path.display()))),
    }
}

/// The folder for a registry below a root: with its port in the form that filesystems like, as it is, or the default.
fn folder(root: &Path, registry: &str) -> Option<PathBuf> {
    let mut names = Vec::new();
    if let Some((host, port)) = registry.rsplit_once(':') {
        names.push(format!("{host}_{port}_"));
    }
    names.push(registry.to_owned());
    names.push("_default".to_owned());
    names.into_iter().map(|name| root.join(name)).find(|dir| dir.is_dir())
}

fn parse(registry: &str, text: &str, dir: &Path) -> Result<Vec<HostConfig>> {
    let file: File = toml::from_str(text).map_err(|e| Error::invalid(e.to_string().trim().replace('\n', " ")))?;
    let mut mirrors: Vec<(Spanned<String>, Entry)> = file.host.into_iter().collect();
    // In the order of the file, which a table does not keep.
    mirrors.sort_by_key(|(name, _)| name.span().start);
    let mut hosts = Vec::new();
    for (name, entry) in mirrors {
        let name = name.into_inner();
        hosts.push(host(&name, entry, dir).with_context(|| format!("host {name:?}"))?);
    }
    hosts.push(server(registry, Some(&file.server).filter(|server| !server.is_empty()), file.root, dir)?);
    Ok(hosts)
}

/// The last resort: what `server` says, or the registry itself.
fn server(registry: &str, named: Option<&String>, entry: Entry, dir: &Path) -> Result<HostConfig> {
    if let Some(named) = named {
        return host(named, entry, dir).with_context(|| format!("server {named:?}"));
    }
    if registry == "docker.io" {
        return host("https://registry-1.docker.io", entry, dir);
    }
    let port = registry.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
    let trusted = entry.ca.is_some() || entry.client.is_some() || entry.skip_verify.is_some();
    // Nobody listens in on a machine's talk with itself; and registries for trying things out have no certificate.
    let local = is_local(registry);
    let plain = local && !trusted && !matches!(port, None | Some("443"));
    let scheme = if plain { "http" } else { "https" };
    let entry = Entry { override_path: false, ..entry };
    let mut server = host(&format!("{scheme}://{registry}"), entry, dir)?;
    server.skip_verify |= local && !trusted;
    Ok(server)
}

/// Whether this is the machine itself, whose registries need no TLS.
fn is_local(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn host(url: &str, entry: Entry, dir: &Path) -> Result<HostConfig> {
    let url = if url.starts_with("http") { url.to_owned() } else { format!("https://{url}") };
    let mut base = Url::parse(&url)?;
    let path = base.path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/').to_owned();
    base.path = match entry.override_path || path.ends_with("/v2") {
        true => path,
        false => format!("{path}/v2"),
    };
    let (mut pull, mut resolve) = (entry.capabilities.is_none(), entry.capabilities.is_none());
    for capability in entry.capabilities.iter().flatten() {
        match capability.to_lowercase().as_str() {
            "pull" => pull = true,
            "resolve" => resolve = true,
            "push" | "referrers" => {}
            other => return Err(Error::invalid(format!("capability {other:?}: not one of pull, resolve, push"))),
        }
    }
    let mut headers = Vec::new();
    for (name, values) in entry.header {
        headers.extend(values.all().into_iter().map(|value| (name.clone(), Secret::new(value))));
    }
    Ok(HostConfig {
        base,
        pull,
        resolve,
        ca: entry.ca.map_or_else(Vec::new, |ca| ca.all().iter().map(|file| dir.join(file)).collect()),
        clients: entry.client.map_or_else(|| Ok(Vec::new()), |clients| client_files(clients, dir))?,
        skip_verify: entry.skip_verify.unwrap_or(false),
        headers,
        dial_timeout: entry.dial_timeout.as_deref().map(duration).transpose()?,
    })
}

fn client_files(clients: Clients, dir: &Path) -> Result<Vec<(PathBuf, Option<PathBuf>)>> {
    let pairs = match clients {
        Clients::One(file) => vec![vec![file]],
        Clients::Files(files) => files.into_iter().map(|file| vec![file]).collect(),
        Clients::Pairs(pairs) => pairs,
    };
    let pair = |pair: Vec<String>| match pair.as_slice() {
        [certificate] => Ok((dir.join(certificate), None)),
        [certificate, key] if key.is_empty() => Ok((dir.join(certificate), None)),
        [certificate, key] => Ok((dir.join(certificate), Some(dir.join(key)))),
        _ => Err(Error::invalid("client: each entry is a certificate, or a certificate and its key")),
    };
    pairs.into_iter().map(pair).collect()
}

/// A folder without a `hosts.toml`, as Docker has it: `*.crt` are trusted, `x.cert` with `x.key` is shown.
fn docker_style(dir: &Path) -> Result<Entry> {
    let (mut ca, mut clients) = (Vec::new(), Vec::new());
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let text = |path: &Path| path.to_string_lossy().into_owned();
        match extension {
            Some("crt") => ca.push(text(&path)),
            Some("cert") => {
                let key = path.with_extension("key");
                if !key.is_file() {
                    return Err(Error::invalid(format!("{} has no {}", path.display(), key.display())));
                }
                clients.push(vec![text(&path), text(&key)]);
            }
            _ => {}
        }
    }
    let ca = (!ca.is_empty()).then_some(OneOrMore::More(ca));
    let client = (!clients.is_empty()).then_some(Clients::Pairs(clients));
    Ok(Entry { ca, client, ..Entry::default() })
}

/// A duration as Go writes it: `1m30s`, `500ms`.
fn duration(text: &str) -> Result<Duration> {
    let refused = || Error::invalid(format!("dial_timeout {text:?}: not a duration such as \"3s\" or \"500ms\""));
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refused)?;
        let number: f64 = rest[..digits].parse().map_err(|_| refused())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(refused()),
        };
        total += Duration::try_from_secs_f64(number * unit).map_err(|_| refused())?;
        rest = &rest[end..];
    }
    match total.is_zero() {
        true => Err(refused()),
        false => Ok(total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::ids::random_hex;

    struct Dir(PathBuf);

    impl Dir {
        fn new(files: &[(&str, &str)]) -> Self {
            let dir = std::env::temp_dir().join(format!("cricket-hosts-{}", &random_hex().unwrap()[..12]));
            for (name, text) in files {
                let path = dir.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Dir(dir)
        }

        fn of(&self, registry: &str) -> Result<Vec<HostConfig>> {
            hosts_of(registry, std::slice::from_ref(&self.0))
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn bases(hosts: &[HostConfig]) -> Vec<String> {
        hosts.iter().map(|host| host.base.to_string()).collect()
    }

    #[test]
    fn without_files_the_registry_itself() {
        for (registry, base, skip) in [
            ("docker.io", "https://registry-1.docker.io/v2", false),
            ("quay.io", "https://quay.io/v2", false),
            ("r.io:5000", "https://r.io:5000/v2", false),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/v2", false),
            ("localhost:5000", "http://localhost:5000/v2", true),
            ("127.0.0.9:5000", "http://127.0.0.9:5000/v2", true),
            ("[::1]:5000", "http://[::1]:5000/v2", true),
            ("localhost:443", "https://localhost:443/v2", true),
            ("localhost", "https://localhost/v2", true),
        ] {
            let hosts = hosts_of(registry, &["/nonexistent".into()]).unwrap();
            assert_eq!(bases(&hosts), [base]);
            assert_eq!((hosts[0].skip_verify, hosts[0].pull, hosts[0].resolve), (skip, true, true), "{registry}");
        }
    }

    #[test]
    fn mirrors_come_in_the_order_of_the_file() {
        let text = r#"
            server = "https://r.io"
            [host."https://z.mirror"]
            capabilities = ["pull"]
            [host."https://a.mirror/cache/"]
            capabilities = ["pull", "resolve", "push"]
            [host."http://m.mirror:5000/v2/r.io"]
            override_path = true
            [host."b.mirror"]
        "#;
        let hosts = Dir::new(&[("r.io/hosts.toml", text)]).of("r.io").unwrap();
        let expected = ["https://z.mirror/v2", "https://a.mirror/cache/v2", "http://m.mirror:5000/v2/r.io"];
        assert_eq!(bases(&hosts)[..3], expected);
        assert_eq!(bases(&hosts)[3..], ["https://b.mirror/v2", "https://r.io/v2"]);
        assert_eq!((hosts[0].pull, hosts[0].resolve, hosts[1].resolve), (true, false, true));
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            ca = "own.pem"
            [host."https://m"]
            ca = ["a.pem", "/abs/b.pem"]
            client = [["c.pem", "c.key"], ["both.pem", ""]]
            skip_verify = true
            dial_timeout = "1m0.5s"
            [host."https://m".header]
            x-one = "1"
            authorization = ["Basic geheim"]
        "#;
        let dir = Dir::new(&[("r.io/hosts.toml", text)]);
        let hosts = dir.of("r.io").unwrap();
        let at = |name: &str| dir.0.join("r.io").join(name);
        assert_eq!(hosts[0].ca, [at("a.pem"), "/abs/b.pem".into()]);
        assert_eq!(hosts[0].clients, [(at("c.pem"), Some(at("c.key"))), (at("both.pem"), None)]);
        assert!(hosts[0].skip_verify);
        assert_eq!(hosts[0].dial_timeout, Some(Duration::from_millis(60_500)));
        let header = |name: &str, value: &str| (name.to_owned(), Secret::new(value));
        assert_eq!(hosts[0].headers, [header("authorization", "Basic geheim"), header("x-one", "1")]);
        assert!(!format!("{hosts:?}").contains("geheim"));
        assert_eq!((bases(&hosts)[1].as_str(), &hosts[1].ca), ("https://r.io/v2", &vec![at("own.pem")]));
        for (text, clients) in [("'a'", vec!["a"]), ("['a', 'b']", vec!["a", "b"])] {
            let dir = Dir::new(&[("r.io/hosts.toml", &format!("client = {text}"))]);
            let files: Vec<_> = clients.iter().map(|file| (dir.0.join("r.io").join(file), None)).collect();
            assert_eq!(dir.of("r.io").unwrap()[0].clients, files);
        }
    }

    #[test]
    fn the_folder_is_found_by_host_and_port_or_is_the_default() {
        let server = |name: &str| format!("server = \"https://{name}\"");
        let dir = Dir::new(&[
            ("r.io_5000_/hosts.toml", &server("one")),
            ("r.io:5000/hosts.toml", &server("two")),
            ("r.io/hosts.toml", &server("three")),
            ("_default/hosts.toml", &server("four")),
        ]);
        for (registry, found) in [("r.io:5000", "one"), ("r.io", "three"), ("r.io:5001", "four"), ("docker.io", "four")]
        {
            assert_eq!(bases(&dir.of(registry).unwrap()), [format!("https://{found}/v2")], "{registry}");
        }
        let empty = Dir::new(&[("_default/hosts.toml", "[host.\"https://m\"]")]);
        assert_eq!(bases(&empty.of("docker.io").unwrap()), ["https://m/v2", "https://registry-1.docker.io/v2"]);
    }

    #[test]
    fn local_registries_with_certificates_speak_tls() {
        let dir = Dir::new(&[("localhost:5000/hosts.toml", "ca = \"x.pem\"")]);
        let hosts = dir.of("localhost:5000").unwrap();
        assert_eq!((bases(&hosts)[0].as_str(), hosts[0].skip_verify), ("https://localhost:5000/v2", false));
    }

    #[test]
    fn a_folder_of_dockers_kind() {
        let dir = Dir::new(&[("r.io/ca.crt", ""), ("r.io/me.cert", ""), ("r.io/me.key", ""), ("r.io/readme", "")]);
        let hosts = dir.of("r.io").unwrap();
        let at = |name: &str| dir.0.join("r.io").join(name);
        assert_eq!(
            (&hosts[0].ca, &hosts[0].clients),
            (&vec![at("ca.crt")], &vec![(at("me.cert"), Some(at("me.key")))])
        );
        fs::remove_file(at("me.key")).unwrap();
        assert!(dir.of("r.io").unwrap_err().to_string().contains("me.key"));
    }

    #[test]
    fn a_broken_file_stops_the_pull() {
        for text in [
            "server = 3",
            "[host.\"https://m\"]\ncapabilities = [\"fly\"]",
            "[host.\"https://m\"]\ndial_timeout = \"soon\"",
            "[host.\"https://\"]",
            "server = \"ftp://x\"\nclient = [[\"a\", \"b\", \"c\"]]",
            "= 1",
        ] {
            let e = Dir::new(&[("r.io/hosts.toml", text)]).of("r.io").expect_err(text);
            assert_eq!(e.kind(), Kind::InvalidArgument, "{text}");
            assert!(e.to_string().contains("hosts.toml"), "{e}");
        }
    }
}
