//! The guards kill: a byte touched beside a slice, or written to an input, ends the process, and what is printed names the case.

mod heap;

use std::env;
use std::process::{ExitCode, Output};

use heap::{with_cache, with_freed_weights, with_packed_weights};
use lfm2_harness::buffer::{Buffer, Input, Place};
use lfm2_harness::cases::{self, Case, Dimension, OPS, Op, Shape};
use lfm2_harness::check::check;
use lfm2_harness::data::Data;
use lfm2_harness::fill::Fill;
use lfm2_harness::gate::Gate;
use lfm2_harness::guarded_heap::Side;
use lfm2_harness::kernels::Kernels;
use lfm2_harness::oracle::expected::Expected;
use lfm2_harness::{emulator, witness};
use lfm2_kernels::Isa;
use libtest_mimic::{Arguments, Failed, Trial};

/// Says what a process that this one starts is to do, instead of all tests.
const ERRAND: &str = "LFM2_ERRAND";

fn main() -> ExitCode {
    heap::give_each_matrix_its_own_memory();
    let errand = env::var(ERRAND).ok();
    if let Some(access) = errand.as_deref().and_then(Access::parse) {
        access.happen();
        return ExitCode::SUCCESS;
    }
    // A crash must name its case.
    if let Some(status) = witness::supervise(101) {
        return status;
    }
    if let Some(name) = errand {
        return run_reader(&name);
    }
    let accesses =
        KINDS.map(|kind| Trial::test(format!("dies::{}", kind.name), move || dies(kind)));
    let mut trials = vec![
        Trial::test("a_crash_names_its_case", a_crash_names_its_case),
        Trial::test("a_crash_names_its_fault", a_crash_names_its_fault),
        Trial::test("cases_run_in_a_guarded_heap", heap::cases_run_in_a_guarded_heap),
    ];
    trials.extend(accesses);
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A way to touch what must not be touched, and its innocent twin.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    /// In a buffer of so many numbers, or in packed weights or a cache of some such length.
    happen: fn(length: usize),
    /// The same access where it is allowed.
    happen_innocently: fn(length: usize),
}

const KINDS: [Kind; 12] = [
    Kind {
        name: "read_after_end",
        happen: |length| _ = input(Place::GuardedEnd, length).read_at(length as isize),
        happen_innocently: |length| {
            _ = input(Place::GuardedEnd, length).read_at(length as isize - 1)
        },
    },
    Kind {
        name: "read_before_start",
        happen: |length| _ = input(Place::GuardedStart, length).read_at(-1),
        happen_innocently: |length| _ = input(Place::GuardedStart, length).read_at(0),
    },
    Kind {
        name: "write_after_end",
        happen: |length| output(Place::GuardedEnd, length).write_at(length as isize, 1.0),
        happen_innocently: |length| {
            output(Place::GuardedEnd, length).write_at(length as isize - 1, 1.0);
        },
    },
    Kind {
        name: "write_before_start",
        happen: |length| output(Place::GuardedStart, length).write_at(-1, 1.0),
        happen_innocently: |length| output(Place::GuardedStart, length).write_at(0, 1.0),
    },
    Kind {
        name: "scribble_on_input_with_guarded_end",
        happen: |length| input(Place::GuardedEnd, length).write_at(0, 1.0),
        happen_innocently: |length| input(Place::GuardedEnd, length).writable().write_at(0, 1.0),
    },
    Kind {
        name: "scribble_on_input_with_guarded_start",
        happen: |length| input(Place::GuardedStart, length).write_at(length as isize - 1, 1.0),
        happen_innocently: |length| {
            input(Place::GuardedStart, length).writable().write_at(length as isize - 1, 1.0);
        },
    },
    Kind {
        name: "read_of_nothing",
        happen: |_| _ = input(Place::GuardedEnd, 0).read_at(0),
        happen_innocently: |_| assert!(input(Place::GuardedEnd, 0).is_empty()),
    },
    Kind {
        name: "read_after_packed_weights",
        happen: |length| with_packed_weights(Side::End, length, |place| heap::read(place.end)),
        happen_innocently: |length| {
            with_packed_weights(Side::End, length, |place| heap::read(place.end - 1));
        },
    },
    Kind {
        name: "read_before_packed_weights",
        happen: |length| {
            with_packed_weights(Side::Start, length, |place| heap::read(place.start - 1));
        },
        happen_innocently: |length| {
            with_packed_weights(Side::Start, length, |place| heap::read(place.start));
        },
    },
    Kind {
        name: "write_after_cache",
        happen: |length| with_cache(Side::End, length, |place| heap::write(place.end)),
        happen_innocently: |length| {
            with_cache(Side::End, length, |place| {
                heap::read(place.end - 1);
                heap::write(place.end - 1);
            });
        },
    },
    Kind {
        name: "write_before_cache",
        happen: |length| with_cache(Side::Start, length, |place| heap::write(place.start - 1)),
        happen_innocently: |length| {
            with_cache(Side::Start, length, |place| {
                heap::read(place.start);
                heap::write(place.start);
            });
        },
    },
    Kind {
        name: "read_of_freed_weights",
        happen: |length| with_freed_weights(length, |place| heap::read(place.start)),
        happen_innocently: |length| {
            with_packed_weights(Side::Start, length, |place| heap::read(place.start));
        },
    },
];

