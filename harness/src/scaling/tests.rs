use lfm2_kernels::Isa;
use lfm2_kernels::linear::WeightFormat;
use lfm2_kernels::model::Config;

use super::flow::{Flow, speeds};
use super::*;
use crate::workload::Stored;

/// A machine that hands out tasks for nothing, with round numbers.
fn hardware(cores: usize, sockets: usize) -> Hardware {
    Hardware {
        core_bandwidth: 40.0,
        socket_bandwidth: 60.0,
        link_bandwidth: 30.0,
        remote_share: 0.5,
        offer: 0.0,
        take: 0.0,
        look: 0.0,
        ..Hardware::new(cores, sockets)
    }
}

fn computing(seconds: f64) -> Work {
    Work::Task(Task { computing: seconds, reading: 0.0 })
}

fn assert_near(found: f64, expected: f64) {
    let error = (found - expected).abs();
    assert!(error <= 1e-6 * expected.abs(), "{found}, not {expected}");
}

#[track_caller]
fn assert_spent(outcome: Outcome, [computing, memory, handing_out, uneven, alone]: [f64; 5]) {
    let expected = Spent { computing, memory, handing_out, uneven, alone };
    let found = outcome.spent;
    let pairs = [
        (found.computing, computing),
        (found.memory, memory),
        (found.handing_out, handing_out),
        (found.uneven, uneven),
        (found.alone, alone),
    ];
    let is_near = pairs.iter().all(|(found, expected)| (found - expected).abs() <= 1e-6);
    assert!(is_near, "{found:?}, not {expected:?}");
}

/// Calls of a model that is cut as the published ones are.
fn steps(threads: usize, hardware: &Hardware) -> Vec<Step> {
    let config = Config { vocabulary: 4096, ..Config::preset("350m").unwrap() };
    let calls = ["prefill-300", "decode-700", "decode-20x5"].map(|call| call.parse().unwrap());
    let stored = [Stored::plain(WeightFormat::F32), Stored::int8(WeightFormat::Q8_0)];
    let of = |stored| {
        calls.map(|call| step(&config, stored, Isa::best(), call, &hardware.rates, threads))
    };
    stored.map(of).into_iter().flatten().collect()
}

#[test]
fn one_thread_does_all_there_is() {
    let tree = Work::both(
        Work::InOrder(vec![computing(1.0), computing(2.0)]),
        Work::both(computing(3.0), Work::Task(Task { computing: 1.0, reading: 80.0 })),
    );
    // The last one waits for memory: 80 bytes at 40 bytes a second.
    let outcome = play(&hardware(1, 1), 1, &tree);
    assert_near(outcome.seconds, 8.0);
    assert_spent(outcome, [7.0, 1.0, 0.0, 0.0, 0.0]);

    let hardware = Hardware { offer: 0.0, ..Hardware::new(1, 1) };
    for Step(stages) in steps(1, &hardware) {
        for stage in stages {
            let total = stage.work.total();
            let outcome = stage.play(&hardware, 1);
            let least = total.computing.max(total.reading / hardware.core_bandwidth);
            assert_near(outcome.spent.computing, stage.times as f64 * total.computing);
            assert_near(outcome.spent.total(), outcome.seconds);
            assert!(outcome.seconds >= least * (1.0 - 1e-9), "{}", stage.name);
        }
    }
}

/// Nothing is lost or done twice, however it is cut.
#[test]
fn the_work_is_all_that_the_model_does() {
    let config = Config::preset("350m").unwrap();
    let infinite = f64::INFINITY;
    let nothing = Rates {
        linear: [infinite; 3],
        row: infinite,
        few_rows: 1.0,
        attention: infinite,
        elements: infinite,
        prepare: infinite,
        cached: infinite,
        embedded: infinite,
        angles: infinite,
    };
    let f32 = Stored::plain(WeightFormat::F32);
    let total = |call: &str, rates, threads| {
        let call = call.parse().unwrap();
        let Step(stages) = step(&config, f32, Isa::best(), call, &rates, threads);
        stages.iter().map(|stage| stage.work.total() * stage.times as f64).sum::<Task>()
    };
    for threads in [1, 3, 64] {
        // The head has one row, and its rate.
        let head = 2 * config.vocabulary * config.hidden_size;
        let operations = config.operations(0, 700);
        let rates = Rates { linear: [1.0; 3], ..nothing };
        let linear = operations.linear as usize - head;
        assert_near(total("prefill-700", rates, threads).computing, linear as f64);
        let rates = Rates { attention: 1.0, ..nothing };
        assert_near(total("prefill-700", rates, threads).computing, operations.attention as f64);

        let weights = config.operations(0, 1).linear / 2;
        let bytes = |sequences| (4 * (weights as usize + sequences * config.cached(701))) as f64;
        assert_near(total("decode-700", nothing, threads).reading, bytes(1));
        assert_near(total("decode-700x5", nothing, threads).reading, bytes(5));
    }
}

