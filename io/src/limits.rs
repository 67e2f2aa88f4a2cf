//! What the kernel allows this process.

/// Raises how many files this process may have open to what it may raise it to itself
/// (`setrlimit(2)`, `RLIMIT_NOFILE`: the soft limit up to the hard one); returns how many that is.
///
/// A log takes two descriptors and a few more while it rolls; the usual soft limit of 1024 is
/// enough for some hundreds of logs, not for more. It is for programs to call, not libraries:
/// `select(2)` cannot handle descriptors above 1023.
pub fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable and of the type the kernel fills.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if known != 0 {
        return 0;
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: `raised` is initialised and only read.
    let changed = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) };
    if changed == 0 { raised.rlim_cur } else { limit.rlim_cur }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_once_and_stays() {
        let raised = raise_open_files();
        assert!(raised >= 256 && raise_open_files() == raised);
    }
}
