//! The backends that there are.

mod a2a;
mod claude_code;
mod exec;
mod mock;

use super::backend::Registry;

/// All of them, by name.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register("a2a", a2a::build);
    registry.register("claude-code", claude_code::build);
    registry.register("exec", exec::build);
    registry.register("mock", mock::build);
    registry
}

#[cfg(test)]
mod tests;
