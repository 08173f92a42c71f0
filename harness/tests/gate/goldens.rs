//! What PyTorch computed: every operation, every block, whole models; and that known mistakes do not pass.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lfm2_harness::coverage::Coverage;
use lfm2_harness::emulator;
use lfm2_harness::golden::GoldenFile;
use libtest_mimic::{Failed, Trial};

mod blocks;
mod mistakes;
mod models;
mod operations;

/// One trial for each golden file or model, and for each mistake.
pub fn trials(coverage: &Arc<Coverage>) -> Vec<Trial> {
    let mut trials = operations::trials(coverage);
    trials.extend(blocks::trials(coverage));
    trials.extend(models::trials(coverage));
    // That mistakes are seen does not depend on the CPU.
    trials.extend(
        mistakes::trials().into_iter().map(|trial| trial.with_ignored_flag(emulator::is_at_work())),
    );
    trials
}

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// The entries of a folder of fixtures, in order.
fn entries(folder: &str) -> Vec<PathBuf> {
    let folder = fixtures().join(folder);
    let mut paths: Vec<_> = folder
        .read_dir()
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be listed").path())
        .collect();
    paths.sort();
    paths
}

/// The name of a file of fixtures: what comes before `.safetensors`.
fn stem(path: &Path) -> String {
    let name = path.file_name().expect("a file has a name").to_string_lossy();
    name.trim_end_matches(".safetensors").to_string()
}

/// One of a file's cases: the tensors whose names begin with its number.
#[derive(Clone, Copy)]
struct Case<'a> {
    file: &'a GoldenFile,
    index: usize,
}

impl<'a> Case<'a> {
    /// All cases of a file.
    fn all(file: &'a GoldenFile) -> Result<Vec<Self>, Failed> {
        let number = |name: &str| name.split('.').next().and_then(|number| number.parse().ok());
        let numbers: Option<Vec<usize>> = file.names().into_iter().map(number).collect();
        let last = numbers.and_then(|numbers| numbers.into_iter().max());
        let last = last.ok_or_else(|| format!("{}: no cases", file.path().display()))?;
        Ok((0..=last).map(|index| Self { file, index }).collect())
    }

    fn name(&self, tensor: &str) -> String {
        format!("{}.{tensor}", self.index)
    }

    fn contains(&self, tensor: &str) -> bool {
        self.file.contains(&self.name(tensor))
    }

    fn shape<const N: usize>(&self, tensor: &str) -> Result<[usize; N], Failed> {
        let shape = self.file.shape(&self.name(tensor))?;
        shape.try_into().map_err(|_| format!("{tensor} has shape {shape:?}").into())
    }

    fn f32(&self, tensor: &str) -> Result<Vec<f32>, Failed> {
        Ok(self.file.f32(&self.name(tensor))?)
    }

    fn f64(&self, tensor: &str) -> Result<Vec<f64>, Failed> {
        Ok(self.file.f64(&self.name(tensor))?)
    }

    fn u32(&self, tensor: &str) -> Result<Vec<u32>, Failed> {
        Ok(self.file.u32(&self.name(tensor))?)
    }

    /// A tensor of one whole number.
    fn integer(&self, tensor: &str) -> Result<usize, Failed> {
        match self.u32(tensor)?[..] {
            [number] => Ok(number as usize),
            _ => Err(format!("{tensor} is not one number").into()),
        }
    }

    fn optional(&self, tensor: &str) -> Result<Option<Vec<f32>>, Failed> {
        self.contains(tensor).then(|| self.f32(tensor)).transpose()
    }
}
