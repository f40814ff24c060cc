//! Locks of the network stack.

use super::{for_ever, system};
use anyhow::{Context as _, Result};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};

/// All threads take the loopback device up and down.
pub fn link_flags() -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("socket")?;
    let up = AtomicBool::new(false);
    for_ever(|_| system::set_loopback(&socket, up.fetch_xor(true, Ordering::Relaxed)))
}

/// All threads make network namespaces, and leave them for the next.
pub fn namespaces() -> Result<()> {
    for_ever(|_| {
        system::new_network()?;
        let socket = UdpSocket::bind("0.0.0.0:0").context("socket")?;
        system::set_loopback(&socket, true)
    })
}
