//! Verifies that the table of instruction counts is parsed, compared and rewritten as
//! `benches/instructions` documents. The counting itself is `cargo run --release -p instructions`.

#[path = "../benches/instructions/table.rs"]
mod table;

use table::Table;

#[test]
fn the_table_in_the_repository_can_be_read() {
    let text = std::fs::read_to_string("benches/instructions.tsv").expect("the file exists");
    let table = Table::parse(&text).expect("a well-formed table");
    assert_eq!(table.to_string(), text, "as the bench writes it");
}

/// The committed count of a case.
fn committed(name: &str) -> f64 {
    let text = std::fs::read_to_string("benches/instructions.tsv").expect("the file exists");
    let mut rows = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
    let row = rows.next().unwrap_or_else(|| panic!("{name} is not in the table"));
    row.split('\t').next().and_then(|count| count.parse().ok()).expect("a count")
}

/// Rules are asked when the recipients of a topic are worked out, and not for each message.
#[test]
fn a_delivery_to_a_filtered_subscription_costs_as_much_as_one_to_another_with_as_many_rules() {
    for topics in ["QoS 0", "each elsewhere"] {
        let of = |how: &str| committed(&format!("engine: 1 subscriber to all, {topics}, {how}"));
        let (whole, filtered) = (of("with rules"), of("filtered by rules"));
        assert!(filtered <= whole * 1.01, "{topics}: {filtered} for {whole}");
    }
}

fn table(text: &str) -> Table {
    Table::parse(text).expect("a table")
}

#[test]
fn a_count_above_its_limit_fails_with_the_difference() {
    let table = table("decode\t100.0\t3\nencode\t50.0\t3\n");
    assert!(table.judge(&[("decode", 103.0), ("encode", 50.0)]).1);
    let (report, is_within) = table.judge(&[("decode", 103.2), ("encode", 20.0)]);
    assert!(!is_within);
    let line = |name| report.lines().find(|line| line.contains(name)).expect("a line");
    assert!(line("decode").starts_with('!') && line("decode").contains("+3.2% on 100"));
    assert!(line("encode").starts_with(' ') && line("encode").contains("-60.0%"));
}

#[test]
fn a_case_missing_from_the_table_or_the_counts_fails() {
    let table = table("decode\t100.0\t3\n");
    assert!(!table.judge(&[("decode", 100.0), ("encode", 1.0)]).1);
    assert!(!table.judge(&[]).1);
}

#[test]
fn a_rewritten_table_keeps_its_margins_and_can_be_parsed() {
    let table = table("# a remark\ndecode\t100.0\t5\ngone\t1.0\t1\n");
    let updated = table.updated(&[("decode", 90.0), ("encode", 10.0)]);
    assert_eq!(updated, crate::table("decode\t90.0\t5\nencode\t10.0\t3\n"));
    assert_eq!(Table::parse(&updated.to_string()), Ok(updated));
}

#[test]
fn an_invalid_line_is_named() {
    for line in
        ["decode\t100", "decode\t100\t3\t4", "decode\tmany\t3", "\t1\t2", "decode\t-1\t3", ""]
    {
        let error = Table::parse(&format!("# head\n{line}\n")).expect_err("wrong");
        assert!(error.starts_with("line 2 "), "{line:?}: {error}");
    }
}
