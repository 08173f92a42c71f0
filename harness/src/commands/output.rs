//! What a command writes: text on standard output, and files that are whole or not there.

use std::io::{self, ErrorKind, Write};

use serde::Serialize;

pub use lfm2_harness::report::text::{bytes, counted};

pub use self::file::{OutputFile, first_signal};
use super::Failure;

mod file;

/// Prints `text`. A reader that has gone, such as `head`, has what it wanted.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("standard output: {error}").into())
        }
        _ => Ok(()),
    }
}

/// The version of the JSON that commands print. It grows when a field changes its meaning or goes, not when one is added.
pub const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a, T> {
    schema_version: u32,
    #[serde(flatten)]
    content: &'a T,
}

/// Prints `content`, a struct or map, as JSON with `schema_version`.
pub fn print_json(content: &impl Serialize) -> Result<(), Failure> {
    let document = Document { schema_version: SCHEMA_VERSION, content };
    print(&(serde_json::to_string_pretty(&document)? + "\n"))
}

/// Rows as text, columns aligned to the left, two spaces between them.
pub fn table<Row: AsRef<[String]>>(rows: &[Row]) -> String {
    let columns = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.as_ref().get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.as_ref().iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["a", "bb", ""], ["ccc", "d", "e"]].map(|row| row.map(String::from));
        assert_eq!(table(&rows), "a    bb\nccc  d   e\n");
    }
}
