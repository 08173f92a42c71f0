//! Numbers and findings in words.

use super::crossing::{Crossing, Pair};
use super::growth::{Growth, Phase};
use super::manifest::PeakOf;

/// A time for people to read.
pub fn time(seconds: f64) -> String {
    match seconds {
        60.0.. => format!("{} min {:.0} s", (seconds / 60.0).floor(), (seconds % 60.0).floor()),
        1.0.. => format!("{seconds:.*} s", if seconds.fract() == 0.0 { 0 } else { 2 }),
        1e-3.. => format!("{} ms", three_digits(seconds * 1e3)),
        1e-6.. => format!("{} µs", three_digits(seconds * 1e6)),
        _ => format!("{} ns", three_digits(seconds * 1e9)),
    }
}

/// A number with as many decimals as make three digits.
pub fn three_digits(number: f64) -> String {
    let decimals = match number.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{number:.decimals$}")
}

/// A number with its sign.
pub fn signed(number: f64, decimals: usize) -> String {
    format!("{number:+.decimals$}").replace('-', "−")
}

/// A rate, such as `43.1 G`, of so many a second.
pub fn rate(per_second: f64) -> String {
    match per_second {
        1e12.. => format!("{} T", three_digits(per_second / 1e12)),
        1e9.. => format!("{} G", three_digits(per_second / 1e9)),
        _ => format!("{} M", three_digits(per_second / 1e6)),
    }
}

/// A number of things, such as `2 threads`.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A number of bytes, such as `1.4 GiB`.
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

/// A length that was found, not chosen: two digits.
pub fn about(length: f64) -> String {
    let unit = 10_f64.powf((length.log10().floor() - 1.0).max(0.0));
    format!("{:.0}", (length / unit).round() * unit)
}

/// What a peak is of.
pub fn peak(of: PeakOf) -> String {
    match of {
        PeakOf::MultiplyAdd => "multiply-adds".to_string(),
        PeakOf::Dot => "products of bytes".to_string(),
        PeakOf::BrainDot => "products of brain floats".to_string(),
        PeakOf::Read { working_set } => format!("reading {}", bytes(working_set)),
    }
}

/// How much of it a second.
pub fn peak_rate(of: PeakOf, per_second: f64) -> String {
    let unit = if of.working_set().is_some() { "B/s" } else { "op/s" };
    format!("{}{unit}", rate(per_second))
}

/// What the lengths of a phase are.
pub fn lengths(phase: Phase) -> &'static str {
    match phase {
        Phase::Prefill => "tokens",
        Phase::Decode => "tokens of context",
    }
}

/// The answer in two sentences.
pub fn answer(growth: &Growth) -> [String; 2] {
    let pair = growth.answer();
    let Pair { length, .. } = pair;
    let ratio = three_digits(pair.ratio());
    let first = match growth.phase {
        Phase::Prefill => {
            format!("At {length} tokens an attention layer costs {ratio} times a conv layer.")
        }
        Phase::Decode => {
            format!(
                "After {length} tokens one more costs an attention layer {ratio} times what it costs a conv layer."
            )
        }
    };
    [first, crossing(growth)]
}

/// Where both cost the same.
pub fn crossing(growth: &Growth) -> String {
    let [first, .., last] = &growth.pairs[..] else {
        return "One length does not tell where they cost the same.".to_string();
    };
    let range = format!("from {} to {} {}", first.length, last.length, lengths(growth.phase));
    match growth.crossing {
        Crossing::At { length, low, high, others } => {
            let others = match others {
                0 => String::new(),
                1 => "; at one shorter length they do, too".to_string(),
                count => format!("; at {count} shorter lengths they do, too"),
            };
            format!(
                "They cost the same at about {} tokens (95 % interval: {} to {}{others}).",
                about(length),
                about(low),
                about(high)
            )
        }
        Crossing::AttentionCostsMore => {
            format!("They never cost the same {range}: attention costs more throughout.")
        }
        Crossing::AttentionCostsLess => {
            format!("They never cost the same {range}: attention costs less throughout.")
        }
        Crossing::Equal => format!("They cost exactly the same {range}."),
        Crossing::Unknown => "One length does not tell where they cost the same.".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let seconds = [125.9, 2.0, 1.234, 0.1234, 12.34e-3, 0.001234, 1e-6, 0.5e-6];
        let expected =
            ["2 min 5 s", "2 s", "1.23 s", "123 ms", "12.3 ms", "1.23 ms", "1.00 µs", "500 ns"];
        assert_eq!(seconds.map(time), expected);
    }

    #[test]
    fn signs_are_signs() {
        assert_eq!(["−1.50", "+2.00"], [-1.5, 2.0].map(|number| signed(number, 2)));
    }

    #[test]
    fn rates_sizes_and_lengths_are_short() {
        assert_eq!([4.31e10, 1.2e12, 5e6].map(rate), ["43.1 G", "1.20 T", "5.00 M"]);
        let sizes = [0, 49152, 1536, 5 << 40].map(bytes);
        assert_eq!(sizes, ["0 B", "48 KiB", "1.5 KiB", "5120 GiB"]);
        assert_eq!([1, 2].map(|count| counted(count, "thread")), ["1 thread", "2 threads"]);
        assert_eq!([523.4, 8.4, 12345.0].map(about), ["520", "8", "12000"]);
    }
}
