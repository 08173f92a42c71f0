//! The gate on a machine that is made of chance: how often it is wrong, how often it sees.

use std::convert::Infallible;
use std::f64::consts::TAU;

use fastrand::Rng;

use super::*;
use crate::check::cases_from_environment;

/// By chance: mean 0, variance 1.
pub fn normal(random: &mut Rng) -> f64 {
    (-2.0 * libm::log(1.0 - random.f64())).sqrt() * libm::cos(TAU * random.f64())
}

/// By how much the values of each case spread, in logarithms.
const SPREADS: [f64; 5] = [0.003, 0.006, 0.01, 0.02, 0.03];

/// A machine with moods.
struct Machine {
    random: Rng,
    /// How slow it is just now, in logarithms.
    mood: f64,
    /// By how much that changes from process to process: always, and by chance.
    drift: f64,
    wander: f64,
    /// By how much processes differ, with all their cases.
    noise: f64,
    /// How often something else runs beside a process, which may make it take three times as long.
    bursts: f64,
}

impl Machine {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let drift = 0.002 * normal(&mut random);
        Self { random, mood: 0.0, drift, wander: 0.002, noise: 0.005, bursts: 0.03 }
    }

    /// What each case of a process takes.
    fn process(&mut self, cases: &[usize], slower: impl Fn(usize) -> f64) -> Vec<f64> {
        let Self { random, .. } = self;
        self.mood += self.drift + self.wander * normal(random);
        let burst = if random.f64() < self.bursts { 1.1 * random.f64() } else { 0.0 };
        let common = self.mood + self.noise * normal(random) + burst;
        let value = |&case: &usize| {
            let log = common + SPREADS[case] * normal(random);
            1e-4 * (1 + case) as f64 * slower(case) * libm::exp(log)
        };
        cases.iter().map(value).collect()
    }

    /// A whole run, where each arm takes so many times as long as the base.
    fn run(&mut self, slower: impl Fn(Arm, usize) -> f64) -> Vec<Finding> {
        let plan = Plan { blocks: [8, 24], seed: self.random.u64(..) };
        let measured = decide(SPREADS.len(), &plan, |_, cases, count| {
            let mut blocks = vec![vec![Block::default(); count]; cases.len()];
            for number in 0..count {
                for (at, arm) in order(&mut self.random).into_iter().enumerate() {
                    let values = self.process(cases, |case| slower(arm, case));
                    for (blocks, seconds) in blocks.iter_mut().zip(values) {
                        blocks[number].record(arm, at >= 3, seconds);
                    }
                }
            }
            Ok::<_, Infallible>(blocks)
        });
        let Ok(findings) = measured;
        findings
    }
}

/// In how many of 100 runs that happens; fewer where the tests are asked for few cases.
fn percent(happens: impl Fn(&mut Machine) -> bool) -> u64 {
    let asked = cases_from_environment().expect("LFM2_CASES is a number");
    let runs = if asked.is_some_and(|cases| cases < 32) { 20 } else { 100 };
    100 * (0..runs).filter(|&seed| happens(&mut Machine::new(seed))).count() as u64 / runs
}

#[test]
fn equal_programs_are_green_and_never_red() {
    let outcome = |machine: &mut Machine| Outcome::of(&machine.run(|_, _| 1.0));
    let red = percent(|machine| outcome(machine) == Outcome::Regression);
    let green = percent(|machine| outcome(machine) == Outcome::NoRegression);
    assert!(red == 0 && green >= 95, "red {red} %, green {green} %");
}

#[test]
fn ten_percent_in_one_case_are_seen_there() {
    for case in 0..SPREADS.len() {
        let slower = |arm, of| if arm == Arm::Head && of == case { 1.1 } else { 1.0 };
        let seen = percent(|machine| {
            let findings = machine.run(slower);
            Outcome::of(&findings) == Outcome::Regression
                && findings[case].verdict == Verdict::Regression
        });
        let never_green =
            percent(|machine| Outcome::of(&machine.run(slower)) != Outcome::NoRegression);
        assert!(seen >= 90 && never_green >= 99, "{case}: {seen} %, {never_green} %");
    }
}

#[test]
fn what_is_faster_is_said_to_be() {
    let slower = |arm, of| if arm == Arm::Head && of == 1 { 0.8 } else { 1.0 };
    let found = percent(|machine| {
        let findings = machine.run(slower);
        findings[1].verdict == Verdict::Faster && Outcome::of(&findings) == Outcome::NoRegression
    });
    assert!(found >= 90, "{found} %");
}

/// Whatever the head does: a machine on which the base is not itself tells nothing.
#[test]
fn a_control_that_disagrees_vetoes() {
    for head in [1.0, 1.3] {
        let slower = |arm, _| match arm {
            Arm::Base => 1.0,
            Arm::Head => head,
            Arm::Control => 1.08,
        };
        let inconclusive =
            percent(|machine| Outcome::of(&machine.run(slower)) == Outcome::Inconclusive);
        assert!(inconclusive >= 99, "head {head}: {inconclusive} %");
    }
}

