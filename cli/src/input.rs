//! Lines of standard input, read ahead by a thread of their own so that the appending side can see
//! whether more is waiting or the input pauses.

use std::io::{BufRead, ErrorKind as OsErrorKind, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};

use highwater::MAX_RECORD_BYTES;

use crate::output::{Exit, Failure};

/// How many bytes are read at once.
const CHUNK_BYTES: usize = 128 << 10;
/// The most chunks and other events that wait for the appending side.
pub(crate) const EVENTS_MAX: usize = 4;

/// What the appending side waits for.
#[derive(Debug)]
pub(crate) enum Event {
    /// Input: the buffer and how much of it is filled.
    Chunk(Vec<u8>, usize),
    /// The end of the input.
    End,
    /// The input cannot be read any further.
    Unreadable(std::io::Error),
    /// An append failed; its error comes with the end of the acks.
    AckFailed,
}

/// Starts to read standard input. Buffers that are done with go back through what is returned.
pub(crate) fn start(events: SyncSender<Event>) -> Result<Sender<Vec<u8>>, Failure> {
    // Bounded by the buffers there are: those among the events and two in hand.
    let (give_back, spare) = channel();
    highwater_io::thread::spawn("highwater-input", move || read_all(&events, &spare))
        .map_err(highwater::Error::from)?;
    Ok(give_back)
}

/// Reads until the end, an error, or until nobody listens any more.
fn read_all(events: &SyncSender<Event>, spare: &Receiver<Vec<u8>>) {
    let mut input = std::io::stdin().lock();
    loop {
        let mut buffer = spare.try_recv().unwrap_or_else(|_| vec![0; CHUNK_BYTES]);
        let event = match input.read(&mut buffer) {
            Ok(0) => Event::End,
            Ok(filled) => Event::Chunk(buffer, filled),
            Err(error) if error.kind() == OsErrorKind::Interrupted => continue,
            Err(error) => Event::Unreadable(error),
        };
        let last = !matches!(event, Event::Chunk(..));
        if events.send(event).is_err() || last {
            return;
        }
    }
}

/// Cuts chunks into lines. Holds at most one record: the line that has no end yet.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
    complete: u64,
}

impl Lines {
    /// Gives every line that ends in `chunk`, without its newline, to `take`. A line above the
    /// maximum of a record is refused as soon as it is.
    pub(crate) fn cut<E: From<Failure>>(
        &mut self,
        chunk: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = chunk;
        while !rest.is_empty() {
            let mut behind = rest;
            // Searching a slice cannot fail.
            let length = behind.skip_until(b'\n').unwrap_or(rest.len());
            let piece = rest.get(..length).unwrap_or(rest);
            let line = piece.strip_suffix(b"\n");
            let addition = line.unwrap_or(piece);
            if self.partial.len() + addition.len() > MAX_RECORD_BYTES {
                return Err(self.too_long().into());
            }
            match line {
                Some(line) if self.partial.is_empty() => take(line)?,
                Some(line) => {
                    self.partial.extend_from_slice(line);
                    take(&self.partial)?;
                    self.partial.clear();
                }
                None => self.partial.extend_from_slice(piece),
            }
            self.complete += u64::from(line.is_some());
            rest = behind;
        }
        Ok(())
    }

    /// Gives a last line without a newline to `take`.
    pub(crate) fn finish<E>(&mut self, take: impl FnOnce(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.partial.is_empty() {
            return Ok(());
        }
        self.complete += 1;
        take(&std::mem::take(&mut self.partial))
    }

    fn too_long(&self) -> Failure {
        Failure::new(
            Exit::Error,
            format!(
                "cannot append line {}: it is longer than {MAX_RECORD_BYTES} bytes, the maximum \
                 of a record; split it",
                self.complete + 1
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(chunks: &[&[u8]]) -> Result<Vec<Vec<u8>>, Failure> {
        let mut found = Vec::new();
        let mut lines = Lines::default();
        for chunk in chunks {
            lines.cut(chunk, |line| {
                found.push(line.to_vec());
                Ok::<(), Failure>(())
            })?;
        }
        lines.finish(|line| {
            found.push(line.to_vec());
            Ok::<(), Failure>(())
        })?;
        Ok(found)
    }

    #[test]
    fn lines_do_not_depend_on_where_chunks_end() {
        let input = b"a\n\n\0\r\nlong line\n\xff\xfe\n\nlast";
        let whole = lines_of(&[input]).expect("short");
        assert_eq!(whole.join(&b'\n'), input);
        for first in 0..input.len() {
            for second in first..input.len() {
                let chunks = [&input[..first], &input[first..second], &input[second..]];
                assert_eq!(lines_of(&chunks).expect("short"), whole, "{first} {second}");
            }
        }
    }

    #[test]
    fn input_that_ends_with_a_newline_has_no_empty_last_line() {
        assert_eq!(lines_of(&[b"a\nb\n"]).expect("short"), [b"a", b"b"]);
        assert!(lines_of(&[b""]).expect("short").is_empty());
    }

    #[test]
    fn a_line_at_the_maximum_is_taken_and_one_above_is_named() {
        let longest = vec![b'x'; MAX_RECORD_BYTES];
        let lines = lines_of(&[b"a\n", &longest, b"\nb"]).expect("at the maximum");
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [1, MAX_RECORD_BYTES, 1]);
        match lines_of(&[b"a\n", &longest, b"x"]) {
            Err(Failure::Told { exit: Exit::Error, message }) => {
                assert!(message.contains("line 2"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
}
