//! Pulls from docker-registry over a way that fails: trouble that passes is waited for and what has come is gone on
//! from; what does not pass, or was changed on the way, leaves nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use cricket::containerd::Containerd;
use cricket::error::Kind;

use crate::certificate::certificate;
use crate::proxy::{Asked, Fault, Proxy};
use crate::pull::{layers, nobody, LARGE};
use crate::registry::{Layer, Registry};
use crate::tokens::TokenServer;
use crate::{call, Node};

/// Requests of a pull that nothing happens to: what the tag is, the manifest, the configuration, three layers.
const REQUESTS: usize = 6;

fn image(proxy: &Proxy) -> String {
    format!("{}/some/app:1", proxy.address)
}

#[test]
fn trouble_that_passes_is_waited_for() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let id = registry.push("some/app", "1", &layers());
    let wait = Fault::Status(429, "Retry-After: 1\r\n".into());
    for fault in [Fault::Drop, wait, Fault::Status(500, String::new()), Fault::Status(503, String::new())] {
        let own = fault.clone();
        let proxy = Proxy::start(&registry.address, move |asked| (asked.before == 0).then(|| own.clone()));
        let name = image(&proxy);
        assert_eq!(node.pull(&name, &nobody(), &[]).expect("pull"), id, "{fault:?}");
        assert_eq!((proxy.faults(), proxy.asked().len()), (REQUESTS, 2 * REQUESTS), "{fault:?}: {:#?}", proxy.asked());
        node.assert_complete(&name, 3);
        node.assert_removable(&name);
    }
}

#[test]
fn what_an_image_has_several_times_is_fetched_once() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let proxy = Proxy::start(&registry.address, |_| None);
    let (same, other) = (|| Layer::gzip("same", b"s"), Layer::plain("other", b"o"));
    registry.push("app", "1", &[same(), other, same(), same(), same(), same()]);
    node.pull(&format!("{}/app:1", proxy.address), &nobody(), &[]).expect("pull");
    let digest = same().digest();
    let asked = proxy.asked().iter().filter(|asked| asked.path.ends_with(&digest)).count();
    assert_eq!(asked, 1);
}

#[test]
fn connections_that_break_are_made_again() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let id = registry.push("some/app", "1", &layers());
    // The large layer needs several; what is small is cut once, in the middle.
    let proxy = Proxy::start(&registry.address, |asked| match asked.method.as_str() {
        "GET" if asked.before == 0 => Some(Fault::Cut(100)),
        "GET" => Some(Fault::Cut(1_000_000)),
        _ => None,
    });
    let name = image(&proxy);
    assert_eq!(node.pull(&name, &nobody(), &[]).expect("pull"), id);
    let ranges: Vec<u64> = proxy.asked().iter().filter_map(|asked| asked.from).collect();
    for from in [100, 1_000_100, 2_000_100] {
        assert!(ranges.contains(&from), "{ranges:?}");
    }
    node.assert_complete(&name, 3);
    node.assert_removable(&name);
}

#[test]
fn a_layer_that_stalls_is_given_up_and_gone_on_with() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let id = registry.push("some/app", "1", &layers());
    let stalls = Arc::new(AtomicBool::new(true));
    let (own, large) = (stalls.clone(), layers()[LARGE].digest());
    let proxy = Proxy::start(&registry.address, move |asked| {
        (own.load(Ordering::Acquire) && asked.path.ends_with(&large)).then_some(Fault::Stall(1_000_000))
    });
    let name = image(&proxy);
    let e = node.pull_within(Duration::from_secs(5), &name, &nobody(), &[]).expect_err("no byte comes");
    assert_eq!(e.kind(), Kind::Unknown, "{e}");
    assert!(e.to_string().starts_with("RegistryUnavailable: ") && e.to_string().contains("no byte in"), "{e}");
    node.collect_garbage();
    assert_eq!(node.client.images(&call()).expect("images"), []);
    assert_eq!(node.client.leases(&call()).expect("leases").len(), 1, "what is here is kept");

    stalls.store(false, Ordering::Release);
    let before = proxy.asked().len();
    assert_eq!(node.pull(&name, &nobody(), &[]).expect("pull"), id);
    let large = layers()[LARGE].digest();
    let again = proxy.asked().split_off(before);
    let of_large: Vec<&Asked> = again.iter().filter(|asked| asked.path.ends_with(&large)).collect();
    assert!(matches!(of_large[..], [one] if one.from.is_some_and(|from| from > 0)), "{again:#?}");
    node.assert_complete(&name, 3);
    node.assert_removable(&name);
}

