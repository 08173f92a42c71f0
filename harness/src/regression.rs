//! Whether one program is slower than another, on a machine whose speed changes by itself.
//!
//! # What is compared
//!
//! **One process gives one value** of each case: samples within a process share its memory layout and its moment, so to pair them would be
//! to count one observation many times. A [`Block`] is six processes that mirror each other in time, such as `A C B B C A`: `A` the base, `B` the
//! head, and `C` the base again, as the control. Speed that drifts in a straight line cancels out. Who comes first is drawn anew for each block.
//!
//! **Only calm blocks count.** Something else that runs beside a process shows in the twin that it spoils: a block is as disturbed as the two
//! values of that arm differ of which they differ most. The calmer half of a case's blocks counts, but at least [`LEAST_BLOCKS`]. The choice
//! treats all arms alike, and so favours none. A program that is slow in some of its processes only is therefore not found.
//!
//! A block gives one paired ratio, `sqrt(b1 b2 / (a1 a2))`. Of `n` blocks, the estimate is the **geometric mean** of their ratios, which
//! treats twice as slow and twice as fast alike, with a 95 % [bootstrap interval](Estimate::of) over blocks. The ratio of the control to the
//! base is estimated in the same way from the same blocks. Its truth is 1.
//!
//! # What is decided
//!
//! The *noise* of a case is how far its control's estimate is from 1 by its value and its standard error: `sqrt(mean² + error²)`, in logarithms.
//! The *threshold* is the larger of [`FLOOR`] and three times the noise.
//!
//! - **Stage one** passes what is shown to be less than [`FLOOR`] slower, by its whole interval, beside a control that is shown to be as
//!   near to 1. It calls nothing slower.
//! - **Stage two** measures the others again, in more blocks, and forgets what stage one found: a case is there because it looked bad, so its
//!   first values are biased. It is a regression if the lower limit of its interval is above the threshold. It is none if the upper
//!   limit is less than [`WORTH_SEEING`] above 1, and the control's interval as near. What is neither is too noisy to be judged, and not green.
//! - A control whose whole interval is more than [`CONTROL`] from 1 says that this run measures something else than the programs: of the
//!   **whole run** nothing follows.
//!
//! # Sources
//!
//! Process-level blocks, two stages and a control that vetoes are from the gate of the project chematic (its issues 70 and 73), whose
//! issue 114 tells of a first stage that could never fail; the tests here therefore plant slow-downs. The threshold of three times a series' own noise
//! is that of the project tract. The bootstrap is B. Efron's; T. Hesterberg, *What Teachers Should Know About the Bootstrap* (The American
//! Statistician 69, 2015) says by how much it is too narrow for few blocks.

use serde::Serialize;

mod estimate;
#[cfg(test)]
pub(crate) mod simulation;

pub use estimate::Estimate;

/// By how much a program must be slower, at least, to be called so.
pub const FLOOR: f64 = 0.05;

/// How many times its own noise a case must be slower.
const TIMES_NOISE: f64 = 3.0;

/// A slow-down that must not go unseen: what may be slower by this is not green.
pub const WORTH_SEEING: f64 = 0.10;

/// By how much a program may differ from itself.
pub const CONTROL: f64 = 0.025;

/// The fewest blocks of which an interval says something.
pub const LEAST_BLOCKS: usize = 6;

/// Who runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// The program that is compared with.
    Base,
    /// The program that may be slower.
    Head,
    /// The base, once more.
    Control,
}

impl Arm {
    /// Whether it is the program that may be slower.
    pub fn is_head(self) -> bool {
        self == Self::Head
    }
}

/// The order of a block's six processes: three in an order of chance, then the same backwards.
pub fn order(random: &mut fastrand::Rng) -> [Arm; 6] {
    let mut first = [Arm::Base, Arm::Head, Arm::Control];
    random.shuffle(&mut first);
    let [a, b, c] = first;
    [a, b, c, c, b, a]
}

/// What the processes of a block found for one case, in seconds: of each arm the first and the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Block {
    /// Of the base.
    pub base: [f64; 2],
    /// Of the head.
    pub head: [f64; 2],
    /// Of the base as the control.
    pub control: [f64; 2],
}

impl Block {
    /// Puts down what an arm's process found: its first, or its second.
    pub fn record(&mut self, arm: Arm, is_second: bool, seconds: f64) {
        let values = match arm {
            Arm::Base => &mut self.base,
            Arm::Head => &mut self.head,
            Arm::Control => &mut self.control,
        };
        values[usize::from(is_second)] = seconds;
    }

    /// By how much twins differ, in logarithms.
    fn disturbance(&self) -> f64 {
        let differences = [self.base, self.head, self.control].map(difference_of_twins);
        differences.into_iter().fold(0.0, f64::max)
    }

    /// The logarithm of the paired ratio of what `arm` took to what the base took.
    fn log_ratio(&self, arm: [f64; 2]) -> f64 {
        log_of_twins(arm) - log_of_twins(self.base)
    }
}

/// By how much two times differ that should be equal, in logarithms.
pub(crate) fn difference_of_twins([first, second]: [f64; 2]) -> f64 {
    (first / second).ln().abs()
}

/// The logarithm of the geometric mean of two times.
pub(crate) fn log_of_twins([first, second]: [f64; 2]) -> f64 {
    f64::midpoint(first.ln(), second.ln())
}

