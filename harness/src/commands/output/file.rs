//! Files that are whole or not there, however a run ends.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use tempfile::NamedTempFile;

use crate::commands::Failure;

/// Every file that this process began under another name; those that have their own by now stay in the list.
static PARTS: LazyLock<Mutex<Vec<PathBuf>>> = LazyLock::new(|| {
    // Where signals cannot be waited for, a file must be written nevertheless.
    if let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) {
        thread::spawn(move || signals.forever().for_each(end));
    }
    Mutex::default()
});

fn parts() -> MutexGuard<'static, Vec<PathBuf>> {
    PARTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the next signal is to be noticed and not to end the process, and whether one was.
static NOTICES: AtomicBool = AtomicBool::new(false);
static NOTICED: AtomicBool = AtomicBool::new(false);

/// Lets the first signal be noticed, in what is returned, so that what is known by then can be written. The next one ends the process.
pub fn first_signal() -> &'static AtomicBool {
    NOTICES.store(true, Ordering::Relaxed);
    // Signals are waited for from now on.
    drop(parts());
    &NOTICED
}

/// Removes what is not whole, then lets the signal end the process as if nobody had waited for it.
fn end(signal: i32) {
    if NOTICES.swap(false, Ordering::Relaxed) {
        NOTICED.store(true, Ordering::Relaxed);
        return;
    }
    // Held to the end, so that nobody begins another.
    let parts = parts();
    for part in &*parts {
        let _ = fs::remove_file(part);
    }
    let _ = emulate_default_handler(signal);
}

/// A new file in `folder` that goes with the process, unless it gets a name of its own.
fn new_part(folder: &Path) -> io::Result<NamedTempFile> {
    let mut parts = parts();
    let mut builder = tempfile::Builder::new();
    builder.prefix(".lfm2-").suffix(".part");
    // Like any new file's, less what the umask takes away; the default would be for the owner alone.
    builder.permissions(Permissions::from_mode(0o666));
    let file = builder.tempfile_in(folder)?;
    parts.push(file.path().to_path_buf());
    Ok(file)
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
        let file = new_part(folder).map_err(|error| match error.kind() {
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