#[test]
fn credentials_that_run_out_in_the_middle_of_a_layer_are_had_anew() {
    let node = Node::new();
    let dir = node.private.dir();
    certificate(dir);
    let id = Registry::start(dir, "", "").push("some/app", "1", &layers());
    let tokens = TokenServer::start(dir, None);
    let registry = Registry::start(dir, "", &tokens.configuration(dir));
    let large = layers()[LARGE].digest();
    let scope = "repository:some/app:pull";
    let challenge =
        format!("WWW-Authenticate: Bearer realm=\"{}\",service=\"reg\",scope=\"{scope}\"\r\n", tokens.realm);
    let own = large.clone();
    let proxy = Proxy::start(&registry.address, move |asked| {
        let first = asked.before == 0;
        match asked.from {
            _ if !asked.path.ends_with(&own) => None,
            None if first => Some(Fault::Cut(1_000_000)),
            Some(1_000_000) if asked.before == 1 => Some(Fault::Status(401, challenge.clone())),
            _ => None,
        }
    });
    let name = image(&proxy);
    assert_eq!(node.pull(&name, &nobody(), &[]).expect("pull"), id);
    assert_eq!(proxy.faults(), 2, "{:#?}", proxy.asked());
    let of_large: Vec<Asked> = proxy.asked().into_iter().filter(|asked| asked.path.ends_with(&large)).collect();
    let token = |asked: &Asked| asked.head.lines().find(|line| line.starts_with("authorization: ")).map(str::to_owned);
    let [_, refused, taken] = &of_large[..] else { panic!("{of_large:#?}") };
    assert_eq!(taken.from, Some(1_000_000));
    assert!(token(taken).is_some() && token(taken) != token(refused), "{of_large:#?}");
    node.assert_complete(&name, 3);
    node.assert_removable(&name);
}

#[test]
fn what_was_changed_on_the_way_is_refused_and_leaves_nothing() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let id = registry.push("some/app", "1", &layers());
    type Bad = Box<dyn Fn(&Asked) -> bool + Send + Sync>;
    let bad: [(&str, Bad); 3] = [
        ("manifest", Box::new(|asked| asked.path.contains("/manifests/") && asked.method == "GET")),
        ("configuration", {
            let config = id.clone();
            Box::new(move |asked| asked.path.ends_with(&config))
        }),
        ("layer", {
            let large = layers()[LARGE].digest();
            Box::new(move |asked| asked.path.ends_with(&large))
        }),
    ];
    for (what, is_bad) in bad {
        let proxy = Proxy::start(&registry.address, move |asked| is_bad(asked).then_some(Fault::Flip(60)));
        let e = node.pull(&image(&proxy), &nobody(), &[]).expect_err(what);
        assert_eq!(e.kind(), Kind::InvalidArgument, "{what}: {e}");
        assert!(proxy.faults() > 0, "{what}");
        node.assert_empty();
    }
    let name = format!("{}/some/app:1", registry.address);
    assert_eq!(node.pull(&name, &nobody(), &[]).expect("pull"), id);
    node.assert_complete(&name, 3);
}

#[test]
fn trouble_that_stays_leaves_nothing() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    registry.push("some/app", "1", &layers());
    let unavailable = (Kind::Unknown, "RegistryUnavailable: ");
    let denied = (Kind::PermissionDenied, "");
    for (fault, (kind, begins)) in [
        (Fault::Drop, unavailable),
        (Fault::Status(500, String::new()), unavailable),
        (Fault::Status(429, "Retry-After: 1\r\n".into()), unavailable),
        (Fault::Status(401, "WWW-Authenticate: Basic realm=\"x\"\r\n".into()), denied),
    ] {
        let own = fault.clone();
        // The manifest is had: the trouble is with what it names.
        let proxy = Proxy::start(&registry.address, move |asked| asked.is_blob().then(|| own.clone()));
        let e = node.pull(&image(&proxy), &nobody(), &[]).expect_err("no blob can be had");
        assert_eq!(e.kind(), kind, "{fault:?}: {e}");
        assert!(e.to_string().starts_with(begins), "{fault:?}: {e}");
        node.assert_empty();
    }
}
