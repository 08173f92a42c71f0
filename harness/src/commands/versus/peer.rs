//! llama.cpp's bench program: `llama-bench`, whose JSON has an object for each test.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::Task;
use crate::commands::Failure;

/// How to run it.
pub struct Peer<'a> {
    program: &'a Path,
    model: &'a Path,
    flags: &'a [String],
    /// What it says of itself.
    pub build: Option<String>,
}

/// A test's result. The fields are llama-bench's.
#[derive(Deserialize)]
struct Test {
    build_commit: Option<String>,
    n_threads: usize,
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
    /// Nanoseconds of each repetition.
    samples_ns: Vec<f64>,
}

impl<'a> Peer<'a> {
    pub fn new(program: &'a Path, model: &'a Path, flags: &'a [String]) -> Self {
        Self { program, model, flags, build: None }
    }

    /// Seconds that it takes for a task, once.
    pub fn run(&mut self, task: Task) -> Result<f64, Failure> {
        let program = self.program.display();
        let threads = rayon::current_num_threads();
        // Starting what is not there is no error everywhere, but a child that fails.
        if !self.program.is_file() {
            return Err(format!("{program} is no file: expected the program llama-bench").into());
        }
        let output = Command::new(self.program)
            .arg("-m")
            .arg(self.model)
            .args(["-t", &threads.to_string()])
            .args(["-p", &task.prompt.to_string()])
            .args(["-n", &task.generate.to_string()])
            .args(["-d", &task.depth.to_string()])
            .args(["-r", "1", "-o", "json"])
            .args(self.flags)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{program} cannot be started: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<_> = said.lines().collect();
            let last = lines[lines.len().saturating_sub(5)..].join("\n");
            return Err(format!("{program} failed: {}\n{last}", output.status).into());
        }
        let tests: Vec<Test> = serde_json::from_slice(&output.stdout).map_err(|error| {
            format!("{program} did not print the JSON of a llama-bench with -d: {error}")
        })?;
        let [test] = &tests[..] else {
            let count = tests.len();
            return Err(format!(
                "{program} did {count} tests: expected one (a flag with several values?)"
            )
            .into());
        };
        let found = [test.n_threads, test.n_prompt, test.n_gen, test.n_depth];
        let expected = [threads, task.prompt, task.generate, task.depth];
        if found != expected {
            let what = "threads, prompt, tokens generated and depth";
            return Err(format!("{program} took {found:?} as {what}: expected {expected:?}").into());
        }
        self.build.clone_from(&test.build_commit);
        match test.samples_ns[..] {
            [time] if time > 0.0 => Ok(time * 1e-9),
            _ => Err(format!("{program} gave times of {:?}: expected one", test.samples_ns).into()),
        }
    }
}
