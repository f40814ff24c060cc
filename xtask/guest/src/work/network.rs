//! Locks of the network stack.

use super::{for_ever, in_turn, system};
use anyhow::{Context as _, Result};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
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

/// In a namespace of its own: threads connect to one listener and talk over the connections, and over datagram sockets that they share.
pub fn connections() -> Result<()> {
    const SHARED: usize = 3;
    system::new_network()?;
    let control = UdpSocket::bind("0.0.0.0:0").context("socket")?;
    system::set_loopback(&control, true)?;
    let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
    let at = listener.local_addr().context("listen")?;
    let mut shared = Vec::new();
    for _ in 0..SHARED {
        let socket = UdpSocket::bind("127.0.0.1:0").context("socket")?;
        socket.set_nonblocking(true)?;
        let own = socket.local_addr().context("socket")?;
        socket.connect(own).context("connect")?;
        shared.push(socket);
    }
    in_turn(|turn| {
        // Every thread has one connection in the queue at most, and takes one out: never does one wait for another.
        let mut client = TcpStream::connect(at).context("connect")?;
        client.write_all(&[1; 1024]).context("send")?;
        let (mut server, _) = listener.accept().context("accept")?;
        server.read_exact(&mut [0; 1024]).context("receive")?;
        if let Some(socket) = shared.get(turn.of(SHARED)) {
            // The buffer may be full, or empty.
            let _ = socket.send(&[2; 512]);
            let _ = socket.recv(&mut [0; 512]);
        }
        Ok(())
    })
}
