//! From registers and the words of a stack to frames, by the unwind information of the mapped files, or frame pointers where there is
//! none (crate framehop).

use std::sync::Arc;

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder as _};

use super::Job;
use super::files::{Binary, Files};
use super::mappings::Mapping;
use crate::event::{UserFile, UserFrame, UserStack};

/// Frames of a stack at most.
const MAX_FRAMES: usize = 128;

/// Unwinds and names.
pub struct Unwinder {
    files: Files,
    cache: CacheX86_64,
}

impl Unwinder {
    /// Knows no file yet.
    pub fn new() -> Self {
        Self {
            files: Files::new(),
            cache: CacheX86_64::new(),
        }
    }

    /// The frames of a stack.
    pub fn unwind(&mut self, job: &Job) -> UserStack {
        let (addresses, whole) = self.addresses(job);
        let frames = addresses.into_iter().map(|at| self.frame(at, &job.mappings)).collect();
        UserStack {
            task: job.task,
            switches: job.switches,
            whole,
            frames,
        }
    }

    /// The addresses, and whether the last one is the outermost.
    fn addresses(&mut self, job: &Job) -> (Vec<FrameAddress>, bool) {
        let registers = &job.raw.registers;
        let first = FrameAddress::from_instruction_pointer(registers.ip);
        if registers.narrow {
            return (vec![first], false);
        }
        let mut unwinder = UnwinderX86_64::<Arc<[u8]>>::new();
        for mapping in job.mappings.iter() {
            if let Some(binary) = self.files.binary(&mapping.file)
                && let Some(module) = module(mapping, &binary)
            {
                unwinder.add_module(module);
            }
        }
        let mut read = |at: u64| {
            let index = at
                .checked_sub(registers.sp)
                .filter(|bytes| bytes.is_multiple_of(8))
                .ok_or(())?
                / 8;
            let index = usize::try_from(index).map_err(|_| ())?;
            job.raw.stack.get(index).copied().ok_or(())
        };
        let start = UnwindRegsX86_64::new(registers.ip, registers.sp, registers.bp);
        let mut iterator = unwinder.iter_frames(registers.ip, start, &mut self.cache, &mut read);
        let mut found = Vec::new();
        while found.len() < MAX_FRAMES {
            match iterator.next() {
                // Where no code is mapped, nobody can have called.
                Ok(Some(at)) if found.is_empty() || is_code(at, &job.mappings) => found.push(at),
                Ok(None) => return (found, true),
                Ok(Some(_)) | Err(_) => break,
            }
        }
        (found, false)
    }

    fn frame(&mut self, at: FrameAddress, mappings: &[Mapping]) -> UserFrame {
        let bare = UserFrame {
            address: at.address(),
            file: None,
            function: None,
            place: crate::event::Place::default(),
            inlined: Vec::new(),
        };
        // A call belongs to the line and the function of the call, not of what follows it.
        let Some(mapping) = mapping_of(at, mappings) else {
            return bare;
        };
        let binary = self.files.binary(&mapping.file);
        let in_file = |address: u64| mapping.offset.wrapping_add(address.wrapping_sub(mapping.start));
        let before = at.address().wrapping_sub(at.address_for_lookup());
        let named = match binary {
            Some(_) => self.files.name(&mapping.file, in_file(at.address_for_lookup())),
            None => super::files::Named::default(),
        };
        let mut function = named.function;
        if let Some(function) = &mut function {
            function.offset = function.offset.wrapping_add(before);
        }
        UserFrame {
            file: Some(UserFile {
                path: Arc::clone(&mapping.file.path),
                build_id: binary.and_then(|binary| binary.build_id.clone()),
                offset: in_file(at.address()),
            }),
            function,
            place: named.place,
            inlined: named.inlined,
            ..bare
        }
    }
}

fn mapping_of(at: FrameAddress, mappings: &[Mapping]) -> Option<&Mapping> {
    let address = at.address_for_lookup();
    mappings
        .iter()
        .find(|mapping| (mapping.start..mapping.end).contains(&address))
}

/// In a mapped file; code without a file (the vDSO, code made at run time) is in none.
fn is_code(at: FrameAddress, mappings: &[Mapping]) -> bool {
    mapping_of(at, mappings).is_some()
}

fn module(mapping: &Mapping, binary: &Binary) -> Option<Module<Arc<[u8]>>> {
    // A mapping starts at a page, a segment anywhere in it.
    let end = mapping.offset.saturating_add(mapping.end.saturating_sub(mapping.start));
    let mut segments = binary.segments.iter();
    let (range, address) = segments.find(|(range, _)| range.start < end && mapping.offset < range.end)?;
    let in_file = address.wrapping_sub(range.start).wrapping_add(mapping.offset);
    let bias = mapping.start.wrapping_sub(in_file);
    let sections = ExplicitModuleSectionInfo {
        base_svma: 0,
        eh_frame_svma: binary.eh_frame.as_ref().map(|(at, _)| at.clone()),
        eh_frame: binary.eh_frame.as_ref().map(|(_, data)| Arc::clone(data)),
        eh_frame_hdr_svma: binary.eh_frame_hdr.as_ref().map(|(at, _)| at.clone()),
        eh_frame_hdr: binary.eh_frame_hdr.as_ref().map(|(_, data)| Arc::clone(data)),
        ..ExplicitModuleSectionInfo::default()
    };
    Some(Module::new(
        mapping.file.path.to_string(),
        mapping.start..mapping.end,
        bias,
        sections,
    ))
}
