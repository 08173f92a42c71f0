use std::collections::VecDeque;
use std::ops::{Add, Mul, Range};

use lfm2_kernels::threads::{runs_kept, runs_taken};
use serde::Serialize;

use super::flow::{Flow, speeds};
use super::{Hardware, Task, Work};

/// What became of some work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// From its beginning to its end.
    pub seconds: f64,
    /// Where the time of all threads went.
    pub spent: Spent,
}

/// Seconds, added up over threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spent {
    /// Computing.
    pub computing: f64,
    /// In tasks that memory kept from being faster: what they took longer.
    pub memory: f64,
    /// Offering and taking tasks, and without one while others do.
    pub handing_out: f64,
    /// Without a task while several other threads have one.
    pub uneven: f64,
    /// Without a task while one other thread has the only one.
    pub alone: f64,
}

impl Spent {
    /// All of it.
    pub fn total(&self) -> f64 {
        let Self { computing, memory, handing_out, uneven, alone } = self;
        computing + memory + handing_out + uneven + alone
    }
}

impl Add for Outcome {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let (a, b) = (self.spent, other.spent);
        let spent = Spent {
            computing: a.computing + b.computing,
            memory: a.memory + b.memory,
            handing_out: a.handing_out + b.handing_out,
            uneven: a.uneven + b.uneven,
            alone: a.alone + b.alone,
        };
        Self { seconds: self.seconds + other.seconds, spent }
    }
}

impl Mul<f64> for Outcome {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        let Spent { computing, memory, handing_out, uneven, alone } = self.spent;
        let spent = Spent {
            computing: computing * times,
            memory: memory * times,
            handing_out: handing_out * times,
            uneven: uneven * times,
            alone: alone * times,
        };
        Self { seconds: self.seconds * times, spent }
    }
}

/// Lets `threads` threads do `work`, which the first one has.
///
/// As in rayon's pools, a thread that is done goes on with what it offered last, else takes what another offered first. Who ends the second half
/// of something goes on with what follows.
///
/// # Panics
///
/// If there is no thread, or there are more than cores.
pub fn play(hardware: &Hardware, threads: usize, work: &Work) -> Outcome {
    assert!((1..=hardware.cores).contains(&threads), "play: {threads} threads");
    let mut game = Game {
        hardware,
        nodes: Vec::new(),
        queues: Vec::new(),
        threads: (0..threads).map(|_| Thread::default()).collect(),
        has_ended: false,
    };
    let root = game.add(work, None);
    game.begin(0, root);
    let mut outcome = Outcome::default();
    while !game.has_ended {
        outcome = outcome + game.advance();
    }
    outcome
}

struct Game<'a> {
    hardware: &'a Hardware,
    nodes: Vec<Node>,
    queues: Vec<Queue>,
    threads: Vec<Thread>,
    has_ended: bool,
}

struct Node {
    parent: Option<usize>,
    kind: Kind,
}

enum Kind {
    Task(Task),
    InOrder { rest: VecDeque<usize> },
    Both { works: [usize; 2], left: usize },
    Part { queue: usize, own: usize },
}

/// The runs of parts.
struct Queue {
    runs: Vec<Task>,
    parts: Vec<Range<usize>>,
}

impl Queue {
    /// The next runs of a part, as many as are taken at once.
    fn take_some(&mut self, of: usize) -> Option<Task> {
        let part = self.parts.get_mut(of)?;
        let taken = runs_taken(part.len());
        part.take(taken).map(|run| self.runs[run]).reduce(Add::add)
    }
}

#[derive(Default)]
struct Thread {
    doing: Option<Doing>,
    /// What others may take, oldest first.
    offered: VecDeque<usize>,
}

struct Doing {
    task: Task,
    /// What is left of it, of 1.
    left: f64,
    is_task: bool,
    then: Then,
}

#[derive(Clone, Copy)]
enum Then {
    Begin(usize),
    /// Runs of a part, and then the next ones.
    Runs(Task, usize),
    End(usize),
}

