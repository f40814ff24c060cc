//! What every CPU runs, read from kernel memory: it works for a CPU that answers nobody.
//!
//! Nothing here asks another CPU for anything; the words are read as they stand.

use anyhow::Result;

use super::spin_queue::Nodes;
use crate::event::TaskRef;
use crate::ids::{CpuId, TaskKey, Tgid, Tid, Timestamp};
use crate::kernel::btf::Btf;
use crate::kernel::facts::KernelFacts;
use crate::kernel::offsets::KernelOffsets;
use crate::kernel::stackscan::{Memory, is_pointer};
use crate::wire;

/// Requests of one CPU that are followed at most.
const MAX_REQUESTS: usize = 16;

/// Where things lie in each CPU's own area, as far as this kernel tells.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Address of the array `__per_cpu_offset`.
    offsets: u64,
    preempt_count: u64,
    /// KERNEL: `runqueues.curr` (kernel/sched/sched.h), 5.10 to 6.18.
    current: Option<u64>,
    /// KERNEL: `call_single_queue`, a `struct llist_head` (kernel/smp.c), 5.10 to 6.18.
    requests: Option<u64>,
    /// KERNEL: `cfd_data.csd`, in 5.13 to 6.3 `cfd_data.pcpu` (kernel/smp.c): a per-CPU pointer to the requests for each target.
    requests_to_many: Option<u64>,
    /// KERNEL: x86-64's `hardirq_stack_ptr`, the address of the last word of the stack (arch/x86/kernel/irq_64.c); 6.2 to 6.14
    /// keep it in `pcpu_hot`.
    interrupt_stack: Option<u64>,
    /// KERNEL: `qnodes` (kernel/locking/qspinlock.c), 5.10 to 6.18.
    queue_nodes: Option<Nodes>,
    task: KernelOffsets,
    stack_size: u64,
    /// Offset of each CPU's area, once read.
    areas: Vec<u64>,
}

/// What one CPU runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// The CPU.
    pub cpu: CpuId,
    /// Its thread; `None` for the idle thread and where it cannot be read.
    pub task: Option<TaskRef>,
    /// Its preempt count, of the moment.
    pub preempt_count: Option<u32>,
    /// Kernel stack of the thread: lowest address and the first one beyond it.
    pub stack: (u64, u64),
    /// Address of the last word of the stack for hard interrupts, where the CPU has one.
    pub interrupt_stack: Option<u64>,
    /// Addresses of the requests of other CPUs that it has not taken yet.
    pub requests: Vec<u64>,
    /// Base of the requests that it sends to many CPUs at once; the one for a CPU lies at that CPU's offset from it.
    pub sends: Option<u64>,
}

impl Places {
    /// Finds the places; `None` without the kernel's data symbols.
    #[must_use]
    pub fn of(facts: &KernelFacts) -> Option<Self> {
        let count = facts.preempt_count?;
        let symbols = facts.files.symbols()?;
        let btf = facts.files.btf()?;
        let symbol = |name| Some(symbols.find(name).next()?.address.0);
        let member = |name, path: &str, btf: &Btf| Some(u64::from(btf.member_offset(name, path).ok()?.bytes));
        Some(Self {
            offsets: count.per_cpu_offset.0,
            preempt_count: count.address,
            current: symbol("runqueues").and_then(|rq| Some(rq + member("rq", "curr", btf)?)),
            requests: symbol("call_single_queue"),
            requests_to_many: symbol("cfd_data").and_then(|cfd| {
                let csd =
                    member("call_function_data", "csd", btf).or_else(|| member("call_function_data", "pcpu", btf));
                Some(cfd + csd?)
            }),
            interrupt_stack: match member("pcpu_hot", "hardirq_stack_ptr", btf) {
                Some(member) => symbol("pcpu_hot").map(|hot| hot + member),
                None => symbol("hardirq_stack_ptr"),
            },
            queue_nodes: symbol("qnodes").and_then(|offset| {
                Some(Nodes {
                    offset,
                    size: btf.struct_size("qnode").ok()?.into(),
                })
            }),
            task: facts.offsets.offsets,
            stack_size: facts.layout.stack_size.into(),
            areas: Vec::new(),
        })
    }

