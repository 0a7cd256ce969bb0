//! Measured figures have the day of the measurement and its command beside them.

/// Whether a line separates the head of a table of figures from its rows: columns of numbers are aligned to the right.
fn is_of_figures(line: &str) -> bool {
    line.starts_with('|') && line.contains("--:")
}

/// Whether a text has a day, such as 2026-11-30.
fn has_day(text: &str) -> bool {
    text.split(|c: char| !(c.is_ascii_digit() || c == '-')).any(|word| {
        let parts: Vec<usize> = word.split('-').map(str::len).collect();
        parts == [4, 2, 2] && word.starts_with("20")
    })
}

/// The text that explains the table whose separator is in a line: back to a heading or another table, and the first
/// paragraph after it.
fn explanation(lines: &[&str], separator: usize) -> String {
    let before = lines[..separator - 1].iter().rev();
    let before = before.take_while(|line| !line.starts_with(['#', '|'])).copied();
    let after = lines[separator..].iter().skip_while(|line| line.starts_with('|'));
    let after = after.skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty());
    before.chain(after.copied()).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_table_of_figures_has_its_command_and_day() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for path in super::documents() {
        let text = super::read(&path);
        let lines: Vec<&str> = text.lines().collect();
        for number in (1..lines.len()).filter(|&number| is_of_figures(lines[number])) {
            seen += 1;
            // The table itself may name a command for each row.
            let rows = lines[number..].iter().take_while(|line| line.starts_with('|'));
            let rows = rows.copied().collect::<Vec<_>>().join("\n");
            let text = explanation(&lines, number);
            if !has_day(&text) || !(text.contains('`') || rows.contains('`')) {
                wrong.push(format!("{}:{}: {}", path.display(), number, lines[number - 1]));
            }
        }
    }
    assert!(seen > 10, "{seen} tables with columns aligned to the right");
    assert!(wrong.is_empty(), "no day (YYYY-MM-DD) or no command beside:\n{}", wrong.join("\n"));
}

#[test]
fn every_section_of_the_pages_of_figures_has_a_day() {
    let mut wrong = Vec::new();
    for page in ["performance.md", "comparison.md"] {
        let text = super::read(&super::root().join("docs").join(page));
        for section in text.split("\n## ").skip(1) {
            let title = section.lines().next().expect("a title");
            // Sections that explain, or have only figures of others.
            let explains = ["What the figures depend on", "Where ringmq is not ahead"];
            let has_figures = [" µs", " ms", "% of", " s on ", "a second", "bytes"];
            let has_figures = has_figures.iter().any(|unit| section.contains(unit));
            if has_figures && !explains.contains(&title) && !has_day(section) {
                wrong.push(format!("docs/{page}: {title}"));
            }
        }
    }
    assert!(wrong.is_empty(), "no day (YYYY-MM-DD) in:\n{}", wrong.join("\n"));
}
