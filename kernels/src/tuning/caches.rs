use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    /// 1 is nearest to the core.
    pub level: u32,
    /// What it holds, as Linux names it: `Data`, `Instruction` or `Unified`.
    pub kind: String,
    /// Its size.
    pub bytes: u64,
    /// Hardware threads that share it.
    pub shared_by: usize,
}

/// The caches of the first core, nearest first; empty if not known.
pub fn caches() -> Vec<Cache> {
    let folder = Path::new("/sys/devices/system/cpu/cpu0/cache");
    let indices = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut caches: Vec<_> = indices.filter_map(|index| cache(&index.path())).collect();
    caches.sort_by(|a, b| (a.level, &a.kind).cmp(&(b.level, &b.kind)));
    caches
}

fn cache(folder: &Path) -> Option<Cache> {
    let read = |name| Some(fs::read_to_string(folder.join(name)).ok()?.trim().to_string());
    Some(Cache {
        level: read("level")?.parse().ok()?,
        kind: read("type")?,
        bytes: size(&read("size")?)?,
        shared_by: read("shared_cpu_list").map_or(1, |list| list_length(&list)),
    })
}

/// Bytes, of a size such as `48K`.
fn size(text: &str) -> Option<u64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = text[..text.len() - unit.len()].parse().ok()?;
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// How many numbers a list such as `0-3,8` holds; at least one.
fn list_length(list: &str) -> usize {
    let length = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        Some(last.checked_sub(first)? + 1)
    };
    list.split(',').filter_map(length).sum::<usize>().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_lists_are_read() {
        assert_eq!(size("48K"), Some(48 << 10));
        assert_eq!(size("32M"), Some(32 << 20));
        assert_eq!(size("7"), Some(7));
        assert_eq!(size("lots"), None);
        assert_eq!(list_length("0"), 1);
        assert_eq!(list_length("0-3,8"), 5);
        assert_eq!(list_length("nonsense"), 1);
    }
}
