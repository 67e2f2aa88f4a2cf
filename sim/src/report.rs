//! Panics and failures as text.

use std::cell::RefCell;

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the message and place of panics instead of printing them: a panic inside the engine is a
/// failure of its seed, and is printed with it.
pub fn catch_panic_messages() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, ToString::to_string);
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let text = format!("{} ({place})", text.unwrap_or_default());
        LAST_PANIC.with(|last| *last.borrow_mut() = text);
    }));
}

/// Returns the last panic of this thread.
pub(crate) fn last_panic() -> String {
    LAST_PANIC.with(|last| last.borrow().clone())
}
