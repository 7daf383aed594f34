#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hookgate_fuzz::jwk_set::check(data));
