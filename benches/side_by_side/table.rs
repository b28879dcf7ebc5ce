//! The table of a run: as text for the terminal, as Markdown for a page, both with what was measured and how.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use cricket::error::{Context, Result};

use crate::stopwatch::Times;

/// Rows under construction.
pub struct Table {
    title: Vec<String>,
    groups: Vec<Group>,
}

/// Rows that were measured together.
struct Group {
    name: String,
    measured: Vec<String>,
    rows: Vec<Row>,
}

/// One figure of both sides.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// What it is of.
    pub name: String,
    /// `ms`, `KiB`.
    pub unit: &'static str,
    /// cricket's.
    pub ours: Figure,
    /// containerd's own CRI plugin's; none where it has no such thing.
    pub peer: Option<Figure>,
    /// What the ratio of the two, ours to the peer's, is to be compared with.
    pub goal: Option<Goal>,
}

/// A figure, or two of its distribution.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figure {
    /// The figure; the median of a distribution.
    pub middle: f64,
    /// The 95th percentile.
    pub high: Option<f64>,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// The ratio is to be at most this.
    RatioAtMost(f64),
    /// The ratio is to be at least this.
    RatioAtLeast(f64),
    /// Our own figure is to be at most this.
    AtMost(f64),
}

impl From<f64> for Figure {
    fn from(middle: f64) -> Figure {
        Figure { middle, high: None }
    }
}

impl From<&Times> for Figure {
    fn from(times: &Times) -> Figure {
        Figure { middle: times.percentile(50), high: Some(times.percentile(95)) }
    }
}

impl Row {
    /// A row without a goal.
    pub fn new(name: &str, unit: &'static str, ours: impl Into<Figure>, peer: impl Into<Figure>) -> Row {
        Row { name: name.to_owned(), unit, ours: ours.into(), peer: Some(peer.into()), goal: None }
    }

    /// The same with one.
    pub fn goal(self, goal: Goal) -> Row {
        Row { goal: Some(goal), ..self }
    }

    fn ratio(&self) -> Option<f64> {
        self.peer.map(|peer| peer.middle).filter(|peer| *peer > 0.0).map(|peer| self.ours.middle / peer)
    }

    /// The goal in words, and whether it is reached.
    fn judged(&self) -> (String, &'static str) {
        let word = |reached: bool| if reached { "yes" } else { "NO" };
        let judged = |reached: Option<bool>| reached.map_or("", word);
        match self.goal {
            None => (String::new(), ""),
            Some(Goal::RatioAtMost(most)) => (format!("≤ {most}"), judged(self.ratio().map(|r| r <= most))),
            Some(Goal::RatioAtLeast(least)) => (format!("≥ {least}"), judged(self.ratio().map(|r| r >= least))),
            Some(Goal::AtMost(most)) => (format!("≤ {most} {}", self.unit), word(self.ours.middle <= most)),
        }
    }

    fn cells(&self) -> [String; 9] {
        let shown = |figure: Option<f64>| figure.map(number).unwrap_or_default();
        let (goal, reached) = self.judged();
        [
            self.name.clone(),
            self.unit.to_owned(),
            shown(Some(self.ours.middle)),
            shown(self.ours.high),
            shown(self.peer.map(|p| p.middle)),
            shown(self.peer.and_then(|p| p.high)),
            self.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            goal,
            reached.to_owned(),
        ]
    }
}

/// The columns. Of a distribution the first figure of a side is the median.
const COLUMNS: [&str; 9] = ["", "unit", "cricket", "p95", "containerd's CRI", "p95", "ratio", "goal", "reached"];

/// Three digits that count.
fn number(figure: f64) -> String {
    match figure.abs() {
        x if x >= 100.0 => format!("{figure:.0}"),
        x if x >= 10.0 => format!("{figure:.1}"),
        x if x >= 1.0 => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}

impl Table {
    /// A table without rows.
    pub fn new(title: Vec<String>) -> Table {
        Table { title, groups: Vec::new() }
    }

    /// Begins a group of rows; `measured` says what is measured and how.
    pub fn group(&mut self, name: &str, measured: &str) {
        self.groups.push(Group { name: name.to_owned(), measured: vec![measured.to_owned()], rows: Vec::new() });
    }

    /// Adds to what the last group says of itself.
    pub fn note(&mut self, note: &str) {
        self.last().measured.push(note.to_owned());
    }

    /// Adds a row to the last group.
    pub fn row(&mut self, row: Row) {
        self.last().rows.push(row);
    }

    fn last(&mut self) -> &mut Group {
        self.groups.last_mut().expect("a group was begun")
    }

    /// For the terminal.
    pub fn text(&self) -> String {
        let mut text = format!("\ncricket beside containerd's own CRI plugin\n{}\n", self.title.join("\n"));
        let header = COLUMNS.map(str::to_owned);
        let rows: Vec<_> = self.groups.iter().flat_map(|g| &g.rows).map(Row::cells).collect();
        let width = |column: usize| {
            rows.iter().chain([&header]).map(|cells| cells[column].chars().count()).max().unwrap_or_default()
        };
        let widths: [usize; 9] = std::array::from_fn(width);
        let line = |cells: &[String; 9]| {
            let mut line = format!("  {:<1$}", cells[0], widths[0]);
            for (cell, width) in cells.iter().zip(widths).skip(1) {
                write!(line, "  {cell:>width$}").expect("writing to a string cannot fail");
            }
            line.trim_end().to_owned() + "\n"
        };
        for group in &self.groups {
            text += &format!("\n{}\n", group.name);
            group.measured.iter().for_each(|measured| text += &format!("  {measured}\n"));
            text += &line(&header);
            group.rows.iter().for_each(|row| text += &line(&row.cells()));
        }
        text
    }

    /// For a page.
    pub fn markdown(&self) -> String {
        let mut text = "# cricket beside containerd's own CRI plugin\n\n".to_owned();
        self.title.iter().for_each(|line| text += &format!("    {line}\n"));
        for group in &self.groups {
            text += &format!("\n## {}\n\n", group.name);
            group.measured.iter().for_each(|measured| text += &format!("{measured}\n"));
            text += &format!("\n| {} |\n|{}\n", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len()));
            group.rows.iter().for_each(|row| text += &format!("| {} |\n", row.cells().join(" | ")));
        }
        text
    }

    /// Both, as `table.txt` and `table.md` in this folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        for (name, text) in [("table.txt", self.text()), ("table.md", self.markdown())] {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        println!("\nwritten to {}", folder.display());
        Ok(())
    }
}
