#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hookgate_fuzz::client_address::check(data));
