//! The hashes of what every fixed case gives: one value for all instruction sets and architectures, kept in `fixtures/hashes.json`,
//! so that machines are compared that never meet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cases::Output;

/// The hash of each case of an operation, by `shape:seed:fill`.
pub type OpHashes = BTreeMap<String, String>;

/// The hashes of all operations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hashes {
    /// Grows when a field changes its meaning.
    pub schema_version: u32,
    /// The numeric mode: in what activations are kept.
    pub mode: String,
    /// By operation.
    pub operations: BTreeMap<String, OpHashes>,
}

/// A hash that is not what was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `shape:seed:fill`.
    pub case: String,
    /// What was kept, unless the case is new.
    pub kept: Option<String>,
    /// What was found, unless the case is gone.
    pub found: Option<String>,
}

impl Hashes {
    /// No hashes yet.
    pub fn new() -> Self {
        Self { schema_version: 1, mode: "f32".into(), operations: BTreeMap::new() }
    }

    /// Those that this program was built with.
    ///
    /// # Errors
    ///
    /// If the file was damaged before the build.
    pub fn kept() -> Result<Self, String> {
        const TEXT: &str = include_str!("../../fixtures/hashes.json");
        let hashes: Self =
            serde_json::from_str(TEXT).map_err(|error| format!("fixtures/hashes.json: {error}"))?;
        match hashes.schema_version {
            1 => Ok(hashes),
            other => Err(format!("fixtures/hashes.json: schema version {other}, expected 1")),
        }
    }

    /// What is other in `found`, the hashes of the operation `op`, than in these.
    pub fn changes(&self, op: &str, found: &OpHashes) -> Vec<Change> {
        let none = OpHashes::new();
        let kept = self.operations.get(op).unwrap_or(&none);
        let mut changes = Vec::new();
        for (case, kept) in kept {
            if found.get(case) != Some(kept) {
                changes.push(Change {
                    case: case.clone(),
                    kept: Some(kept.clone()),
                    found: found.get(case).cloned(),
                });
            }
        }
        for (case, hash) in found.iter().filter(|(case, _)| !kept.contains_key(*case)) {
            changes.push(Change { case: case.clone(), kept: None, found: Some(hash.clone()) });
        }
        changes
    }
}

impl Default for Hashes {
    fn default() -> Self {
        Self::new()
    }
}

/// The hash of a case's outputs: names, lengths and bits.
///
/// # Errors
///
/// If an element is not finite: the bits of NaN differ between processors, and a result full of it proves nothing.
pub fn hash_outputs(outputs: &[Output]) -> Result<String, String> {
    let mut hash = Sha256::new();
    for output in outputs {
        if let Some(index) = output.values.iter().position(|value| !value.is_finite()) {
            return Err(format!("{}: element {index} is not finite", output.name));
        }
        hash.update(output.name);
        hash.update((output.values.len() as u64).to_le_bytes());
        output.values.iter().for_each(|value| hash.update(value.to_le_bytes()));
    }
    Ok(shortened(hash))
}

/// One hash for all cases of an operation.
pub fn digest(hashes: &OpHashes) -> String {
    let mut hash = Sha256::new();
    for (case, value) in hashes {
        hash.update(format!("{case} {value}\n"));
    }
    shortened(hash)
}

/// Enough bits that no two of some thousand cases agree by chance.
fn shortened(hash: Sha256) -> String {
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(name: &'static str, values: &[f32]) -> Output {
        Output::new(name, values.into())
    }

    fn hash(values: &[f32]) -> String {
        hash_outputs(&[output("out", values)]).expect("finite numbers")
    }

    #[test]
    fn every_bit_name_and_length_counts() {
        let base = hash(&[1.0, 0.0]);
        assert_eq!(base, hash(&[1.0, 0.0]));
        assert_eq!(base.len(), 16);
        for other in [&[1.0, -0.0][..], &[1.0 + f32::EPSILON, 0.0], &[1.0], &[1.0, 0.0, 0.0]] {
            assert_ne!(base, hash(other), "{other:?}");
        }
        assert_ne!(Ok(base), hash_outputs(&[output("other", &[1.0, 0.0])]));
    }

    #[test]
    fn what_is_not_finite_has_no_hash() {
        for value in [f32::NAN, f32::INFINITY] {
            let error = hash_outputs(&[output("out", &[1.0, value])]).unwrap_err();
            assert!(error.contains("out: element 1"), "{error}");
        }
    }

    #[test]
    fn a_changed_a_new_and_a_missing_case_are_changes() {
        let hashes = |pairs: &[(&str, &str)]| -> OpHashes {
            pairs.iter().map(|(case, hash)| (case.to_string(), hash.to_string())).collect()
        };
        let mut kept = Hashes::new();
        kept.operations.insert("add".into(), hashes(&[("a", "1"), ("b", "2"), ("c", "3")]));
        assert_eq!(kept.changes("add", &hashes(&[("a", "1"), ("b", "2"), ("c", "3")])), []);
        let changes = kept.changes("add", &hashes(&[("a", "1"), ("b", "9"), ("d", "4")]));
        let text = |change: &Change| {
            format!("{} {:?} {:?}", change.case, change.kept.as_deref(), change.found.as_deref())
        };
        assert_eq!(
            changes.iter().map(text).collect::<Vec<_>>(),
            [r#"b Some("2") Some("9")"#, r#"c Some("3") None"#, r#"d None Some("4")"#]
        );
        assert_eq!(kept.changes("rope", &hashes(&[("a", "1")])).len(), 1);
        assert_ne!(digest(&hashes(&[("a", "1")])), digest(&hashes(&[("a", "2")])));
    }

    #[test]
    fn the_kept_hashes_are_of_the_operations_that_there_are() {
        let kept = Hashes::kept().expect("a file that was blessed");
        let names: Vec<&str> = kept.operations.keys().map(String::as_str).collect();
        let mut ops: Vec<&str> = crate::cases::OPS.iter().map(|op| op.name).collect();
        ops.sort_unstable();
        assert_eq!(names, ops);
        assert!(kept.operations.values().all(|hashes| hashes.len() > 30));
    }
}
