//! The queue of CPUs that wait for one spinlock, first to last.
//!
//! The lock's word names the last CPU of its queue and which of that CPU's nodes it is; each node points to the next one. So the
//! queue is walked from its end, by looking for the node that points to the one at hand. Nodes keep old pointers when they are
//! done: only those that are in use count, and of two readings only what both say.
//!
//! KERNEL: `qnodes[]`, per-CPU, four `struct qnode` one after another (three until NMI support), the first of which counts those in use
//! (kernel/locking/qspinlock.c and mcs_spinlock.h, 5.10 to 6.18).

use std::collections::HashMap;

use anyhow::Result;

use crate::ids::CpuId;
use crate::kernel::stackscan::Memory;
use crate::spin_word;

/// Nodes of a CPU: one for each context that can nest.
const NODES: u64 = 4;
/// Place of `count` in a node, in bytes, as the upper half of the word that it shares with `locked`.
const COUNT_WORD: u64 = 8;

/// Where the nodes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// Offset in each CPU's area.
    pub offset: u64,
    /// Size of a node.
    pub size: u64,
}

/// The CPUs in the queue that ends as this word says, the first one first; `None` when the queue cannot be walked whole.
///
/// `areas` gives the address of each CPU's own area.
///
/// # Errors
/// When kernel memory cannot be read at all.
pub fn order(
    memory: &mut dyn Memory,
    nodes: Nodes,
    areas: &[(CpuId, u64)],
    word: u32,
    cpus: u32,
) -> Result<Option<Vec<CpuId>>> {
    let first = walk(memory, nodes, areas, word, cpus)?;
    let second = walk(memory, nodes, areas, word, cpus)?;
    Ok(first.filter(|first| second.as_ref() == Some(first)))
}

fn walk(
    memory: &mut dyn Memory,
    nodes: Nodes,
    areas: &[(CpuId, u64)],
    word: u32,
    cpus: u32,
) -> Result<Option<Vec<CpuId>>> {
    let Some(last) = spin_word::spinlock(word, cpus).tail else {
        return Ok(Some(Vec::new()));
    };
    let place = |area: u64, index: u64| area.wrapping_add(nodes.offset).wrapping_add(index * nodes.size);
    let counts = memory.read(
        &areas
            .iter()
            .map(|&(_, area)| place(area, 0) + COUNT_WORD)
            .collect::<Vec<_>>(),
    )?;
    let mut used: Vec<(CpuId, u64)> = Vec::new();
    for (&(cpu, area), count) in areas.iter().zip(counts) {
        let count = (count.unwrap_or(0) >> 32).min(NODES);
        used.extend((0..count).map(|index| (cpu, place(area, index))));
    }
    let next = memory.read(&used.iter().map(|&(_, node)| node).collect::<Vec<_>>())?;
    let before: HashMap<u64, (CpuId, u64)> = used
        .iter()
        .zip(next)
        .filter_map(|(&node, next)| Some((next.filter(|&next| next != 0)?, node)))
        .collect();
    let end = areas
        .iter()
        .find(|&&(cpu, _)| cpu == last)
        .map(|&(cpu, area)| (cpu, place(area, spin_word::tail_index(word).into())));
    let mut queue = Vec::new();
    let mut at = end.filter(|end| used.contains(end));
    while let Some((cpu, node)) = at {
        if queue.len() == used.len() {
            // A ring is no queue.
            return Ok(None);
        }
        queue.push(cpu);
        at = before.get(&node).copied();
    }
    queue.reverse();
    Ok((!queue.is_empty()).then_some(queue))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES_AT: Nodes = Nodes {
        offset: 0x400,
        size: 0x20,
    };
    const AREAS: [(CpuId, u64); 4] = [
        (CpuId(0), 0xffff_8880_0000_0000),
        (CpuId(1), 0xffff_8880_0010_0000),
        (CpuId(2), 0xffff_8880_0020_0000),
        (CpuId(3), 0xffff_8880_0030_0000),
    ];

    struct Words(HashMap<u64, u64>);

    impl Memory for Words {
        fn read(&mut self, addrs: &[u64]) -> Result<Vec<Option<u64>>> {
            Ok(addrs.iter().map(|addr| self.0.get(addr).copied()).collect())
        }
    }

    fn node(cpu: usize, index: u64) -> u64 {
        AREAS[cpu].1 + 0x400 + index * 0x20
    }

    /// Nodes in use by CPU, and which node points to which.
    fn found(used: [u64; 4], next: &[(u64, u64)], word: u32) -> Option<Vec<u32>> {
        let mut memory = Words(HashMap::new());
        for (cpu, count) in used.into_iter().enumerate() {
            memory.0.insert(node(cpu, 0) + 8, count << 32 | 1);
            for index in 0..4 {
                memory.0.insert(node(cpu, index), 0);
            }
        }
        memory.0.extend(next.iter().copied());
        let queue = order(&mut memory, NODES_AT, &AREAS, word, 4).unwrap();
        queue.map(|queue| queue.into_iter().map(|cpu| cpu.0).collect())
    }

    fn tail(cpu: u32, index: u32) -> u32 {
        (cpu + 1) << 18 | index << 16 | 1
    }

    #[test]
    fn a_queue_is_walked_from_its_end() {
        let next = [(node(3, 0), node(1, 0)), (node(1, 0), node(2, 1))];
        assert_eq!(found([0, 1, 2, 1], &next, tail(2, 1)), Some(vec![3, 1, 2]));
        assert_eq!(found([0, 0, 1, 0], &[], tail(2, 0)), Some(vec![2]), "alone");
        assert_eq!(
            found([0; 4], &[], 0x101),
            Some(vec![]),
            "a first waiter stands in no queue"
        );
    }

    #[test]
    fn nodes_that_are_done_do_not_count() {
        let next = [(node(3, 0), node(2, 0))];
        assert_eq!(found([0, 0, 1, 0], &next, tail(2, 0)), Some(vec![2]), "an old pointer");
        assert_eq!(
            found([0; 4], &next, tail(2, 0)),
            None,
            "nobody is at the end that the word names"
        );
    }

    #[test]
    fn a_ring_is_no_queue() {
        let next = [(node(3, 0), node(2, 0)), (node(2, 0), node(3, 0))];
        assert_eq!(found([0, 0, 1, 1], &next, tail(2, 0)), None);
    }
}
