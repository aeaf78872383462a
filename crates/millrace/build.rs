//! Lets the binary find libduckdb where it was linked from, beside itself, or in a `lib` folder next to its own.

fn main() {
    println!("cargo:rerun-if-env-changed=DUCKDB_LIB_DIR");
    let given = std::env::var("DUCKDB_LIB_DIR").unwrap_or_default();
    println!("cargo:rerun-if-changed={given}");
    let linked = std::fs::canonicalize(&given).ok();
    if let Some(dir) = linked {
        println!("cargo:rustc-link-arg-bins=-Wl,-rpath,{}", dir.display());
    }
    println!("cargo:rustc-link-arg-bins=-Wl,-rpath,$ORIGIN");
    println!("cargo:rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/../lib");
}
