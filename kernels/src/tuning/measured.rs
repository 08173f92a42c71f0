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
    /// Whether it must have AVX-512, which tells generations apart that count alike.
    needs_avx512: bool,
    /// Values that are faster there than what follows from the caches alone.
    pub values: &'static [(Knob, usize)],
}

/// The latest generation of a maker first.
const MEASURED: [Family; 4] = [
    // A core brings as many lines into the first level at once as memory answers.
    Family {
        name: "AMD Zen 5",
        maker: "AuthenticAMD",
        since: 0x1A,
        needs_avx512: false,
        values: &[(Knob::PrefetchLevel, 1)],
    },
    // The same; it widens halves where it multiplies and adds, and asks by itself, early enough, for most of what one row reads.
    Family {
        name: "AMD Zen 4",
        maker: "AuthenticAMD",
        since: 0x19,
        needs_avx512: true,
        values: &[
            (Knob::PrefetchLevel, 1),
            (Knob::WidenedHalves, 1),
            (Knob::WideAhead, 0),
            (Knob::NarrowAhead, 0),
            (Knob::BrainAhead, 0),
            (Knob::EightBitAhead, 0),
            (Knob::QuantisedAhead, 2048),
        ],
    },
    Family {
        name: "AMD Zen",
        maker: "AuthenticAMD",
        since: 0x17,
        needs_avx512: false,
        values: &[(Knob::PrefetchLevel, 1)],
    },
    // A core brings more lines into the second level at once than into the first.
    Family {
        name: "Intel",
        maker: "GenuineIntel",
        since: 6,
        needs_avx512: false,
        values: &[(Knob::PrefetchLevel, 2)],
    },
];

/// The family of the CPU that this runs on, if it was measured.
pub fn family() -> Option<&'static Family> {
    family_of(&Identity::of_this_cpu()?)
}

fn family_of(cpu: &Identity) -> Option<&'static Family> {
    MEASURED.iter().find(|family| {
        family.maker.as_bytes() == cpu.maker
            && cpu.number >= family.since
            && cpu.has_avx512 >= family.needs_avx512
    })
}

/// What tells families apart.
struct Identity {
    /// As `CPUID` names it.
    maker: [u8; 12],
    /// As `CPUID` counts the maker's families.
    number: u32,
    has_avx512: bool,
}

impl Identity {
    #[cfg(target_arch = "x86_64")]
    fn of_this_cpu() -> Option<Self> {
        use std::arch::x86_64::__cpuid;
        let (zero, one) = (__cpuid(0), __cpuid(1));
        let maker = [zero.ebx, zero.edx, zero.ecx].map(u32::to_le_bytes);
        let maker = maker.as_flattened().try_into().expect("twelve bytes");
        let (base, extended) = (one.eax >> 8 & 0xF, one.eax >> 20 & 0xFF);
        let number = if base == 0xF { base + extended } else { base };
        Some(Self { maker, number, has_avx512: is_x86_feature_detected!("avx512f") })
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn of_this_cpu() -> Option<Self> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_by_maker_and_generation() {
        let name = |maker: &[u8; 12], number, has_avx512| {
            family_of(&Identity { maker: *maker, number, has_avx512 }).map(|family| family.name)
        };
        assert_eq!(name(b"AuthenticAMD", 0x19, false), Some("AMD Zen"));
        assert_eq!(name(b"AuthenticAMD", 0x19, true), Some("AMD Zen 4"));
        assert_eq!(name(b"AuthenticAMD", 0x1A, true), Some("AMD Zen 5"));
        assert_eq!(name(b"AuthenticAMD", 0x15, false), None);
        assert_eq!(name(b"GenuineIntel", 6, false), Some("Intel"));
        assert_eq!(name(b"GenuineIntel", 6, true), Some("Intel"));
        assert_eq!(name(b"CentaurHauls", 7, false), None);
    }

    #[test]
    fn what_was_measured_is_allowed() {
        for (knob, value) in MEASURED.iter().flat_map(|family| family.values) {
            assert_eq!(knob.check(*value), Ok(()));
        }
    }
}
