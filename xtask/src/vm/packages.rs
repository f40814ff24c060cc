//! Debian's package index, asked through `apt-cache`.

use crate::process;
use anyhow::{Context as _, Result, bail};
use std::process::Command;

/// A package, with the exact version where one is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    pub version: Option<String>,
}

impl Package {
    /// What `apt-get download` wants.
    pub fn spec(&self) -> String {
        match &self.version {
            Some(version) => format!("{}={version}", self.name),
            None => self.name.clone(),
        }
    }
}

/// What the newest version of a package says of itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Stanza {
    pub package: Package,
    pub depends: Vec<Package>,
}

impl Stanza {
    /// The dependencies whose name starts with one of `prefixes`.
    pub fn depends_on(&self, prefixes: &[&str]) -> Vec<Package> {
        let wanted = |package: &&Package| prefixes.iter().any(|prefix| package.name.starts_with(prefix));
        self.depends.iter().filter(wanted).cloned().collect()
    }
}

/// Asks for the newest version of a package.
///
/// # Errors
/// `apt-cache` does not know it.
pub fn show(name: &str) -> Result<Stanza> {
    let text = process::capture(Command::new("apt-cache").args(["show", "--no-all-versions", name]))
        .with_context(|| format!("the package index does not know {name}"))?;
    parse(&text).with_context(|| format!("reading what apt-cache says of {name}"))
}

/// Reads the first stanza of `apt-cache show`.
///
/// # Errors
/// A field that must be there is missing.
pub fn parse(text: &str) -> Result<Stanza> {
    let mut name = None;
    let mut version = None;
    let mut depends = Vec::new();
    for line in text.lines() {
        if line.trim().is_empty() && name.is_some() {
            break;
        }
        match line.split_once(": ") {
            Some(("Package", value)) if name.is_none() => name = Some(value.trim().to_owned()),
            Some(("Version", value)) if version.is_none() => version = Some(value.trim().to_owned()),
            Some(("Depends", value)) if depends.is_empty() => depends = dependencies(value),
            _ => {}
        }
    }
    let (Some(name), Some(version)) = (name, version) else {
        bail!("no Package or no Version in:\n{text}")
    };
    Ok(Stanza {
        package: Package {
            name,
            version: Some(version),
        },
        depends,
    })
}

/// Of alternatives (`a | b`) the first counts, as for apt. Only `=` pins a version.
fn dependencies(value: &str) -> Vec<Package> {
    let first = |item: &str| item.split('|').next().unwrap_or_default().trim().to_owned();
    value
        .split(',')
        .map(first)
        .filter(|item| !item.is_empty())
        .map(|item| dependency(&item))
        .collect()
}

fn dependency(item: &str) -> Package {
    let (name, constraint) = item.split_once(' ').unwrap_or((item, ""));
    let version = constraint
        .trim()
        .strip_prefix("(= ")
        .and_then(|rest| rest.strip_suffix(')'))
        .map(str::to_owned);
    let name = name.split(':').next().unwrap_or(name).to_owned();
    Package { name, version }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: Option<&str>) -> Package {
        Package {
            name: name.into(),
            version: version.map(str::to_owned),
        }
    }

    #[test]
    fn meta_package_names_the_current_image() {
        let text = "Package: linux-image-cloud-amd64\nSource: linux-signed-amd64 (6.1.192+2)\nVersion: 6.1.192-2\n\
            Provides: linux-latest-modules-6.1.0-56-cloud-amd64\n\
            Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\nDescription: Linux: for clouds\n\n\
            Package: linux-image-cloud-amd64\nVersion: 6.1.176-1\n\
            Depends: linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)\n";
        let stanza = parse(text).unwrap();
        assert_eq!(stanza.package, package("linux-image-cloud-amd64", Some("6.1.192-2")));
        assert_eq!(
            stanza.depends_on(&["linux-image-"]),
            vec![package("linux-image-6.1.0-56-cloud-amd64", Some("6.1.192-2"))]
        );
    }

    #[test]
    fn header_packages_pull_what_a_module_build_needs() {
        let text = "Package: linux-headers-6.12.117+deb12-cloud-amd64\nVersion: 6.12.117-1~deb12u1\n\
            Depends: linux-base (>= 4.12~), linux-headers-6.12.117+deb12-common (= 6.12.117-1~deb12u1), \
            linux-image-6.12.117+deb12-cloud-amd64 (= 6.12.117-1~deb12u1) | linux-image-unsigned, \
            linux-kbuild-6.12.117+deb12, gcc-12:any\n";
        let stanza = parse(text).unwrap();
        assert_eq!(
            stanza.depends_on(&["linux-headers-", "linux-kbuild-"]),
            vec![
                package("linux-headers-6.12.117+deb12-common", Some("6.12.117-1~deb12u1")),
                package("linux-kbuild-6.12.117+deb12", None),
            ]
        );
        assert_eq!(stanza.depends_on(&["gcc-"]), vec![package("gcc-12", None)]);
        assert_eq!(
            stanza.depends_on(&["linux-image-"])[0].spec(),
            "linux-image-6.12.117+deb12-cloud-amd64=6.12.117-1~deb12u1"
        );
    }

    #[test]
    fn text_that_is_no_stanza_is_refused() {
        for text in [
            "",
            "\n\n",
            "Package: x\n",
            "Version: 1\n",
            "N: Unable to locate package x\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
