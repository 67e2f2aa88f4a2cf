//! The recording device under a real file system.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::process::Command;

use highwater_crash::device::Marker;
use highwater_crash::image::Image;
use highwater_crash::mount::FileSystem;
use highwater_crash::replay::{Event, Mark, Replay, Unflushed};

use crate::rig;

/// Finds `bytes` in what a device was given to write between two marks.
fn was_written(events: &[Event], bytes: &[u8]) -> bool {
    events.iter().any(|event| match event {
        Event::Write { bytes: written, .. } => {
            written.chunks(bytes.len()).any(|chunk| chunk == bytes)
        }
        _ => false,
    })
}

/// Whoever is told by `fdatasync` that bytes are safe finds them, and a flush after them, logged.
fn fdatasync_is_a_flush_of_the_device(file_system: FileSystem) {
    let Some(rig) = rig(file_system) else { return };
    let disk = rig.disk(rig.formatted().clone());
    let mounted = rig.mount(&disk).unwrap();
    let mut file = File::create(mounted.directory().join("file")).unwrap();
    for byte in 1..=20 {
        let before = disk.mark();
        let block = [byte; 4096];
        file.write_all(&block).unwrap();
        file.sync_data().unwrap();
        let after = disk.mark();
        let recording = disk.recording();
        let permanent = Replay::new(recording.clone()).permanent(after);
        assert!(permanent > before, "block {byte}: no flush since the write");
        assert!(was_written(&recording.events[before.0..permanent.0], &block), "block {byte}");
    }
    drop(file);
    mounted.unmount().unwrap();
    let recording = disk.recording();
    let end = recording.end();
    assert_eq!(Replay::new(recording).cut(end, Unflushed::Kept), disk.image());
}

#[test]
fn fdatasync_is_a_flush_on_ext4() {
    fdatasync_is_a_flush_of_the_device(FileSystem::Ext4);
}

#[test]
fn fdatasync_is_a_flush_on_xfs() {
    fdatasync_is_a_flush_of_the_device(FileSystem::Xfs);
}

#[test]
fn what_was_not_flushed_has_not_reached_the_device() {
    let Some(rig) = rig(FileSystem::Ext4) else { return };
    let disk = rig.disk(rig.formatted().clone());
    let mounted = rig.mount(&disk).unwrap();
    let before = disk.mark();
    std::fs::write(mounted.directory().join("file"), [0xab; 4096]).unwrap();
    let events = disk.recording().events;
    assert!(!was_written(&events[before.0..], &[0xab; 4096]), "the page cache holds it");
    drop(mounted);
    assert!(was_written(&disk.recording().events, &[0xab; 4096]), "unmounting writes it");
}

#[test]
fn an_image_lives_again_on_a_new_device() {
    let Some(rig) = rig(FileSystem::Ext4) else { return };
    let mut image = rig.formatted().clone();
    for life in 0..4_u8 {
        let disk = rig.disk(image.clone());
        assert_eq!(disk.mark(), Mark(0), "a new device has an empty log");
        let mounted = rig.mount(&disk).unwrap();
        for earlier in 0..life {
            let bytes = std::fs::read(mounted.directory().join(format!("life{earlier}"))).unwrap();
            assert_eq!(bytes, [earlier; 10_000], "in life {life}");
        }
        let mut file = File::create(mounted.directory().join(format!("life{life}"))).unwrap();
        file.write_all(&[life; 10_000]).unwrap();
        file.sync_all().unwrap();
        let mark = disk.mark();
        drop(file);
        // The cut falls while it is mounted.
        image = Replay::new(disk.recording())
            .untorn(rig.file_system().untorn())
            .cut(mark, Unflushed::Seeded(u64::from(life)));
    }
}

#[test]
fn disks_are_files_of_their_own() {
    let Some(rig) = rig(FileSystem::Ext4) else { return };
    let one = rig.disk(Image::zeroed(1 << 20));
    let two = rig.disk(Image::zeroed(1 << 20));
    let options = || File::options().read(true).write(true).clone();
    let (first, second) =
        (options().open(one.path()).unwrap(), options().open(two.path()).unwrap());
    first.write_all_at(&[1; 600_000], 1000).unwrap();
    second.write_all_at(&[2; 10], 0).unwrap();
    second.sync_all().unwrap();
    assert!(first.write_all_at(&[1; 10], (1 << 20) - 5).is_err(), "a disk does not grow");
    let mut bytes = Vec::new();
    (&first).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 1 << 20);
    assert!(bytes[1000..601_000].iter().all(|byte| *byte == 1));
    assert_eq!(two.recording().events.last(), Some(&Event::Flush));
    assert_eq!(two.mark(), Mark(2));
    let directory = one.path().parent().unwrap();
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 2);
    let path = two.path().to_owned();
    drop(two);
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 1);
    assert!(second.sync_all().is_err(), "a disk that is gone serves nothing");
    assert!(File::open(path).is_err());
}

#[test]
fn discards_are_logged() {
    let Some(rig) = rig(FileSystem::Ext4) else { return };
    let disk = rig.disk(rig.formatted().clone());
    let mounted = rig.mount(&disk).unwrap();
    let trimmed = Command::new("fstrim").arg(mounted.directory()).status();
    assert!(trimmed.unwrap().success());
    mounted.unmount().unwrap();
    let recording = disk.recording();
    assert!(recording.counts().zeros > 0, "{:?}", recording.counts());
    let end = recording.end();
    assert_eq!(Replay::new(recording).cut(end, Unflushed::Kept), disk.image());
    rig.mount(&disk).unwrap().unmount().unwrap();
}
