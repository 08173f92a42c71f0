//! What a command writes: text on standard output, and files that are whole or not there.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::NamedTempFile;

use super::Failure;

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

/// A number of things for people, such as `2 threads`.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A number of bytes for people, such as `1.4 GiB`.
pub fn bytes(count: u64) -> String {
    let (mut number, mut units) = (count as f64, ["B", "KiB", "MiB", "GiB"].iter());
    let mut unit = units.next().expect("there are units");
    for larger in units {
        if number < 1024.0 {
            break;
        }
        (number, unit) = (number / 1024.0, larger);
    }
    let decimals = usize::from(number < 100.0 && number.fract() != 0.0);
    format!("{number:.decimals$} {unit}")
}

/// A file being written: under another name until it is whole, so that a run that fails leaves nothing, and what was there
/// before.
///
/// What is not a plain file, such as `/dev/stdout`, is written directly.
pub struct OutputFile {
    path: PathBuf,
    sink: Sink,
}

enum Sink {
    Beside(BufWriter<NamedTempFile>),
    Direct(BufWriter<File>),
}

impl OutputFile {
    /// Starts a file that will be at `path`.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let at = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        // A link is followed: what it points to is replaced, not the link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let found = fs::metadata(&path).ok();
        if found.as_ref().is_some_and(fs::Metadata::is_dir) || path.file_name().is_none() {
            return Err(format!("{}: is a folder: expected a file", path.display()).into());
        }
        if found.is_some_and(|found| !found.is_file()) {
            let file = File::options().write(true).open(&path);
            let file = file.map_err(|error| at(&path, error))?;
            return Ok(Self { path, sink: Sink::Direct(BufWriter::new(file)) });
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".lfm2-").suffix(".part");
        // Like any new file's, less what the umask takes away; the default would be for the owner alone.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder).map_err(|error| match error.kind() {
            ErrorKind::NotFound => format!("{}: no such folder", folder.display()),
            _ => at(folder, error),
        })?;
        Ok(Self { path, sink: Sink::Beside(BufWriter::new(file)) })
    }

    /// The same result; an error names the file.
    fn located<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
        })
    }

    /// Puts the whole file in its place.
    pub fn finish(self) -> Result<(), Failure> {
        let finished = match self.sink {
            Sink::Beside(file) => file
                .into_inner()
                .map_err(io::IntoInnerError::into_error)
                .and_then(|file| file.persist(&self.path).map_err(|error| error.error))
                .map(drop),
            Sink::Direct(mut file) => file.flush(),
        };
        finished.map_err(|error| format!("{}: {error}", self.path.display()).into())
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.sink {
            Sink::Beside(file) => file.write(bytes),
            Sink::Direct(file) => file.write(bytes),
        };
        self.located(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = match &mut self.sink {
            Sink::Beside(file) => file.flush(),
            Sink::Direct(file) => file.flush(),
        };
        self.located(flushed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["a", "bb", ""], ["ccc", "d", "e"]].map(|row| row.map(String::from));
        assert_eq!(table(&rows), "a    bb\nccc  d   e\n");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(49152), "48 KiB");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 40), "5120 GiB");
    }
}
