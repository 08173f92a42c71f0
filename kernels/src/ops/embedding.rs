use crate::linear::Matrix;
use crate::threads::{rows_worth_sharing, split_rows};

/// Copies the rows of `table` that `tokens` name to the rows of `out`, widened exactly: `out[t] = table[tokens[t]]`.
///
/// `table` is `[vocabulary, hidden_size]`, packed as for [`linear`](super::linear), so that one copy of a tied embedding
/// serves both ends of the model. `out` is `[tokens.len(), hidden_size]`. A gather has no arithmetic, so there is nothing
/// to choose an instruction set for.
///
/// # Panics
///
/// If a token is not a row of `table`, or `out` has another shape.
pub fn embedding(table: &Matrix, tokens: &[u32], out: &mut [f32]) {
    let length = table.inputs();
    assert_eq!(out.len(), tokens.len() * length, "embedding: out has the wrong length");
    split_rows(out, length, rows_worth_sharing(length), &|first, out| {
        for (out, &token) in out.chunks_exact_mut(length).zip(&tokens[first..]) {
            table.copy_row(token as usize, out);
        }
    });
}
