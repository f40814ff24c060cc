//! Files of modules, as distributions compress them.
//!
//! KERNEL: scripts/Makefile.modinst (5.13 and newer): `.ko.gz`, `.ko.xz` (a dictionary of 1 MiB since 2021) and `.ko.zst`. What is in a
//! file decides, not its name. A file that would take more memory than these bounds is passed over: no file may take the machine along.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use liblzma::stream::Stream;

/// A file is not read beyond this size.
const MAX_FILE: u64 = 512 << 20;
/// Nor unpacked beyond this one: the largest modules of distributions with all their debug information stay below.
const MAX_UNPACKED: u64 = 256 << 20;
/// Memory of xz's own: enough for what `xz -9` wrote (64 MiB of dictionary).
const MAX_XZ: u64 = 80 << 20;
/// The same for zstd, as a power of two: what `zstd` reads unless told otherwise.
const MAX_ZSTD_LOG: u32 = 27;
/// Endings of compressed files.
const ENDINGS: [&str; 4] = ["", ".zst", ".xz", ".gz"];
/// How files begin.
const ELF: [u8; 4] = [0x7f, b'E', b'L', b'F'];
const GZIP: [u8; 2] = [0x1f, 0x8b];
const XZ: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The names that a file may have: `plain` with each of these endings, compressed or not.
pub fn names(plain: &Path, ends: &[&str]) -> Vec<PathBuf> {
    let with = |end: &str, packed: &str| PathBuf::from(format!("{}.{end}{packed}", plain.display()));
    let all = ends.iter().flat_map(|end| ENDINGS.map(|packed| with(end, packed)));
    all.collect()
}

/// The content of an ELF file, unpacked; `None` if it cannot be read, is damaged, too large or something else.
pub fn read(path: &Path) -> Option<Vec<u8>> {
    read_within(path, MAX_UNPACKED)
}

/// The same with a bound for what is unpacked.
fn read_within(path: &Path, unpacked: u64) -> Option<Vec<u8>> {
    let mut file = BufReader::new(File::open(path).ok()?.take(MAX_FILE + 1));
    let start = file.fill_buf().ok()?;
    if start.starts_with(&ELF) {
        whole(file, MAX_FILE)
    } else if start.starts_with(&GZIP) {
        whole(flate2::bufread::MultiGzDecoder::new(file), unpacked)
    } else if start.starts_with(&XZ) {
        let limited = Stream::new_stream_decoder(MAX_XZ, 0).ok()?;
        whole(liblzma::bufread::XzDecoder::new_stream(file, limited), unpacked)
    } else if start.starts_with(&ZSTD) {
        let mut decoder = zstd::Decoder::with_buffer(file).ok()?;
        decoder.window_log_max(MAX_ZSTD_LOG).ok()?;
        whole(decoder, unpacked)
    } else {
        None
    }
}

/// All of it, if it is an ELF file of this size at most. What it is, its first bytes tell before the others are read.
fn whole(mut from: impl Read, at_most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let start = from.by_ref().take(ELF.len() as u64).read_to_end(&mut bytes);
    if start.is_err() || bytes != ELF {
        return None;
    }
    let mut all: io::Take<_> = from.take(at_most + 1 - ELF.len() as u64);
    all.read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= at_most).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn names_are_plain_and_compressed() {
        let shown: Vec<String> = names(Path::new("/x/dm.mod"), &["ko", "ko.debug"])
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let plain = ["", ".zst", ".xz", ".gz"].map(|end| format!("/x/dm.mod.ko{end}"));
        let debug = ["", ".zst", ".xz", ".gz"].map(|end| format!("/x/dm.mod.ko.debug{end}"));
        assert_eq!(shown, [plain, debug].concat());
    }

    /// Zeros behind the beginning of an ELF file, which pack well.
    fn zeros(bytes: u64) -> impl Read {
        ELF.as_slice().chain(io::repeat(0)).take(bytes)
    }

    /// Packed in pieces, so that the test itself needs no memory.
    fn packed(format: &str, bytes: u64) -> Vec<u8> {
        let mut from = zeros(bytes);
        match format {
            "gz" => {
                let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                io::copy(&mut from, &mut to).unwrap();
                to.finish().unwrap()
            }
            "xz" => {
                let mut to = liblzma::write::XzEncoder::new(Vec::new(), 0);
                io::copy(&mut from, &mut to).unwrap();
                to.finish().unwrap()
            }
            _ => {
                let mut to = zstd::Encoder::new(Vec::new(), 1).unwrap();
                io::copy(&mut from, &mut to).unwrap();
                to.finish().unwrap()
            }
        }
    }

    fn written(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn what_unpacks_to_more_than_the_bound_is_passed_over() {
        const MOST: u64 = 1 << 20;
        for format in ["gz", "xz", "zst"] {
            for (size, fits) in [(MOST / 2, true), (MOST, true), (MOST + 1, false), (MOST * 4, false)] {
                let file = written(&packed(format, size));
                let length = read_within(file.path(), MOST).map(|bytes| bytes.len() as u64);
                assert_eq!(length, fits.then_some(size), "{format}");
            }
        }
    }

    #[test]
    fn what_needs_more_memory_to_unpack_than_the_bound_is_passed_over() {
        let content: Vec<u8> = ELF.into_iter().chain([7; 100]).collect();
        let xz = |dictionary: u32| {
            let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
            options.dict_size(dictionary);
            let mut filters = liblzma::stream::Filters::new();
            filters.lzma2(&options);
            let stream = Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32).unwrap();
            let mut to = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
            to.write_all(&content).unwrap();
            written(&to.finish().unwrap())
        };
        assert_eq!(read(xz(64 << 20).path()), Some(content.clone()));
        assert_eq!(read(xz(128 << 20).path()), None);
        // A frame header that asks for a window of 2 GiB, then a raw block.
        let mut zstd = ZSTD.to_vec();
        zstd.extend([0, 21 << 3]);
        zstd.extend((((content.len() as u32) << 3) | 1).to_le_bytes().into_iter().take(3));
        zstd.extend(&content);
        assert_eq!(read(written(&zstd).path()), None);
        // The same with one of 1 MiB.
        zstd[5] = 10 << 3;
        assert_eq!(read(written(&zstd).path()), Some(content));
    }

    #[test]
    fn what_is_torn_damaged_or_no_module_says_nothing() {
        assert_eq!(read(Path::new("/no/such")), None);
        for format in ["gz", "xz", "zst"] {
            let whole = packed(format, 5_000);
            assert_eq!(read(written(&whole).path()).map(|bytes| bytes.len()), Some(5_000));
            for end in 0..whole.len() {
                assert_eq!(read(written(&whole[..end]).path()), None, "{format} {end}");
            }
        }
        for content in [b"".as_slice(), b"\x7fEL", b"text", &GZIP, &XZ, &ZSTD] {
            assert_eq!(read(written(content).path()), None, "{content:?}");
        }
        // Packed, but no ELF file: nothing beyond the first bytes is unpacked.
        let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        to.write_all(&[b'x'; 100]).unwrap();
        assert_eq!(read(written(&to.finish().unwrap()).path()), None);
    }
}
