use crate::simd::math;
use crate::simd::slices::{AT_ONCE, inlined, zip_in_place};
use crate::simd::{Isa, dispatch};
use crate::threads::{rows_worth_sharing, split_rows};

/// Replaces `gate` by `silu(gate) * up`, the middle of the SwiGLU feed-forward: `gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i]`.
///
/// Source: `Lfm2MLP` of Hugging Face transformers (`silu(w1 x) * w3 x`).
///
/// # Panics
///
/// If `gate` and `up` differ in length.
pub fn silu_multiply(isa: Isa, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "silu_multiply: gate and up differ in length");
    split_rows(gate, 1, rows_worth_sharing(1), &|first, gate| {
        let up = &up[first..][..gate.len()];
        dispatch!(isa, simd => zip_in_place(simd, gate, up, inlined!(|gate: [_; AT_ONCE], up| math::silu_multiply(simd, gate, up))));
    });
}
