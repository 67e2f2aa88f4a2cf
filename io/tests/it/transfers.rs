//! Reads, writes, flushes and allocations.

use std::collections::BTreeMap;

use highwater_io::{
    Access, AlignedBuffer, BLOCK_BYTES, Blocking, Io, IoErrorKind, Operation, Output, Token, Wait,
};

use crate::harness::{
    block, check, check_blocking, filled, kind_of, open, open_on, read, take_one, write,
};

#[test]
fn what_was_written_is_read_back_with_and_without_the_page_cache() {
    check_blocking(|mut io, directory| {
        for direct in [true, false] {
            let path = directory.join(format!("direct-{direct}"));
            let (file, got) = io.open(&path, Access::CreateNew, direct).expect("it opens");
            assert!(direct || !got, "nobody gets direct I/O unasked");
            for (at, byte) in [(0, 1), (2, 3), (1, 2)] {
                write(&mut io, file, at, 1, byte);
            }
            io.flush(file).expect("it is flushed");
            io.drop_cache(file).expect("a wish is granted");
            let bytes = read(&mut io, file, 0, 3);
            let expected = [vec![1; BLOCK_BYTES], vec![2; BLOCK_BYTES], vec![3; BLOCK_BYTES]];
            assert_eq!(bytes, expected.concat());
            io.close(file).expect("it closes");
        }
    });
}

#[test]
fn dsync_write_is_whole_and_grows_the_file() {
    check_blocking(|mut io, directory| {
        let file = open(&mut io, &directory.join("file"), Access::CreateNew);
        let (buffer, result) = io.write(file, block(1), filled(2, 9), 2 * BLOCK_BYTES, true);
        assert_eq!((buffer.len(), result), (2 * BLOCK_BYTES, Ok(())));
        assert_eq!(io.length(file), Ok(block(3)));
        assert_eq!(read(&mut io, file, 0, 1), vec![0; BLOCK_BYTES]);
        assert_eq!(read(&mut io, file, 1, 2), vec![9; 2 * BLOCK_BYTES]);
    });
}

#[test]
fn read_is_short_only_at_the_end_of_the_file() {
    check_blocking(|mut io, directory| {
        for direct in [true, false] {
            let path = directory.join(format!("direct-{direct}"));
            let (file, _) = io.open(&path, Access::CreateNew, direct).expect("it opens");
            assert_eq!(read(&mut io, file, 0, 1), Vec::<u8>::new(), "an empty file");
            write(&mut io, file, 0, 2, 5);
            assert_eq!(read(&mut io, file, 0, 2).len(), 2 * BLOCK_BYTES);
            assert_eq!(read(&mut io, file, 1, 8).len(), BLOCK_BYTES);
            assert_eq!(read(&mut io, file, 7, 1).len(), 0, "beyond the end");
            for ragged in [BLOCK_BYTES + 1, BLOCK_BYTES + 512, 2 * BLOCK_BYTES - 1] {
                let length = u64::try_from(ragged).expect("small");
                io.set_length(file, length).expect("it is cut");
                assert_eq!(read(&mut io, file, 0, 8).len(), ragged);
                assert_eq!(read(&mut io, file, 1, 1).len(), ragged - BLOCK_BYTES);
            }
        }
    });
}

#[test]
fn part_of_a_buffer_is_transferred_and_the_rest_left_alone() {
    check_blocking(|mut io, directory| {
        let file = open(&mut io, &directory.join("file"), Access::CreateNew);
        io.write(file, 0, filled(4, 1), BLOCK_BYTES, false).1.expect("it is written");
        assert_eq!(io.length(file), Ok(block(1)));
        write(&mut io, file, 1, 3, 2);
        let (buffer, result) = io.read(file, 0, filled(4, 9), 2 * BLOCK_BYTES);
        assert_eq!(result, Ok(2 * BLOCK_BYTES));
        assert!(buffer[BLOCK_BYTES..2 * BLOCK_BYTES].iter().all(|byte| *byte == 2));
        assert!(buffer[2 * BLOCK_BYTES..].iter().all(|byte| *byte == 9));
    });
}

#[test]
fn allocated_space_reads_as_zeros_and_keeps_what_was_written() {
    check_blocking(|mut io, directory| {
        let file = open(&mut io, &directory.join("file"), Access::CreateNew);
        write(&mut io, file, 0, 1, 4);
        match io.allocate(file, 0, block(4)) {
            Ok(()) => {
                assert_eq!(io.length(file), Ok(block(4)));
                assert_eq!(read(&mut io, file, 0, 1), vec![4; BLOCK_BYTES]);
                assert_eq!(read(&mut io, file, 1, 4), vec![0; 3 * BLOCK_BYTES]);
            }
            Err(error) => assert_eq!(error.kind, IoErrorKind::Unsupported),
        }
    });
}

#[test]
fn impossible_allocation_fails_and_harms_nothing() {
    check_blocking(|mut io, directory| {
        let file = open(&mut io, &directory.join("file"), Access::CreateNew);
        write(&mut io, file, 0, 1, 4);
        let error = io.allocate(file, 0, u64::MAX).expect_err("nobody has so much");
        assert_eq!((error.operation, error.position), ("allocate", Some(0)));
        assert_eq!(read(&mut io, file, 0, 2), vec![4; BLOCK_BYTES]);
    });
}