/// How much is measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Plan {
    /// Blocks of stage one, and of stage two.
    pub blocks: [usize; 2],
    /// Of the order of processes and of the bootstrap.
    pub seed: u64,
}

/// What is found of a case.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The stage that decided: 1 or 2.
    pub stage: usize,
    /// How many times as long the head takes.
    pub ratio: Estimate,
    /// How many times as long the base takes as itself.
    pub control: Estimate,
    /// How far the control is from 1, as a share.
    pub noise: f64,
    /// By what share the head must be slower.
    pub threshold: f64,
    /// What follows.
    pub verdict: Verdict,
    /// What was measured in that stage, of which the calmer blocks count.
    pub blocks: Vec<Block>,
}

/// What follows for a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The head is not slower by anything worth seeing.
    NoRegression,
    /// The head is faster, by more than the threshold.
    Faster,
    /// The head is slower, by more than the threshold.
    Regression,
    /// The head may be slower by what must be seen, or not.
    TooNoisy,
    /// The base differs from itself.
    ControlDisagrees,
}

/// What follows for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// No case is slower.
    NoRegression,
    /// A case is slower.
    Regression,
    /// Nothing is known.
    Inconclusive,
}

impl Finding {
    fn of(stage: usize, blocks: Vec<Block>, seed: u64) -> Self {
        let calm = calm(&blocks);
        let estimate = |arm: fn(&Block) -> [f64; 2]| {
            let logs: Vec<_> = calm.iter().map(|block| block.log_ratio(arm(block))).collect();
            Estimate::of(&logs, seed)
        };
        let (ratio, control) = (estimate(|block| block.head), estimate(|block| block.control));
        let noise = control.distance_from_one();
        let threshold = FLOOR.max(TIMES_NOISE * noise);
        let most = 1.0 + if stage == 1 { FLOOR } else { WORTH_SEEING };
        let control_agrees = control.low > 1.0 / most && control.high < most;
        let verdict = if control.low > 1.0 + CONTROL || control.high < 1.0 / (1.0 + CONTROL) {
            Verdict::ControlDisagrees
        } else if stage > 1 && ratio.low > 1.0 + threshold {
            Verdict::Regression
        } else if ratio.high < 1.0 / (1.0 + threshold) {
            Verdict::Faster
        } else if control_agrees && ratio.high < most {
            Verdict::NoRegression
        } else {
            Verdict::TooNoisy
        };
        Self { stage, ratio, control, noise, threshold, verdict, blocks }
    }

    /// The geometric mean of what an arm took in calm blocks.
    pub fn seconds(&self, arm: fn(&Block) -> [f64; 2]) -> f64 {
        let logs: Vec<_> = calm(&self.blocks).iter().flat_map(arm).map(f64::ln).collect();
        (logs.iter().sum::<f64>() / logs.len() as f64).exp()
    }

    fn is_settled(&self) -> bool {
        matches!(self.verdict, Verdict::NoRegression | Verdict::Faster)
    }
}

/// Those that count.
fn calm(blocks: &[Block]) -> Vec<Block> {
    calmer(blocks, Block::disturbance)
}

/// The half that is disturbed least, but at least [`LEAST_BLOCKS`].
pub(crate) fn calmer<B: Clone>(blocks: &[B], disturbance: impl Fn(&B) -> f64) -> Vec<B> {
    let mut calm = blocks.to_vec();
    calm.sort_by(|a, b| disturbance(a).total_cmp(&disturbance(b)));
    calm.truncate(LEAST_BLOCKS.max(blocks.len().div_ceil(2)));
    calm
}

impl Outcome {
    /// Of all cases. Nothing follows from none.
    pub fn of<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Self {
        let verdicts: Vec<_> = findings.into_iter().map(|finding| finding.verdict).collect();
        if verdicts.is_empty() || verdicts.contains(&Verdict::ControlDisagrees) {
            Self::Inconclusive
        } else if verdicts.contains(&Verdict::Regression) {
            Self::Regression
        } else if verdicts.contains(&Verdict::TooNoisy) {
            Self::Inconclusive
        } else {
            Self::NoRegression
        }
    }
}

/// Goes through both stages. `measure(stage, cases, blocks)` gives so many new blocks of each of the cases with those numbers.
///
/// # Errors
///
/// What `measure` fails with.
pub fn decide<E>(
    cases: usize,
    plan: &Plan,
    mut measure: impl FnMut(usize, &[usize], usize) -> Result<Vec<Vec<Block>>, E>,
) -> Result<Vec<Finding>, E> {
    let mut stage = |stage: usize, cases: &[usize]| -> Result<Vec<Finding>, E> {
        let blocks = measure(stage, cases, plan.blocks[stage - 1])?;
        Ok(blocks.into_iter().map(|blocks| Finding::of(stage, blocks, plan.seed)).collect())
    };
    let mut findings = stage(1, &(0..cases).collect::<Vec<_>>())?;
    let again: Vec<_> = (0..cases).filter(|&case| !findings[case].is_settled()).collect();
    if !again.is_empty() {
        for (case, finding) in again.iter().zip(stage(2, &again)?) {
            findings[*case] = finding;
        }
    }
    Ok(findings)
}
