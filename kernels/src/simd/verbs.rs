//! The verbs of an instruction set one at a time, on arrays: so that each can be held against that of plain Rust before any operation is.

use half::{bf16, f16};

use super::{
    BrainDots, Dots, Isa, LANES, Lanes, Simd, Words, WordsOf, dispatch, dispatch_brain_dots,
    dispatch_dots, slices,
};

/// What a verb is given; it takes as much of it as it says.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    /// Floats.
    pub lanes: [[f32; LANES]; 3],
    /// Integers or bytes.
    pub words: [[i32; LANES]; 3],
    /// By how many bits to shift, fewer than 32, or how many lanes to read or write, if more then all.
    pub count: usize,
}

/// Which operands a verb takes, and what they may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// So many lanes, any numbers; each result depends on one lane of each.
    Lanes(usize),
    /// All lanes of the first together, any numbers.
    AllLanes,
    /// So many words, any integers; each result depends on one word of each.
    Words(usize),
    /// A factor from 0.5 to 2, and an integer from -160 to 160.
    Scaled,
    /// Lanes that hold integers from -128 to 127.
    Integers,
    /// A sum, bytes that are unsigned weights, and bytes that are activations of at least -127.
    Bytes,
    /// As bytes: the first words are the activations of two rows, the others weights.
    Groups,
    /// A sum that is a multiple of 2^-124, and pairs of brain floats that are 0 or at least 2^-55.
    BrainFloats,
}

/// What a verb returns.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Floats.
    Lanes(Vec<f32>),
    /// Integers.
    Words(Vec<i32>),
}

/// A verb.
pub struct Verb {
    /// The trait and the method.
    pub name: &'static str,
    /// Its operands.
    pub takes: Takes,
    /// Does it.
    pub run: fn(Isa, &Operands) -> Found,
}

impl Verb {
    /// Whether the instruction set has it on this CPU.
    pub fn exists_on(&self, isa: Isa) -> bool {
        self.takes != Takes::BrainFloats || isa.has_brain_dots()
    }
}

macro_rules! verbs {
    ($($dispatch:ident $name:literal, $takes:expr, |$token:ident, $operands:ident| $body:expr;)*) => {
        /// Every verb: first those that all others are looked at with.
        pub const VERBS: &[Verb] = &[$(
            Verb {
                name: $name,
                takes: $takes,
                run: |isa, $operands| $dispatch!(isa, $token => $body).into(),
            }
        ),*];
    };
}

