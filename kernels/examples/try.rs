//! temp
use lfm2_kernels::{Isa, linear::*, model::*, ops::*};
use std::path::Path;
use std::time::Instant;
fn main() {
    let dir = std::env::args().nth(1).unwrap();
    let model = Model::load(Path::new(&dir)).unwrap();
    let b = std::fs::read(format!("{dir}/golden.safetensors")).unwrap();
    let st = safetensors::SafeTensors::deserialize(&b).unwrap();
    let ids: Vec<u32> = st.tensor("input_ids").unwrap().data().chunks(8).map(|c| i64::from_le_bytes(c.try_into().unwrap()) as u32).collect();
    let want: Vec<f64> = st.tensor("logits_f64").unwrap().data().chunks(8).map(|c| f64::from_le_bytes(c.try_into().unwrap())).collect();
    let mut first: Option<Vec<f32>> = None;
    for isa in Isa::available() {
        for chunk in [1, 7, 1000] {
            let mut state = model.new_state(ids.len(), CacheElement::F32);
            let mut scratch = Scratch::default();
            let v = model.config().vocabulary;
            let mut logits = vec![0.0; ids.len() * v];
            let t = Instant::now();
            for (i, c) in ids.chunks(chunk).enumerate() {
                let out = &mut logits[i * chunk * v..][..c.len() * v];
                model.forward(isa, &mut [Sequence { tokens: c, state: &mut state }], &mut scratch, Logits::All(out)).unwrap();
            }
            let t = t.elapsed();
            let num: f64 = logits.iter().zip(&want).map(|(a, b)| (*a as f64 - b).powi(2)).sum();
            let den: f64 = want.iter().map(|b| b * b).sum();
            let same = first.get_or_insert(logits.clone()).iter().zip(&logits).all(|(a, b)| a.to_bits() == b.to_bits());
            println!("{isa} chunk {chunk} nmse {:.3e} same {same} {t:?}", num / den);
        }
    }
    let _ = ElementType::F32;
}