impl Game<'_> {
    fn add(&mut self, work: &Work, parent: Option<usize>) -> usize {
        let id = self.nodes.len();
        self.nodes.push(Node { parent, kind: Kind::Task(Task::default()) });
        let kind = match work {
            Work::Task(task) => Kind::Task(*task),
            Work::InOrder(works) => {
                Kind::InOrder { rest: works.iter().map(|work| self.add(work, Some(id))).collect() }
            }
            Work::Both(works) => {
                Kind::Both { works: works.each_ref().map(|work| self.add(work, Some(id))), left: 2 }
            }
            Work::Runs { runs, parts } => {
                let queue = self.queues.len();
                self.queues.push(Queue { runs: runs.clone(), parts: parts.clone() });
                self.add_parts(id, queue, 0..parts.len())
            }
        };
        self.nodes[id].kind = kind;
        id
    }

    /// Parts that are halved until they are one: `Parts::begin`.
    fn add_parts(&mut self, id: usize, queue: usize, parts: Range<usize>) -> Kind {
        if parts.len() <= 1 {
            return Kind::Part { queue, own: parts.start };
        }
        let middle = parts.start.midpoint(parts.end);
        let works = [parts.start..middle, middle..parts.end].map(|parts| {
            let half = self.nodes.len();
            self.nodes.push(Node { parent: Some(id), kind: Kind::Task(Task::default()) });
            self.nodes[half].kind = self.add_parts(half, queue, parts);
            half
        });
        Kind::Both { works, left: 2 }
    }

    fn begin(&mut self, thread: usize, id: usize) {
        match &mut self.nodes[id].kind {
            Kind::Task(task) => {
                let task = *task;
                self.run(thread, task, Then::End(id));
            }
            Kind::InOrder { rest } => match rest.pop_front() {
                Some(first) => self.begin(thread, first),
                None => self.end(thread, id),
            },
            &mut Kind::Both { works: [left, right], .. } => {
                self.pause(thread, self.hardware.offer, Then::Begin(left));
                self.threads[thread].offered.push_back(right);
                self.call(thread);
            }
            &mut Kind::Part { queue, own } => self.next_runs(thread, id, queue, own),
        }
    }

    /// The next runs of its own part, or of what it takes over of another's.
    fn next_runs(&mut self, thread: usize, id: usize, queue: usize, own: usize) {
        if let Some(task) = self.queues[queue].take_some(own) {
            return self.run(thread, task, Then::Begin(id));
        }
        let Queue { parts, .. } = &mut self.queues[queue];
        let others = (own + 1..parts.len()).chain(0..own.min(parts.len()));
        let Some(other) = others.into_iter().find(|&other| !parts[other].is_empty()) else {
            return self.end(thread, id);
        };
        let kept = parts[other].start + runs_kept(parts[other].len());
        parts[own] = kept..parts[other].end;
        parts[other].end = kept;
        // The first of them are begun at once: nobody else may take them over meanwhile.
        let first = self.queues[queue].take_some(own).expect("what was taken over");
        self.pause(thread, self.hardware.offer, Then::Runs(first, id));
    }

    fn end(&mut self, thread: usize, id: usize) {
        let Some(parent) = self.nodes[id].parent else {
            self.has_ended = true;
            return;
        };
        match &mut self.nodes[parent].kind {
            Kind::InOrder { .. } => self.begin(thread, parent),
            Kind::Both { left, .. } => {
                *left -= 1;
                if *left == 0 { self.end(thread, parent) } else { self.seek(thread) }
            }
            Kind::Task(_) | Kind::Part { .. } => unreachable!("they have no parts"),
        }
    }

    /// What it offered last, else what another thread offered first.
    fn seek(&mut self, thread: usize) {
        if let Some(id) = self.threads[thread].offered.pop_back() {
            return self.begin(thread, id);
        }
        let others = (thread + 1..self.threads.len()).chain(0..thread);
        let found = others.into_iter().find_map(|other| self.threads[other].offered.pop_front());
        if let Some(id) = found {
            self.take(thread, id);
        }
    }

    /// A thread without work takes what `thread` has offered.
    fn call(&mut self, thread: usize) {
        let mut others = (thread + 1..self.threads.len()).chain(0..thread);
        let Some(other) = others.find(|&other| self.threads[other].doing.is_none()) else {
            return;
        };
        if let Some(id) = self.threads[thread].offered.pop_front() {
            self.take(other, id);
        }
    }

    fn take(&mut self, thread: usize, id: usize) {
        let Hardware { take, look, .. } = self.hardware;
        self.pause(thread, take + look * self.threads.len() as f64, Then::Begin(id));
    }

    fn run(&mut self, thread: usize, task: Task, then: Then) {
        self.threads[thread].doing = Some(Doing { task, left: 1.0, is_task: true, then });
    }

    fn pause(&mut self, thread: usize, seconds: f64, then: Then) {
        let task = Task { computing: seconds, reading: 0.0 };
        self.threads[thread].doing = Some(Doing { task, left: 1.0, is_task: false, then });
    }

    /// Until something ends.
    fn advance(&mut self) -> Outcome {
        /// What no time is taken for.
        const INSTANT: f64 = 1e-15;
        let busy: Vec<_> =
            (0..self.threads.len()).filter(|&i| self.threads[i].doing.is_some()).collect();
        let doing = |i: usize| self.threads[i].doing.as_ref().expect("busy threads do something");
        let flow = |&i: &usize| Flow {
            socket: self.hardware.socket(i),
            fastest: 1.0 / doing(i).task.computing.max(INSTANT),
            sources: self.hardware.sources(i, doing(i).task.reading),
        };
        let flows: Vec<_> = busy.iter().map(flow).collect();
        let speeds = speeds(self.hardware, &flows);
        let ends = |(&i, speed): (&usize, &f64)| doing(i).left / speed;
        let seconds = busy.iter().zip(&speeds).map(ends).fold(f64::INFINITY, f64::min);

        let mut spent = Spent::default();
        for (&i, speed) in busy.iter().zip(&speeds) {
            let Doing { task, is_task, .. } = doing(i);
            let computing = seconds * speed * task.computing;
            if *is_task {
                spent.computing += computing;
                spent.memory += seconds - computing;
            } else {
                spent.handing_out += seconds;
            }
        }
        let idle = seconds * (self.threads.len() - busy.len()) as f64;
        match busy.len() {
            _ if busy.iter().any(|&i| !doing(i).is_task) => spent.handing_out += idle,
            1 => spent.alone += idle,
            _ => spent.uneven += idle,
        }
        let mut ended = Vec::new();
        for (&i, speed) in busy.iter().zip(&speeds) {
            let doing = self.threads[i].doing.as_mut().expect("busy threads do something");
            doing.left -= seconds * speed;
            // What ends at the same time ends together.
            if doing.left <= 1e-9 {
                ended.push((i, doing.then));
            }
        }
        for (i, then) in ended {
            // Not before, or another could give it a task.
            self.threads[i].doing = None;
            match then {
                Then::Begin(id) => self.begin(i, id),
                Then::Runs(task, id) => self.run(i, task, Then::Begin(id)),
                Then::End(id) => self.end(i, id),
            }
        }
        Outcome { seconds, spent }
    }
}
