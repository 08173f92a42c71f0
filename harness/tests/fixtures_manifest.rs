//! The fixtures are the files that `fixtures/generate.py` wrote, all of them and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

const MOST_BYTES: u64 = 20_000_000;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

fn sha256(path: &Path) -> String {
    let digest = Sha256::digest(fs::read(path).expect("a readable file"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn every_file_is_the_one_that_was_generated() {
    let root = fixtures();
    let text = fs::read_to_string(root.join("manifest.json")).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_str(&text).expect("a manifest in JSON");
    let listed: BTreeMap<String, &serde_json::Value> = manifest["files"]
        .as_object()
        .expect("the manifest lists files")
        .iter()
        .map(|(name, entry)| (name.clone(), entry))
        .collect();

    let mut found = Vec::new();
    for folder in ["ops", "blocks", "models"] {
        files(&root.join(folder), &mut found);
    }
    let mut total = 0;
    for path in &found {
        let name =
            path.strip_prefix(&root).expect("a file in the folder").to_string_lossy().into_owned();
        let entry = listed.get(&name).unwrap_or_else(|| panic!("{name} is not in the manifest"));
        assert_eq!(entry["sha256"].as_str(), Some(&*sha256(path)), "{name}");
        total += fs::metadata(path).expect("a readable file").len();
    }
    assert_eq!(found.len(), listed.len(), "the manifest lists a file that is not there");
    assert!(found.len() > 20, "only {} files were found", found.len());
    assert!(total < MOST_BYTES, "{total} bytes of fixtures");
    assert_eq!(
        manifest["generator_sha256"].as_str(),
        Some(&*sha256(&root.join("generate.py"))),
        "generate.py"
    );
}
