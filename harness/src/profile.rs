//! Profiles in files: values of the kernels' knobs that were found for a CPU, and what was measured.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use lfm2_kernels::tuning::{Knob, NoKnob, Profile};
use proptest::prelude::{Just, Strategy, prop_oneof};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::machine::Machine;
use crate::tune::Measurements;

/// The version of the files. It grows when a field changes its meaning or goes, or a knob does.
pub const SCHEMA_VERSION: u64 = 2;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileFile {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u64,
    /// The version of the program that wrote it.
    pub program: String,
    /// The commit that it was built from, with `-dirty` after it if there were changes since; `unknown` without a history.
    pub commit: String,
    /// The machine that it was found on.
    pub machine: Machine,
    /// The instruction set that was measured.
    pub isa: String,
    /// The threads that were used.
    pub threads: usize,
    /// Of which model linear layers were measured: a preset, or a path.
    pub shapes: String,
    /// The values that are not the defaults.
    #[serde(serialize_with = "write_knobs", deserialize_with = "read_knobs")]
    pub knobs: Profile,
    /// What was found.
    pub measurements: Measurements,
}

/// Why a profile is refused.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct ProfileError {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("is larger than {MOST_BYTES} bytes: expected a profile that lfm2 tune wrote")]
    TooLong,
    #[error("is no profile: {0}")]
    NoProfile(#[from] serde_json::Error),
    #[error("schema_version = {found}: expected {SCHEMA_VERSION}; lfm2 tune writes such")]
    OtherVersion { found: Value },
}

/// No profile is nearly as long.
const MOST_BYTES: u64 = 1 << 20;

/// What this program was built from.
pub fn commit() -> String {
    let is_dirty = env!("LFM2_IS_DIRTY") == "true";
    env!("LFM2_COMMIT").to_string() + if is_dirty { "-dirty" } else { "" }
}

/// Profiles with a value for every knob: each is drawn evenly from those that it may have, and its least and most come up more often.
pub fn any_profile() -> impl Strategy<Value = Profile> {
    let value = |knob: Knob| {
        let (step, range) = (knob.step(), knob.range());
        let multiples = range.start().div_ceil(step)..=range.end() / step;
        let ends = [*multiples.start(), *multiples.end()];
        prop_oneof![4 => multiples, 1 => Just(ends[0]), 1 => Just(ends[1])]
            .prop_map(move |multiple| (knob, multiple * step))
    };
    Knob::ALL.map(value).to_vec().prop_map(|values| {
        let mut profile = Profile::default();
        for (knob, value) in values {
            profile.set(knob, value).expect("a value that is allowed");
        }
        profile
    })
}

impl ProfileFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is not a profile of this version whose knobs there are and may have those values.
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let read = || {
            let mut text = String::new();
            File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
            if text.len() as u64 > MOST_BYTES {
                return Err(Problem::TooLong);
            }
            Self::parse(&text)
        };
        read().map_err(|problem| ProfileError { path: path.to_path_buf(), problem })
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Version {
            schema_version: Value,
        }
        let Version { schema_version: found } = serde_json::from_str(text)?;
        if found != SCHEMA_VERSION {
            return Err(Problem::OtherVersion { found });
        }
        Ok(serde_json::from_str(text)?)
    }

    /// As a file.
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("a profile is JSON") + "\n"
    }

    /// What to say if it was found for another CPU than that of `machine`.
    pub fn warning(&self, machine: &Machine) -> Option<String> {
        let (own, here) = (cpu(&self.machine), cpu(machine));
        (own != here)
            .then(|| format!("the profile was found for another CPU, {own}; this is {here}"))
    }
}

fn cpu(machine: &Machine) -> String {
    let name = machine.cpu.as_deref().unwrap_or("one without a name");
    format!("{name} ({})", machine.architecture)
}

fn write_knobs<S: Serializer>(profile: &Profile, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(profile.iter().map(|(knob, value)| (knob.name(), value)))
}

fn read_knobs<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Profile, D::Error> {
    struct Knobs;

    impl<'a> Visitor<'a> for Knobs {
        type Value = Profile;

        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            f.write_str("values of knobs")
        }

        fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Profile, A::Error> {
            let mut profile = Profile::default();
            while let Some((name, value)) = map.next_entry::<String, Value>()? {
                let located =
                    |problem: &dyn std::fmt::Display| A::Error::custom(format!("knobs: {problem}"));
                let knob: Knob = name.parse().map_err(|error: NoKnob| located(&error))?;
                if profile.iter().any(|(other, _)| other == knob) {
                    return Err(located(&format!("{knob} is there twice: expected it once")));
                }
                let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
                let number = number.ok_or_else(|| {
                    located(&format!("{knob} = {value}: expected {}", knob.allowed()))
                })?;
                profile.set(knob, number).map_err(|error| located(&error))?;
            }
            Ok(profile)
        }
    }

    deserializer.deserialize_map(Knobs)
}

/// Which profile a user asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The one in the user's folder of configurations, if it is there and for this CPU.
    #[default]
    Users,
    /// That file.
    File(PathBuf),
    /// None: the defaults.
    Defaults,
}

impl FromStr for Choice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "none" { Self::Defaults } else { Self::File(text.into()) })
    }
}

/// The profile that applies.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The file, unless the defaults apply.
    pub file: Option<PathBuf>,
    /// Its values.
    pub profile: Profile,
    /// What the user should know.
    pub warning: Option<String>,
}

