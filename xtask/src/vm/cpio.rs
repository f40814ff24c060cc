//! Writes the "newc" archive that the kernel unpacks as its first root file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

/// An archive being written. Directories must come before what lies in them.
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const TRAILER: &str = "TRAILER!!!";

impl Archive {
    pub fn new() -> Self {
        Self {
            bytes: Vec::new(),
            inode: 0,
        }
    }

    /// Adds a directory. `path` has no leading slash.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, &[], (0, 0));
    }

    /// Adds a file with permissions `mode`.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, REGULAR | mode, content, (0, 0));
    }

    /// Adds a character device. Needs no privilege: it is only a record until the guest's kernel reads it.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, CHARACTER_DEVICE | 0o600, &[], (major, minor));
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry(TRAILER, 0, &[], (0, 0));
        // Loaders want whole 512-byte blocks.
        self.pad(512);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], device: (u32, u32)) {
        self.inode += 1;
        let links = if mode & DIRECTORY != 0 { 2 } else { 1 };
        let fields = [
            self.inode,
            mode,
            0, // uid
            0, // gid
            links,
            0, // mtime: the same input gives the same archive
            content.len() as u32,
            0, // device the archive was made on
            0,
            device.0,
            device.1,
            path.len() as u32 + 1,
            0, // checksum, unused in this format
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend_from_slice(content);
        self.pad(4);
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Entry {
        path: String,
        mode: u32,
        device: (u32, u32),
        content: Vec<u8>,
    }

    /// A reader written from the format's description, not from the writer.
    fn read(bytes: &[u8]) -> Vec<Entry> {
        let mut at = 0;
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701", "magic at {at}");
            let field = |n: usize| {
                let from = at + 6 + n * 8;
                u32::from_str_radix(std::str::from_utf8(&bytes[from..from + 8]).unwrap(), 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = &bytes[at + 110..at + 110 + name_size];
            assert_eq!(name.last(), Some(&0), "the name ends with NUL");
            let path = String::from_utf8(name[..name_size - 1].to_vec()).unwrap();
            let data = (at + 110 + name_size).next_multiple_of(4);
            if path == TRAILER {
                assert!(bytes[data..].iter().all(|byte| *byte == 0));
                return entries;
            }
            let content = bytes[data..data + size].to_vec();
            entries.push(Entry {
                path,
                mode,
                device: (field(9), field(10)),
                content,
            });
            at = (data + size).next_multiple_of(4);
        }
    }

    #[test]
    fn archive_reads_back() {
        let mut archive = Archive::new();
        archive.directory("dev");
        archive.character_device("dev/console", 5, 1);
        for length in 0..9 {
            archive.file(&"n".repeat(length + 1), 0o755, &vec![7; length]);
        }
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 512, 0);
        let entries = read(&bytes);
        assert_eq!(entries.len(), 11);
        assert_eq!(
            entries[0],
            Entry {
                path: "dev".into(),
                mode: 0o40755,
                device: (0, 0),
                content: vec![]
            }
        );
        assert_eq!(
            entries[1],
            Entry {
                path: "dev/console".into(),
                mode: 0o20600,
                device: (5, 1),
                content: vec![]
            }
        );
        for (length, entry) in entries[2..].iter().enumerate() {
            assert_eq!((entry.mode, entry.path.len()), (0o100_755, length + 1));
            assert_eq!(entry.content, vec![7; length]);
        }
    }

    #[test]
    fn empty_archive_is_a_trailer() {
        assert_eq!(read(&Archive::new().finish()), vec![]);
    }
}
