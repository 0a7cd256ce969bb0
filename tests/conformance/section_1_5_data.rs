//! Chapter 1: strings and variable byte integers.
