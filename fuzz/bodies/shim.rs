//! Everything that a shim reads from others: frames, messages, JSON. Whatever the bytes are, nothing panics, nothing
//! grows beyond its bound, and how the bytes were cut makes no difference.

use cricket::shim::frame::{Frame, Frames, LIMIT};
use cricket::shim::{json, messages};

/// One input.
pub fn run(bytes: &[u8]) {
    let whole = frames(bytes, bytes.len().max(1));
    let cut = bytes.first().map_or(1, |byte| usize::from(*byte) + 1);
    assert_eq!(frames(bytes, cut), whole, "cut into pieces of {cut}");
    let requests = whole.iter().filter_map(|frame| frame.request().ok()).map(|request| request.payload);
    for payload in requests.chain([bytes.to_vec()]) {
        messages::Create::read(&payload).ok();
        messages::Exec::read(&payload).ok();
        messages::Target::read(&payload).ok();
        messages::update(&payload).ok();
        messages::checkpoint(&payload).ok();
        messages::Options::read("containerd.runc.v1.Options", &payload).ok();
    }
    whole.iter().for_each(|frame| drop(frame.answer()));
    if let Ok(text) = std::str::from_utf8(bytes) {
        json::text_at(text, &["annotations", "io.kubernetes.cri.sandbox-id"]);
        json::part_at(text, &["linux", "namespaces"]).map(json::elements);
        json::elements(text);
    }
}

fn frames(bytes: &[u8], cut: usize) -> Vec<Frame> {
    let (mut frames, mut found) = (Frames::default(), Vec::new());
    for mut piece in bytes.chunks(cut) {
        found.extend(std::iter::from_fn(|| frames.next(&mut piece)));
    }
    assert!(found.iter().all(|frame| frame.message.as_ref().is_none_or(|message| message.len() <= LIMIT)));
    found
}