/// What noise hides may be there.
#[test]
fn a_slow_down_that_noise_hides_is_not_green() {
    let green = percent(|machine| {
        machine.noise = 0.3;
        let slower = |arm, _| if arm == Arm::Head { 1.1 } else { 1.0 };
        Outcome::of(&machine.run(slower)) == Outcome::NoRegression
    });
    assert!(green <= 5, "{green} %");
}

#[test]
fn mirrored_blocks_cancel_drift() {
    let quiet = Machine { wander: 0.0, noise: 0.0, bursts: 0.0, ..Machine::new(1) };
    let findings = Machine { drift: 0.05, ..quiet }.run(|_, _| 1.0);
    // The others spread by themselves.
    for Finding { stage, verdict, .. } in &findings[..3] {
        assert_eq!((*stage, *verdict), (1, Verdict::NoRegression));
    }
}

/// A block of a machine without noise.
fn quiet(head: f64, control: f64) -> Block {
    Block { base: [1.0; 2], head: [head; 2], control: [control; 2] }
}

#[test]
fn thresholds_are_the_floor_and_three_times_the_noise() {
    use Verdict::{ControlDisagrees, Faster, NoRegression, Regression, TooNoisy};
    for (stage, head, control, verdict) in [
        (1, 1.04, 1.0, NoRegression),
        (1, 1.06, 1.0, TooNoisy),
        (1, 1.5, 1.0, TooNoisy),
        (2, 1.049, 1.0, NoRegression),
        (2, 1.051, 1.0, Regression),
        (2, 1.059, 1.02, NoRegression),
        (2, 1.061, 1.02, Regression),
        (2, 1.5, 1.024, Regression),
        (2, 1.5, 1.026, ControlDisagrees),
        (1, 1.0, 0.97, ControlDisagrees),
        (1, 0.96, 1.0, NoRegression),
        (1, 0.94, 1.0, Faster),
        (1, 0.95, 1.02, NoRegression),
    ] {
        let found = Finding::of(stage, vec![quiet(head, control); 6], 1);
        assert_eq!(found.verdict, verdict, "stage {stage}, head {head}, control {control}");
    }
    // What may be 10 % slower, or not: by the head's interval, or by the control's.
    let spread = [0.8, 0.9, 1.0, 1.2, 1.3].repeat(2);
    let heads = spread.iter().map(|&head| quiet(head, 1.0)).collect();
    let controls = spread.iter().map(|&control| quiet(1.0, control)).collect();
    for blocks in [heads, controls] {
        assert_eq!(Finding::of(2, blocks, 1).verdict, TooNoisy);
    }
}

#[test]
fn what_disturbs_one_process_does_not_count() {
    let blocks: Vec<_> = (0..24)
        .map(|number| {
            let mut block = quiet(1.1, 1.0);
            // Of every other block one process, of each arm in turn.
            match number % 6 {
                0 => block.base[0] = 3.0,
                2 => block.head[1] = 4.0,
                4 => block.control[0] = 2.0,
                _ => {}
            }
            block
        })
        .collect();
    let found = Finding::of(2, blocks, 1);
    assert_eq!((found.verdict, found.blocks.len()), (Verdict::Regression, 24));
    assert!(
        (found.ratio.high - 1.1).abs() < 1e-9 && (found.seconds(|b| b.head) - 1.1).abs() < 1e-9
    );
}

#[test]
fn stages_are_asked_for_what_they_need() {
    let plan = Plan { blocks: [6, 8], seed: 1 };
    let mut asked = Vec::new();
    let findings = decide(3, &plan, |stage, cases, blocks| {
        asked.push((stage, cases.to_vec(), blocks));
        // The second looks bad at first; the third is.
        let head = |case: usize| match (case, stage) {
            (1, 1) | (2, _) => 1.2,
            _ => 1.0,
        };
        Ok::<_, Infallible>(
            cases.iter().map(|&case| vec![quiet(head(case), 1.0); blocks]).collect(),
        )
    });
    let Ok(findings) = findings;
    assert_eq!(asked, [(1, vec![0, 1, 2], 6), (2, vec![1, 2], 8)]);
    let found: Vec<_> = findings.iter().map(|finding| (finding.stage, finding.verdict)).collect();
    let expected =
        [(1, Verdict::NoRegression), (2, Verdict::NoRegression), (2, Verdict::Regression)];
    assert_eq!(found, expected);
    assert_eq!(Outcome::of(&findings), Outcome::Regression);
    assert_eq!(Outcome::of(&findings[..2]), Outcome::NoRegression);
    assert_eq!(Outcome::of([]), Outcome::Inconclusive);
}

#[test]
fn an_order_has_every_arm_twice_and_is_its_own_mirror() {
    let mut random = Rng::with_seed(1);
    let orders: Vec<_> = (0..60).map(|_| order(&mut random)).collect();
    for order in &orders {
        assert!(order.iter().eq(order.iter().rev()));
        for arm in [Arm::Base, Arm::Head, Arm::Control] {
            assert_eq!(order.iter().filter(|other| **other == arm).count(), 2);
        }
    }
    for arm in [Arm::Base, Arm::Head, Arm::Control] {
        assert!(orders.iter().any(|order| order[0] == arm));
    }
}
