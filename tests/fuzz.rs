//! The fuzz targets on stable: their corpus again, and some thousand inputs made from it.

use std::fs;
use std::path::Path;

#[path = "../fuzz/bodies/headers.rs"]
mod headers;
#[path = "../fuzz/bodies/layer.rs"]
mod layer;
#[path = "../fuzz/bodies/shim.rs"]
mod shim;
#[path = "../fuzz/bodies/spdy.rs"]
mod spdy;
#[path = "../fuzz/bodies/upgrade.rs"]
mod upgrade;
#[path = "../fuzz/bodies/websocket.rs"]
mod websocket;
#[path = "../fuzz/bodies/wire.rs"]
mod wire;

/// Small and without state: the same seed, the same numbers.
fn random(seed: &mut u64, below: usize) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    (*seed >> 33) as usize % below.max(1)
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(dir).expect("a corpus").map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files.into_iter().map(|file| fs::read(file).expect("readable")).collect()
}

/// The corpus of a target, and so many inputs made from it; CRICKET_FUZZ_ROUNDS for more.
fn keep(target: &str, run: fn(&[u8])) {
    let corpus = corpus(target);
    corpus.iter().for_each(|input| run(input));
    let rounds = std::env::var("CRICKET_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5000u64);
    let seed = &mut 0x9E37_79B9_7F4A_7C15;
    for _ in 0..rounds {
        let mut input = corpus[random(seed, corpus.len())].clone();
        for _ in 0..1 + random(seed, 8) {
            let at = random(seed, input.len());
            match (random(seed, 4), input.is_empty()) {
                (_, true) => input.push(random(seed, 256) as u8),
                (0, _) => input[at] = random(seed, 256) as u8,
                (1, _) => input.truncate(at),
                (2, _) => input.insert(at, random(seed, 256) as u8),
                _ => input.extend_from_slice(&corpus[random(seed, corpus.len())]),
            }
        }
        run(&input);
    }
}

#[test]
fn layers() {
    keep("layer", layer::run);
}

#[test]
fn what_a_shim_reads() {
    keep("shim", shim::run);
}

#[test]
fn frames_of_spdy() {
    keep("spdy", spdy::run);
}

#[test]
fn header_blocks_of_spdy() {
    keep("headers", headers::run);
}

#[test]
fn requests_for_an_upgrade() {
    keep("upgrade", upgrade::run);
}

#[test]
fn frames_of_a_websocket() {
    keep("websocket", websocket::run);
}
