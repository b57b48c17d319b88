//! The one binary, `acta`.

/// A command makes a few dozen small allocations on several threads; the system's allocator
/// spends a tenth of the service's time on them, this one half of that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    acta::cli::main()
}