fn data(place: Place) -> Data {
    Data { seed: 1, fill: Fill::Normal, place }
}

fn input(place: Place, length: usize) -> Input {
    data(place).values("x", length)
}

fn output(place: Place, length: usize) -> Buffer {
    data(place).poisoned("out", length)
}

/// One access by a process that exists for nothing else.
struct Access {
    kind: Kind,
    is_innocent: bool,
    length: usize,
}

impl Access {
    /// What [`errand`](Self::errand) gave.
    fn parse(errand: &str) -> Option<Self> {
        let [name, innocence, length] = errand.split(':').collect::<Vec<_>>().try_into().ok()?;
        let kind = *KINDS.iter().find(|kind| kind.name == name)?;
        Some(Self { kind, is_innocent: innocence == "innocent", length: length.parse().ok()? })
    }

    fn errand(&self) -> String {
        let innocence = if self.is_innocent { "innocent" } else { "guilty" };
        format!("{}:{innocence}:{}", self.kind.name, self.length)
    }

    fn happen(&self) {
        match self.is_innocent {
            true => (self.kind.happen_innocently)(self.length),
            false => (self.kind.happen)(self.length),
        }
    }
}

/// What comes of this program on an errand. It may leave a dump, in a directory that nobody keeps.
fn send(errand: &str) -> Result<Output, Failed> {
    let directory = tempfile::tempdir()?;
    let mut command = emulator::command(env::current_exe()?);
    command.env(ERRAND, errand).env_remove(witness::VARIABLE).current_dir(&directory);
    Ok(command.output()?)
}

/// A process that touches what it must not is killed by a signal, and one that does the same within bounds is not.
fn dies(kind: Kind) -> Result<(), Failed> {
    use std::os::unix::process::ExitStatusExt;

    const SIGBUS: [i32; 2] = [7, 10];
    const SIGSEGV: i32 = 11;
    for length in [1, 5, 16, 5000] {
        for is_innocent in [true, false] {
            let errand = Access { kind, is_innocent, length }.errand();
            let status = send(&errand)?.status;
            let is_killed =
                status.signal().is_some_and(|signal| signal == SIGSEGV || SIGBUS.contains(&signal));
            if is_innocent && !status.success() || !is_innocent && !is_killed {
                return Err(format!("{errand}: {status}").into());
            }
        }
    }
    Ok(())
}

/// A crash while the gate is held to a fault names the fault as well.
fn a_crash_names_its_fault() -> Result<(), Failed> {
    for (errand, circumstances) in [("guilty", ""), ("faulty", "with a fault, ")] {
        let printed = String::from_utf8(send(errand)?.stderr)?;
        // The name of the signal stands before it, in parentheses.
        let told = format!("), {circumstances}while it ran\n    lfm2 check --repro 'reader:");
        if !printed.contains(&told) {
            return Err(format!("{errand}: no {told:?} in {printed}").into());
        }
    }
    Ok(())
}

/// An operation that reads the last of its numbers, or beyond.
struct Reader {
    x: Input,
    beyond: isize,
}

impl Case for Reader {
    fn run(&self, _: &Kernels, _: Isa) -> Vec<cases::Output> {
        let last = self.x.read_at(self.x.len() as isize - 1 + self.beyond);
        vec![cases::Output { name: "is_nan", values: (&[f32::from(last.is_nan())][..]).into() }]
    }

    fn expected(&self) -> Vec<Vec<Expected>> {
        Vec::new()
    }
}

/// The errand of a process that checks an operation that reads one number too many, or none.
fn run_reader(name: &str) -> ExitCode {
    fn make(data: Data, beyond: isize) -> Box<dyn Case> {
        Box::new(Reader { x: data.values("x", 3), beyond })
    }
    const LENGTH: &[Dimension] = &[Dimension::any("length")];
    let op = Op {
        name: "reader",
        format: None,
        checks: &[],
        dimensions: LENGTH,
        fit_together: Shape::is_affordable,
        fixed_shapes: || vec![Shape::from([3])],
        drawn_shapes: OPS[0].drawn_shapes,
        make: match name {
            "innocent" => |_, data| make(data, 0),
            _ => |_, data| make(data, 1),
        },
    };
    if name == "faulty" {
        witness::announce_circumstances("with a fault");
    }
    let report = check(&Gate::OURS, &op, &[Isa::best()], 0, 1, &|| ());
    match &report.outcomes[0].failure {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
    }
}

/// A kernel that reads one number too many is killed, and what is printed then says in which case.
fn a_crash_names_its_case() -> Result<(), Failed> {
    let innocent = send("innocent")?;
    let guilty = send("guilty")?;
    let printed = String::from_utf8_lossy(&guilty.stderr);
    let start = format!("lfm2 check --repro 'reader:length=3:{}:", Isa::best());
    let is_named = printed
        .lines()
        .any(|line| line.trim().starts_with(&start) && line.ends_with(":normal:guard=end'"));
    match (innocent.status.code(), guilty.status.code(), is_named) {
        (Some(0), Some(101), true) => Ok(()),
        (innocent, guilty, _) => Err(format!("{innocent:?} {guilty:?} {printed}").into()),
    }
}
