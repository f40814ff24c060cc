//! Kernels to boot: the distribution's stock ones by name, or a user's own image by path.

use super::fetch;
use super::packages::{self, Package, Stanza};
use crate::setup::apt;
use crate::ui;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};

/// A stock kernel that is fetched when it is needed.
#[derive(Debug, PartialEq, Eq)]
pub struct Stock {
    /// What the user types.
    pub name: &'static str,
    /// Packages that name the current version of an image. Which of them is of this series depends on Debian's release.
    pub metas: &'static [&'static str],
    /// Start of `uname -r`.
    pub series: &'static str,
    pub meaning: &'static str,
}

/// All of them, the default first.
pub const STOCK: &[Stock] = &[
    Stock {
        name: "6.1",
        metas: &["linux-image-cloud-amd64", "linux-image-6.1-cloud-amd64"],
        series: "6.1.",
        meaning: "Debian's 6.1, cloud flavour",
    },
    Stock {
        name: "6.12",
        metas: &["linux-image-6.12-cloud-amd64", "linux-image-cloud-amd64"],
        series: "6.12.",
        meaning: "Debian's 6.12, cloud flavour",
    },
    Stock {
        name: "6.12-rt",
        metas: &["linux-image-6.12-rt-amd64", "linux-image-rt-amd64"],
        series: "6.12.",
        meaning: "Debian's 6.12 with PREEMPT_RT",
    },
];

/// A kernel that is on disk.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Stock name, or the path that was given.
    pub name: String,
    /// `uname -r`.
    pub release: String,
    /// The bzImage.
    pub image: PathBuf,
    /// Root directory below which `lib/modules/RELEASE` lies.
    pub modules: Option<PathBuf>,
    /// Where headers for out-of-tree modules come from.
    pub headers: Headers,
}

/// Source of a kernel's headers.
#[derive(Debug, Clone)]
pub enum Headers {
    /// Debian's package for this release.
    Package(String),
    /// A build directory.
    Directory(PathBuf),
    /// None: no module can be built.
    None,
}

/// Finds, and if need be fetches, the kernel named or pointed to by `choice`.
///
/// # Errors
/// An unknown name, a file that is no kernel, or a download that failed.
pub fn ensure(choice: &str, headers: Option<&Path>) -> Result<Kernel> {
    let mut kernel = match STOCK.iter().find(|stock| stock.name == choice) {
        Some(stock) => ensure_stock(stock)?,
        None => own(Path::new(choice))?,
    };
    if let Some(directory) = headers {
        let directory = directory
            .canonicalize()
            .with_context(|| format!("--headers {}", directory.display()))?;
        kernel.headers = Headers::Directory(directory);
    }
    Ok(kernel)
}

fn ensure_stock(stock: &Stock) -> Result<Kernel> {
    let image = match resolve(stock) {
        Ok(image) => image,
        Err(error) => {
            let Some(entry) = fetch::remembered(stock.name) else {
                return Err(error).with_context(|| {
                    format!(
                        "kernel {} comes from Debian's archive through apt, and apt cannot say which version is current; \
                         a kernel of your own works too: --kernel PATH [--headers DIR]",
                        stock.name
                    )
                });
            };
            ui::step(format!("{error:#}; using the cached {entry}"));
            return unpacked(stock, &entry);
        }
    };
    let entry = entry_name(&image);
    if let Err(error) = fetch::ensure(&entry, std::slice::from_ref(&image), |_, _| Ok(())) {
        // An index older than the mirror names versions that are gone.
        ui::step(format!("{error:#}"));
        apt::update()?;
        let image = resolve(stock)?;
        let entry = entry_name(&image);
        fetch::ensure(&entry, &[image], |_, _| Ok(()))?;
        fetch::remember(stock.name, &entry)?;
        return unpacked(stock, &entry);
    }
    fetch::remember(stock.name, &entry)?;
    unpacked(stock, &entry)
}

fn resolve(stock: &Stock) -> Result<Package> {
    resolve_once(stock).or_else(|_| {
        apt::update()?;
        resolve_once(stock)
    })
}

fn resolve_once(stock: &Stock) -> Result<Package> {
    let mut refusals = Vec::new();
    for meta in stock.metas {
        match packages::show(meta).and_then(|stanza| image_of(&stanza, stock.series)) {
            Ok(image) => return Ok(image),
            Err(error) => refusals.push(format!("{error:#}")),
        }
    }
    bail!("{}", refusals.join("; "))
}

