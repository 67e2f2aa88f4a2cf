//! Durable writes that run on the thread that asked for them.

use highwater_io::{Access, BLOCK_BYTES, Backend, FileId, Io, Operation, Output, Token, Wait};

use crate::harness::{AnyIo, block, check, filled, make, open_on};

fn durable(file: FileId, at: usize, byte: u8) -> Operation {
    let buffer = filled(1, byte);
    Operation::Write { file, position: block(at), buffer, length: BLOCK_BYTES, dsync: true }
}

fn take(io: &mut AnyIo, count: usize) -> Vec<(Token, Result<Output, highwater_io::IoError>)> {
    let mut ended = Vec::new();
    while ended.len() < count {
        io.poll(Wait::Forever, &mut ended);
    }
    ended.into_iter().map(|completion| (completion.token, completion.result)).collect()
}

#[test]
fn a_durable_write_is_alone_until_something_is_beside_it_or_a_poll_has_begun_it() {
    check(|make, directory| {
        let mut io = make();
        let path = directory.join("f");
        let file = open_on(&mut io, &path, Access::CreateNew);
        let ring = io.backend() == Backend::Uring;
        let written = Ok(Output::Bytes(BLOCK_BYTES));

        assert!(!io.is_alone(), "nothing was submitted");
        io.submit(Token(1), durable(file, 0, 1));
        assert_eq!((io.is_alone(), io.in_flight()), (ring, 1));
        if ring {
            let mut ended = Vec::new();
            io.run_alone(&mut ended);
            assert_eq!((io.is_alone(), io.in_flight(), ended.len()), (false, 0, 1));
            let ended = ended.pop().expect("the one");
            assert_eq!((ended.token, ended.result), (Token(1), written.clone()));
            assert!(ended.buffer.is_some_and(|buffer| buffer.iter().all(|byte| *byte == 1)));
        } else {
            assert_eq!(take(&mut io, 1), [(Token(1), written.clone())]);
        }

        // One that a poll has begun is the kernel's.
        io.submit(Token(2), durable(file, 1, 2));
        let mut ended = Vec::new();
        io.poll(Wait::No, &mut ended);
        assert!(!io.is_alone());
        while ended.is_empty() {
            io.poll(Wait::Forever, &mut ended);
        }
        assert_eq!(ended[0].result, written);

        // Two are not alone, nor is one that takes no part in durability.
        io.submit(Token(3), durable(file, 2, 3));
        io.submit(Token(4), durable(file, 3, 4));
        assert!(!io.is_alone());
        let mut both = take(&mut io, 2);
        both.sort_by_key(|(token, _)| *token);
        assert_eq!(both, [(Token(3), written.clone()), (Token(4), written.clone())]);
        let (position, buffer, length) = (block(4), filled(1, 5), BLOCK_BYTES);
        io.submit(Token(5), Operation::Write { file, position, buffer, length, dsync: false });
        assert!(!io.is_alone());
        assert_eq!(take(&mut io, 1), [(Token(5), written)]);

        let bytes = std::fs::read(&path).expect("readable");
        let blocks: Vec<_> = bytes.chunks(BLOCK_BYTES).map(|block| block[0]).collect();
        assert_eq!(blocks, [1, 2, 3, 4, 5]);
    });
}

#[test]
fn a_lone_write_that_was_never_begun_ends_before_its_io_does() {
    let Some(mut io) = make(Backend::Uring) else { return };
    let directory = crate::harness::TestDirectory::new();
    let path = directory.path.join("f");
    let file = open_on(&mut io, &path, Access::CreateNew);
    io.submit(Token(1), durable(file, 0, 9));
    assert!(io.is_alone());
    drop(io);
    assert_eq!(std::fs::read(&path).expect("readable"), vec![9; BLOCK_BYTES]);
}
