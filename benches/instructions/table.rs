//! The table of instruction counts: the count of each case, and its allowed growth.

use std::fmt;
use std::fmt::Write as _;

/// Allowed growth of a new case, in percent.
const MARGIN: f64 = 3.0;

const HEAD: &str = "\
# Instructions for each operation, x86_64, release profile, and by how many percent they may grow.
# Checked by `cargo run --release -p instructions`, rewritten by the same with `-- --rewrite`, which
# keeps the margins.
";

/// One row of the table.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    name: String,
    instructions: f64,
    margin: f64,
}

/// The whole table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table(Vec<Row>);

impl Table {
    /// Parses the table; an error names the invalid line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
        lines.map(|(number, line)| Row::parse(line).ok_or(number + 1)).collect::<Result<_, _>>().map(Self).map_err(
            |line| format!("line {line} should have a name, instructions and a margin in percent, with tabs between"),
        )
    }

    fn row(&self, name: &str) -> Option<&Row> {
        self.0.iter().find(|row| row.name == name)
    }

    /// A report on the counts, and whether all of them are within their limits. A case that is in
    /// the table and was not counted fails like one that grew.
    pub fn judge(&self, counted: &[(&str, f64)]) -> (String, bool) {
        let mut report = String::new();
        let mut is_within = true;
        for &(name, now) in counted {
            let verdict = match self.row(name) {
                None => "not in the table".to_owned(),
                Some(row) => row.verdict(now),
            };
            let is_fine = self.row(name).is_some_and(|row| now <= row.bound());
            is_within &= is_fine;
            let mark = if is_fine { ' ' } else { '!' };
            writeln!(report, "{mark} {name:<44} {now:>10.1}  {verdict}").expect("to a string");
        }
        for row in &self.0 {
            if !counted.iter().any(|&(name, _)| name == row.name) {
                is_within = false;
                writeln!(report, "! {:<44} in the table, but not counted", row.name)
                    .expect("to a string");
            }
        }
        (report, is_within)
    }

    /// The table with the new counts, in their order.
    pub fn updated(&self, counted: &[(&str, f64)]) -> Self {
        let row = |&(name, instructions): &(&str, f64)| Row {
            name: name.to_owned(),
            instructions,
            margin: self.row(name).map_or(MARGIN, |row| row.margin),
        };
        Self(counted.iter().map(row).collect())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEAD)?;
        let line = |row: &Row| writeln!(f, "{}\t{:.1}\t{}", row.name, row.instructions, row.margin);
        self.0.iter().try_for_each(line)
    }
}

impl Row {
    fn parse(line: &str) -> Option<Self> {
        let mut cells = line.split('\t');
        let name = cells.next().filter(|name| !name.is_empty())?.to_owned();
        let mut number = || {
            let number = cells.next()?.parse::<f64>().ok()?;
            (number.is_finite() && number >= 0.0).then_some(number)
        };
        let (instructions, margin) = (number()?, number()?);
        cells.next().is_none().then_some(Self { name, instructions, margin })
    }

    /// The table is rounded to a tenth.
    fn bound(&self) -> f64 {
        self.instructions * (1.0 + self.margin / 100.0) + 0.05
    }

    fn verdict(&self, now: f64) -> String {
        let change = (now / self.instructions.max(0.1) - 1.0) * 100.0;
        let Self { instructions, margin, .. } = self;
        match () {
            () if now > self.bound() => {
                format!("{change:+.1}% on {instructions}, allowed are {margin}%")
            }
            () if change < -margin => format!("{change:+.1}%: rewrite the table to keep it"),
            () => format!("{change:+.1}%"),
        }
    }
}
