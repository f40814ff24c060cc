//! The end of a run on a machine that may be broken.

use aya::Ebpf;

use super::board::Board;
use crate::bpf::leave::{Asks, Links};

/// Takes off what is attached. Nothing is taken off that a CPU must answer for which takes no interrupts, and no kprobe while one
/// stands still: that would wait for ever.
pub fn end(board: &mut Board, ebpf: &mut Ebpf, links: &mut Links) {
    let silent = board.silent();
    let still = if silent.is_empty() && links.ask_for_grace() {
        board.stands_still(ebpf)
    } else {
        None
    };
    board.leave(links);
    let stays = |asks| match asks {
        Asks::EveryCpu => !silent.is_empty(),
        Asks::GracePeriod => !silent.is_empty() || still.is_some(),
        Asks::Cpu(cpu) => silent.contains(&cpu),
    };
    let why = match (silent.first(), still) {
        (Some(cpu), _) => format!("CPU {cpu} takes no interrupts, so no probe can be taken off"),
        (None, Some(cpu)) => format!("CPU {cpu} stands still, so no kprobe can be taken off"),
        (None, None) => "probes cannot be taken off".to_owned(),
    };
    match links.end(stays) {
        Ok(None) => {}
        Ok(Some((path, count))) => eprintln!(
            "holdup: {why}: {count} stay in {}; the next run takes them off if every CPU answers by then, and so does removing \
             that directory",
            path.display()
        ),
        Err(error) => eprintln!("holdup: {why}, nor be left behind: {error:#}"),
    }
}
