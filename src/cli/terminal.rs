//! Terminal output: colours, tables that fit the width, progress. A pipe gets only the data.

use comfy_table::{Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table};
use std::{
    fmt::Display,
    io::{IsTerminal, stderr, stdout},
};
use tokio::{sync::watch, task::JoinHandle};
use unicode_width::UnicodeWidthStr;

use crate::{domain::threshold::Severity, usecase::scan::Progress};

/// Below this width, tables omit optional columns.
const NARROW: u16 = 140;

/// The colour of a text by its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tint {
    Plain,
    Well,
    Of(Severity),
    /// For an unknown state.
    Unknown,
}

impl From<Option<Severity>> for Tint {
    fn from(severity: Option<Severity>) -> Tint {
        severity.map_or(Tint::Plain, Tint::Of)
    }
}

impl Tint {
    fn color(self) -> Option<Color> {
        match self {
            Tint::Plain => None,
            Tint::Well => Some(Color::Green),
            Tint::Of(Severity::Info) => Some(Color::Cyan),
            Tint::Of(Severity::Warning) => Some(Color::Yellow),
            Tint::Of(Severity::Critical) => Some(Color::Red),
            Tint::Unknown => Some(Color::Magenta),
        }
    }
}

/// Whether colours are shown: on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
fn is_coloured() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stdout().is_terminal() && !refused && !dumb
}

/// Whether stdout is a terminal.
pub fn is_one() -> bool {
    stdout().is_terminal()
}

/// Whether stdout is a terminal with few columns.
pub fn is_narrow() -> bool {
    stdout().is_terminal() && Table::new().width().is_some_and(|width| width < NARROW)
}

/// A cell in its colour.
pub fn cell(text: impl Display, tint: Tint) -> Cell {
    let cell = Cell::new(text);
    match tint.color().filter(|_| is_coloured()) {
        Some(color) => cell.fg(color),
        None => cell,
    }
}

/// A right-aligned cell.
pub fn number(text: impl Display) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// An empty table, no wider than the terminal; columns in `whole` do not wrap.
pub fn table(header: &[&str], whole: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    if !header.is_empty() {
        table.set_header(header);
    }
    if stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        for (index, name) in header.iter().enumerate() {
            if whole.contains(name)
                && let Some(column) = table.column_mut(index)
            {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
    }
    table
}

/// The lines of a table without trailing spaces.
pub fn lines(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Formats a table for a pipe, with one line per row. Iterates twice, to store no rows.
pub fn plain<Rows: Iterator<Item = Vec<String>>>(
    header: &[&str],
    rows: impl Fn() -> Rows,
) -> String {
    let mut widths: Vec<usize> = header.iter().map(|text| text.width()).collect();
    for row in rows() {
        for (width, text) in widths.iter_mut().zip(&row) {
            *width = (*width).max(text.width());
        }
    }
    let mut out = String::new();
    let mut line = |texts: &mut dyn Iterator<Item = &str>| {
        for (text, width) in texts.zip(&widths) {
            let missing = width - text.width();
            out.push(' ');
            out.push_str(text);
            out.extend(std::iter::repeat_n(' ', missing + 1));
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    };
    line(&mut header.iter().copied());
    rows().for_each(|row| line(&mut row.iter().map(String::as_str)));
    out
}

/// A progress line on the terminal; nothing without a terminal.
pub fn show_progress(mut watched: watch::Receiver<Progress>) -> JoinHandle<()> {
    tokio::spawn(async move {
        if !stderr().is_terminal() {
            return;
        }
        let line = indicatif::ProgressBar::new_spinner();
        line.enable_steady_tick(std::time::Duration::from_millis(120));
        while watched.changed().await.is_ok() {
            let Progress { projects_listed, projects_read, certificates } = *watched.borrow();
            line.set_message(format!(
                "{projects_read} of {projects_listed} projects read, {certificates} certificate entries"
            ));
        }
        line.finish_and_clear();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_for_pipes_have_the_same_layout() {
        let rows =
            [["a", "12 days", ""], ["Zürich 東京 🔑", "-", "x y"], ["", "b", "long at the end"]];
        let header = ["NAME", "LEFT", "IN"];
        let texts = || rows.iter().map(|row| row.map(str::to_owned).to_vec());
        let mut whole = table(&header, &[]);
        for row in texts() {
            whole.add_row(row);
        }
        assert_eq!(plain(&header, texts), lines(&whole));
        assert_eq!(plain(&header, std::iter::empty).trim(), "NAME  LEFT  IN");
    }
}
