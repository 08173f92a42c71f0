use half::{bf16, f16};

use super::brain_floats;
use super::elements::Elements;
use super::quantised::{self, Quantised};
use super::{Activations, WeightFormat};

/// A weight matrix `[outputs, inputs]`, packed in panels of sixteen outputs.
pub struct Matrix {
    outputs: usize,
    inputs: usize,
    panels: Panels,
    activations: Activations,
}

/// The packed weights.
pub(super) enum Panels {
    F32(Elements<f32>),
    F16(Elements<f16>),
    Bf16(Elements<bf16>),
    Q8_0(Quantised<quantised::Q8_0>),
    Q4_0(Quantised<quantised::Q4_0>),
    Q4_1(Quantised<quantised::Q4_1>),
    Q5_0(Quantised<quantised::Q5_0>),
    Q5_1(Quantised<quantised::Q5_1>),
    Q4K(Quantised<quantised::Q4K>),
    Q5K(Quantised<quantised::Q5K>),
    Q6K(Quantised<quantised::Q6K>),
}

/// Evaluates the first body with `$elements` bound to the packed elements, or the second with `$quantised` bound to the packed blocks, of
/// whatever type.
macro_rules! with_panels {
    ($panels:expr, $elements:ident => $one:expr, $quantised:ident => $other:expr) => {{
        match $panels {
            Panels::F32($elements) => $one,
            Panels::F16($elements) => $one,
            Panels::Bf16($elements) => $one,
            Panels::Q8_0($quantised) => $other,
            Panels::Q4_0($quantised) => $other,
            Panels::Q4_1($quantised) => $other,
            Panels::Q5_0($quantised) => $other,
            Panels::Q5_1($quantised) => $other,
            Panels::Q4K($quantised) => $other,
            Panels::Q5K($quantised) => $other,
            Panels::Q6K($quantised) => $other,
        }
    }};
}

/// As [`with_panels!`], with the names bound to the packed weights of each of some matrices, all of one format, and one more for brain floats.
macro_rules! with_panels_of_each {
    (
        $matrices:expr,
        $brain_floats:ident => $first:expr, $elements:ident => $one:expr, $quantised:ident => $other:expr
    ) => {
        with_panels_of_each!(
            @ $matrices,
            $brain_floats => $first, [Bf16],
            $elements => $one, [F32 F16],
            $quantised => $other, [Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4K Q5K Q6K]
        )
    };
    (@ $matrices:expr, $($packed:ident => $body:expr, [$($format:ident)*]),*) => {
        match $matrices[0].panels() {
            $($(Panels::$format(_) => {
                let $packed = $matrices.map(|matrix| match matrix.panels() {
                    Panels::$format(packed) => packed,
                    _ => unreachable!("matrices of one format"),
                });
                $body
            })*)*
        }
    };
}
pub(super) use with_panels_of_each;

impl Matrix {
    /// Packs rows of `inputs` single-precision weights.
    ///
    /// # Panics
    ///
    /// If `rows` is not `outputs * inputs` long.
    pub fn from_f32(outputs: usize, inputs: usize, rows: &[f32]) -> Self {
        assert_eq!(rows.len(), outputs * inputs, "matrix: wrong number of weights");
        let panels = Panels::F32(Elements::pack_rows(outputs, inputs, rows));
        Self { outputs, inputs, panels, activations: Activations::F32 }
    }