verbs! {
    dispatch "Lanes::store", Takes::Lanes(1), |simd, x| simd.load(&x.lanes[0]).to_array();
    dispatch "Simd::splat", Takes::AllLanes, |simd, x| simd.splat(x.lanes[0][0]).to_array();
    dispatch "Simd::load_partial", Takes::Lanes(1), |simd, x| {
        simd.load_partial(&x.lanes[0][..lanes(x)], 3.0).to_array()
    };
    dispatch "Lanes::store_partial", Takes::Lanes(1), |simd, x| {
        let mut to = [3.0; LANES];
        simd.load(&x.lanes[0]).store_partial(&mut to[..lanes(x)]);
        to
    };
    dispatch "Words::store", Takes::Words(1), |simd, x| array(simd.load_words(&bytes(&x.words[0])));
    dispatch "Simd::splat_words", Takes::Words(1), |simd, x| {
        let mut words = x.words[0];
        for word in &mut words {
            *word = array(simd.splat_words(*word))[LANES - 1];
        }
        words
    };

    dispatch "Lanes::add", Takes::Lanes(2), |simd, x| {
        (simd.load(&x.lanes[0]) + simd.load(&x.lanes[1])).to_array()
    };
    dispatch "Lanes::sub", Takes::Lanes(2), |simd, x| {
        (simd.load(&x.lanes[0]) - simd.load(&x.lanes[1])).to_array()
    };
    dispatch "Lanes::mul", Takes::Lanes(2), |simd, x| {
        (simd.load(&x.lanes[0]) * simd.load(&x.lanes[1])).to_array()
    };
    dispatch "Lanes::div", Takes::Lanes(2), |simd, x| {
        (simd.load(&x.lanes[0]) / simd.load(&x.lanes[1])).to_array()
    };
    dispatch "Lanes::mul_add", Takes::Lanes(3), |simd, x| {
        simd.load(&x.lanes[0]).mul_add(simd.load(&x.lanes[1]), simd.load(&x.lanes[2])).to_array()
    };
    dispatch "Lanes::mul_add_in_order", Takes::Lanes(3), |simd, x| {
        let (factor, term) = (simd.load(&x.lanes[1]), simd.load(&x.lanes[2]));
        simd.load(&x.lanes[0]).mul_add_in_order(factor, term).to_array()
    };
    dispatch "Simd::add_multiples", Takes::Lanes(3), |simd, x| {
        let (factor, sum) = (simd.load(&x.lanes[1]), simd.load(&x.lanes[2]));
        simd.add_multiples(&x.lanes[0], [factor; 3], [sum; 3])[x.count % 3].to_array()
    };
    dispatch "Lanes::max", Takes::Lanes(2), |simd, x| {
        simd.load(&x.lanes[0]).max(simd.load(&x.lanes[1])).to_array()
    };
    dispatch "Lanes::min", Takes::Lanes(2), |simd, x| {
        simd.load(&x.lanes[0]).min(simd.load(&x.lanes[1])).to_array()
    };
    dispatch "Lanes::abs", Takes::Lanes(1), |simd, x| simd.load(&x.lanes[0]).abs().to_array();
    dispatch "Lanes::select_negative", Takes::Lanes(3), |simd, x| {
        simd.load(&x.lanes[0])
            .select_negative(simd.load(&x.lanes[1]), simd.load(&x.lanes[2]))
            .to_array()
    };
    dispatch "Lanes::scale_by_power", Takes::Scaled, |simd, x| {
        simd.load(&x.lanes[0]).scale_by_power(simd.load(&x.lanes[1])).to_array()
    };
    dispatch "Lanes::lowest_bits_as_exponent", Takes::Lanes(1), |simd, x| {
        simd.load(&x.lanes[0]).lowest_bits_as_exponent().to_array()
    };
    dispatch "Lanes::sum", Takes::AllLanes, |simd, x| simd.load(&x.lanes[0]).sum();
    dispatch "Lanes::largest", Takes::AllLanes, |simd, x| simd.load(&x.lanes[0]).largest();
    dispatch "Lanes::store_integers", Takes::Integers, |simd, x| {
        let mut to = [0; LANES];
        simd.load(&x.lanes[0]).store_integers(&mut to);
        to
    };

    dispatch "Words::and", Takes::Words(2), |simd, x| {
        array(simd.load_words(&bytes(&x.words[0])).and(simd.load_words(&bytes(&x.words[1]))))
    };
    dispatch "Words::or", Takes::Words(2), |simd, x| {
        array(simd.load_words(&bytes(&x.words[0])).or(simd.load_words(&bytes(&x.words[1]))))
    };
    dispatch "Words::shift_left", Takes::Words(1), |simd, x| {
        array(simd.load_words(&bytes(&x.words[0])).shift_left(x.count as u32))
    };
    dispatch "Words::shift_right", Takes::Words(1), |simd, x| {
        array(simd.load_words(&bytes(&x.words[0])).shift_right(x.count as u32))
    };
    dispatch "Words::shift_right_signed", Takes::Words(1), |simd, x| {
        array(simd.load_words(&bytes(&x.words[0])).shift_right_signed(x.count as u32))
    };
    dispatch "Words::to_lanes", Takes::Words(1), |simd, x| {
        simd.load_words(&bytes(&x.words[0])).to_lanes().to_array()
    };

    dispatch "Simd::load_f16", Takes::Words(1), |simd, x| simd.load_f16(&halves(x)).to_array();
    dispatch "Simd::load_bf16_pairs", Takes::Words(1), |simd, x| {
        let [upper, lower] = simd.load_bf16_pairs(&pairs(&x.words[0]));
        [upper.to_array(), lower.to_array()]
    };

    dispatch_dots "Dots::dot_small", Takes::Bytes, |dots, x| dot_small(dots, x);
    dispatch_dots "Dots::dot_biased", Takes::Bytes, |dots, x| dot_biased(dots, x);
    dispatch_dots "Dots::dot_apart", Takes::Bytes, |dots, x| dot_apart(dots, x);
    dispatch_dots "Dots::dots of 4 bits", Takes::Groups, |dots, x| groups::<_, 4>(dots, x);
    dispatch_dots "Dots::dots of 5 bits", Takes::Groups, |dots, x| groups::<_, 5>(dots, x);
    dispatch_dots "Dots::dots of 6 bits", Takes::Groups, |dots, x| groups::<_, 6>(dots, x);
    dispatch_dots "Dots::dots of 8 bits", Takes::Groups, |dots, x| groups::<_, 8>(dots, x);

    dispatch_brain_dots "BrainDots::load_pairs", Takes::BrainFloats, |dots, x| {
        array(dots.load_pairs(&pairs(&x.words[1])))
    };
    dispatch_brain_dots "BrainDots::add_products", Takes::BrainFloats, |dots, x| {
        add_products(dots, x)
    };
}

/// How many lanes to read or write.
fn lanes(operands: &Operands) -> usize {
    operands.count.min(LANES)
}

fn bytes(words: &[i32; LANES]) -> [u8; 4 * LANES] {
    let mut bytes = [0; 4 * LANES];
    for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    bytes
}

#[inline(always)]
fn array<W: Words>(words: W) -> [i32; LANES] {
    let mut bytes = [0; 4 * LANES];
    words.store(&mut bytes);
    let mut array = [0; LANES];
    for i in 0..LANES {
        array[i] = i32::from_le_bytes(bytes.as_chunks().0[i]);
    }
    array
}

