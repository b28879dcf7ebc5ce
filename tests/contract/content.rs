//! Blobs.

use std::collections::HashSet;
use std::io::{self, Read};

use cricket::containerd::{Content, Fresh, Labels};
use cricket::error::Kind;
use sha2::{Digest, Sha256};

use crate::{assert_fails, kept, labels, World};

pub fn digest(data: &[u8]) -> String {
    let hex: String = Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

pub fn blob(data: &[u8], labels: &Labels) -> Content {
    Content { digest: digest(data), size_bytes: data.len() as u64, labels: labels.clone() }
}

/// Two and a half messages, different for each check.
fn large(seed: u8) -> Vec<u8> {
    (0..2_621_440_u32).map(|i| seed.wrapping_add((i / 7) as u8)).collect()
}

pub fn write_read_label(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let data = large(1);
    let root = ("containerd.io/gc.root", "kept");
    let first = blob(&data, &labels(&[("a", "1"), root]));
    c.write_content(call, "ref-1", &first, &mut data.as_slice()).expect("write");
    assert_eq!(c.content(call, &first.digest).expect("info"), first);
    assert_eq!(c.read_content(call, &first.digest, first.size_bytes).expect("read"), data);
    assert_fails(Kind::ResourceExhausted, c.read_content(call, &first.digest, first.size_bytes - 1));

    // There already: success, whatever the source would say, and the labels are added.
    let again = blob(&data, &labels(&[("b", "2")]));
    c.write_content(call, "ref-2", &again, &mut io::empty()).expect("it is there");
    c.label_content(call, &first.digest, &labels(&[("c.d/e", "3"), ("a", "4")])).expect("label");
    c.label_content(call, &first.digest, &Labels::new()).expect("nothing to add");
    let now = c.content(call, &first.digest).expect("info");
    assert_eq!(now.labels, labels(&[("a", "4"), ("b", "2"), ("c.d/e", "3"), root]));

    let nothing = blob(b"", &kept());
    c.write_content(call, "ref-3", &nothing, &mut io::empty()).expect("an empty blob");
    assert_eq!(c.read_content(call, &nothing.digest, 0).expect("read"), b"");
}

pub fn what_is_refused(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let absent = digest(b"nobody wrote this");
    assert_fails(Kind::NotFound, c.content(call, &absent));
    assert_fails(Kind::NotFound, c.read_content(call, &absent, 10));
    assert_fails(Kind::NotFound, c.label_content(call, &absent, &labels(&[("a", "b")])));
    assert_fails(Kind::NotFound, c.label_content(call, &absent, &Labels::new()));
    assert_fails(Kind::InvalidArgument, c.content(call, "sha256:short"));
    let data = b"never stored";
    assert_fails(Kind::InvalidArgument, c.write_content(call, "", &blob(data, &Labels::new()), &mut &data[..]));
}

pub fn resume(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let data = large(2);
    let wanted = blob(&data, &kept());
    // The network breaks after two thirds.
    let mut broken = data[..1_700_000].chain(Broken);
    assert_fails(Kind::Unknown, c.write_content(call, "resume", &wanted, &mut broken));
    assert_fails(Kind::NotFound, c.content(call, &wanted.digest));
    let mut short = &data[..1_800_000];
    assert_fails(Kind::Unknown, c.write_content(call, "resume", &wanted, &mut short));

    // What is there is not taken from the new source: it may say anything in that place.
    let mut other = data.clone();
    other[..1_000_000].fill(0);
    c.write_content(call, "resume", &wanted, &mut other.as_slice()).expect("resumes");
    assert_eq!(c.read_content(call, &wanted.digest, u64::MAX).expect("read"), data);
}

pub fn what_is_new_is_not_asked_for(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let (there, absent) = (digest(b"short and new"), digest(b"nobody wrote this"));
    let wanted = blob(b"short and new", &kept());
    assert!(c.contents(call, &[&there, &absent]).expect("list").is_empty());
    assert!(c.contents(call, &[]).expect("list").is_empty());
    c.write_content(call, "new", &wanted, &mut Fresh(b"short and new")).expect("write");
    assert_eq!(c.content(call, &wanted.digest).expect("info"), wanted);
    assert_eq!(c.contents(call, &[&there, &absent]).expect("list"), HashSet::from([there]));
    // It was not that new: as if it had been asked for.
    let again = blob(b"short and new", &labels(&[("b", "2")]));
    c.write_content(call, "newer", &again, &mut Fresh(b"short and new")).expect("it is there");
    assert_eq!(c.content(call, &wanted.digest).expect("info").labels["b"], "2");
    // A long one may have been begun.
    let (long, data) = (blob(&large(6), &kept()), large(6));
    assert_fails(Kind::Unknown, c.write_content(call, "long", &long, &mut data[..1_700_000].chain(Broken)));
    c.write_content(call, "long", &long, &mut Fresh(&data)).expect("write");
    assert_eq!(c.read_content(call, &long.digest, u64::MAX).expect("read"), data);
}

pub fn a_wrong_blob_is_dropped(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let data = large(3);
    let wanted = blob(&data, &kept());
    let wrong = large(4);
    assert_fails(Kind::FailedPrecondition, c.write_content(call, "wrong", &wanted, &mut wrong.as_slice()));
    assert_fails(Kind::NotFound, c.content(call, &wanted.digest));
    // Nothing of it is left to resume.
    c.write_content(call, "wrong", &wanted, &mut data.as_slice()).expect("the right one");
}

pub fn leases_must_exist(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let data = b"leased to nobody";
    let leased = call.with_lease("nobody");
    assert_fails(Kind::NotFound, c.write_content(&leased, "lease", &blob(data, &Labels::new()), &mut &data[..]));
}

/// A connection that breaks.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}
