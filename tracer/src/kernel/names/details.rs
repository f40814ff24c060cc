//! Which object it is: of what process, on what file system.

use super::LockNamer;
use super::reader::{Reader, Soon};
use crate::kernel::btf::MemberPath;

/// Bytes of a thread's name (TASK_COMM_LEN, include/linux/sched.h).
const COMM: usize = 16;
/// Bytes of other names that are read.
const NAME: usize = 32;

/// What tells objects of a kind apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    Inode,
    SuperBlock,
    Mm,
    Task,
    Dentry,
    /// Told by the threads that use it.
    Used,
    /// A name, at this member or where it points to.
    Name(&'static str),
}

/// Structs whose objects can be told apart. The innermost on a lock's path counts.
const DETAILS: &[(&str, Detail)] = &[
    ("inode", Detail::Inode),
    ("super_block", Detail::SuperBlock),
    ("mm_struct", Detail::Mm),
    ("task_struct", Detail::Task),
    ("dentry", Detail::Dentry),
    ("signal_struct", Detail::Used),
    ("sighand_struct", Detail::Used),
    ("files_struct", Detail::Used),
    ("fs_struct", Detail::Used),
    ("tty_struct", Detail::Name("name")),
    ("workqueue_struct", Detail::Name("name")),
    ("gendisk", Detail::Name("disk_name")),
    ("net_device", Detail::Name("name")),
    ("zone", Detail::Name("name")),
];

impl LockNamer {
    /// The object that `path` leads through, in words that follow `of`; `None` where nothing tells.
    pub(super) fn of_object(&self, reader: &mut Reader, object: u64, path: &MemberPath) -> Soon<Option<String>> {
        let names: Vec<&str> = DETAILS.iter().map(|(name, _)| *name).collect();
        let Some(step) = path.innermost(&names).and_then(|at| path.0.get(at)) else {
            return Ok(None);
        };
        let name = step.composite.as_deref().unwrap_or_default();
        let address = object.wrapping_add(step.offset.into());
        match DETAILS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, detail)| *detail)
        {
            Some(Detail::Inode) => self.inode(reader, address),
            Some(Detail::SuperBlock) => self.super_block(reader, address),
            Some(Detail::Mm) => self.mm(reader, address),
            Some(Detail::Task) => self.task(reader, address),
            Some(Detail::Dentry) => self.dentry(reader, address),
            Some(Detail::Used) => self.used(reader, address),
            Some(Detail::Name(member)) => self.named(reader, address, name, member),
            None => Ok(None),
        }
    }

    fn inode(&self, reader: &mut Reader, inode: u64) -> Soon<Option<String>> {
        let o = &self.offsets.inode;
        let (Some(number), Some(sb)) = (o.number, o.sb) else {
            return Ok(None);
        };
        let (number, sb) = (
            reader.word(inode.wrapping_add(number.into())),
            reader.word(inode.wrapping_add(sb.into())),
        );
        let (Some(number), Some(sb)) = (number?, sb?) else {
            return Ok(None);
        };
        let on = self.super_block(reader, sb)?;
        Ok(on.map(|on| format!("inode {number} ({on})")))
    }

    /// `ext4 on vda, 254:0`, or `tmpfs, 0:23`.
    fn super_block(&self, reader: &mut Reader, sb: u64) -> Soon<Option<String>> {
        let o = &self.offsets.inode;
        let (Some(device), Some(fs_type), Some(name), Some(id)) = (o.device, o.fs_type, o.fs_name, o.device_name)
        else {
            return Ok(None);
        };
        let at = |offset: u32| sb.wrapping_add(offset.into());
        let (device, fs_type, id) = (
            reader.half(at(device)),
            reader.word(at(fs_type)),
            reader.text(at(id), NAME),
        );
        let (Some(device), Some(fs_type), id) = (device?, fs_type?, id?) else {
            return Ok(None);
        };
        let Some(name) = reader.word(fs_type.wrapping_add(name.into()))? else {
            return Ok(None);
        };
        let Some(kind) = reader.text(name, NAME)? else {
            return Ok(None);
        };
        // KERNEL: MAJOR and MINOR (include/linux/kdev_t.h).
        let device = format!("{}:{}", device >> 20, device & 0xf_ffff);
        Ok(Some(match id {
            Some(id) if id != kind => format!("{kind} on {id}, {device}"),
            _ => format!("{kind}, {device}"),
        }))
    }

    fn mm(&self, reader: &mut Reader, mm: u64) -> Soon<Option<String>> {
        let Some(owner) = self.offsets.mm.owner else {
            return self.used(reader, mm);
        };
        match reader.word(mm.wrapping_add(owner.into()))? {
            Some(owner) if owner != 0 => self.process(reader, owner),
            _ => Ok(None),
        }
    }

    /// A thread, as `name (tid)`.
    pub(super) fn task(&self, reader: &mut Reader, task: u64) -> Soon<Option<String>> {
        let o = &self.offsets.task;
        let (Some(comm), Some(pid)) = (o.comm, o.pid) else {
            return Ok(None);
        };
        let (comm, pid) = (
            reader.text(task.wrapping_add(comm.into()), COMM),
            reader.half(task.wrapping_add(pid.into())),
        );
        let (comm, Some(pid)) = (comm?, pid?) else {
            return Ok(None);
        };
        Ok(comm.map(|comm| format!("{comm} ({pid})")))
    }

    /// The process of a thread, as `name (pid)`.
    pub(super) fn process(&self, reader: &mut Reader, task: u64) -> Soon<Option<String>> {
        let Some(leader) = self.offsets.task.group_leader else {
            return Ok(None);
        };
        match reader.word(task.wrapping_add(leader.into()))? {
            Some(leader) => self.task(reader, leader),
            None => Ok(None),
        }
    }

    fn dentry(&self, reader: &mut Reader, dentry: u64) -> Soon<Option<String>> {
        let o = &self.offsets.inode;
        let (Some(name), Some(sb)) = (o.entry_name, o.entry_sb) else {
            return Ok(None);
        };
        let (name, sb) = (
            reader.word(dentry.wrapping_add(name.into())),
            reader.word(dentry.wrapping_add(sb.into())),
        );
        let (Some(name), Some(sb)) = (name?, sb?) else {
            return Ok(None);
        };
        let (name, on) = (reader.text(name, NAME), self.super_block(reader, sb));
        Ok(match (name?, on?) {
            (Some(name), Some(on)) => Some(format!("\"{name}\" ({on})")),
            (None, Some(on)) => Some(on),
            _ => None,
        })
    }

    fn named(&self, reader: &mut Reader, address: u64, name: &str, member: &str) -> Soon<Option<String>> {
        let Some(Ok(place)) = self.btf.as_ref().map(|btf| btf.member_offset(name, member)) else {
            return Ok(None);
        };
        let at = address.wrapping_add(place.bytes.into());
        if place.size > 8 {
            return reader.text(at, place.size as usize);
        }
        match reader.word(at)? {
            Some(pointer) => reader.text(pointer, NAME),
            None => Ok(None),
        }
    }
}
