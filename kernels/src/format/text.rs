use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::model::Error;

/// Most characters of a JSON parser's message that are kept: it quotes what it found, however long that is.
const LONGEST_REASON: usize = 300;

/// Opens a file, and nothing else: a pipe would wait for its writer, a device might never end.
pub(super) fn open(path: &Path) -> Result<File, Error> {
    let error = |source| Error::File { path: path.to_path_buf(), source };
    if !fs::metadata(path).map_err(error)?.is_file() {
        let reason = "not a regular file".into();
        return Err(Error::Format { path: path.to_path_buf(), reason });
    }
    File::open(path).map_err(error)
}

/// Reads a text of up to `most` bytes.
pub(crate) fn read_text(path: &Path, most: u64) -> Result<String, Error> {
    let format = |reason| Error::Format { path: path.to_path_buf(), reason };
    let error = |source| Error::File { path: path.to_path_buf(), source };
    let file = open(path)?;
    let length = file.metadata().map_err(error)?.len();
    if length > most {
        return Err(format(format!("has {length} bytes: expected at most {most}")));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(most).read_to_end(&mut bytes).map_err(error)?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format(format!("is not UTF-8 at byte {at}"))
    })
}

/// What a JSON parser says, in one line of bounded length that still ends with the place.
pub(crate) fn reason(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.char_indices().nth(LONGEST_REASON) {
        None => message,
        Some((end, _)) => {
            format!("{}... at line {} column {}", &message[..end], error.line(), error.column())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters_and_keeps_the_place() {
        let text = format!("\n\"{}\"", "\u{e4}".repeat(1000));
        let error = serde_json::from_str::<u32>(&text).unwrap_err();
        let reason = reason(&error);
        assert!(reason.starts_with("invalid type: string \"\u{e4}"), "{reason}");
        assert!(reason.ends_with("... at line 2 column 2002"), "{reason}");
        assert!(reason.chars().count() < LONGEST_REASON + 50);
    }
}
