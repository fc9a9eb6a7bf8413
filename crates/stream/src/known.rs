//! A bounded memory of what was seen, by name.

use std::collections::{HashSet, VecDeque};

/// Names that are remembered, the newest.
const REMEMBERED: usize = 10_000;

/// The last names seen.
#[derive(Default)]
pub(crate) struct Known {
    names: HashSet<String>,
    order: VecDeque<String>,
}

impl Known {
    /// Whether this is the first time, as far as is remembered.
    pub(crate) fn is_new(&mut self, name: &str) -> bool {
        if !self.names.insert(name.to_owned()) {
            return false;
        }
        self.order.push_back(name.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
        true
    }

    /// Whether it was seen.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}