/// The image that a meta package stands for, if it is of the series.
fn image_of(stanza: &Stanza, series: &str) -> Result<Package> {
    let mut images = stanza.depends_on(&["linux-image-"]);
    let (Some(image), true) = (images.pop(), images.is_empty()) else {
        bail!(
            "{} does not name exactly one image: {:?}",
            stanza.package.name,
            stanza.depends
        );
    };
    let release = image.name.trim_start_matches("linux-image-");
    if !release.starts_with(series) {
        bail!("{} is {release} here, not {series}x", stanza.package.name);
    }
    Ok(image)
}

/// Cache entry of an image: the version is part of it, a new upload is a new entry.
fn entry_name(image: &Package) -> String {
    format!("{}_{}", image.name, image.version.as_deref().unwrap_or("unversioned"))
}

fn unpacked(stock: &Stock, entry: &str) -> Result<Kernel> {
    let root = fetch::cached(entry)?.with_context(|| format!("{entry} is not in the cache"))?;
    let release = entry
        .strip_prefix("linux-image-")
        .and_then(|rest| rest.split('_').next())
        .with_context(|| format!("no kernel release in {entry}"))?
        .to_owned();
    let image = root.join(format!("boot/vmlinuz-{release}"));
    if !image.is_file() {
        bail!("{} is missing from its package", image.display());
    }
    let headers = Headers::Package(format!("linux-headers-{release}"));
    Ok(Kernel {
        name: stock.name.to_owned(),
        release,
        image,
        modules: Some(root),
        headers,
    })
}

fn own(path: &Path) -> Result<Kernel> {
    let names: Vec<&str> = STOCK.iter().map(|stock| stock.name).collect();
    let image = path.canonicalize().with_context(|| {
        format!(
            "--kernel {}: neither a stock kernel ({}) nor a file",
            path.display(),
            names.join(", ")
        )
    })?;
    let bytes = std::fs::read(&image).with_context(|| format!("reading {}", image.display()))?;
    let release = release_of(&bytes).with_context(|| {
        format!(
            "{} is no x86 kernel image (bzImage, usually called vmlinuz)",
            image.display()
        )
    })?;
    let name = path.display().to_string();
    Ok(Kernel {
        name,
        release,
        image,
        modules: None,
        headers: Headers::None,
    })
}

/// The version string inside a bzImage (Documentation/arch/x86/boot.rst: `HdrS` at 0x202, `kernel_version` at 0x20e).
fn release_of(image: &[u8]) -> Option<String> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let offset = u16::from_le_bytes(*image.get(0x20e..)?.first_chunk::<2>()?);
    let text = image.get(usize::from(offset) + 0x200..)?;
    let end = text.iter().position(|byte| *byte == 0 || *byte == b' ')?;
    let release = std::str::from_utf8(&text[..end]).ok()?;
    (!release.is_empty()).then(|| release.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_is_read_from_the_image() {
        let mut image = vec![0; 0x400];
        assert_eq!(release_of(&image), None);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        assert_eq!(release_of(&image), None, "no version string");
        image[0x20e..0x210].copy_from_slice(&0x0100u16.to_le_bytes());
        image[0x300..0x300 + 17].copy_from_slice(b"6.1.0-9 (who@me) ");
        assert_eq!(release_of(&image).as_deref(), Some("6.1.0-9"));
        image[0x20e..0x210].copy_from_slice(&0xffffu16.to_le_bytes());
        assert_eq!(release_of(&image), None, "the pointer leads out of the file");
        assert_eq!(release_of(&[]), None);
    }

    #[test]
    fn a_meta_package_of_another_series_is_refused() {
        let stanza = |image: &str| {
            let text = format!("Package: linux-image-cloud-amd64\nVersion: 1\nDepends: {image}\n");
            packages::parse(&text).unwrap()
        };
        let image = image_of(&stanza("linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)"), "6.1.").unwrap();
        assert_eq!(image.name, "linux-image-6.1.0-56-cloud-amd64");
        let refused = |stanza: &Stanza| image_of(stanza, "6.1.").unwrap_err().to_string();
        assert!(refused(&stanza("linux-image-6.12.9+deb13-cloud-amd64")).contains("is 6.12.9+deb13-cloud-amd64 here"));
        assert!(refused(&stanza("linux-image-a, linux-image-b")).contains("exactly one"));
        assert!(refused(&stanza("gcc")).contains("exactly one"));
    }

    #[test]
    fn cache_entries_carry_the_version() {
        let image = Package {
            name: "linux-image-6.1.0-56-cloud-amd64".into(),
            version: Some("6.1.192-2".into()),
        };
        assert_eq!(entry_name(&image), "linux-image-6.1.0-56-cloud-amd64_6.1.192-2");
    }

    #[test]
    fn unknown_kernels_are_refused_with_the_known_names() {
        let error = format!("{:#}", ensure("6.2", None).unwrap_err());
        assert!(error.contains("6.1, 6.12, 6.12-rt"), "{error}");
    }
}
