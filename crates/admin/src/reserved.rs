//! The reserved namespace: names that only the bootstrap token may give (contract: admin-api.md §4).

use crate::problem::Refusal;

/// Prefix of zone, application and policy names.
pub(crate) const NAME: &str = "caracal.sys/";
/// Prefix of zone slugs.
pub(crate) const SLUG: &str = "caracal-sys-";
/// Prefix of resource identifiers.
pub(crate) const RESOURCE: &str = "caracal-sys://";
/// Prefix of provider identifiers.
pub(crate) const PROVIDER: &str = "provider://caracal-sys-";

/// Whether `value` starts with a reserved prefix, white space around it and case aside.
pub(crate) fn is_reserved(value: &str, prefix: &str) -> bool {
    value.trim().to_lowercase().starts_with(prefix)
}

/// Refuses to give, change or take a reserved name, unless the caller may (`may_reserve`).
pub(crate) fn guard(may_reserve: bool, value: &str, prefix: &str) -> Result<(), Refusal> {
    if may_reserve || !is_reserved(value, prefix) { Ok(()) } else { Err(Refusal::conflict("reserved_namespace")) }
}

/// Whether a zone of this name and slug is a system zone.
pub(crate) fn is_system_zone(name: &str, slug: &str) -> bool {
    is_reserved(name, NAME) || is_reserved(slug, SLUG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_prefix_is_reserved_in_whatever_case() {
        for (value, prefix, expected) in [
            ("caracal.sys/x", NAME, true),
            ("  Caracal.SYS/x", NAME, true),
            ("caracal.system/x", NAME, false),
            ("x caracal.sys/", NAME, false),
            ("caracal-sys-internal", SLUG, true),
            ("caracal-system", SLUG, false),
            ("CARACAL-SYS://x", RESOURCE, true),
            ("provider://caracal-sys-a", PROVIDER, true),
            ("provider://caracal-sysa", PROVIDER, false),
        ] {
            assert_eq!(is_reserved(value, prefix), expected, "{value}");
        }
    }
}
