//! Families of CPUs that were measured, and what was found to be fastest there: `docs/tuning-notes.md` has the figures.

use super::Knob;

/// A family of CPUs.
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// As `CPUID` names the maker.
    maker: &'static str,
    /// The first generation, as `CPUID` counts the maker's families.
    since: u32,
    /// Values that are faster there than what follows from the caches alone.
    pub values: &'static [(Knob, usize)],
}

/// The latest generation of a maker first.
const MEASURED: [Family; 3] = [
    // A core brings as many lines into the first level at once as memory answers.
    Family {
        name: "AMD Zen 5",
        maker: "AuthenticAMD",
        since: 0x1A,
        values: &[(Knob::PrefetchLevel, 1)],
    },
    // The same; and Zen 4 widens halves where it multiplies and adds.
    Family {
        name: "AMD Zen",
        maker: "AuthenticAMD",
        since: 0x17,
        values: &[(Knob::PrefetchLevel, 1), (Knob::WidenedHalves, 1)],
    },
    // A core brings more lines into the second level at once than into the first.
    Family { name: "Intel", maker: "GenuineIntel", since: 6, values: &[(Knob::PrefetchLevel, 2)] },
];

/// The family of the CPU that this runs on, if it was measured.
pub fn family() -> Option<&'static Family> {
    let (maker, family) = maker_and_family()?;
    family_of(&maker, family)
}

fn family_of(maker: &[u8], number: u32) -> Option<&'static Family> {
    MEASURED.iter().find(|family| family.maker.as_bytes() == maker && number >= family.since)
}

#[cfg(target_arch = "x86_64")]
fn maker_and_family() -> Option<([u8; 12], u32)> {
    use std::arch::x86_64::__cpuid;
    let (zero, one) = (__cpuid(0), __cpuid(1));
    let maker = [zero.ebx, zero.edx, zero.ecx].map(u32::to_le_bytes);
    let maker = maker.as_flattened().try_into().expect("twelve bytes");
    let (base, extended) = (one.eax >> 8 & 0xF, one.eax >> 20 & 0xFF);
    Some((maker, if base == 0xF { base + extended } else { base }))
}

#[cfg(not(target_arch = "x86_64"))]
fn maker_and_family() -> Option<([u8; 12], u32)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_by_maker_and_generation() {
        let name = |maker: &str, number| family_of(maker.as_bytes(), number).map(|f| f.name);
        assert_eq!(name("AuthenticAMD", 0x19), Some("AMD Zen"));
        assert_eq!(name("AuthenticAMD", 0x1A), Some("AMD Zen 5"));
        assert_eq!(name("AuthenticAMD", 0x15), None);
        assert_eq!(name("GenuineIntel", 6), Some("Intel"));
        assert_eq!(name("CentaurHauls", 7), None);
    }

    #[test]
    fn what_was_measured_is_allowed() {
        for (knob, value) in MEASURED.iter().flat_map(|family| family.values) {
            assert_eq!(knob.check(*value), Ok(()));
        }
    }
}
