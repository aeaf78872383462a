//! Lets tests find libduckdb, and the child the extensions, where `./x deps` put them.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-env-changed=DUCKDB_LIB_DIR");
    let Some(dir) = std::env::var_os("DUCKDB_LIB_DIR").map(PathBuf::from) else { return };
    if let Ok(real) = std::fs::canonicalize(&dir) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", real.display());
    }
    if let Some(extensions) = dir.parent().map(|parent| parent.join("extensions")).and_then(|path| std::fs::canonicalize(path).ok()) {
        println!("cargo:rustc-env=MILLRACE_BUILD_EXTENSION_DIR={}", extensions.display());
    }
}