    /// Packs row-major little-endian `bytes`, which need no alignment.
    ///
    /// # Panics
    ///
    /// If `bytes` is not `outputs * inputs` elements long.
    pub fn from_le_bytes(
        format: WeightFormat,
        outputs: usize,
        inputs: usize,
        bytes: &[u8],
    ) -> Self {
        assert_eq!(bytes.len(), outputs * format.bytes(inputs), "matrix: wrong number of bytes");
        let panels = match format {
            WeightFormat::F32 => Panels::F32(Elements::pack_bytes(outputs, inputs, bytes)),
            WeightFormat::F16 => Panels::F16(Elements::pack_bytes(outputs, inputs, bytes)),
            WeightFormat::Bf16 => Panels::Bf16(Elements::pack_bytes(outputs, inputs, bytes)),
            WeightFormat::Q8_0 => Panels::Q8_0(Quantised::pack(outputs, inputs, bytes)),
            WeightFormat::Q4_0 => Panels::Q4_0(Quantised::pack(outputs, inputs, bytes)),
            WeightFormat::Q4_1 => Panels::Q4_1(Quantised::pack(outputs, inputs, bytes)),
            WeightFormat::Q5_0 => Panels::Q5_0(Quantised::pack(outputs, inputs, bytes)),
            WeightFormat::Q5_1 => Panels::Q5_1(Quantised::pack(outputs, inputs, bytes)),
            WeightFormat::Q4K => Panels::Q4K(Quantised::pack(outputs, inputs, bytes)),
            WeightFormat::Q5K => Panels::Q5K(Quantised::pack(outputs, inputs, bytes)),
            WeightFormat::Q6K => Panels::Q6K(Quantised::pack(outputs, inputs, bytes)),
        };
        Self { outputs, inputs, panels, activations: Activations::F32 }
    }

    /// Output features: rows.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Input features: columns.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// In what the weights are stored.
    pub fn format(&self) -> WeightFormat {
        match self.panels {
            Panels::F32(_) => WeightFormat::F32,
            Panels::F16(_) => WeightFormat::F16,
            Panels::Bf16(_) => WeightFormat::Bf16,
            Panels::Q8_0(_) => WeightFormat::Q8_0,
            Panels::Q4_0(_) => WeightFormat::Q4_0,
            Panels::Q4_1(_) => WeightFormat::Q4_1,
            Panels::Q5_0(_) => WeightFormat::Q5_0,
            Panels::Q5_1(_) => WeightFormat::Q5_1,
            Panels::Q4K(_) => WeightFormat::Q4K,
            Panels::Q5K(_) => WeightFormat::Q5K,
            Panels::Q6K(_) => WeightFormat::Q6K,
        }
    }

    /// How [`linear`](super::linear) reads its input.
    pub fn activations(&self) -> Activations {
        self.activations
    }

    /// Chooses how [`linear`](super::linear) reads its input: as it is, where the weights' format has [no way](WeightFormat::meets) of
    /// its own for `activations`.
    ///
    /// With [`Activations::Bf16`], weights of a magnitude below 2^-55 become 0, for good.
    pub fn set_activations(&mut self, activations: Activations) {
        let meets = self.format().meets(activations);
        self.activations = if meets { activations } else { Activations::F32 };
        if let (Panels::Bf16(elements), Activations::Bf16) = (&mut self.panels, self.activations) {
            brain_floats::drop_tiny(elements);
        }
    }

    /// Bytes that the packed weights take.
    pub fn bytes(&self) -> usize {
        with_panels!(&self.panels, elements => elements.bytes(), quantised => quantised.bytes())
    }

    /// Copies row `output` to `out`, widened exactly.
    ///
    /// # Panics
    ///
    /// If there is no such row, or `out` is not `inputs` long.
    pub fn copy_row(&self, output: usize, out: &mut [f32]) {
        assert!(output < self.outputs, "matrix: row {output} of {}", self.outputs);
        assert_eq!(out.len(), self.inputs, "matrix: out has the wrong length");
        with_panels!(&self.panels,
            elements => elements.copy_row(output, out),
            quantised => quantised.copy_row(output, out)
        );
    }

    /// The weights as rows, `[outputs, inputs]`, widened exactly.
    pub fn to_rows(&self) -> Vec<f32> {
        let mut rows = vec![0.0; self.outputs * self.inputs];
        for (output, row) in rows.chunks_exact_mut(self.inputs.max(1)).enumerate() {
            self.copy_row(output, row);
        }
        rows
    }

    pub(super) fn panels(&self) -> &Panels {
        &self.panels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        let rows: Vec<f32> = (0..19 * 5).map(|i| i as f32).collect();
        let bytes: Vec<u8> = rows.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
        let matrices = [
            Matrix::from_f32(19, 5, &rows),
            Matrix::from_le_bytes(WeightFormat::Bf16, 19, 5, &bytes),
        ];
        for matrix in matrices {
            let mut row = [0.0; 5];
            for n in 0..19 {
                matrix.copy_row(n, &mut row);
                assert_eq!(row, rows[n * 5..][..5]);
            }
            assert_eq!(matrix.to_rows(), rows);
        }
    }
}