#[test]
fn threads_do_no_more_than_they_and_memory_can() {
    for (threads, placement) in
        [(2, Placement::Local), (7, Placement::One), (32, Placement::Interleaved)]
    {
        let hardware = Hardware { placement, ..Hardware::new(32, 2) };
        let memories = if placement == Placement::One { 1.0 } else { 2.0 };
        for Step(stages) in steps(threads, &hardware) {
            for stage in stages {
                let (total, outcome) = (stage.work.total(), play(&hardware, threads, &stage.work));
                let computing = total.computing / threads as f64;
                let reading = total.reading / (memories * hardware.socket_bandwidth);
                assert!(outcome.seconds >= computing.max(reading) * (1.0 - 1e-9), "{}", stage.name);
                assert_near(outcome.spent.total(), threads as f64 * outcome.seconds);
                assert_near(outcome.spent.computing, total.computing);
            }
        }
    }
}

#[test]
fn uneven_tasks_leave_a_thread_without_work() {
    let work = Work::both(computing(3.0), computing(1.0));
    let outcome = play(&hardware(4, 1), 2, &work);
    assert_near(outcome.seconds, 3.0);
    assert_spent(outcome, [4.0, 0.0, 0.0, 0.0, 2.0]);
    // One of three has nothing all the time: a second beside two that work, two beside one.
    let outcome = play(&hardware(4, 1), 3, &work);
    assert_spent(outcome, [4.0, 0.0, 0.0, 1.0, 4.0]);
}

/// Thread 0 offers for 0.1 s, then works from 0.1 to 2.1. Thread 1 takes for 0.25 s (0.2 and 0.025 for each thread), offers until 0.35, works
/// until 1.35, goes on with what it offered until 2.35; the other one has nothing from 2.1 on.
#[test]
fn a_schedule_by_hand() {
    let hardware = Hardware { offer: 0.1, take: 0.2, look: 0.025, ..hardware(2, 1) };
    let work = Work::both(computing(2.0), Work::both(computing(1.0), computing(1.0)));
    let outcome = play(&hardware, 2, &work);
    assert_near(outcome.seconds, 2.35);
    assert_spent(outcome, [4.0, 0.0, 0.45, 0.0, 0.25]);
}

/// Thread 0 offers until 0.25 and works on its first two runs until 7.25. Thread 1 ends its four runs at 4, takes one of the two that are left
/// until 4.25, is done with it at 5.25, and with the other one, which it takes until 5.5, at 6.5.
#[test]
fn a_thread_that_is_done_takes_over_half() {
    let runs = [6.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
    let runs = runs.map(|computing| Task { computing, reading: 0.0 }).into();
    let hardware = Hardware { offer: 0.25, ..hardware(2, 1) };
    let outcome = play(&hardware, 2, &Work::Runs { runs, parts: vec![0..4, 4..8] });
    assert_near(outcome.seconds, 7.25);
    assert_spent(outcome, [13.0, 0.0, 0.75, 0.0, 0.75]);
}

#[test]
fn memory_is_shared_by_those_that_wait_for_it() {
    let flow =
        |socket, fastest, sources: [f64; 2]| Flow { socket, fastest, sources: sources.into() };
    let of = |flows: &[Flow]| speeds(&hardware(8, 2), flows);
    let near = |found: Vec<f64>, expected: &[f64]| {
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).for_each(|(found, expected)| assert_near(*found, *expected));
    };
    let far = f64::INFINITY;
    // Alone, a core's own limit; from the other socket, half of that.
    near(of(&[flow(0, far, [1.0, 0.0])]), &[40.0]);
    near(of(&[flow(1, far, [1.0, 0.0])]), &[20.0]);
    near(of(&[flow(1, far, [1.0, 1.0])]), &[1.0 / (1.0 / 20.0 + 1.0 / 40.0)]);
    // Together, the socket's 60; who wants less gets it, and leaves more to the others.
    near(of(&[flow(0, far, [1.0, 0.0]), flow(0, far, [2.0, 0.0])]), &[30.0, 15.0]);
    let small = flow(0, 10.0, [1.0, 0.0]);
    near(of(&[small, flow(0, far, [1.0, 0.0]), flow(0, far, [1.0, 0.0])]), &[10.0, 25.0, 25.0]);
    // Three of the other socket have 30 together, where the way to them ends.
    let remote = || flow(1, far, [1.0, 0.0]);
    near(of(&[remote(), remote(), remote()]), &[10.0, 10.0, 10.0]);
    // What needs no memory is as fast as it can be.
    near(of(&[flow(0, 5.0, [0.0, 0.0]), flow(0, far, [1.0, 0.0])]), &[5.0, 40.0]);
}

#[test]
fn pages_on_one_socket_keep_the_other_waiting() {
    let step = |placement| {
        let hardware = Hardware { placement, ..Hardware::new(64, 2) };
        steps(64, &hardware)[1].play(&hardware, 64).seconds
    };
    let [one, interleaved, local] =
        [Placement::One, Placement::Interleaved, Placement::Local].map(step);
    assert!(one > 1.1 * interleaved && interleaved > 1.1 * local, "{one} {interleaved} {local}");
}

#[test]
fn calls_are_read_as_the_bench_writes_them() {
    for name in ["prefill-512", "decode-4096", "decode-0", "decode-128x16"] {
        assert_eq!(name.parse::<Call>().unwrap().to_string(), name);
    }
    for name in ["", "prefill", "prefill-0", "decode-1x0", "decode--1", "decode-9999999", "x-1"] {
        let error = name.parse::<Call>().unwrap_err().to_string();
        assert!(error.contains("decode-128x16"), "{error}");
    }
}
