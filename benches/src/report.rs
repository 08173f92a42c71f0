use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lfm2_harness::machine::Machine;
use serde::Serialize;

use crate::{Extent, Measurement, Session};

/// Of the files in `target/lfm2-bench`; it grows when a reader of the old form could misread the new one.
pub const SCHEMA_VERSION: u32 = 1;

/// What a bench writes to `target/lfm2-bench`.
#[derive(Serialize)]
pub struct Report<'a, T> {
    schema_version: u32,
    bench: &'static str,
    machine: Machine,
    extent: Extent,
    is_filtered: bool,
    threads: usize,
    /// How long the bench took.
    seconds: f64,
    /// The share of the processors that other programs had meanwhile, if known.
    others: Option<f64>,
    measurements: &'a [Measurement],
    /// What the bench makes of the measurements.
    summary: T,
}

impl<'a, T: Serialize> Report<'a, T> {
    /// Of the bench in the file `bench`.
    pub fn new(
        bench: &'static str,
        session: &Session,
        measurements: &'a [Measurement],
        summary: T,
    ) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            bench,
            machine: Machine::detect(),
            extent: session.options.extent(),
            is_filtered: session.options.is_filtered(),
            threads: rayon::current_num_threads(),
            seconds: session.elapsed().as_secs_f64(),
            others: session.others(),
            measurements,
            summary,
        }
    }

    /// Writes the file, and says where it is and how far to trust it.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn write(&self) {
        let folder = target().join("lfm2-bench");
        let path = folder.join(self.bench).with_extension("json");
        let written: io::Result<()> = fs::create_dir_all(&folder).and_then(|()| {
            let json = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
            fs::write(&path, json + "\n")
        });
        match written {
            Ok(()) => println!("\n{} written in {}", path.display(), time(self.seconds.ceil())),
            Err(error) => panic!("{}: {error}", path.display()),
        }
        if let Some(others) = self.others.filter(|others| *others > 0.1) {
            println!(
                "other programs had {:.0} % of the processors: do not trust these times",
                100.0 * others
            );
        }
    }
}

/// Cargo's target directory, which cargo tags, as this program lies somewhere below it.
fn target() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    let tagged = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    tagged.unwrap_or(Path::new("target")).to_path_buf()
}

/// A time for people to read.
pub fn time(seconds: f64) -> String {
    match seconds {
        60.0.. => format!("{} min {:.0} s", (seconds / 60.0).floor(), (seconds % 60.0).floor()),
        1.0.. => format!("{seconds:.*} s", if seconds.fract() == 0.0 { 0 } else { 2 }),
        1e-3.. => format!("{:.*} ms", decimals(seconds * 1e3), seconds * 1e3),
        _ => format!("{:.*} us", decimals(seconds * 1e6), seconds * 1e6),
    }
}

/// As many as make three digits.
fn decimals(number: f64) -> usize {
    match number {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let text = [125.9, 2.0, 1.234, 0.1234, 12.34e-3, 0.001234, 0.5e-6].map(time);
        assert_eq!(text, ["2 min 5 s", "2 s", "1.23 s", "123 ms", "12.3 ms", "1.23 ms", "0.50 us"]);
    }
}
