//! Figures, what they are held against, and how they are shown.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// What a figure must reach.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    ValueAtLeast(f64),
    ValueAtMost(f64),
    RatioAtLeast(f64),
    RatioAtMost(f64),
}

pub(crate) struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    target: Option<Target>,
    /// What the figure is compared with in the same run, and its value in the same unit.
    against: Option<(String, f64)>,
    note: String,
}

impl Figure {
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, target: None, against: None, note: String::new() }
    }

    pub(crate) fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    pub(crate) fn against(mut self, name: impl Into<String>, value: f64) -> Self {
        self.against = Some((name.into(), value));
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.against.as_ref().map(|(_, value)| self.value / value)
    }

    /// None when there is no target, or nothing to compare with.
    fn passes(&self) -> Option<bool> {
        Some(match self.target? {
            Target::ValueAtLeast(limit) => self.value >= limit,
            Target::ValueAtMost(limit) => self.value <= limit,
            Target::RatioAtLeast(limit) => self.ratio()? >= limit,
            Target::RatioAtMost(limit) => self.ratio()? <= limit,
        })
    }

    fn target_text(&self) -> String {
        match self.target {
            None => "-".to_owned(),
            Some(Target::ValueAtLeast(limit)) => format!(">= {}", number(limit)),
            Some(Target::ValueAtMost(limit)) => format!("<= {}", number(limit)),
            Some(Target::RatioAtLeast(limit)) => format!("ratio >= {}", number(limit)),
            Some(Target::RatioAtMost(limit)) => format!("ratio <= {}", number(limit)),
        }
    }

    fn verdict(&self) -> &'static str {
        match (self.target.is_some(), self.passes()) {
            (_, Some(true)) => "pass",
            (_, Some(false)) => "FAIL",
            (true, None) => "unknown",
            (false, None) => "-",
        }
    }

    fn json(&self) -> Value {
        json!({
            "figure": self.name, "value": self.value, "unit": self.unit,
            "target": self.target.map(|_| self.target_text()),
            "against": self.against.as_ref().map(|(name, value)| json!({"name": name, "value": value})),
            "ratio": self.ratio(), "pass": self.passes(), "note": self.note,
        })
    }
}

pub(crate) struct Report {
    conditions: Vec<(&'static str, String)>,
    figures: Vec<Figure>,
    broken: Vec<String>,
}

impl Report {
    pub(crate) fn new(conditions: Vec<(&'static str, String)>) -> Self {
        Self { conditions, figures: Vec::new(), broken: Vec::new() }
    }

    /// Adds a figure and shows it at once, so that a long run can be followed.
    pub(crate) fn add(&mut self, figure: Figure) {
        println!(
            "  {:<34} {:>12} {:<9} {}",
            figure.name,
            number(figure.value),
            figure.unit,
            figure.note
        );
        self.figures.push(figure);
    }

    pub(crate) fn condition(&mut self, name: &'static str, value: String) {
        self.conditions.push((name, value));
    }

    /// A scenario that could not be measured; the run fails.
    pub(crate) fn broken(&mut self, scenario: &str, error: &anyhow::Error) {
        eprintln!("  {scenario} BROKEN: {error:#}");
        self.broken.push(format!("{scenario}: {error:#}"));
    }

    pub(crate) fn failed(&self) -> bool {
        !self.broken.is_empty() || self.figures.iter().any(|f| f.passes() == Some(false))
    }

    pub(crate) fn print_conditions(&self) {
        for (name, value) in &self.conditions {
            println!("{name:<22} {value}");
        }
        println!();
    }

    pub(crate) fn print(&self) {
        println!();
        self.print_conditions();
        let mut rows =
            vec![["figure", "value", "target", "against", "ratio", ""].map(str::to_owned)];
        for figure in &self.figures {
            rows.push([
                figure.name.clone(),
                format!("{} {}", number(figure.value), figure.unit),
                figure.target_text(),
                figure
                    .against
                    .as_ref()
                    .map_or("-".to_owned(), |(name, value)| format!("{name}: {}", number(*value))),
                figure.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
                figure.verdict().to_owned(),
            ]);
        }
        let mut widths = [0; 6];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.len());
            }
        }
        for row in &rows {
            let cells: Vec<String> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            println!("{}", cells.join("  ").trim_end());
        }
        for scenario in &self.broken {
            println!("BROKEN {scenario}");
        }
    }

    pub(crate) fn write_json(&self, file: &Path) -> Result<()> {
        let conditions: serde_json::Map<String, Value> = self
            .conditions
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        let figures: Vec<Value> = self.figures.iter().map(Figure::json).collect();
        let document = json!({
            "conditions": conditions, "figures": figures, "broken": self.broken,
            "pass": !self.failed(),
        });
        std::fs::write(file, format!("{document:#}\n"))
            .with_context(|| format!("writing {}", file.display()))
    }
}

/// Whole numbers with thin groups, small ones with a decimal.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "?".to_owned();
    }
    if value.abs() < 1_000.0 {
        let text = format!("{value:.1}");
        return text.strip_suffix(".0").map_or(text.clone(), str::to_owned);
    }
    let digits = format!("{:.0}", value.abs());
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    if value < 0.0 { format!("-{grouped}") } else { grouped }
}
