#![no_main]

#[path = "../logic/header_decode.rs"]
mod logic;

libfuzzer_sys::fuzz_target!(|input: &[u8]| logic::run(input));
