//! A trie of topic levels for the filters that have wildcards.
//!
//! Nodes are numbered; the edges of all nodes are in one hash table keyed by parent and level, so
//! a node with one child costs no table of its own. Lookup walks with an explicit stack: a filter
//! or topic of many levels cannot exhaust the thread's. Every node has one path from the root, so
//! a lookup visits no node twice and is bounded by the number of nodes.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::set::SubscriberSet;

const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;

struct Node {
    parent: u32,
    /// The child for the level `+`.
    plus: u32,
    /// Children, the one for `+` included: the node goes when it has none and no subscribers.
    children: u32,
    level: Box<str>,
    /// Subscribers of the filter that ends here.
    exact: Option<Box<SubscriberSet>>,
    /// Subscribers of the filter that ends here with `/#`.
    multi: Option<Box<SubscriberSet>>,
}

/// The trie.
pub struct Trie {
    nodes: Vec<Node>,
    free: Vec<u32>,
    edges: HashTable<u32>,
    hasher: RandomState,
    stack: usize,
}

impl Default for Trie {
    fn default() -> Trie {
        Trie {
            nodes: vec![Node::new(NONE, "")],
            free: Vec::new(),
            edges: HashTable::new(),
            hasher: RandomState::default(),
            stack: 0,
        }
    }
}

impl Node {
    fn new(parent: u32, level: &str) -> Node {
        Node {
            parent,
            plus: NONE,
            children: 0,
            level: level.into(),
            exact: None,
            multi: None,
        }
    }
}

/// Splits off a final `#`: the levels before it, and whether it was there.
fn split_multi(filter: &str) -> (Option<&str>, bool) {
    if filter == "#" {
        (None, true)
    } else if let Some(levels) = filter.strip_suffix("/#") {
        (Some(levels), true)
    } else {
        (Some(filter), false)
    }
}

impl Trie {
    fn edge_hash(&self, parent: u32, level: &str) -> u64 {
        self.hasher.hash_one((parent, level))
    }

    fn child(&self, parent: u32, level: &str) -> Option<u32> {
        let hash = self.edge_hash(parent, level);
        self.edges
            .find(hash, |&child| {
                let node = &self.nodes[child as usize];
                node.parent == parent && *node.level == *level
            })
            .copied()
    }

    fn child_or_insert(&mut self, parent: u32, level: &str) -> u32 {
        if level == "+" {
            let plus = self.nodes[parent as usize].plus;
            if plus != NONE {
                return plus;
            }
        } else if let Some(child) = self.child(parent, level) {
            return child;
        }
        let node = Node::new(parent, level);
        let number = match self.free.pop() {
            Some(number) => {
                self.nodes[number as usize] = node;
                number
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("subscriptions_max is below 2^32")
            }
        };
        self.nodes[parent as usize].children += 1;
        if level == "+" {
            self.nodes[parent as usize].plus = number;
        } else {
            let hash = self.edge_hash(parent, level);
            let Trie {
                edges,
                nodes,
                hasher,
                ..
            } = self;
            edges.insert_unique(hash, number, |&child| {
                let node = &nodes[child as usize];
                hasher.hash_one((node.parent, &*node.level))
            });
        }
        number
    }

    /// The subscribers of `filter`, an empty set if there were none.
    pub fn entry(&mut self, filter: &str) -> &mut SubscriberSet {
        let (levels, multi) = split_multi(filter);
        let mut at = ROOT;
        let mut depth = 0;
        if let Some(levels) = levels {
            for level in levels.split('/') {
                at = self.child_or_insert(at, level);
                depth += 1;
            }
        }
        self.stack = self.stack.max(depth + 1);
        let node = &mut self.nodes[at as usize];
        let set = if multi {
            &mut node.multi
        } else {
            &mut node.exact
        };
        set.get_or_insert_default()
    }

    fn find(&self, filter: &str) -> Option<(u32, bool)> {
        let (levels, multi) = split_multi(filter);
        let mut at = ROOT;
        if let Some(levels) = levels {
            for level in levels.split('/') {
                at = if level == "+" {
                    let plus = self.nodes[at as usize].plus;
                    (plus != NONE).then_some(plus)?
                } else {
                    self.child(at, level)?
                };
            }
        }
        Some((at, multi))
    }

    /// The subscribers of `filter`.
    pub fn get_mut(&mut self, filter: &str) -> Option<&mut SubscriberSet> {
        let (at, multi) = self.find(filter)?;
        let node = &mut self.nodes[at as usize];
        let set = if multi {
            &mut node.multi
        } else {
            &mut node.exact
        };
        set.as_deref_mut()
    }

    /// Gives back what `filter` occupies if nobody is subscribed to it any more.
    pub fn prune(&mut self, filter: &str) {
        let Some((mut at, multi)) = self.find(filter) else {
            return;
        };
        let node = &mut self.nodes[at as usize];
        let set = if multi {
            &mut node.multi
        } else {
            &mut node.exact
        };
        if set.as_ref().is_some_and(|set| set.is_empty()) {
            *set = None;
        }
        while at != ROOT {
            let node = &self.nodes[at as usize];
            if node.children > 0 || node.exact.is_some() || node.multi.is_some() {
                return;
            }
            let parent = node.parent;
            if &*node.level == "+" {
                self.nodes[parent as usize].plus = NONE;
            } else {
                let hash = self.edge_hash(parent, &node.level);
                if let Ok(edge) = self.edges.find_entry(hash, |&child| child == at) {
                    edge.remove();
                }
            }
            self.nodes[parent as usize].children -= 1;
            self.nodes[at as usize] = Node::new(NONE, "");
            self.free.push(at);
            at = parent;
        }
    }

    /// Calls `found` with the subscribers of each filter that matches `topic`.
    ///
    /// A wildcard in the first level does not match a topic that begins with `$`
    /// [MQTT-4.7.2-1], and `a/#` matches `a` itself.
    pub fn matches(&self, topic: &str, mut found: impl FnMut(&SubscriberSet)) {
        let dollar = topic.starts_with('$');
        // A node, and the rest of the topic below it: None once all levels are used up.
        let mut stack: Vec<(u32, Option<&str>)> = Vec::with_capacity(self.stack.min(64));
        stack.push((ROOT, Some(topic)));
        while let Some((at, rest)) = stack.pop() {
            let node = &self.nodes[at as usize];
            let wildcards = !(dollar && at == ROOT);
            if wildcards && let Some(multi) = &node.multi {
                found(multi);
            }
            let Some(rest) = rest else {
                if let Some(exact) = &node.exact {
                    found(exact);
                }
                continue;
            };
            if node.children == 0 {
                continue;
            }
            let (level, below) = match rest.split_once('/') {
                Some((level, below)) => (level, Some(below)),
                None => (rest, None),
            };
            if wildcards && node.plus != NONE {
                stack.push((node.plus, below));
            }
            if node.children > u32::from(node.plus != NONE)
                && let Some(child) = self.child(at, level)
            {
                stack.push((child, below));
            }
        }
    }

    /// Nodes in use, the root included.
    #[cfg(test)]
    pub fn node_count(&self) -> usize {
        self.nodes.len() - self.free.len()
    }
}
