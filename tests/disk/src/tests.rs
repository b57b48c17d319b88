//! The disk keeps its own promises, as seen through the kernel.

use super::{Disk, Image, Loss, Operation};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

/// What a directory holds, as name and content.
fn found(at: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(at).unwrap().map(|entry| entry.unwrap());
    let named = entries.map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    });
    let mut found: Vec<_> = named.collect();
    found.sort();
    found
}

fn sync(dir: &Path) {
    File::open(dir).unwrap().sync_all().unwrap();
}

/// Runs `work` on an empty disk, cuts the power, and tells what is found.
fn after(loss: Loss, work: impl Fn(&Path, &Disk)) -> Vec<(String, Vec<u8>)> {
    let at = tempfile::tempdir().unwrap();
    let disk = Disk::mount(at.path(), Image::default());
    work(at.path(), &disk);
    let image = disk.end(loss);
    let _disk = Disk::mount(at.path(), image);
    found(at.path())
}

#[test]
fn what_was_not_synced_is_lost() {
    let work = |at: &Path, _: &Disk| {
        let file = File::create(at.join("kept")).unwrap();
        file.write_all_at(b"synced", 0).unwrap();
        file.sync_data().unwrap();
        sync(at);
        file.write_all_at(b"SYNC", 0).unwrap();
        file.write_all_at(b"longer", 6).unwrap();
        fs::write(at.join("nameless"), "x").unwrap();
        File::open(at.join("nameless")).unwrap().sync_all().unwrap();
    };
    let kept = |bytes: &[u8]| ("kept".to_owned(), bytes.to_vec());
    assert_eq!(after(Loss::Unsynced, work), [kept(b"synced")]);
    assert_eq!(
        after(Loss::Nothing, work),
        [kept(b"SYNCedlonger"), ("nameless".into(), b"x".to_vec())]
    );
}

#[test]
fn names_are_lost_and_kept_in_order() {
    let work = |at: &Path, _: &Disk| {
        for name in ["old", "new"] {
            let mut file = File::create(at.join(name)).unwrap();
            file.write_all(name.as_bytes()).unwrap();
            file.sync_all().unwrap();
        }
        sync(at);
        fs::rename(at.join("new"), at.join("old")).unwrap();
        fs::write(at.join("later"), "").unwrap();
        fs::remove_file(at.join("later")).unwrap();
    };
    let row = |name: &str, bytes: &str| (name.to_owned(), bytes.as_bytes().to_vec());
    let before = vec![row("new", "new"), row("old", "old")];
    assert_eq!(after(Loss::Unsynced, work), before);
    let renamed = vec![row("old", "new")];
    assert_eq!(after(Loss::Nothing, work), renamed);
    let mut seen = [false; 3];
    for seed in 0..32 {
        let found = after(Loss::Some(seed), work);
        let with_later = vec![row("later", ""), row("old", "new")];
        let known = [&before, &renamed, &with_later];
        let which = known.iter().position(|known| **known == found).expect("in order");
        seen[which] = true;
    }
    assert_eq!(seen, [true; 3]);
}

#[test]
fn some_pages_of_a_write_survive_and_others_do_not() {
    let work = |at: &Path, _: &Disk| {
        let file = File::create(at.join("file")).unwrap();
        file.write_all_at(&[1; 8 * 4096], 0).unwrap();
        file.sync_all().unwrap();
        sync(at);
        file.write_all_at(&[2; 8 * 4096], 0).unwrap();
    };
    let found = after(Loss::Some(7), work);
    let pages: Vec<u8> = found[0].1.chunks(4096).map(|page| page[0]).collect();
    assert!(found[0].1.chunks(4096).all(|page| page.iter().all(|byte| *byte == page[0])));
    assert!(pages.contains(&1) && pages.contains(&2), "{pages:?}");
    assert_eq!(found, after(Loss::Some(7), work), "a seed says what is lost");
}

#[test]
fn a_sync_that_failed_is_not_made_good_by_the_next() {
    let work = |at: &Path, disk: &Disk| {
        let file = File::create(at.join("file")).unwrap();
        file.write_all_at(b"old", 0).unwrap();
        file.sync_all().unwrap();
        sync(at);
        file.write_all_at(b"new", 0).unwrap();
        disk.fail_once(Operation::Sync, 0);
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
        assert_eq!(disk.failed().as_deref(), Some("Sync of file"));
        file.sync_data().unwrap();
        assert_eq!(fs::read(at.join("file")).unwrap(), b"new");
    };
    assert_eq!(after(Loss::Unsynced, work), [("file".to_owned(), b"old".to_vec())]);
}

#[test]
fn syncs_can_be_ignored() {
    let work = |at: &Path, disk: &Disk| {
        disk.ignore_syncs();
        fs::write(at.join("file"), "x").unwrap();
        File::open(at.join("file")).unwrap().sync_all().unwrap();
        sync(at);
    };
    assert_eq!(after(Loss::Unsynced, work), []);
}

#[test]
fn a_full_disk_takes_what_fits() {
    let at = tempfile::tempdir().unwrap();
    let disk = Disk::mount(at.path(), Image::default());
    let mut file = File::create(at.path().join("file")).unwrap();
    disk.set_room(Some(2));
    assert_eq!(file.write(&[1; 3 * 4096]).unwrap(), 2 * 4096);
    let full = |error: io::Error| assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    full(file.write(&[1]).unwrap_err());
    full(File::create(at.path().join("other")).unwrap_err());
    assert!(disk.is_full() && disk.ran_out());
    file.write_all_at(&[2; 4096], 0).unwrap();
    disk.set_room(None);
    file.write_all(&[1; 4096]).unwrap();
    assert_eq!(fs::read(at.path().join("file")).unwrap().len(), 3 * 4096);
}

#[test]
fn after_a_cut_nothing_works_and_nothing_changes() {
    let at = tempfile::tempdir().unwrap();
    let disk = Disk::mount(at.path(), Image::default());
    let path = at.path().join("file");
    fs::write(&path, "x").unwrap();
    disk.cut_power_after(1);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"y", 0).unwrap();
    assert!(!disk.is_dead());
    file.write_all_at(b"z", 0).unwrap_err();
    assert!(disk.is_dead());
    fs::read(&path).unwrap_err();
    fs::remove_file(&path).unwrap_err();
    let image = disk.end(Loss::Nothing);
    // The file is still open, on a disk that is gone.
    file.write_all_at(b"z", 0).unwrap_err();
    let _disk = Disk::mount(at.path(), image);
    assert_eq!(fs::read(&path).unwrap(), b"y");
}

#[test]
fn a_panic_unmounts_it() {
    let at = tempfile::tempdir().unwrap();
    let path = at.path().to_owned();
    let panicked = std::panic::catch_unwind(move || {
        let disk = Disk::mount(&path, Image::default());
        fs::write(disk.path().join("file"), "x").unwrap();
        std::panic::resume_unwind(Box::new(()));
    });
    panicked.unwrap_err();
    assert_eq!(found(at.path()), [], "what is below the disk is seen again");
}
