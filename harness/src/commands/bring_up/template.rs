//! The file of a new instruction set.

use lfm2_kernels::simd::{ISA_NAMES, TEMPLATE};

use crate::commands::Failure;

/// What the template has for x86-64, and what takes its place on Arm.
const OF_ARM: [[&str; 2]; 2] = [
    ["is_x86_feature_detected!(\"sse2\")", "std::arch::is_aarch64_feature_detected!(\"neon\")"],
    ["#[target_feature(enable = \"sse2\")]", "#[target_feature(enable = \"neon\")]"],
];

/// The file of an instruction set of that name, for the architecture that this runs on.
pub fn template(name: &str) -> Result<String, Failure> {
    let is_letter = |c: char| c.is_ascii_lowercase();
    let is_name = name.starts_with(is_letter)
        && name.chars().all(|c| is_letter(c) || c.is_ascii_digit() || c == '_');
    if !is_name {
        return Err(format!(
            "{name:?} is no name for a new instruction set: expected lower-case letters, digits and _, such as sve2"
        )
        .into());
    }
    if ISA_NAMES.contains(&name) {
        return Err(format!("there is an instruction set {name}: expected a new name").into());
    }
    let text = if cfg!(target_arch = "aarch64") { of_arm(TEMPLATE) } else { TEMPLATE.into() };
    Ok(text.replace("Template", &type_name(name)).replace("template", name))
}

fn of_arm(template: &str) -> String {
    OF_ARM.iter().fold(template.to_string(), |text, [x86, arm]| text.replace(x86, arm))
}

/// `sse4_1` as `Sse41`.
fn type_name(name: &str) -> String {
    let capital = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    name.split('_').filter(|word| !word.is_empty()).map(capital).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_take_the_place_of_the_templates() {
        let text = template("sse4_3").expect("a new name");
        assert!(text.contains("pub struct Sse43(());") && text.contains("--isa sse4_3"), "{text}");
        assert!(!text.to_lowercase().contains("template"), "{text}");
        for name in ["", "Sse", "4x", "avx2-nodot", "a/b"] {
            assert!(template(name).unwrap_err().to_string().contains("expected lower-case"));
        }
        assert!(template("avx2").unwrap_err().to_string().contains("there is"));
    }

    #[test]
    fn what_differs_on_arm_is_in_the_template() {
        for [x86, _] in OF_ARM {
            assert_eq!(TEMPLATE.matches(x86).count(), 1, "{x86}");
        }
        let text = of_arm(TEMPLATE);
        assert!(!text.contains("x86") && !text.contains("sse") && text.contains("aarch64"));
    }
}
