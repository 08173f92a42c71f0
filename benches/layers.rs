//! What a conv layer of LFM2-350M costs against an attention layer as the sequence grows; [`lfm2_benches::layers`] has what is timed.
//!
//! Both kinds at all lengths take turns. Criterion would time one after the other, and what memory does meanwhile would bend the curves.

use std::time::Duration;

use lfm2_benches::layers::{Layers, Part, Phase, compared, parts};
use lfm2_benches::{Measurement, Options, Session, time};
use lfm2_kernels::model::LayerKind;
use serde::Serialize;

fn main() {
    let options = Options::from_args();
    let alone = options.with_one_thread();
    // What follows on one thread: four cases and peaks.
    let later = if alone.is_some() { Duration::from_secs(10) } else { Duration::ZERO };
    options.in_pool(|options| {
        let parts = parts(&options.isas(), options.extent());
        let others = other_isas(&options);
        run(options, parts, others, later);
    });
    if let Some(alone) = alone {
        alone.in_pool(|options| {
            let parts = compared(&options.isas());
            run(options, Vec::new(), parts, Duration::ZERO);
        });
    }
}

/// Times groups of `parts`, which make the tables, and of `others`, which are there for reports to compare. More follows `later`.
fn run(options: Options, parts: Vec<Vec<Part>>, others: Vec<Vec<Part>>, later: Duration) {
    let mut session = Session::new("layers", options);
    session.expect(later);
    let layers = Layers::default();
    let cases = |group: &Vec<Part>| group.iter().map(|part| part.case(&layers)).collect();
    let groups = parts.iter().chain(&others).map(cases).collect();
    let measurements = session.measure(Duration::from_millis(800), groups);
    session.finish();
    if !measurements.is_empty() {
        let tables = tables(&parts.concat(), &measurements);
        tables.iter().for_each(print);
        session.report(tables);
    }
}

/// What the instruction sets that are not timed otherwise do of it.
fn other_isas(options: &Options) -> Vec<Vec<Part>> {
    let mut isas = options.compared_isas();
    isas.retain(|isa| !options.isas().contains(isa));
    compared(&isas)
}

/// Both kinds side by side.
#[derive(Serialize)]
struct Table {
    isa: &'static str,
    what: &'static str,
    phase: Phase,
    rows: Vec<Row>,
    /// Lengths at which both cost the same.
    crossings: Vec<f64>,
}

#[derive(Serialize)]
struct Row {
    length: usize,
    conv_seconds: f64,
    attention_seconds: f64,
    attention_over_conv: f64,
}

fn tables(parts: &[Part], measurements: &[Measurement]) -> Vec<Table> {
    let layers = Layers::default();
    let seconds = |part: Part| {
        let id = part.case(&layers).id();
        let measurement = measurements.iter().find(|measurement| measurement.id == id)?;
        Some(measurement.seconds.median)
    };
    let mut tables: Vec<Table> = Vec::new();
    for &part in parts.iter().filter(|part| part.kind == LayerKind::Conv) {
        let both = (seconds(part), seconds(Part { kind: LayerKind::Attention, ..part }));
        let (Some(conv), Some(attention)) = both else { continue };
        let what = if part.is_whole { "layer" } else { "mixer" };
        let key = (part.isa.name(), what, part.phase);
        if tables.last().is_none_or(|table| (table.isa, table.what, table.phase) != key) {
            let (isa, what, phase) = key;
            tables.push(Table { isa, what, phase, rows: Vec::new(), crossings: Vec::new() });
        }
        tables.last_mut().expect("pushed above").rows.push(Row {
            length: part.length,
            conv_seconds: conv,
            attention_seconds: attention,
            attention_over_conv: attention / conv,
        });
    }
    for table in &mut tables {
        table.crossings = crossings(&table.rows);
    }
    tables
}

/// Where the ratio passes 1, on a straight line between two lengths in logarithms of both.
fn crossings(rows: &[Row]) -> Vec<f64> {
    let crossing = |pair: &[Row]| {
        let [shorter, longer] = pair else { return None };
        let (before, after) = (shorter.attention_over_conv.ln(), longer.attention_over_conv.ln());
        let part = before / (before - after);
        ((before < 0.0) != (after < 0.0)).then(|| {
            shorter.length as f64 * (longer.length as f64 / shorter.length as f64).powf(part)
        })
    };
    rows.windows(2).filter_map(crossing).collect()
}

fn print(table: &Table) {
    let Table { isa, what, phase, rows, crossings } = table;
    let what = match *what {
        "layer" => "one layer",
        _ => "the mixer alone",
    };
    let (phase, threads) = (phase.name(), rayon::current_num_threads());
    let length = match table.phase {
        Phase::Prefill => "tokens",
        Phase::Decode => "context",
    };
    println!("\n{phase}, {what}: LFM2-350M, {isa}, f32, {threads} threads");
    println!(
        "{length:>8}  {:>11}  {:>11}  {:>11}  {:>11}  {:>14}",
        "conv", "per token", "attention", "per token", "attention/conv"
    );
    for row in rows {
        let tokens = match table.phase {
            Phase::Prefill => row.length as f64,
            Phase::Decode => 1.0,
        };
        println!(
            "{:>8}  {:>11}  {:>11}  {:>11}  {:>11}  {:>14.2}",
            row.length,
            time(row.conv_seconds),
            time(row.conv_seconds / tokens),
            time(row.attention_seconds),
            time(row.attention_seconds / tokens),
            row.attention_over_conv,
        );
    }
    match (&crossings[..], rows.iter().all(|row| row.attention_over_conv > 1.0)) {
        ([], true) => println!("  they never cost the same in this range: attention costs more"),
        ([], false) => println!("  they never cost the same in this range: attention costs less"),
        (lengths, _) => {
            let lengths: Vec<_> = lengths.iter().map(|length| format!("{length:.0}")).collect();
            println!("  they cost the same at about {} tokens", lengths.join(", "));
        }
    }
}
