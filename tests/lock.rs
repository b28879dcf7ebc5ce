//! No crate that deny.toml bans is in Cargo.lock: no async runtime, no OpenSSL. cargo-deny would say so too, at a desk.

use std::collections::BTreeSet;
use std::fs;

use toml::{Table, Value};

fn table(file: &str) -> Table {
    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).expect(&path).parse().expect(&path)
}

/// What `key` of every table in `list` says.
fn each(list: &Value, key: &str) -> BTreeSet<String> {
    let tables = list.as_array().expect("an array").iter();
    tables.map(|table| table[key].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn nothing_banned_is_locked() {
    let banned = each(&table("deny.toml")["bans"]["deny"], "crate");
    for name in ["tokio", "async-std", "openssl"] {
        assert!(banned.contains(name), "deny.toml must ban {name}");
    }
    let locked = each(&table("Cargo.lock")["package"], "name");
    assert!(locked.contains("grpcio"), "Cargo.lock was read: {locked:?}");
    let both: Vec<_> = banned.intersection(&locked).collect();
    assert!(both.is_empty(), "banned by deny.toml, yet in Cargo.lock: {both:?}; `cargo tree -i NAME` says why");
}
