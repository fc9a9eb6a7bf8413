//! What replicas share beside the store: signed topics with groups, and counters. Embedded and Redis engines.
