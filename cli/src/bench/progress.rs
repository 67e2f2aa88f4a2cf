//! A line on the terminal that says what goes on, drawn by a thread of its own; nothing at all
//! where standard error is no terminal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::latency::grouped;

/// How often the line is drawn.
const REDRAW: Duration = Duration::from_millis(200);

/// What the producers count for the line; nobody waits for it.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl Counted {
    pub(crate) fn add(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn show(&self) -> String {
        let records = self.records.load(Ordering::Relaxed);
        let bytes = crate::text::bytes(self.bytes.load(Ordering::Relaxed));
        match records {
            0 => String::new(),
            _ => format!("{} records, {bytes}", grouped(records)),
        }
    }
}

/// The line.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    pub(crate) counted: Arc<Counted>,
}

impl Progress {
    /// Starts drawing, if there is a terminal.
    pub(crate) fn start() -> Self {
        let counted = Arc::new(Counted::default());
        let shown = Arc::clone(&counted);
        let show = move |_: &ProgressState, line: &mut dyn std::fmt::Write| {
            // A line that cannot be drawn is not worth a word.
            line.write_str(&shown.show()).ok();
        };
        let template = "[{elapsed_precise}] {msg} {counted}";
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_spinner())
            .with_key("counted", show);
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style);
        if !bar.is_hidden() {
            bar.enable_steady_tick(REDRAW);
        }
        Progress { bar, counted }
    }

    pub(crate) fn say(&self, what: &'static str) {
        self.bar.set_message(what);
    }

    /// Takes the line away.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
