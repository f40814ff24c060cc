//! Iterators: programs that run when they are read.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result};
use aya::programs::Iter;
use aya::{Btf, Ebpf};

/// Loads the iterator program `name` over threads; it is run by [`run`].
///
/// # Errors
/// When the verifier or the kernel refuses it.
pub fn load(ebpf: &mut Ebpf, name: &str, btf: &Btf) -> Result<()> {
    load_over(ebpf, name, "task", btf)
}

/// Loads the iterator program `name` over `objects` (`task`, `bpf_map`); it is run by [`run`].
///
/// # Errors
/// When the verifier or the kernel refuses it.
pub fn load_over(ebpf: &mut Ebpf, name: &str, objects: &str, btf: &Btf) -> Result<()> {
    program(ebpf, name)?
        .load(objects, btf)
        .with_context(|| format!("loading the iterator {name}"))
}

/// Runs an iterator over every thread of the reader's pid namespace and returns what it wrote.
///
/// # Errors
/// When the iterator cannot be created or read.
pub fn run(ebpf: &mut Ebpf, name: &str, into: &mut Vec<u8>) -> Result<()> {
    open(ebpf, name)?
        .read_to_end(into)
        .with_context(|| format!("reading the iterator {name}"))?;
    Ok(())
}

/// Creates an iteration, which runs while its file is read.
///
/// # Errors
/// When the iterator cannot be created.
pub fn open(ebpf: &mut Ebpf, name: &str) -> Result<File> {
    let program = program(ebpf, name)?;
    let link = program
        .attach()
        .with_context(|| format!("creating the iterator {name}"))?;
    program
        .take_link(link)?
        .into_file()
        .with_context(|| format!("opening the iterator {name}"))
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Iter> {
    Ok(ebpf
        .program_mut(name)
        .with_context(|| format!("the BPF object has no program {name}"))?
        .try_into()?)
}
