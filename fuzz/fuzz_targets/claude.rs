//! Feeds libFuzzer's inputs to the body of the same name.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dark_factory_fuzz::claude(data));
