//! Walks over lists that may change or be corrupt: bounded, and every step is checked.
//!
//! A kernel list is a ring of nodes `{next, prev}` with one node, the head, in the lock and the others in waiter records. A
//! ring is believed only if walking it forward from its head meets nothing but known records, each of which points back.

use std::collections::{BTreeMap, HashMap, HashSet};

/// A list that was walked from its head round to its head again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Address of the head.
    pub head: u64,
    /// The nodes in list order.
    pub nodes: Vec<u64>,
}

/// What came of all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rings {
    /// Complete lists by head.
    pub complete: Vec<Ring>,
    /// Nodes that lie on no list that could be walked round, each with the stranger at which its walk ended, if any.
    pub open: BTreeMap<u64, Option<u64>>,
}

/// Links of a node: next, previous.
pub type Links = (u64, u64);

/// Sorts nodes into lists. `links` gives the links of any node or head that was read; what it does not know ends a walk.
#[must_use]
pub fn rings(nodes: &HashSet<u64>, links: impl Fn(u64) -> Option<Links>) -> Rings {
    let mut heads: HashMap<u64, Option<u64>> = HashMap::new();
    for &node in nodes {
        head_of(node, nodes, &links, &mut heads);
    }
    let mut found: Vec<u64> = heads.values().filter_map(|&head| head).collect();
    found.sort_unstable();
    found.dedup();
    let mut rings = Rings::default();
    let mut placed = HashSet::new();
    for head in found {
        if let Some(list) = walk(head, nodes, &links) {
            placed.extend(list.iter().copied());
            rings.complete.push(Ring { head, nodes: list });
        }
    }
    rings.open = heads.into_iter().filter(|(node, _)| !placed.contains(node)).collect();
    rings
}

/// Heads that have to be read before [`rings`] can walk: the neighbours of nodes which are no nodes themselves, each with the
/// smallest node next to it.
pub fn strangers(nodes: &HashSet<u64>, links: impl Fn(u64) -> Option<Links>) -> BTreeMap<u64, u64> {
    let mut found = BTreeMap::new();
    for &node in nodes {
        let Some((next, prev)) = links(node) else { continue };
        for at in [next, prev] {
            if !nodes.contains(&at) {
                let known = found.entry(at).or_insert(node);
                *known = node.min(*known);
            }
        }
    }
    found
}

/// The first neighbour backwards that is no node.
fn head_of(
    node: u64,
    nodes: &HashSet<u64>,
    links: &impl Fn(u64) -> Option<Links>,
    heads: &mut HashMap<u64, Option<u64>>,
) {
    let mut path = Vec::new();
    let mut at = node;
    let mut head = None;
    // Each step adds a node that was not on the path, so this ends.
    let mut on_path = HashSet::new();
    while on_path.insert(at) {
        if let Some(&known) = heads.get(&at) {
            head = known;
            break;
        }
        path.push(at);
        let Some((_, prev)) = links(at) else { break };
        if !nodes.contains(&prev) {
            head = Some(prev);
            break;
        }
        at = prev;
    }
    heads.extend(path.into_iter().map(|node| (node, head)));
}

/// The nodes from `head` on, if they lead back to it and each points back to the one before.
fn walk(head: u64, nodes: &HashSet<u64>, links: &impl Fn(u64) -> Option<Links>) -> Option<Vec<u64>> {
    let mut list = Vec::new();
    let (mut at, last) = links(head)?;
    let mut before = head;
    while at != head {
        let (next, prev) = links(at).filter(|_| nodes.contains(&at))?;
        // A ring has no more nodes than there are.
        if prev != before || list.len() >= nodes.len() {
            return None;
        }
        list.push(at);
        (before, at) = (at, next);
    }
    (last == before && !list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(head: u64, nodes: &[u64]) -> HashMap<u64, Links> {
        let mut all = vec![head];
        all.extend(nodes);
        let n = all.len();
        (0..n)
            .map(|i| (all[i], (all[(i + 1) % n], all[(i + n - 1) % n])))
            .collect()
    }

    fn sort(nodes: &[u64], links: &HashMap<u64, Links>) -> Rings {
        rings(&nodes.iter().copied().collect(), |at| links.get(&at).copied())
    }

    #[test]
    fn nodes_come_in_list_order() {
        let mut links = ring(0x1000, &[8, 32, 16]);
        links.extend(ring(0x2000, &[40]));
        let found = sort(&[8, 16, 32, 40], &links);
        assert_eq!(
            found.complete,
            [
                Ring {
                    head: 0x1000,
                    nodes: vec![8, 32, 16]
                },
                Ring {
                    head: 0x2000,
                    nodes: vec![40]
                },
            ]
        );
        assert!(found.open.is_empty());
    }

    #[test]
    fn a_stranger_on_the_list_opens_it_for_everybody() {
        let links = ring(0x1000, &[8, 16, 24]);
        let found = sort(&[8, 24], &links);
        assert!(
            found.complete.is_empty(),
            "which of the two strangers is the head cannot be told"
        );
        assert_eq!(found.open, BTreeMap::from([(8, Some(0x1000)), (24, Some(16))]));
        let nodes = HashSet::from([8, 24]);
        assert_eq!(
            strangers(&nodes, |at| links.get(&at).copied()),
            BTreeMap::from([(16, 8), (0x1000, 8)])
        );
    }

    #[test]
    fn corrupt_lists_end_the_walk() {
        let mut one_way = ring(0x1000, &[8, 16]);
        one_way.insert(16, (0x1000, 0x1000));
        let mut no_head = ring(8, &[16]);
        no_head.insert(0x1000, (8, 8));
        let mut unreadable = ring(0x1000, &[8]);
        unreadable.remove(&0x1000);
        let mut short_cut = ring(0x1000, &[8, 16]);
        short_cut.insert(0x1000, (8, 8));
        for links in [one_way, no_head, unreadable, short_cut] {
            let found = sort(&[8, 16], &links);
            assert!(found.complete.is_empty(), "{links:?} gave {found:?}");
        }
    }

    proptest! {
        #[test]
        fn any_links_end_and_give_only_true_rings(
            links in prop::collection::hash_map(0..24u64, (0..24u64, 0..24u64), 0..24),
            nodes in prop::collection::hash_set(0..24u64, 0..24),
        ) {
            let found = rings(&nodes, |at| links.get(&at).copied());
            let mut seen = HashSet::new();
            for ring in &found.complete {
                prop_assert!(!nodes.contains(&ring.head) && !ring.nodes.is_empty());
                let mut all = vec![ring.head];
                all.extend(&ring.nodes);
                for (i, at) in all.iter().enumerate() {
                    let (next, prev) = links[at];
                    prop_assert_eq!(next, all[(i + 1) % all.len()]);
                    prop_assert_eq!(prev, all[(i + all.len() - 1) % all.len()]);
                }
                for node in &ring.nodes {
                    prop_assert!(seen.insert(*node), "on two lists");
                }
            }
            prop_assert_eq!(seen.len() + found.open.len(), nodes.len());
        }
    }
}
