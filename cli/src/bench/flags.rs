//! Flags of the benches.

use std::time::Duration;

/// The longest run.
const SECONDS_MAX: f64 = 86_400.0;

/// Reads a number of seconds, decimals allowed.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let digits = text.strip_suffix('s').unwrap_or(text);
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match digits.parse::<f64>() {
        Ok(seconds) if plain && seconds <= SECONDS_MAX => Ok(Duration::from_secs_f64(seconds)),
        Ok(_) => Err("a number of seconds up to 86400".to_owned()),
        Err(_) => Err(format!("{text:?} is not a number of seconds")),
    }
}
