//! `lfm2 check --list`: which checks each operation goes through on which instruction set, and how many cases each check must judge.

use std::collections::BTreeMap;

use lfm2_harness::cases::Op;
use lfm2_harness::gate::Demand;
use lfm2_harness::plan::{Cases, Check, Counts, Depth, case_count, floor};
use lfm2_kernels::Isa;
use lfm2_kernels::simd::ISA_NAMES;
use serde::Serialize;

use super::super::output::table;

/// Operations by instruction sets by checks.
#[derive(Serialize)]
pub struct Matrix {
    depth: Depth,
    random_cases: u32,
    isas: BTreeMap<&'static str, Standing>,
    /// What each demands.
    checks: BTreeMap<Check, &'static str>,
    operations: Vec<Row>,
}

/// Whether an instruction set is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Standing {
    Checked,
    NotAsked,
    NotOnThisCpu,
}

/// An operation in one format: the same on every instruction set that is checked.
#[derive(Serialize)]
struct Row {
    op: &'static str,
    operation: &'static str,
    format: Option<&'static str>,
    dimensions: Vec<&'static str>,
    cases: u64,
    /// How many cases each check that applies must judge at least, on each instruction set.
    floor: Counts,
}

impl Matrix {
    pub fn new(ops: &[&Op], isas: &[Isa], cases: Cases) -> Self {
        let available = Isa::available();
        let standing = |name: &str| match available.iter().find(|isa| isa.name() == name) {
            None => Standing::NotOnThisCpu,
            Some(isa) if isas.contains(isa) => Standing::Checked,
            Some(_) => Standing::NotAsked,
        };
        let row = |op: &&Op| Row {
            op: op.name,
            operation: op.family(),
            format: op.format,
            dimensions: op.dimensions.iter().map(|dimension| dimension.name).collect(),
            cases: case_count(op, cases),
            floor: floor(op, Demand::EqualBits, cases),
        };
        Self {
            depth: cases.depth,
            random_cases: cases.random,
            isas: ISA_NAMES.map(|name| (name, standing(name))).into(),
            checks: Check::COUNTED.map(|check| (check, check.demand())).into(),
            operations: ops.iter().map(row).collect(),
        }
    }

    pub fn text(&self) -> String {
        let mut header: Vec<String> = ["operation", "format", "cases"].map(String::from).into();
        header.extend(Check::COUNTED.map(|check| check.name().into()));
        header.extend(ISA_NAMES.map(String::from));
        header.push("shape".into());
        let mut rows = vec![header];
        for Row { operation, format, dimensions, cases, floor, .. } in &self.operations {
            let mut row = vec![operation.to_string(), format.unwrap_or("-").into()];
            row.push(cases.to_string());
            row.extend(Check::COUNTED.map(|check| match floor.get(&check) {
                Some(least) => least.to_string(),
                None => "-".into(),
            }));
            row.extend(ISA_NAMES.map(|name| match self.isas[name] {
                Standing::Checked => "yes".to_string(),
                Standing::NotAsked | Standing::NotOnThisCpu => "-".into(),
            }));
            row.push(dimensions.join(","));
            rows.push(row);
        }
        let mut text = table(&rows);
        text += "\nHow many cases each check must judge at least, on each instruction set with a yes:\n";
        for check in Check::COUNTED {
            text += &format!("  {:10}  {}\n", check.name(), check.demand());
        }
        for (standing, what) in [
            (Standing::NotOnThisCpu, "This CPU lacks, so that nothing here checks them"),
            (Standing::NotAsked, "Not asked for"),
        ] {
            let names: Vec<&str> =
                ISA_NAMES.into_iter().filter(|name| self.isas[name] == standing).collect();
            if !names.is_empty() {
                text += &format!("{what}: {}\n", names.join(", "));
            }
        }
        text
    }
}
