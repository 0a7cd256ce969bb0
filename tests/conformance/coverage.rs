//! Holds the tests against `clauses.tsv`.
