//! Lets the binary find libduckdb where it was linked from, beside itself, or in a `lib` folder next to its own.

fn main() {
    println!("cargo:rerun-if-env-changed=DUCKDB_LIB_DIR");
    let linked = std::env::var("DUCKDB_LIB_DIR").ok().and_then(|dir| std::fs::canonicalize(dir).ok());
    if let Some(dir) = linked {
        println!("cargo:rustc-link-arg-bins=-Wl,-rpath,{}", dir.display());
    }
    println!("cargo:rustc-link-arg-bins=-Wl,-rpath,$ORIGIN");
    println!("cargo:rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/../lib");
}