#[test]
fn failed_transfer_returns_its_buffer_and_names_its_place() {
    check_blocking(|mut io, directory| {
        let path = directory.join("file");
        let file = open(&mut io, &path, Access::CreateNew);
        io.close(file).expect("it closes");
        let file = open(&mut io, &path, Access::Read);
        let (buffer, result) = io.write(file, block(1), filled(1, 8), BLOCK_BYTES, true);
        assert!(buffer.iter().all(|byte| *byte == 8));
        let error = result.expect_err("it is open for reading");
        assert_eq!((error.operation, &error.path), ("write", &path));
        assert_eq!((error.position, error.errno), (Some(block(1)), Some(9)));
    });
}

#[test]
fn nothing_completes_before_a_poll() {
    check(|make, directory| {
        let mut io = make();
        let file = open_on(&mut io, &directory.join("file"), Access::CreateNew);
        io.submit(Token(1), Operation::Length { file });
        assert_eq!(io.in_flight(), 1);
        let completion = take_one(&mut io);
        assert_eq!((completion.token, completion.result), (Token(1), Ok(Output::Length(0))));
        assert!(completion.buffer.is_none());
    });
}

#[test]
fn each_of_many_writes_completes_once_with_its_own_buffer() {
    check(|make, directory| {
        let mut io = make();
        let file = open_on(&mut io, &directory.join("file"), Access::CreateNew);
        let mut sent = BTreeMap::new();
        let mut completions = Vec::new();
        for number in 0..io.capacity() {
            let buffer = filled(1, u8::try_from(number % 251).expect("below 251"));
            sent.insert(Token(u64::try_from(number).expect("small")), buffer.as_ptr().addr());
            let (position, token) = (block(number), Token(block(number) / block(1)));
            let (length, dsync) = (BLOCK_BYTES, number % 16 == 0);
            io.submit(token, Operation::Write { file, position, buffer, length, dsync });
        }
        while io.in_flight() > 0 {
            io.poll(Wait::Forever, &mut completions);
        }
        assert_eq!(completions.len(), sent.len());
        for completion in completions {
            assert_eq!(completion.result, Ok(Output::Bytes(BLOCK_BYTES)));
            let buffer = completion.buffer.expect("a write returns its buffer");
            assert_eq!(sent.remove(&completion.token), Some(buffer.as_ptr().addr()));
        }
        let count = io.capacity();
        let mut io = Blocking::new(io);
        let bytes = read(&mut io, file, 0, count + 1);
        assert_eq!(bytes.len(), count * BLOCK_BYTES);
        for (number, bytes) in bytes.chunks(BLOCK_BYTES).enumerate() {
            let expected = u8::try_from(number % 251).expect("below 251");
            assert!(bytes.iter().all(|byte| *byte == expected), "block {number}");
        }
    });
}

#[test]
fn one_operation_beyond_the_capacity_panics() {
    check(|make, directory| {
        let mut io = make();
        let file = open_on(&mut io, &directory.join("file"), Access::CreateNew);
        for number in 0..io.capacity() {
            io.submit(Token(block(number)), Operation::Length { file });
        }
        let one_more = std::panic::AssertUnwindSafe(|| {
            io.submit(Token(1), Operation::Length { file });
        });
        assert!(std::panic::catch_unwind(one_more).is_err());
    });
}

#[test]
fn drop_with_operations_in_flight_waits_for_them() {
    check(|make, directory| {
        for polled in [true, false] {
            let path = directory.join(format!("polled-{polled}"));
            let mut io = make();
            let file = open_on(&mut io, &path, Access::CreateNew);
            for number in 0..64 {
                let (position, length) = (block(number), BLOCK_BYTES);
                let (buffer, dsync) = (filled(1, 3), number % 8 == 0);
                let token = Token(position);
                io.submit(token, Operation::Write { file, position, buffer, length, dsync });
            }
            io.submit(Token(1), Operation::Remove { path: directory.join("missing") });
            if polled {
                io.poll(Wait::No, &mut Vec::new());
            }
            drop(io);
            let bytes = std::fs::read(&path).expect("the file is there");
            assert_eq!(bytes, vec![3; 64 * BLOCK_BYTES]);
        }
    });
}

#[test]
fn crooked_transfers_panic_before_they_start() {
    check(|make, directory| {
        let mut io = make();
        let file = open_on(&mut io, &directory.join("file"), Access::CreateNew);
        let crooked = [(512, BLOCK_BYTES), (0, 512), (0, 2 * BLOCK_BYTES), (1 << 63, BLOCK_BYTES)];
        for (position, length) in crooked {
            let buffer = AlignedBuffer::zeroed(BLOCK_BYTES);
            let read = Operation::Read { file, position, buffer, length };
            let submit = std::panic::AssertUnwindSafe(|| io.submit(Token(1), read));
            assert!(std::panic::catch_unwind(submit).is_err(), "{position} {length}");
            assert_eq!(io.in_flight(), 0);
        }
    });
}

#[test]
fn large_transfer_is_whole() {
    check_blocking(|mut io, directory| {
        let file = open(&mut io, &directory.join("file"), Access::CreateNew);
        let blocks = 2048;
        let mut buffer = AlignedBuffer::zeroed(blocks * BLOCK_BYTES);
        for (number, bytes) in buffer.chunks_mut(BLOCK_BYTES).enumerate() {
            bytes.fill(u8::try_from(number % 239).expect("below 239"));
        }
        let (buffer, result) = io.write(file, 0, buffer, blocks * BLOCK_BYTES, false);
        result.expect("it is written");
        assert!(read(&mut io, file, 0, blocks) == buffer[..], "the same bytes");
        assert_eq!(
            kind_of(io.open(&directory.join("x"), Access::Read, true)),
            IoErrorKind::NotFound
        );
    });
}
