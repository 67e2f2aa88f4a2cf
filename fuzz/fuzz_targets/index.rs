//! See `highwater_fuzz_targets`, module `index`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: highwater_fuzz_targets::begin(),
    |bytes: &[u8]| highwater_fuzz_targets::run("index", bytes)
);
