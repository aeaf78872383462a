//! Lets tests find libduckdb, and the child the extensions, where `./x deps` put them.

fn main() {
    println!("cargo:rerun-if-env-changed=DUCKDB_LIB_DIR");
    let given = std::env::var("DUCKDB_LIB_DIR").unwrap_or_default();
    println!("cargo:rerun-if-changed={given}");
    let linked = std::fs::canonicalize(&given).ok();
    if let Some(dir) = linked {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", dir.display());
        println!("cargo:rustc-env=MILLRACE_BUILD_EXTENSION_DIR={}", dir.display());
    }
}