/// Where a user keeps a profile, if the system says where configurations are.
pub fn users_file() -> Option<PathBuf> {
    Some(dirs::config_dir()?.join("lfm2").join("profile.json"))
}

impl Choice {
    /// The profile that applies on `machine`, which is asked for if there is one.
    ///
    /// # Errors
    ///
    /// If its file [cannot be used](ProfileFile::read).
    pub fn on(&self, machine: impl FnOnce() -> Machine) -> Result<Applied, ProfileError> {
        let users = users_file().filter(|path| fs::exists(path).unwrap_or(true));
        let path = match (self, users) {
            (Self::File(path), _) => path.clone(),
            (Self::Users, Some(path)) => path,
            _ => return Ok(Applied::default()),
        };
        let file = ProfileFile::read(&path)?;
        let warning =
            file.warning(&machine()).map(|warning| format!("{}: {warning}", path.display()));
        if *self == Self::Users && warning.is_some() {
            // Nobody asked for it, and a folder may be shared by machines.
            let warning = warning.map(|warning| warning + ": it is not used");
            return Ok(Applied { warning, ..Applied::default() });
        }
        Ok(Applied { file: Some(path), profile: file.knobs, warning })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::{KnobFinding, Start, Verdict};

    fn file() -> ProfileFile {
        let mut knobs = Profile::default();
        knobs.set(Knob::BlockRows, 96).unwrap();
        knobs.set(Knob::PrefetchLevel, 2).unwrap();
        let finding = KnobFinding {
            knob: Knob::BlockRows.name().to_string(),
            default: 144,
            tuned: 96,
            verdict: Verdict::Faster,
            ratio: None,
            rounds: [16, 40],
            stopped_early: vec![48],
            slower: None,
        };
        ProfileFile {
            schema_version: SCHEMA_VERSION,
            program: "0.1.0".into(),
            commit: commit(),
            machine: Machine::detect(),
            isa: "scalar".into(),
            threads: 2,
            shapes: "350m".into(),
            knobs,
            measurements: Measurements {
                from: Start::UnknownCpu,
                knobs: vec![finding],
                cases: Vec::new(),
            },
        }
    }

    /// The file's JSON after a change.
    fn changed(change: impl FnOnce(&mut Value)) -> String {
        let mut json = serde_json::to_value(file()).unwrap();
        change(&mut json);
        json.to_string()
    }

    #[test]
    fn files_are_read_as_they_were_written() {
        assert_eq!(ProfileFile::parse(&file().text()).unwrap(), file());
    }

    #[test]
    fn what_is_no_profile_is_refused_with_what_is_wrong() {
        let knob = |name: &str, value: Value| changed(|json| json["knobs"][name] = value);
        let twice =
            file().text().replace("\"block_rows\": 96", "\"block_rows\": 96, \"block_rows\": 48");
        let allowed = "expected a whole number from 24 to 144, a multiple of 12";
        let refused: [(String, &[&str]); 11] = [
            (String::new(), &["is no profile: EOF"]),
            (file().text()[..100].to_string(), &["is no profile", "line"]),
            ("[2]".into(), &["is no profile"]),
            ("{}".into(), &["missing field `schema_version`"]),
            (
                changed(|json| json["schema_version"] = 1.into()),
                &["schema_version = 1: expected 2"],
            ),
            (changed(|json| json["colour"] = 2.into()), &["unknown field `colour`", "`knobs`"]),
            (knob("block_row", 96.into()), &["there is no knob \"block_row\"", "block_rows, "]),
            (knob("block_rows", 97.into()), &["knobs: block_rows = 97", allowed]),
            (knob("block_rows", 156.into()), &["knobs: block_rows = 156", allowed]),
            (knob("block_rows", "96".into()), &["knobs: block_rows = \"96\"", allowed]),
            (twice, &["knobs: block_rows is there twice"]),
        ];
        for (text, expected) in refused {
            let message = ProfileFile::parse(&text).unwrap_err().to_string();
            for expected in expected {
                assert!(message.contains(expected), "`{expected}` is not in: {message}");
            }
        }
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.json");
        let message = || ProfileFile::read(&path).unwrap_err().to_string();
        assert!(message().starts_with(&format!("{}: cannot be read", path.display())));
        fs::write(&path, " ".repeat(MOST_BYTES as usize + 1)).unwrap();
        assert!(message().contains("p.json: is larger than"));
    }

    #[test]
    fn another_cpu_is_named_beside_this_one() {
        let (file, machine) = (file(), Machine::detect());
        assert_eq!(file.warning(&machine), None);
        let other = Machine { cpu: Some("Another CPU 9".into()), ..machine.clone() };
        let warning = file.warning(&other).unwrap();
        assert!(warning.contains("Another CPU 9") && warning.contains(&cpu(&machine)), "{warning}");
    }

    #[test]
    fn a_file_that_is_asked_for_applies_on_another_cpu_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.json");
        fs::write(&path, file().text()).unwrap();
        let other = Machine { cpu: Some("Another CPU 9".into()), ..Machine::detect() };
        let applied = Choice::File(path.clone()).on(|| other).unwrap();
        assert_eq!((applied.file, applied.profile), (Some(path), file().knobs));
        assert!(applied.warning.is_some());
        let applied =
            Choice::Defaults.on(|| unreachable!("no profile is another machine's")).unwrap();
        assert_eq!((applied.file, applied.profile), (None, Profile::default()));
    }
}
