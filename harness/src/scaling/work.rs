use std::iter::Sum;
use std::ops::{Add, Mul, Range};

/// What one thread does without a pause.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Task {
    /// Seconds that it takes if memory gives all at once.
    pub computing: f64,
    /// Bytes that it reads from memory meanwhile.
    pub reading: f64,
}

impl Add for Task {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let computing = self.computing + other.computing;
        Self { computing, reading: self.reading + other.reading }
    }
}

impl Mul<f64> for Task {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        Self { computing: self.computing * times, reading: self.reading * times }
    }
}

impl Sum for Task {
    fn sum<I: Iterator<Item = Self>>(tasks: I) -> Self {
        tasks.fold(Self::default(), Add::add)
    }
}

/// Tasks, and which may run beside which.
#[derive(Clone, Debug)]
pub enum Work {
    /// One.
    Task(Task),
    /// One after the other.
    InOrder(Vec<Work>),
    /// The second may be taken by another thread: `threads::join`.
    Both(Box<[Work; 2]>),
    /// The runs of parts, of which threads that are done take over some: `threads::share_runs`.
    Runs {
        /// One after another.
        runs: Vec<Task>,
        /// Which of them a part has.
        parts: Vec<Range<usize>>,
    },
}

impl Work {
    /// Both of two.
    pub fn both(left: Self, right: Self) -> Self {
        Self::Both(Box::new([left, right]))
    }

    /// Some items: halved where `half` says, for so many, until it does not; what is left is `task`.
    pub fn halved(
        items: Range<usize>,
        half: &impl Fn(usize) -> Option<usize>,
        task: &impl Fn(Range<usize>) -> Self,
    ) -> Self {
        let Some(first) = half(items.len()) else {
            return task(items);
        };
        let middle = items.start + first;
        Self::both(
            Self::halved(items.start..middle, half, task),
            Self::halved(middle..items.end, half, task),
        )
    }

    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        match self {
            Self::Task(_) => 1,
            Self::InOrder(works) => works.iter().map(Self::tasks).sum(),
            Self::Both(works) => works.iter().map(Self::tasks).sum(),
            Self::Runs { runs, .. } => runs.len(),
        }
    }

    /// All of it.
    pub fn total(&self) -> Task {
        match self {
            Self::Task(task) => *task,
            Self::InOrder(works) => works.iter().map(Self::total).sum(),
            Self::Both(works) => works.iter().map(Self::total).sum(),
            Self::Runs { runs, .. } => runs.iter().copied().sum(),
        }
    }
}
