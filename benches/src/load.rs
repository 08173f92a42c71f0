use std::fs;

/// How the processors' time was spent up to a moment, in the system's ticks.
///
/// Known on Linux only.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    all: u64,
    idle: u64,
    own: u64,
}

impl Load {
    /// Up to now.
    pub fn now() -> Option<Self> {
        let (system, process) =
            (fs::read_to_string("/proc/stat"), fs::read_to_string("/proc/self/stat"));
        Self::parse(&system.ok()?, &process.ok()?)
    }

    fn parse(system: &str, process: &str) -> Option<Self> {
        // user, nice, system, idle, waiting for input and output, interrupts (2), taken by the host; then guests, counted already.
        let numbers = |text: &str| -> Vec<u64> {
            text.split_whitespace().filter_map(|number| number.parse().ok()).collect()
        };
        let ticks = numbers(system.lines().next()?.strip_prefix("cpu ")?);
        let all = ticks.get(..8)?.iter().sum();
        // The program's name, in parentheses, may hold anything. Times in user and kernel mode are the 12th and 13th after it.
        let (_, fields) = process.rsplit_once(')')?;
        let time = |at| fields.split_whitespace().nth(at)?.parse::<u64>().ok();
        Some(Self { all, idle: ticks[3] + ticks[4], own: time(11)? + time(12)? })
    }

    /// The share of the processors' time since then that went to other programs, or to other guests of the host.
    pub fn others_since(&self, before: &Self) -> f64 {
        let all = self.all.saturating_sub(before.all);
        let own_or_idle = (self.idle + self.own).saturating_sub(before.idle + before.own);
        all.saturating_sub(own_or_idle) as f64 / all.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_own_nor_idle_is_others() {
        let system = |user| format!("cpu  {user} 0 10 100 0 0 0 5 0 0\ncpu0 1 2 3\n");
        let process = |user| format!("7 (a (b) 1) R 1 7 7 0 -1 0 0 0 0 0 {user} 3 0 0 20 0\n");
        let before = Load::parse(&system(50), &process(20)).unwrap();
        let after = Load::parse(&system(90), &process(50)).unwrap();
        assert_eq!(after.others_since(&before), 0.25);
        assert_eq!(before.others_since(&before), 0.0);
        assert!(Load::parse("", "").is_none());
    }
}
