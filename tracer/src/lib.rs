//! Owner/waiter tuples of the Linux kernel, turned into a live wait-for graph.