    /// Offset of a CPU's area.
    #[must_use]
    pub fn area(&self, cpu: CpuId) -> Option<u64> {
        self.areas.get(cpu.0 as usize).copied()
    }

    /// Where CPUs queue for spinlocks, and the areas of these CPUs.
    #[must_use]
    pub fn queue(&self, cpus: impl Iterator<Item = CpuId>) -> Option<(Nodes, Vec<(CpuId, u64)>)> {
        Some((self.queue_nodes?, self.areas(cpus)))
    }

    /// The areas of these CPUs.
    #[must_use]
    pub fn areas(&self, cpus: impl Iterator<Item = CpuId>) -> Vec<(CpuId, u64)> {
        cpus.filter_map(|cpu| Some((cpu, self.area(cpu)?))).collect()
    }

    /// Reads what these CPUs run.
    ///
    /// # Errors
    /// When kernel memory cannot be read at all.
    pub fn read(&mut self, memory: &mut dyn Memory, cpus: &[CpuId]) -> Result<Vec<Running>> {
        self.find_areas(memory, cpus)?;
        let mut running = self.basics(memory, cpus)?;
        self.tasks(memory, &mut running)?;
        follow(memory, &mut running)?;
        Ok(running.into_iter().map(|(running, _)| running).collect())
    }

    fn find_areas(&mut self, memory: &mut dyn Memory, cpus: &[CpuId]) -> Result<()> {
        let slots = cpus.iter().map(|cpu| cpu.0 as usize + 1).max().unwrap_or(0);
        if self.areas.len() < slots {
            let addrs: Vec<u64> = (0..slots as u64).map(|slot| self.offsets + 8 * slot).collect();
            self.areas = memory
                .read(&addrs)?
                .into_iter()
                .map(Option::unwrap_or_default)
                .collect();
        }
        Ok(())
    }

    /// Everything that lies in the CPUs' own areas, with the address of the thread.
    fn basics(&self, memory: &mut dyn Memory, cpus: &[CpuId]) -> Result<Vec<(Running, u64)>> {
        let places = [
            Some(self.preempt_count),
            self.current,
            self.requests,
            self.requests_to_many,
            self.interrupt_stack,
        ];
        let area = |cpu: &CpuId| self.area(*cpu).unwrap_or_default();
        let at = |cpu| places.map(|place| place.map_or(0, |place| area(cpu).wrapping_add(place)));
        let addrs: Vec<u64> = cpus.iter().flat_map(at).collect();
        let words = memory.read(&addrs)?;
        let each = cpus.iter().zip(words.chunks_exact(places.len()));
        Ok(each
            .map(|(&cpu, words)| {
                let word = |index: usize| words.get(index).copied().flatten();
                #[expect(clippy::cast_possible_truncation, reason = "the count is the lower half")]
                let preempt_count = word(0).map(|word| word as u32);
                let running = Running {
                    cpu,
                    preempt_count,
                    requests: word(2).filter(|&first| first != 0).into_iter().collect(),
                    sends: word(3).filter(|&base| base != 0),
                    interrupt_stack: word(4).filter(|&top| is_pointer(top)),
                    ..Running::default()
                };
                (running, word(1).unwrap_or(0))
            })
            .collect())
    }

