//! The kept hashes, under one random profile after another.

use std::process::ExitCode;

use lfm2_harness::case_line::MOST_THREADS;
use lfm2_harness::cases::Op;
use lfm2_harness::check::{hash_complaint, hashes};
use lfm2_harness::data::Stream;
use lfm2_harness::gate::Gate;
use lfm2_harness::hashes::Hashes;
use lfm2_harness::profile::any_profile;
use lfm2_kernels::Isa;
use lfm2_kernels::tuning::Profile;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::on_all_cores;
use crate::commands::output::{counted, print};
use crate::commands::{FAILED, Failure, progress};

/// Checks the hashes of `ops` on each of `isas` under `count` profiles that depend on `seed`, on all numbers of threads in turn.
pub fn run(ops: &[&Op], isas: &[Isa], count: u32, seed: u64) -> Result<ExitCode, Failure> {
    let kept = Hashes::kept()?;
    let bar = progress::bar("checking", "profiles", count as usize);
    let mut compared = 0;
    for (profile, number) in profiles(seed).take(count as usize).zip(0..) {
        profile.install();
        let threads = 1 + number % MOST_THREADS;
        match compare(ops, isas, threads, &kept) {
            Ok(hashes) => compared += hashes,
            Err(reason) => {
                let knobs = profile.iter().map(|(knob, value)| format!("  {knob} = {value}\n"));
                let knobs: String = knobs.collect();
                print(&format!("FAILED {reason}\nunder profile {number}:\n{knobs}"))?;
                return Ok(ExitCode::from(FAILED));
            }
        }
        bar.inc(1);
    }
    drop(bar);
    let [profiles, isas] = [(count as usize, "random profile"), (isas.len(), "instruction set")]
        .map(|(n, of)| counted(n, of));
    print(&format!("{compared} hashes on {isas} under {profiles}: all as kept\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn profiles(seed: u64) -> impl Iterator<Item = Profile> {
    let stream = Stream::new(seed, "profiles");
    let seed = [0, 1, 2, 3].map(|i| stream.bits(i).to_le_bytes()).concat();
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    std::iter::repeat_with(move || {
        any_profile().new_tree(&mut runner).expect("no profile is rejected").current()
    })
}

/// How many hashes are as kept; or the first that is not.
fn compare(ops: &[&Op], isas: &[Isa], threads: usize, kept: &Hashes) -> Result<usize, String> {
    let of_isa = |op: &Op, isa: Isa| {
        let found = hashes(&Gate::OURS, op, isa, threads)?;
        match hash_complaint(op, &kept.changes(op.name, &found)) {
            Some(complaint) => Err(format!("{isa}: {complaint}")),
            None => Ok(found.len()),
        }
    };
    let of_op = |op: &Op| isas.iter().map(|isa| of_isa(op, *isa)).sum::<Result<usize, _>>();
    on_all_cores(ops, of_op).into_iter().sum()
}
