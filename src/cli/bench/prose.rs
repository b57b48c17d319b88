//! Text that compresses about as what people and agents write: words of a skewed vocabulary in
//! sentences, code, and the output of commands. Drawn from a seed.

use rand::{Rng as _, rngs::StdRng};
use std::fmt::Write as _;

const VOCABULARY: usize = 6_000;
const ONSETS: [&str; 22] = [
    "b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "v", "w", "st", "tr", "pl",
    "ch", "sh", "qu", "",
];
const VOWELS: [&str; 9] = ["a", "e", "i", "o", "u", "ea", "ou", "io", "ai"];
const CODAS: [&str; 13] = ["", "", "", "n", "r", "s", "t", "l", "nd", "ng", "st", "ck", "m"];
const STEMS: [&str; 12] = [
    "src", "tests", "lib", "core", "http", "parser", "config", "store", "index", "main", "api",
    "ui",
];

pub(super) struct Prose {
    words: Vec<String>,
}

impl Prose {
    pub(super) fn new(random: &mut StdRng) -> Self {
        let words = (0..VOCABULARY).map(|rank| {
            // Frequent words are short.
            let syllables = 1 + usize::from(rank > 60) + usize::from(rank % 3 == 0 && rank > 400);
            (0..syllables).fold(String::new(), |mut word, _| {
                word.push_str(pick(random, &ONSETS));
                word.push_str(pick(random, &VOWELS));
                word.push_str(pick(random, &CODAS));
                word
            })
        });
        Self { words: words.collect() }
    }

    /// The rank of a word, about as Zipf found it.
    pub(super) fn word(&self, random: &mut StdRng) -> &str {
        let place = (VOCABULARY as f64).powf(random.random::<f64>()) - 1.0;
        &self.words[(place as usize).min(VOCABULARY - 1)]
    }

    /// Sentences of about so many bytes.
    pub(super) fn sentences(&self, random: &mut StdRng, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 32);
        let mut left = 0;
        while text.len() < bytes {
            if left == 0 {
                if !text.is_empty() {
                    text.push_str(if random.random_ratio(1, 6) { ".\n" } else { ". " });
                }
                left = random.random_range(4..18);
                let word = self.word(random);
                let mut letters = word.chars();
                text.extend(letters.next().map(|first| first.to_ascii_uppercase()));
                text.push_str(letters.as_str());
            } else {
                text.push_str(if random.random_ratio(1, 12) { ", " } else { " " });
                text.push_str(self.word(random));
            }
            left -= 1;
        }
        text
    }

    pub(super) fn path(&self, random: &mut StdRng) -> String {
        let (a, b) = (pick(random, &STEMS), pick(random, &STEMS));
        format!("{a}/{b}/{}.rs", self.word(random))
    }

    /// What a tool answers: source with line numbers, or lines of a log.
    pub(super) fn lines(&self, random: &mut StdRng, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 80);
        let is_code = random.random_bool(0.5);
        let mut number = random.random_range(1..900);
        while text.len() < bytes {
            number += 1;
            let (a, b, c) = (self.word(random), self.word(random), self.word(random));
            let _ = match (is_code, random.random_range(0..4)) {
                (true, 0) => {
                    writeln!(text, "{number:5}  pub fn {a}_{b}(&self, {c}: usize) -> Result<()> {{")
                }
                (true, 1) => writeln!(text, "{number:5}      let {a} = self.{b}.{c}(&{a})?;"),
                (true, 2) => writeln!(
                    text,
                    "{number:5}      if {a}.len() > {} {{ return Err({b}); }}",
                    number % 97
                ),
                (true, _) => writeln!(text, "{number:5}      // {a} {b} {c}"),
                (false, 0) => writeln!(text, "test {a}::{b}_{c} ... ok"),
                (false, 1) => writeln!(
                    text,
                    "warning: {a} `{b}` is never {c} at {}:{number}",
                    self.path(random)
                ),
                (false, _) => writeln!(
                    text,
                    "{} {number} {a} {b} {:08x}",
                    self.path(random),
                    random.random::<u32>()
                ),
            };
        }
        text
    }
}

fn pick<'a>(random: &mut StdRng, of: &[&'a str]) -> &'a str {
    of[random.random_range(0..of.len())]
}
