//! Locks of what processes talk through.

use super::{in_turn, system};
use anyhow::{Context as _, Result};
use rustix::event::{EventfdFlags, epoll, eventfd};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};

/// All threads write to, and read from, a few pipes and sockets that never block.
pub fn channels() -> Result<()> {
    const EACH: usize = 4;
    let (mut pipes, mut streams, mut datagrams) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..EACH {
        let (reader, writer) = std::io::pipe().context("pipe")?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        pipes.push((reader, writer));
        let stream = UnixStream::pair().context("socketpair")?;
        stream.0.set_nonblocking(true)?;
        stream.1.set_nonblocking(true)?;
        streams.push(stream);
        let datagram = UnixDatagram::pair().context("socketpair")?;
        datagram.0.set_nonblocking(true)?;
        datagram.1.set_nonblocking(true)?;
        datagrams.push(datagram);
    }
    let full = |result: std::io::Result<usize>| match result {
        Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock) => Err(error),
        _ => Ok(()),
    };
    in_turn(|turn| {
        let at = turn.of(EACH);
        let mut bytes = [1; 2048];
        if let Some((reader, writer)) = pipes.get(at) {
            full((&*writer).write(&bytes)).context("writing to a pipe")?;
            full((&*reader).read(&mut bytes)).context("reading from a pipe")?;
        }
        if let Some((one, other)) = streams.get(at) {
            full((&*one).write(&bytes)).context("writing to a stream")?;
            full((&*other).read(&mut bytes)).context("reading from a stream")?;
        }
        if let Some((one, other)) = datagrams.get(at) {
            full(one.send(&bytes)).context("sending a datagram")?;
            full(other.recv(&mut bytes)).context("receiving a datagram")?;
        }
        Ok(())
    })
}

/// All threads watch, and set off, a few event counters and the changes of directories.
pub fn events() -> Result<()> {
    const EACH: usize = 3;
    let (mut polls, mut watches) = (Vec::new(), Vec::new());
    for n in 0..EACH {
        let flags = EventfdFlags::NONBLOCK;
        let (poll, counter) = (epoll::create(epoll::CreateFlags::empty())?, eventfd(1, flags)?);
        polls.push((poll, counter));
        std::fs::create_dir_all(format!("/tmp/watched{n}")).context("mkdir")?;
        watches.push(rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::NONBLOCK)?);
    }
    in_turn(|turn| {
        let at = turn.of(EACH);
        if let Some((poll, counter)) = polls.get(at) {
            // Another thread may have added it, or taken it off.
            let data = epoll::EventData::new_u64(1);
            let _ = epoll::add(poll, counter, data, epoll::EventFlags::IN | epoll::EventFlags::ET);
            let _ = rustix::io::write(counter, &1_u64.to_ne_bytes());
            let mut ready = Vec::with_capacity(4);
            let _ = epoll::wait(
                poll,
                rustix::buffer::spare_capacity(&mut ready),
                Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }),
            );
            let _ = rustix::io::read(counter, &mut [0; 8]);
            if turn.every(4) {
                let _ = epoll::delete(poll, counter);
            }
        }
        if let Some(watch) = watches.get(at) {
            let path = format!("/tmp/watched{at}");
            let added =
                rustix::fs::inotify::add_watch(watch, path.as_str(), rustix::fs::inotify::WatchFlags::ALL_EVENTS);
            std::fs::write(format!("{path}/{}", turn.thread), [0]).context("write")?;
            let _ = rustix::io::read(watch, &mut [0; 1024]);
            if let (Ok(added), true) = (added, turn.every(8)) {
                let _ = rustix::fs::inotify::remove_watch(watch, added);
            }
        }
        Ok(())
    })
}

/// All threads use a few message queues, semaphores and shared memory of System V.
pub fn system_v() -> Result<()> {
    const EACH: usize = 3;
    let all = (0..EACH).map(|_| system::SystemV::new()).collect::<Result<Vec<_>>>()?;
    in_turn(|turn| all.get(turn.of(EACH)).map_or(Ok(()), |one| one.once(turn.every(8))))
}

/// All threads add keys to one keyring, and clear it.
pub fn keys() -> Result<()> {
    in_turn(|turn| system::add_key(turn.thread, turn.every(16)))
}
