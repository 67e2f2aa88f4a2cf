//! Going over from one [`Mode`](crate::options::Mode) to the other while a log is open.
//!
//! An engine opens all its logs before anybody says how one of them is to be written. So the mode
//! that is asked for can differ from the one the active segment was opened in.

use super::{LogCore, State, Turn};
use crate::opening::ActiveSegment;

impl LogCore {
    /// Opens the active segment anew if another mode is wanted by now, once nothing of the log is
    /// in flight and all of it is flushed: no file is ever written in two ways at once, and no
    /// flush of one handle has to answer for writes of another. Until then, and for a log that is
    /// never idle until its next segment, the old mode holds.
    pub(super) fn pump_mode(&mut self, turn: &mut Turn<'_>) {
        let idle = self.is_ready() && !self.is_busy() && !self.roll_in_progress();
        if self.opened_in == self.settings.mode || !idle || !matches!(self.state, State::Active) {
            return;
        }
        let settled = self.files.iter().all(|file| file.is_named() && file.settled);
        let all_flushed = self.flushed.mark.offset == self.next_offset;
        if self.files.len() != 1 || !settled || !all_flushed || !self.trims.is_empty() {
            return;
        }
        let Some(active) = self.files.pop_back() else { panic!("there is one") };
        self.submit_close(active.file, turn);
        self.reopen_spares(turn);
        self.attaching = Some(ActiveSegment {
            base: active.base,
            salt: active.salt,
            reserved_to: active.reserved_to,
            is_full: self.active_is_full,
            is_prepared: active.is_prepared,
        });
    }
}
