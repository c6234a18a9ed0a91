//! Builds the static helper that the binary carries and every container runs.
//!
//! Owns: the helper's build, in this crate's own output folder.
//! Reads: `DARK_FACTORY_INIT`, which names a helper that is built already.
//! Never: uses the network beyond what cargo itself does.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed=DARK_FACTORY_INIT");
    let helper = match env::var_os("DARK_FACTORY_INIT") {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => build_helper()?,
    };
    println!("cargo:rerun-if-changed={}", helper.display());
    println!(
        "cargo:rustc-env=DARK_FACTORY_INIT_PATH={}",
        helper.display()
    );
    // Here, so that not every command reads all of it.
    let digest = Sha256::digest(fs::read(&helper)?);
    let digest: String = digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    println!("cargo:rustc-env=DARK_FACTORY_INIT_DIGEST={digest}");
    Ok(())
}

fn build_helper() -> Result<PathBuf, Box<dyn Error>> {
    let target = env::var("TARGET")?;
    if !target.contains("linux") {
        return Err("the helper runs in Linux containers: build crates/init for Linux and name it with DARK_FACTORY_INIT".into());
    }
    let manifest_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let crates = manifest_dir
        .parent()
        .ok_or("crates/cli has no parent folder")?;
    for source in [
        "init/src",
        "init/Cargo.toml",
        "spool/src",
        "spool/Cargo.toml",
    ] {
        println!("cargo:rerun-if-changed={}", crates.join(source).display());
    }
    let target_dir = Path::new(&env::var("OUT_DIR")?).join("helper");
    let status = Command::new(env::var("CARGO")?)
        .args([
            "build",
            "--package",
            "dark-factory-init",
            "--profile",
            "helper",
        ])
        .args(["--target", &target])
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(crates.join("init"))
        // Static, whatever the flags of the build around this one are.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .status()?;
    if !status.success() {
        return Err("building the static helper failed (does the linker have a static libc, such as Debian's libc6-dev?)".into());
    }
    Ok(target_dir
        .join(target)
        .join("helper")
        .join("dark-factory-init"))
}
