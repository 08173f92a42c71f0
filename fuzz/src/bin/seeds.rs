//! Fills `corpus/` from the fixtures and with the files of the small model.

use std::error::Error;
use std::fs;
use std::path::Path;

use lfm2_fuzz::{good_ggufs, model};

/// Longer files make slow seeds: of those the header alone is kept.
const LONGEST: usize = 20_000;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = root.join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)
    };
    let mut found = 0;
    for folder in ["models", "ops", "blocks", "gguf"] {
        let folder = root.join("../fixtures").join(folder);
        // Models are folders of files.
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let files = match path.is_dir() {
                true => fs::read_dir(&path)?
                    .map(|file| Ok(file?.path()))
                    .collect::<Result<_, std::io::Error>>()?,
                false => vec![path],
            };
            for path in files {
                let relative = path.strip_prefix(root.join("../fixtures"))?;
                let name = relative.display().to_string().replace('/', "-");
                let bytes = fs::read(&path)?;
                if name.ends_with("-config.json") {
                    write("config", &name, &bytes)?;
                } else if name.ends_with(".index.json") {
                    write("index", &name, &bytes)?;
                } else if name.ends_with(".safetensors") {
                    let header = 8 + u64::from_le_bytes(bytes[..8].try_into()?) as usize;
                    let kept = if bytes.len() <= LONGEST { bytes.len() } else { header };
                    write("checkpoint", &name, &bytes[..kept])?;
                } else if name.ends_with(".gguf") {
                    write("gguf", &name, &bytes[..bytes.len().min(LONGEST)])?;
                } else {
                    continue;
                }
                found += 1;
            }
        }
    }
    let weights = model::weights();
    for (i, config) in model::config_jsons().iter().enumerate() {
        write("config", &format!("small-{i}"), config.to_string().as_bytes())?;
    }
    write("checkpoint", "small", &model::files(&weights, 1)[0])?;
    write("index", "small", model::index_json(&weights).to_string().as_bytes())?;
    let ggufs = good_ggufs();
    for (i, file) in ggufs.iter().enumerate() {
        write("gguf", &format!("small-{i}"), &file.bytes())?;
    }
    println!("{found} seeds from the fixtures, {} of the small models", 5 + ggufs.len());
    Ok(())
}
