//! The golden files are those that the manifests in `fixtures/` describe, all of them and no others.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use approx::relative_eq;
use lfm2_harness::golden::{Difference, GoldenFile};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Together they stay small enough to live in a repository.
const MOST_BYTES: u64 = 40_000_000;

/// The folders whose files manifests describe.
const FOLDERS: [&str; 5] = ["ops", "blocks", "models", "formats", "gguf"];

/// The manifests, and the script that wrote each; no script of ours made llama.cpp's files.
const MANIFESTS: [(&str, Option<&str>); 3] = [
    ("manifest.json", Some("generate.py")),
    ("formats/manifest.json", Some("generate_formats.py")),
    ("gguf/manifest.json", None),
];

/// The files beside them.
const OTHERS: [&str; 3] = ["hashes.json", "README.md", "requirements.txt"];

#[derive(Deserialize)]
struct Manifest {
    schema_version: u32,
    generator_sha256: Option<String>,
    files: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    size: u64,
    sha256: String,
    float32_against_float64: Option<Twins>,
}

/// How far PyTorch's 32-bit tensors are from their 64-bit twins: the worst tensor of the file.
#[derive(Deserialize)]
struct Twins {
    largest_nmse: f64,
    largest_absolute: f64,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

fn manifest(name: &str) -> Manifest {
    let text =
        fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The files of all manifests.
fn files() -> BTreeMap<String, Entry> {
    MANIFESTS.iter().flat_map(|(name, _)| manifest(name).files).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_file_is_the_one_described() {
    for (name, script) in MANIFESTS {
        let Manifest { schema_version, generator_sha256, .. } = manifest(name);
        assert_eq!(schema_version, 1, "{name}");
        let made_by =
            script.map(|script| sha256(&fs::read(root().join(script)).expect("the script")));
        assert_eq!(made_by, generator_sha256, "{name}: another script made these files");
    }
    let files = files();
    assert!(files.len() > 50, "only {} files", files.len());
    for (name, entry) in files {
        let bytes = fs::read(root().join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(bytes.len() as u64, entry.size, "{name}");
        assert_eq!(sha256(&bytes), entry.sha256, "{name}");
    }
}

#[test]
fn no_file_is_a_stray_and_all_are_small() {
    let files = files();
    let is_of_a_manifest = |name: &str| {
        MANIFESTS.iter().any(|(manifest, script)| name == *manifest || Some(name) == *script)
    };
    let mut bytes = 0;
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of fixtures") {
            let path = entry.expect("the folder can be listed").path();
            let within = path.strip_prefix(root()).expect("below the root");
            let name = within.to_string_lossy().replace('\\', "/");
            if path.is_dir() {
                let known = FOLDERS.iter().any(|folder| name.split('/').next() == Some(folder));
                assert!(known, "{name} is no folder of fixtures");
                folders.push(path);
                continue;
            }
            let is_other = OTHERS.contains(&&name[..]) || is_of_a_manifest(&name);
            assert!(files.contains_key(&name) || is_other, "{name} is a stray");
            bytes += path.metadata().expect("a file").len();
        }
    }
    assert!(bytes < MOST_BYTES, "{bytes} bytes: expected less than {MOST_BYTES}");
}

/// What tolerances against PyTorch's 32-bit results are built on.
#[test]
fn twins_differ_as_described() {
    for (name, entry) in files() {
        let Some(described) = entry.float32_against_float64 else { continue };
        let file = GoldenFile::open(&root().join(&name)).unwrap_or_else(|error| panic!("{error}"));
        let (mut nmse, mut absolute, mut twins) = (0.0_f64, 0.0_f64, 0);
        for twin in file.names() {
            let Some(single) = twin.strip_suffix("_f64") else { continue };
            assert_eq!(file.shape(single).ok(), file.shape(twin).ok(), "{name}: {twin}");
            let single = file.f32(single).unwrap_or_else(|error| panic!("{error}"));
            let double = file.f64(twin).unwrap_or_else(|error| panic!("{error}"));
            let difference = Difference::between(&single, double.iter().copied());
            nmse = nmse.max(difference.nmse);
            absolute = absolute.max(difference.max_absolute_error);
            twins += 1;
        }
        assert!(twins > 0, "{name} has no twins");
        // Sums of squares of f64 numbers, in another order.
        let same = |a: f64, b: f64| relative_eq!(a, b, max_relative = 1e-9);
        assert!(same(nmse, described.largest_nmse), "{name}: NMSE {nmse:e}");
        assert!(same(absolute, described.largest_absolute), "{name}: error {absolute:e}");
    }
}
