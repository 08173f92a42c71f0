//! No heap allocation per decoded token after the first: on every instruction set, for one sequence and for three in a call, with a cache
//! of singles and of halves, on one thread and on two.

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::{Barrier, LazyLock};

use lfm2_harness::random_model::{RandomModel, VOCABULARY};
use lfm2_kernels::Isa;
use lfm2_kernels::linear::WeightFormat;
use lfm2_kernels::model::{Config, Description, Logits, Model, Scratch, Sequence, State};
use lfm2_kernels::ops::{CacheElement, ShiftAxis, argmax};
use libtest_mimic::{Arguments, Failed, Trial};
use rayon::{ThreadPool, ThreadPoolBuilder};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Tokens before the first decoded one: the decoded ones reach another block and another segment of attention.
const PROMPT: usize = 508;

/// Decoded tokens after the first.
const TOKENS: usize = 8;

/// The counter counts what all threads of the process do, so there must be no others: the standard test harness has one that
/// allocates now and then.
fn main() -> ExitCode {
    let _profiler = dhat::Profiler::builder().testing().build();
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let mut trials = vec![Trial::test("allocation::is_seen", is_seen)];
    let models = [
        (Description::Lfm2, WeightFormat::F32),
        (Description::Lfm2, WeightFormat::Bf16),
        (Description::Lfm2, WeightFormat::F16),
        (Description::Issue22287 { shift_axis: ShiftAxis::Time }, WeightFormat::F32),
        (Description::Issue22287 { shift_axis: ShiftAxis::Feature }, WeightFormat::F32),
    ];
    for (description, element) in models {
        let kind = match description {
            Description::Lfm2 => "lfm2".to_string(),
            Description::Issue22287 { shift_axis } => {
                format!("issue_22287_{shift_axis:?}").to_lowercase()
            }
        };
        let name = format!("allocation::{kind}_{}", element.name());
        let small = RandomModel { format: element, ..RandomModel::small(description) };
        trials.push(Trial::test(name, move || decode_in_every_way(small)));
    }
    let experts = || decode_in_every_way(RandomModel::small_with_experts());
    trials.push(Trial::test("allocation::lfm2_experts_f32", experts));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// How many blocks of memory `work` asks for.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = dhat::HeapStats::get().total_blocks;
    work();
    dhat::HeapStats::get().total_blocks - before
}

/// The counter is not blind, in this thread and in another.
fn is_seen() -> Result<(), Failed> {
    let [_, pool] = &*POOLS;
    let allocate = || drop(black_box(vec![0_u8; 9]));
    let here = allocations(allocate);
    let there = pool.install(|| allocations(|| _ = rayon::join(allocate, allocate)));
    let nothing = allocations(|| _ = black_box(0));
    match (here, there, nothing) {
        (1, 2, 0) => Ok(()),
        counts => Err(format!("allocations seen: {counts:?}").into()),
    }
}

/// Pools of one and of two threads, made once: a thread that ends allocates. Each thread has taken work from the other, because rayon
/// sets a thread's memory up when it first does.
static POOLS: LazyLock<[ThreadPool; 2]> = LazyLock::new(|| {
    let pool = |threads| ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    let pools = [pool(1), pool(2)];
    let barrier = Barrier::new(2);
    let meet = || _ = barrier.wait();
    pools[1].broadcast(|_| rayon::join(meet, meet));
    pools
});

fn decode_in_every_way(small: RandomModel) -> Result<(), Failed> {
    // Wide enough that threads share the work.
    let config = Config { hidden_size: 128, feed_forward_width: 512, ..small.config };
    let model = RandomModel { config, ..small }.model();
    for cache in [CacheElement::F32, CacheElement::F16] {
        let mut state = model.new_state(PROMPT + TOKENS + 1, cache);
        let prompt = [5; PROMPT];
        let mut logits = [0.0; VOCABULARY];
        let sequence = Sequence { tokens: &prompt, state: &mut state };
        let mut scratch = Scratch::default();
        model.forward(Isa::best(), &mut [sequence], &mut scratch, Logits::Last(&mut logits))?;
        for pool in &*POOLS {
            let threads = pool.current_num_threads();
            for isa in Isa::available() {
                for sequences in [1, 3] {
                    let states = vec![state.clone(); sequences];
                    pool.install(|| decode(&model, isa, states)).map_err(|reason| {
                        format!("{isa}, {threads} threads, {cache:?} cache, {sequences} sequences: {reason}")
                    })?;
                }
            }
        }
    }
    Ok(())
}

fn decode(model: &Model, isa: Isa, mut states: Vec<State>) -> Result<(), String> {
    let mut scratch = Scratch::default();
    let mut logits = vec![0.0; states.len() * VOCABULARY];
    let mut tokens = [1, 2, 3];
    let mut step = |states: &mut [State], scratch: &mut Scratch| {
        match states {
            [state] => {
                let mut call = [Sequence { tokens: &tokens[..1], state }];
                model.forward(isa, &mut call, scratch, Logits::Last(&mut logits))
            }
            [first, second, third] => {
                let mut call = [
                    Sequence { tokens: &tokens[..1], state: first },
                    Sequence { tokens: &tokens[1..2], state: second },
                    Sequence { tokens: &tokens[2..], state: third },
                ];
                model.forward(isa, &mut call, scratch, Logits::Last(&mut logits))
            }
            _ => unreachable!("one sequence or three"),
        }
        .expect("a valid call");
        for (token, logits) in tokens.iter_mut().zip(logits.chunks_exact(VOCABULARY)) {
            *token = argmax(isa, logits) as u32;
        }
    };
    step(&mut states, &mut scratch);
    let held = (scratch.bytes(), states[0].bytes());
    for token in 1..=TOKENS {
        let count = allocations(|| step(&mut states, &mut scratch));
        if count > 0 {
            return Err(format!("{count} allocations for decoded token {token}"));
        }
    }
    match (scratch.bytes(), states[0].bytes()) {
        now if now == held => Ok(()),
        now => Err(format!("scratch and state grew from {held:?} to {now:?} bytes")),
    }
}
