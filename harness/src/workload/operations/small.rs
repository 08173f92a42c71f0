//! Operations that need no more than rows, and touch memory little enough to stay in the caches, as between two linear layers.

use lfm2_kernels::Isa;
use lfm2_kernels::ops::{
    RopeTable, ShortConv, add, argmax, multiply, rms_norm, rope, short_conv, silu_multiply, softmax,
};

use super::{CONV_LENGTH, FEED_FORWARD_WIDTH, HEAD_DIM, HEADS, THETA, VOCABULARY, WIDTH};
use crate::ceiling::Work;
use crate::workload::function::{rewound, workload};
use crate::workload::{Case, Workload, values};

/// Those that are timed with so many rows.
pub fn small_cases<'a>(isa: Isa, rows: usize) -> Vec<Case<'a>> {
    let mut cases = Vec::new();
    let mut case = |op,
                    shape: String,
                    [operations, elements]: [usize; 2],
                    prepare: Box<dyn Fn() -> Box<dyn Workload + 'a> + 'a>| {
        let bytes = (4 * rows * elements) as u64;
        let work = Work {
            rows,
            operations: (rows * operations) as u64,
            bytes,
            working_set: Some(bytes),
            ..Work::default()
        };
        cases.push(Case { op, isa, format: "f32", shape, work, prepare });
    };

    let norm = |vectors: usize, length: usize| -> Box<dyn Fn() -> Box<dyn Workload + 'a> + 'a> {
        Box::new(move || {
            let x = values("x", rows * vectors * length);
            let weight = values("weight", length);
            workload(vec![0.0; x.len()], move |isa, rows, _, out| {
                let elements = rows * vectors * length;
                rms_norm(isa, &x[..elements], &weight, 1e-5, &mut out[..elements]);
            })
        })
    };
    case("rms_norm", format!("{rows}x{WIDTH}"), [4 * WIDTH, 2 * WIDTH], norm(1, WIDTH));
    case(
        "rms_norm",
        format!("{}x{HEAD_DIM}", rows * HEADS),
        [4 * WIDTH, 2 * WIDTH],
        norm(HEADS, HEAD_DIM),
    );

    case(
        "rope",
        format!("{rows}x{HEADS}x{HEAD_DIM}"),
        [3 * WIDTH, WIDTH],
        Box::new(move || {
            let mut table = RopeTable::new(THETA, HEAD_DIM, rows);
            table.fill(0..rows);
            workload(values("x", rows * WIDTH), move |isa, rows, _, out| {
                rope(isa, &mut out[..rows * WIDTH], HEADS, &table);
            })
        }),
    );

    case(
        "rope_table",
        format!("{rows}x{HEAD_DIM}"),
        // Sines of doubles, which no ceiling is known of.
        [0, 0],
        Box::new(move || {
            let mut table = RopeTable::new(THETA, HEAD_DIM, rows);
            workload(vec![0.0; HEAD_DIM / 2], move |_, rows, turn, out| {
                table.fill(turn..turn + rows);
                out.copy_from_slice(table.sines(rows - 1));
            })
        }),
    );

    case(
        "short_conv",
        format!("{rows}x{WIDTH}"),
        [(2 * CONV_LENGTH + 1) * WIDTH, 4 * WIDTH],
        Box::new(move || {
            let conv = ShortConv::new(WIDTH, &values("conv", WIDTH * CONV_LENGTH), None);
            let input = values("input", rows * 3 * WIDTH);
            let mut state = vec![0.0; (CONV_LENGTH - 1) * WIDTH];
            workload(vec![0.0; rows * WIDTH], move |isa, rows, turn, out| {
                if turn == 0 {
                    state.fill(0.0);
                }
                let (input, out) = (&input[..rows * 3 * WIDTH], &mut out[..rows * WIDTH]);
                short_conv(isa, input, &conv, &mut state, out);
            })
        }),
    );

    case(
        "silu_multiply",
        format!("{rows}x{FEED_FORWARD_WIDTH}"),
        [0, 2 * FEED_FORWARD_WIDTH],
        Box::new(move || {
            let up = values("up", rows * FEED_FORWARD_WIDTH);
            rewound(values("gate", up.len()), move |isa, rows, _, out| {
                let elements = rows * FEED_FORWARD_WIDTH;
                silu_multiply(isa, &mut out[..elements], &up[..elements]);
            })
        }),
    );

    case(
        "add",
        format!("{rows}x{WIDTH}"),
        [0, 2 * WIDTH],
        Box::new(move || {
            let y = values("y", rows * WIDTH);
            workload(values("x", rows * WIDTH), move |isa, rows, _, out| {
                add(isa, &mut out[..rows * WIDTH], &y[..rows * WIDTH]);
            })
        }),
    );

    case(
        "multiply",
        format!("{rows}x{WIDTH}"),
        [0, 2 * WIDTH],
        Box::new(move || {
            // Signs, so that products of products stay as large as they are.
            let y: Vec<f32> = values("y", rows * WIDTH).into_iter().map(f32::signum).collect();
            workload(values("x", rows * WIDTH), move |isa, rows, _, out| {
                multiply(isa, &mut out[..rows * WIDTH], &y[..rows * WIDTH]);
            })
        }),
    );

    case(
        "softmax",
        format!("{rows}x{WIDTH}"),
        [0, WIDTH],
        Box::new(move || {
            workload(values("x", rows * WIDTH), move |isa, rows, _, out| {
                softmax(isa, &mut out[..rows * WIDTH], WIDTH);
            })
        }),
    );

    if rows == 1 {
        case(
            "argmax",
            format!("{VOCABULARY}"),
            [0, VOCABULARY],
            Box::new(move || {
                let x = values("logits", VOCABULARY);
                workload(vec![0.0], move |isa, _, _, out| out[0] = argmax(isa, &x) as f32)
            }),
        );
    }
    cases
}
