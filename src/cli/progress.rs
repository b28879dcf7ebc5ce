//! How a pull or an import is getting on: a bar for each layer on a terminal, a line for each event elsewhere.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::image::pull::Step;
use crate::sync::Mutex;

/// Time between two looks of a bar.
const PACE: Duration = Duration::from_millis(100);
const BAR: usize = 24;

/// What is shown on stderr, so that stdout has only the result.
pub(super) struct Progress(Mutex<Shown>);

struct Shown {
    terminal: bool,
    layers: Vec<Layer>,
    /// Lines that are on the terminal now.
    drawn: usize,
    at: Option<Instant>,
}

struct Layer {
    digest: String,
    size: u64,
    bytes: u64,
    state: &'static str,
}

impl Progress {
    /// Nothing shown yet.
    pub(super) fn new() -> Self {
        let terminal = io::stderr().is_terminal();
        Progress(Mutex::new(Shown { terminal, layers: Vec::new(), drawn: 0, at: None }))
    }

    /// Takes note of a step.
    pub(super) fn note(&self, step: Step) {
        let mut shown = self.0.lock();
        let text = shown.take(step);
        if !text.is_empty() {
            // If stderr is gone there is nobody left to tell.
            io::stderr().write_all(text.as_bytes()).ok();
        }
    }
}

impl Shown {
    /// What is to be written now.
    fn take(&mut self, step: Step) -> String {
        let (changed, event) = match step {
            Step::Resolved(layers) => {
                let layer = |(digest, size)| Layer { digest, size, bytes: 0, state: "waiting" };
                self.layers = layers.into_iter().map(layer).collect();
                (None, true)
            }
            Step::Fetching { layer, bytes } => {
                self.set(layer, Some(bytes), "fetching");
                (Some(layer), false)
            }
            Step::Fetched { layer } => {
                let size = self.layers.get(layer).map(|layer| layer.size);
                self.set(layer, size, "fetched");
                (Some(layer), true)
            }
            Step::Unpacked { layer } => {
                self.set(layer, None, "unpacked");
                (Some(layer), true)
            }
        };
        if self.terminal {
            return self.draw(event);
        }
        match changed.and_then(|n| self.layers.get(n)).filter(|_| event) {
            Some(layer) => format!("{} {} {}\n", short(&layer.digest), layer.state, size(layer.size)),
            None => String::new(),
        }
    }

    fn set(&mut self, n: usize, bytes: Option<u64>, state: &'static str) {
        if let Some(layer) = self.layers.get_mut(n) {
            layer.bytes = bytes.unwrap_or(layer.bytes);
            layer.state = state;
        }
    }

    /// All bars over those of before. What is not an event of its own waits for its time.
    fn draw(&mut self, event: bool) -> String {
        if !event && self.at.is_some_and(|at| at.elapsed() < PACE) {
            return String::new();
        }
        self.at = Some(Instant::now());
        let mut text = String::new();
        if self.drawn > 0 {
            // Writing to a String cannot fail.
            write!(text, "\x1b[{}A", self.drawn).ok();
        }
        for layer in &self.layers {
            let done = if layer.state == "unpacked" { layer.size } else { layer.bytes };
            let full = usize::try_from(done * BAR as u64 / layer.size.max(1)).unwrap_or(BAR).min(BAR);
            let (bar, rest) = ("#".repeat(full), " ".repeat(BAR - full));
            let state = format!("{:>9} / {:<9} {}", size(done), size(layer.size), layer.state);
            writeln!(text, "\x1b[2K{} [{bar}{rest}] {state}", short(&layer.digest)).ok();
        }
        self.drawn = self.layers.len();
        text
    }
}

fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(terminal: bool) -> Shown {
        Shown { terminal, layers: Vec::new(), drawn: 0, at: None }
    }

    fn resolved() -> Step {
        Step::Resolved(vec![("sha256:0123456789abcdef".into(), 2_000_000), ("sha256:b".into(), 10)])
    }

    #[test]
    fn a_line_for_each_event() {
        let mut lines = shown(false);
        assert_eq!(lines.take(resolved()), "");
        assert_eq!(lines.take(Step::Fetching { layer: 0, bytes: 1_000_000 }), "");
        assert_eq!(lines.take(Step::Fetched { layer: 0 }), "sha256:0123456789ab fetched 2.0 MB\n");
        assert_eq!(lines.take(Step::Unpacked { layer: 1 }), "sha256:b unpacked 10 B\n");
    }

    #[test]
    fn a_bar_for_each_layer() {
        let mut bars = shown(true);
        assert_eq!(bars.take(resolved()).lines().count(), 2);
        bars.at = None;
        let text = bars.take(Step::Fetching { layer: 0, bytes: 1_000_000 });
        assert!(text.starts_with("\x1b[2A") && text.contains("[############            ]"), "{text}");
        assert_eq!(bars.take(Step::Fetching { layer: 0, bytes: 1_000_001 }), "", "too soon");
        assert!(bars.take(Step::Fetched { layer: 1 }).contains("fetched"));
    }

    #[test]
    fn sizes() {
        let all = [999, 1_500, 2_340_000, 5_120_000_000].map(size);
        assert_eq!(all, ["999 B", "1.5 kB", "2.3 MB", "5.12 GB"]);
    }
}
