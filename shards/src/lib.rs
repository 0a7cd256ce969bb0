//! Topic Names and Topic Filters, the subscription index and the retained index. Knows no connection, no clock, no I/O.
