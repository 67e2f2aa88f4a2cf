//! See `highwater_fuzz_targets`, module `producer_snapshot`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater_fuzz_targets::run("producer_snapshot", bytes));
