//! How long a runtime spec takes: `cargo bench --bench spec`. The plainest container, and one under the default filter.
#![allow(clippy::print_stdout, reason = "a benchmark says what it measured")]

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/golden/fixture.rs"]
mod fixture;

use std::hint::black_box;
use std::time::Instant;

use cricket_proto::runtime::security_profile::ProfileType;
use cricket_proto::runtime::SecurityProfile;
use fixture::Case;
use protobuf::MessageField;

const ROUNDS: u32 = 20_000;

fn main() {
    let plain = Case::new();
    let mut filtered = Case::new();
    let profile = SecurityProfile { profile_type: ProfileType::RuntimeDefault.into(), ..Default::default() };
    filtered.security().seccomp = MessageField::some(profile);
    for (name, case) in [("plain", plain), ("filtered", filtered)] {
        per_round(&format!("{name}: built"), || drop(black_box(case.spec())));
        per_round(&format!("{name}: built and encoded"), || drop(black_box(serde_json::to_vec(&case.spec()))));
    }
}

fn per_round(what: &str, work: impl Fn()) {
    let begun = Instant::now();
    (0..ROUNDS).for_each(|_| work());
    println!("{what}: {:.1} µs", begun.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
}
