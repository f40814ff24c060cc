use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Instant;

use tempfile::TempDir;

use super::*;

fn output(path: &Path, keep: u32, overwrite: bool) -> Output {
    Output::Files {
        path: path.to_owned(),
        keep,
        overwrite,
    }
}

fn disk(path: &Path) -> Disk {
    Disk::create(&output(path, 0, false)).unwrap()
}

fn listing(directory: &TempDir) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn pairs(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn frames_arrive_in_order_for_the_owner_only() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("c");
    let mut disk = disk(&path);
    disk.file(Bytes::from_static(b"head ")).unwrap();
    for part in ["one ", "two ", "three"] {
        assert!(disk.frame(Bytes::from_static(part.as_bytes())).unwrap());
    }
    disk.finish().unwrap();
    assert_eq!(listing(&directory), pairs(&[("c", "head one two three")]));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn rotation_keeps_the_newest_files() {
    for (keep, expected) in [
        (0, pairs(&[("c", "4")])),
        (2, pairs(&[("c", "4"), ("c.1", "3"), ("c.2", "2")])),
        (
            9,
            pairs(&[("c", "4"), ("c.1", "3"), ("c.2", "2"), ("c.3", "1"), ("c.4", "0")]),
        ),
    ] {
        let directory = TempDir::new().unwrap();
        let mut disk = Disk::create(&output(&directory.path().join("c"), keep, false)).unwrap();
        for part in ["0", "1", "2", "3", "4"] {
            disk.file(Bytes::from_static(part.as_bytes())).unwrap();
        }
        disk.finish().unwrap();
        assert_eq!(listing(&directory), expected, "{keep} kept");
    }
}

#[test]
fn what_is_there_is_replaced_only_when_asked_for() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("c");
    for existing in ["c", "c.2"] {
        fs::write(directory.path().join(existing), "old").unwrap();
        let error = Disk::create(&output(&path, 2, false)).unwrap_err().to_string();
        assert!(error.contains(existing) && error.contains("--overwrite"), "{error}");
        assert_eq!(listing(&directory), pairs(&[(existing, "old")]));
        fs::remove_file(directory.path().join(existing)).unwrap();
    }
    for existing in ["c", "c.1", "c.2", "c.3"] {
        fs::write(directory.path().join(existing), "old").unwrap();
    }
    let mut disk = Disk::create(&output(&path, 2, true)).unwrap();
    disk.file(Bytes::from_static(b"new")).unwrap();
    disk.finish().unwrap();
    assert_eq!(
        listing(&directory),
        pairs(&[("c", "new"), ("c.3", "old")]),
        "the third was none of ours"
    );
}

#[test]
fn a_link_is_not_followed() {
    let directory = TempDir::new().unwrap();
    let (path, target) = (directory.path().join("c"), directory.path().join("target"));
    std::os::unix::fs::symlink(&target, &path).unwrap();
    assert!(Disk::create(&output(&path, 0, false)).is_err());
    assert!(!target.exists());
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let error = Disk::create(&output(Path::new("/no/such/directory/c"), 0, false)).unwrap_err();
    assert!(error.to_string().contains("/no/such/directory/c"), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_told_at_once_and_for_good() {
    let mut disk = disk(Path::new("/dev/full"));
    disk.file(Bytes::from_static(b"head")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let error = tokio::time::timeout_at(deadline.into(), disk.failure()).await.unwrap();
    let text = format!("{:#}", anyhow::Error::new(error));
    assert!(text.contains("/dev/full") && text.contains("No space left"), "{text}");
    drop(disk);
}

#[test]
fn frames_beyond_the_bound_are_refused_and_headers_are_not() {
    // A disk that takes nothing: the other end of the pipe does not read.
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let reader = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut disk = disk(&path);
    let frame = Bytes::from(vec![0; 1 << 20]);
    let taken = (0..40).filter(|_| disk.frame(frame.clone()).unwrap()).count();
    assert!((16..=18).contains(&taken), "{taken}");
    disk.file(Bytes::from_static(b"head")).unwrap();
    // Nobody will ever read: the thread ends with an error, not with the test.
    drop(reader);
    assert!(disk.finish().is_err());
}
