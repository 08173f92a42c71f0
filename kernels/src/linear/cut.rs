//! How the rows and outputs of a linear layer become tasks.

use crate::tuning::Knob;

/// How rows are cut into blocks.
#[derive(Clone, Copy, Debug)]
pub struct Tiling {
    /// The height of all tiles but those of a remainder.
    pub rows: usize,
    /// Panels that one row takes at once.
    pub row_panels: usize,
    /// Bytes of a panel.
    pub panel_bytes: usize,
}

impl Tiling {
    /// The same for some matrices that are multiplied together.
    pub fn of_each(self, matrices: usize) -> Self {
        Self { panel_bytes: matrices * self.panel_bytes, ..self }
    }

    /// Where rows are halved; `None` if they are few enough for a block, which shares one pass over the weights.
    pub fn half_of_rows(&self, rows: usize) -> Option<usize> {
        let half = (rows + self.rows) / (2 * self.rows) * self.rows;
        (rows > Knob::BlockRows.get()).then_some(half)
    }
}

/// How the outputs of a linear layer are shared.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Panels of sixteen outputs.
    pub panels: usize,
    /// Bytes of each.
    pub panel_bytes: usize,
    /// Threads to share them.
    pub threads: usize,
}

impl Cut {
    /// How many panels a run of one row has, whole groups of `at_once`, such that threads have as many runs each.
    pub fn panels_of_run(&self, at_once: usize) -> usize {
        let bytes = self.panels * self.panel_bytes;
        let runs = bytes.div_ceil(Knob::RowRunBytes.get()).next_multiple_of(self.threads);
        let most = bytes.div_ceil(Knob::SharedBytes.get());
        self.panels.div_ceil(runs.min(most)).next_multiple_of(at_once)
    }

    /// How many panels a task of many rows takes at most, so that all threads have some tasks.
    pub fn panels_of_task(&self, rows: usize) -> usize {
        if self.threads == 1 {
            return self.panels;
        }
        let blocks = rows.div_ceil(Knob::BlockRows.get());
        let tasks = (self.threads * Knob::TasksPerThread.get()).div_ceil(blocks);
        let least = (Knob::SharedBytes.get() / self.panel_bytes.max(1)).max(1);
        self.panels.div_ceil(tasks).max(least)
    }
}

/// Where so many panels are halved; `None` if they are few enough for a task of at most `most`.
pub fn half_of_panels(panels: usize, most: usize) -> Option<usize> {
    // Whole strips, where there are some.
    (panels > most).then(|| (panels / 2).next_multiple_of(4).min(panels - 1))
}
