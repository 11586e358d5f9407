#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| certvigil::fuzz::certificate(input));
