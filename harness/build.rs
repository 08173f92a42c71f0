//! Tells the program what it was built from.

use std::process::Command;

fn main() {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    // An archive of the sources has no history.
    let is_dirty =
        commit.is_some() && git(&["status", "--porcelain"]).is_none_or(|s| !s.is_empty());
    println!("cargo:rustc-env=LFM2_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo:rustc-env=LFM2_IS_DIRTY={is_dirty}");
    println!("cargo:rustc-env=LFM2_COMPILER={}", compiler().as_deref().unwrap_or("unknown"));
    for path in ["HEAD", "index"] {
        if let Some(path) = git(&["rev-parse", "--git-path", path]) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    for sources in ["src", "../kernels/src", "build.rs"] {
        println!("cargo:rerun-if-changed={sources}");
    }
}

fn compiler() -> Option<String> {
    let output = Command::new(std::env::var_os("RUSTC")?).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

fn git(arguments: &[&str]) -> Option<String> {
    // Without its lock, git leaves the index as it is: a changed one would run this again at every build.
    let output = Command::new("git").arg("--no-optional-locks").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}
