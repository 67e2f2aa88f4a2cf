//! Opening, creating, renaming, removing, listing; and what failures are called.

use highwater_io::{Access, BLOCK_BYTES, Entry, EntryKind, IoErrorKind};

use crate::harness::{block, check_blocking, kind_of, open, read, write};

#[test]
fn created_file_is_there_and_cannot_be_created_again() {
    check_blocking(|mut io, directory| {
        let path = directory.join("new");
        let file = open(&mut io, &path, Access::CreateNew);
        assert_eq!(io.length(file), Ok(0));
        for direct in [true, false] {
            let again = io.open(&path, Access::CreateNew, direct);
            let error = again.expect_err("the name is taken");
            assert_eq!(error.kind, IoErrorKind::AlreadyExists);
            assert_eq!((error.operation, &error.path), ("open", &path));
        }
        io.close(file).expect("it closes");
        for access in [Access::Read, Access::ReadWrite] {
            let file = open(&mut io, &path, access);
            io.close(file).expect("it closes");
        }
    });
}

#[test]
fn missing_name_is_not_found() {
    check_blocking(|mut io, directory| {
        let path = directory.join("missing");
        for access in [Access::Read, Access::ReadWrite] {
            for direct in [true, false] {
                assert_eq!(kind_of(io.open(&path, access, direct)), IoErrorKind::NotFound);
            }
        }
        assert_eq!(kind_of(io.remove(&path)), IoErrorKind::NotFound);
        assert_eq!(kind_of(io.list(&path)), IoErrorKind::NotFound);
        assert_eq!(kind_of(io.sync_directory(&path)), IoErrorKind::NotFound);
        assert_eq!(kind_of(io.lock(&path)), IoErrorKind::NotFound);
        let renamed = io.rename(path.clone(), directory.join("other"));
        assert_eq!(kind_of(renamed), IoErrorKind::NotFound);
        assert_eq!(kind_of(io.create_directory(&path.join("child"))), IoErrorKind::NotFound);
    });
}

#[test]
fn refused_and_wrong_names_say_so() {
    check_blocking(|mut io, directory| {
        // Not even root may write this one.
        let refused =
            kind_of(io.open("/proc/sys/kernel/ostype".as_ref(), Access::ReadWrite, false));
        let kinds = [IoErrorKind::PermissionDenied, IoErrorKind::ReadOnly];
        assert!(kinds.contains(&refused), "{refused:?}");
        let path = directory.join("file");
        open(&mut io, &path, Access::CreateNew);
        let below = path.join("below");
        assert_eq!(kind_of(io.open(&below, Access::Read, true)), IoErrorKind::WrongKind);
        assert_eq!(kind_of(io.open(directory, Access::ReadWrite, true)), IoErrorKind::WrongKind);
        assert_eq!(kind_of(io.list(&path)), IoErrorKind::WrongKind);
        assert_eq!(kind_of(io.lock(&path)), IoErrorKind::WrongKind);
        assert_eq!(kind_of(io.create_directory(&path)), IoErrorKind::AlreadyExists);
        let zero = directory.join("zero\0byte");
        assert_eq!(io.remove(&zero).expect_err("no such path can be").errno, Some(22));
    });
}

#[test]
fn list_is_sorted_and_names_the_kinds() {
    check_blocking(|mut io, directory| {
        assert_eq!(io.list(directory), Ok(Vec::new()));
        for name in ["b", "a", "10", "9"] {
            let file = open(&mut io, &directory.join(name), Access::CreateNew);
            io.close(file).expect("it closes");
        }
        io.create_directory(&directory.join("aa")).expect("it is made");
        std::os::unix::fs::symlink("a", directory.join("link")).expect("a link is made");
        io.sync_directory(directory).expect("it is flushed");
        let entry = |name: &str, kind| Entry { name: name.to_owned(), kind };
        let expected = vec![
            entry("10", EntryKind::File),
            entry("9", EntryKind::File),
            entry("a", EntryKind::File),
            entry("aa", EntryKind::Directory),
            entry("b", EntryKind::File),
            entry("link", EntryKind::Other),
        ];
        assert_eq!(io.list(directory), Ok(expected));
    });
}

#[test]
fn rename_replaces_and_an_open_file_outlives_its_name() {
    check_blocking(|mut io, directory| {
        let (from, to) = (directory.join("from"), directory.join("to"));
        let file = open(&mut io, &from, Access::CreateNew);
        write(&mut io, file, 0, 1, 1);
        let replaced = open(&mut io, &to, Access::CreateNew);
        write(&mut io, replaced, 0, 1, 2);
        io.rename(from.clone(), to.clone()).expect("it is renamed");
        assert_eq!(kind_of(io.open(&from, Access::Read, true)), IoErrorKind::NotFound);
        let now = open(&mut io, &to, Access::Read);
        assert_eq!(read(&mut io, now, 0, 1), vec![1; BLOCK_BYTES]);
        assert_eq!(read(&mut io, replaced, 0, 1), vec![2; BLOCK_BYTES]);
        io.remove(&to).expect("it is removed");
        assert_eq!(read(&mut io, file, 0, 1), vec![1; BLOCK_BYTES]);
        assert_eq!(io.list(directory), Ok(Vec::new()));
    });
}

#[test]
fn set_length_cuts_and_grows_with_zeros() {
    check_blocking(|mut io, directory| {
        let file = open(&mut io, &directory.join("file"), Access::CreateNew);
        write(&mut io, file, 0, 3, 7);
        io.set_length(file, 5000).expect("it is cut");
        assert_eq!(io.length(file), Ok(5000));
        io.set_length(file, block(2)).expect("it is grown");
        let bytes = read(&mut io, file, 0, 4);
        assert_eq!(bytes.len(), 2 * BLOCK_BYTES);
        assert!(bytes[..5000].iter().all(|byte| *byte == 7));
        assert!(bytes[5000..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn closed_file_is_not_used_again() {
    check_blocking(|mut io, directory| {
        let file = open(&mut io, &directory.join("file"), Access::CreateNew);
        io.close(file).expect("it closes");
        // The place is taken by another file, the handle is not.
        open(&mut io, &directory.join("other"), Access::CreateNew);
        let use_again = std::panic::AssertUnwindSafe(|| io.length(file));
        assert!(std::panic::catch_unwind(use_again).is_err());
    });
}
