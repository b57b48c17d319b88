#![no_main]

#[path = "../logic/create_request.rs"]
mod logic;

libfuzzer_sys::fuzz_target!(|input: &[u8]| logic::run(input));
