#![no_main]

libfuzzer_sys::fuzz_target!(|input: &str| certvigil::fuzz::template(input));