/// The lower half of each of the first words.
fn halves(operands: &Operands) -> [f16; LANES] {
    operands.words[0].map(|word| f16::from_bits(word as u16))
}

fn pairs(words: &[i32; LANES]) -> [[bf16; 2]; LANES] {
    words.map(|word| [word, word >> 16].map(|half| bf16::from_bits(half as u16)))
}

#[inline(always)]
fn words_of<D: Dots>(dots: D, operands: &Operands) -> [WordsOf<D>; 3] {
    let simd = dots.simd();
    let [sums, weights, activations] = &operands.words;
    [
        simd.load_words(&bytes(sums)),
        simd.load_words(&bytes(weights)),
        simd.load_words(&bytes(activations)),
    ]
}

#[inline(always)]
fn dot_small<D: Dots>(dots: D, operands: &Operands) -> [i32; LANES] {
    let [sums, weights, activations] = words_of(dots, operands);
    let small = weights.and(dots.simd().splat_words(0x3F3F_3F3F));
    array(dots.dot_small(sums, small, activations))
}

#[inline(always)]
fn dot_biased<D: Dots>(dots: D, operands: &Operands) -> [i32; LANES] {
    let [_, weights, activations] = words_of(dots, operands);
    array(dots.dot_biased(biased_sums(dots, operands), weights, activations))
}

#[inline(always)]
fn dot_apart<D: Dots>(dots: D, operands: &Operands) -> [i32; LANES] {
    let [_, weights, activations] = words_of(dots, operands);
    let (weights, sums) = dots.take_apart(biased_sums(dots, operands), weights);
    array(dots.dot_apart(sums, weights, activations))
}

#[inline(always)]
fn biased_sums<D: Dots>(dots: D, operands: &Operands) -> WordsOf<D> {
    let mut sums = operands.words[0];
    for i in 0..LANES {
        sums[i] += dots.biased_start(sum_of_bytes(operands.words[2][i]));
    }
    dots.simd().load_words(&bytes(&sums))
}

#[inline(always)]
fn add_products<D: BrainDots>(dots: D, operands: &Operands) -> [f32; LANES] {
    let weights = dots.load_pairs(&pairs(&operands.words[1]));
    let activations = dots.load_pairs(&pairs(&operands.words[2]));
    dots.add_products(dots.simd().load(&operands.lanes[0]), weights, activations).to_array()
}

fn sum_of_bytes(word: i32) -> i32 {
    word.to_le_bytes().map(|byte| i32::from(byte.cast_signed())).iter().sum()
}

/// Eight groups of two panels and of two rows, as in a run of 32 inputs.
#[inline(always)]
fn groups<D: Dots, const BITS: u32>(dots: D, operands: &Operands) -> [[i32; LANES]; 4] {
    const GROUPS: usize = LANES / 2;
    let simd = dots.simd();
    let [activations, weights @ ..] = &operands.words;
    let (rows, _) = activations.as_chunks::<GROUPS>();
    let small = simd.splat_words(if BITS == 8 { -1 } else { 0x0101_0101 * ((1 << BITS) - 1) });
    let panels = [
        simd.load_words(&bytes(&weights[0])).and(small),
        simd.load_words(&bytes(&weights[1])).and(small),
    ];
    let mut sums = [[simd.splat_words(0); 2]; 2];
    for r in 0..2 {
        if BITS == 8 {
            let total = rows[r].iter().map(|word| sum_of_bytes(*word)).sum();
            sums[r] = [simd.splat_words(dots.biased_start(total)); 2];
        }
    }
    dots.dots::<BITS, GROUPS, 2, 2>(
        // Each panel meets each group in both places.
        slices::inlined!(|n, g| panels[(n + g) % 2]),
        [&rows[0], &rows[1]],
        &mut sums,
    );
    let [[a, b], [c, d]] = sums;
    [array(a), array(b), array(c), array(d)]
}

impl From<f32> for Found {
    fn from(number: f32) -> Self {
        Self::Lanes(vec![number])
    }
}

impl From<[f32; LANES]> for Found {
    fn from(lanes: [f32; LANES]) -> Self {
        Self::Lanes(lanes.into())
    }
}

impl From<[[f32; LANES]; 2]> for Found {
    fn from(lanes: [[f32; LANES]; 2]) -> Self {
        Self::Lanes(lanes.concat())
    }
}

impl From<[i32; LANES]> for Found {
    fn from(words: [i32; LANES]) -> Self {
        Self::Words(words.into())
    }
}

impl From<[[i32; LANES]; 4]> for Found {
    fn from(words: [[i32; LANES]; 4]) -> Self {
        Self::Words(words.concat())
    }
}

impl From<[i8; LANES]> for Found {
    fn from(integers: [i8; LANES]) -> Self {
        Self::Words(integers.map(i32::from).into())
    }
}
