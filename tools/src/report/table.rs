//! Aligned columns of text.

/// A table with a heading line; the first column is aligned left, the others right.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column names.
    pub fn new(columns: &[&str]) -> Self {
        Self { rows: vec![columns.iter().map(ToString::to_string).collect()] }
    }

    /// Adds a row, which has one cell per column.
    pub fn push(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "a row has one cell per column");
        self.rows.push(cells);
    }

    /// Formats it as Markdown that is readable as text.
    pub fn markdown(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            text.push_str(&line(row, &widths));
            if number == 0 {
                text.push_str(&rule(&widths));
            }
        }
        text
    }
}

fn line(row: &[String], widths: &[usize]) -> String {
    let mut text = String::from("|");
    for (column, (cell, &width)) in row.iter().zip(widths).enumerate() {
        let cell =
            if column == 0 { format!(" {cell:<width$} |") } else { format!(" {cell:>width$} |") };
        text.push_str(&cell);
    }
    text.push('\n');
    text
}

fn rule(widths: &[usize]) -> String {
    let mut text = String::from("|");
    for (column, &width) in widths.iter().enumerate() {
        text.push_str(&if column == 0 {
            format!(" {} |", "-".repeat(width))
        } else {
            format!(" {}: |", "-".repeat(width - 1))
        });
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["what", "µs"]);
        table.push(vec!["a".into(), "1.25".into()]);
        assert_eq!(table.markdown(), "| what |   µs |\n| ---- | ---: |\n| a    | 1.25 |\n");
    }
}