    fn tasks(&self, memory: &mut dyn Memory, running: &mut [(Running, u64)]) -> Result<()> {
        let o = &self.task.task;
        let fields = [o.pid, o.tgid, o.comm, o.comm.map(|c| c + 8), o.start_time, o.stack];
        let at = |task: u64| fields.map(|field| field.filter(|_| task != 0).map_or(0, |field| task + u64::from(field)));
        let addrs: Vec<u64> = running.iter().flat_map(|&(_, task)| at(task)).collect();
        let words = memory.read(&addrs)?;
        for ((running, _), words) in running.iter_mut().zip(words.chunks_exact(fields.len())) {
            let [Some(pid), Some(tgid), Some(comm), Some(rest), start, stack] = *words else {
                continue;
            };
            let low = |word: u64| u32::try_from(word & 0xffff_ffff).unwrap_or_default();
            let mut name = [0; 16];
            for (to, from) in name
                .iter_mut()
                .zip(comm.to_ne_bytes().into_iter().chain(rest.to_ne_bytes()))
            {
                *to = from;
            }
            running.task = (low(pid) != 0).then(|| TaskRef {
                key: TaskKey {
                    tid: Tid(low(pid)),
                    start: Timestamp(start.unwrap_or(0)),
                },
                tgid: Tgid(low(tgid)),
                comm: wire::comm(&name),
            });
            if let Some(base) = stack {
                running.stack = (base, base.saturating_add(self.stack_size));
            }
        }
        Ok(())
    }
}

/// Follows the lists of requests, all of them a step at a time.
fn follow(memory: &mut dyn Memory, running: &mut [(Running, u64)]) -> Result<()> {
    for _ in 1..MAX_REQUESTS {
        let last: Vec<u64> = running
            .iter()
            .map(|(r, _)| r.requests.last().copied().unwrap_or(0))
            .collect();
        if last.iter().all(|&node| node == 0) {
            break;
        }
        let next = memory.read(&last)?;
        let mut more = false;
        for ((running, _), next) in running.iter_mut().zip(next) {
            if let Some(next) = next.filter(|&next| next != 0 && !running.requests.contains(&next)) {
                running.requests.push(next);
                more = true;
            }
        }
        if !more {
            break;
        }
    }
    Ok(())
}

/// Who among `senders` has sent the request at `node` to the CPU whose area is at `area`, and waits for it: the request lies on
/// the sender's stack, or in its own block of requests.
#[must_use]
pub fn sender(node: u64, area: u64, senders: &[Running]) -> Option<&Running> {
    senders.iter().find(|sender| {
        (sender.stack.0..sender.stack.1).contains(&node)
            || sender.sends.is_some_and(|base| base.wrapping_add(area) == node)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    struct Words(HashMap<u64, u64>);

    impl Memory for Words {
        fn read(&mut self, addrs: &[u64]) -> Result<Vec<Option<u64>>> {
            Ok(addrs.iter().map(|addr| self.0.get(addr).copied()).collect())
        }
    }

    #[test]
    fn requests_are_followed_to_their_senders_and_loops_end() {
        let (stack, sends, area) = (0xffff_c900_0000_0000_u64, 0x4000_u64, 0xffff_8880_0010_0000_u64);
        let (on_stack, in_block) = (stack + 0x3e00, sends + area);
        let mut memory = Words(HashMap::from([(on_stack, in_block), (in_block, on_stack)]));
        let target = Running {
            requests: vec![on_stack],
            ..Running::default()
        };
        let mut running = [(target, 0)];
        follow(&mut memory, &mut running).unwrap();
        assert_eq!(running[0].0.requests, [on_stack, in_block]);
        let one = Running {
            cpu: CpuId(2),
            stack: (stack, stack + 0x4000),
            ..Running::default()
        };
        let many = Running {
            cpu: CpuId(3),
            sends: Some(sends),
            ..Running::default()
        };
        let senders = [one, many];
        assert_eq!(sender(on_stack, area, &senders).map(|s| s.cpu), Some(CpuId(2)));
        assert_eq!(sender(in_block, area, &senders).map(|s| s.cpu), Some(CpuId(3)));
        assert_eq!(sender(in_block + 8, area, &senders), None);
    }
}
