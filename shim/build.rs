//! Tells the rooms that they are built into the shim.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cfg=cricket_shim");
}
