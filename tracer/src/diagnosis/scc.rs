//! Strongly connected components and the shortest cycles within them.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::graph::Edge;
use crate::model::ActorIx;

/// Most cycles listed per component; a component with more is one tangle, and its first ones explain it.
const MAX_CYCLES: usize = 16;

struct Frame {
    node: u32,
    next: usize,
}

/// Adjacency by dense node number.
struct Adjacency<'a> {
    out: Vec<Vec<(u32, &'a Edge)>>,
}

impl Adjacency<'_> {
    fn of(&self, node: u32) -> &[(u32, &Edge)] {
        self.out.get(node as usize).map_or(&[], Vec::as_slice)
    }
}

/// Cycles that together touch every node of every strongly connected component: for each node not yet covered the shortest
/// cycle through it. A cycle is given as its edges in order.
#[must_use]
pub fn cycles(edges: &[Edge]) -> Vec<Vec<Edge>> {
    let mut number: FxHashMap<ActorIx, u32> = FxHashMap::default();
    let mut adjacency = Adjacency { out: Vec::new() };
    for edge in edges {
        for actor in [edge.from, edge.to] {
            number.entry(actor).or_insert_with(|| {
                adjacency.out.push(Vec::new());
                u32::try_from(adjacency.out.len() - 1).unwrap_or(u32::MAX)
            });
        }
    }
    for edge in edges {
        if let (Some(&from), Some(&to)) = (number.get(&edge.from), number.get(&edge.to))
            && let Some(out) = adjacency.out.get_mut(from as usize)
        {
            out.push((to, edge));
        }
    }
    let component = components(&adjacency);
    let mut members: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
    for (node, &c) in component.iter().enumerate() {
        members
            .entry(c)
            .or_default()
            .push(u32::try_from(node).unwrap_or(u32::MAX));
    }
    let mut covered = vec![false; component.len()];
    let mut found = Vec::new();
    let mut components: Vec<Vec<u32>> = members.into_values().collect();
    components.sort_unstable();
    for nodes in components {
        let mut listed = 0;
        for &node in &nodes {
            if listed >= MAX_CYCLES {
                break;
            }
            if covered.get(node as usize).copied().unwrap_or(true) {
                continue;
            }
            let Some(cycle) = shortest_cycle(&adjacency, &component, node) else {
                continue;
            };
            for from in cycle.iter().filter_map(|e| number.get(&e.from)) {
                if let Some(cell) = covered.get_mut(*from as usize) {
                    *cell = true;
                }
            }
            found.push(cycle);
            listed += 1;
        }
    }
    found
}

/// Tarjan's algorithm without recursion: the component of each node.
fn components(adjacency: &Adjacency<'_>) -> Vec<u32> {
    const NONE: u32 = u32::MAX;
    let n = adjacency.out.len();
    let mut index = vec![NONE; n];
    let mut low = vec![NONE; n];
    let mut on_stack = vec![false; n];
    let mut component = vec![NONE; n];
    let (mut stack, mut next_index, mut next_component) = (Vec::new(), 0, 0);
    for start in 0..n {
        if index[start] != NONE {
            continue;
        }
        let mut frames = vec![Frame {
            node: u32::try_from(start).unwrap_or(NONE),
            next: 0,
        }];
        while let Some(frame) = frames.last_mut() {
            let node = frame.node as usize;
            if frame.next == 0 && index[node] == NONE {
                (index[node], low[node]) = (next_index, next_index);
                next_index += 1;
                stack.push(frame.node);
                on_stack[node] = true;
            }
            if let Some(&(to, _)) = adjacency.of(frame.node).get(frame.next) {
                frame.next += 1;
                let target = to as usize;
                if index[target] == NONE {
                    frames.push(Frame { node: to, next: 0 });
                } else if on_stack[target] {
                    low[node] = low[node].min(index[target]);
                }
                continue;
            }
            let done = frame.node;
            frames.pop();
            if let Some(parent) = frames.last() {
                let parent = parent.node as usize;
                low[parent] = low[parent].min(low[node]);
            }
            if low[node] == index[node] {
                while let Some(member) = stack.pop() {
                    on_stack[member as usize] = false;
                    component[member as usize] = next_component;
                    if member == done {
                        break;
                    }
                }
                next_component += 1;
            }
        }
    }
    component
}

/// Breadth-first search from `start` back to `start` within its component.
fn shortest_cycle(adjacency: &Adjacency<'_>, component: &[u32], start: u32) -> Option<Vec<Edge>> {
    let home = component.get(start as usize)?;
    let mut came: FxHashMap<u32, (u32, Edge)> = FxHashMap::default();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for &(to, edge) in adjacency.of(node) {
            if to == start {
                let mut cycle = vec![*edge];
                let mut at = node;
                while at != start {
                    let &(before, edge) = came.get(&at)?;
                    cycle.push(edge);
                    at = before;
                }
                cycle.reverse();
                return Some(cycle);
            }
            if component.get(to as usize) == Some(home) && !came.contains_key(&to) {
                came.insert(to, (node, *edge));
                queue.push_back(to);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::graph::Via;
    use crate::model::Index;

    fn edges(pairs: &[(u32, u32)]) -> Vec<Edge> {
        let actor = ActorIx::from_slot;
        pairs
            .iter()
            .map(|&(a, b)| Edge {
                from: actor(a),
                to: actor(b),
                via: Via::Dependency,
            })
            .collect()
    }

    fn found(pairs: &[(u32, u32)]) -> Vec<Vec<usize>> {
        let mut all: Vec<Vec<usize>> = cycles(&edges(pairs))
            .into_iter()
            .map(|c| {
                let mut nodes: Vec<usize> = c.iter().map(|e| e.from.slot()).collect();
                nodes.sort_unstable();
                nodes
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_chain_has_no_cycle() {
        assert!(found(&[(1, 2), (2, 3), (3, 4)]).is_empty());
    }

    #[test]
    fn a_self_loop_is_a_cycle_of_one() {
        assert_eq!(found(&[(1, 2), (2, 2)]), [vec![2]]);
    }

    #[test]
    fn two_cycles_that_share_a_node_are_both_found() {
        assert_eq!(found(&[(1, 2), (2, 1), (1, 3), (3, 1)]), [vec![1, 2], vec![1, 3]]);
    }

    #[test]
    fn a_long_cycle_needs_no_recursion() {
        let n = 200_000;
        let pairs: Vec<(u32, u32)> = (0..n).map(|i| (i, (i + 1) % n)).collect();
        assert_eq!(cycles(&edges(&pairs)).len(), 1);
    }

    #[test]
    fn a_self_loop_inside_a_longer_cycle_does_not_hide_it() {
        assert_eq!(found(&[(1, 1), (1, 2), (2, 1)]), [vec![1], vec![1, 2]]);
    }
}
