//! Lets tests find libduckdb, and the child the extensions, where `./x deps` put them.

fn main() {
    println!("cargo:rerun-if-env-changed=DUCKDB_LIB_DIR");
    let linked = std::env::var("DUCKDB_LIB_DIR").ok().and_then(|dir| std::fs::canonicalize(dir).ok());
    if let Some(dir) = linked {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", dir.display());
        println!("cargo:rustc-env=MILLRACE_BUILD_EXTENSION_DIR={}", dir.display());
    }
}
