//! See `highwater_fuzz_targets`, module `damage`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: highwater_fuzz_targets::begin(),
    |bytes: &[u8]| highwater_fuzz_targets::run("damage", bytes)
);
