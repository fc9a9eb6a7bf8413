//! Every operation there is. What is not in this table does not exist; each operation's file says what it needs.

use crate::gate::{Needs, Reach, Route};
use crate::{
    admin_audit, admin_tokens, applications, approvals, audit, audit_retention, authority_records, grants, ledger,
    mint_rate_limit, notification_sinks, policies, policy_sets, provider_connections, providers, resources, sessions,
    subject_issuers, subjects, workloads, zones,
};

/// The table the router is made from.
pub(crate) static ROUTES: &[Route] = &[
    zones::list::ROUTE,
    zones::create::ROUTE,
    zones::read::ROUTE,
    zones::dcr_status::ROUTE,
    zones::overview::ROUTE,
    zones::update::ROUTE,
    zones::archive::ROUTE,
    applications::list::ROUTE,
    applications::create::ROUTE,
    applications::read::ROUTE,
    applications::update::ROUTE,
    applications::rotate_secret::ROUTE,
    applications::reveal_secret::ROUTE,
    applications::archive::ROUTE,
    applications::register::ROUTE,
    workloads::list::ROUTE,
    workloads::create::ROUTE,
    workloads::read::ROUTE,
    workloads::update::ROUTE,
    workloads::rotate_secret::ROUTE,
    workloads::reveal_secret::ROUTE,
    workloads::remove::ROUTE,
    providers::list::ROUTE,
    providers::create::ROUTE,
    providers::read::ROUTE,
    providers::update::ROUTE,
    providers::archive::ROUTE,
    providers::test::ROUTE,
    providers::discovery::ROUTE,
    provider_connections::list::ROUTE,
    provider_connections::import::ROUTE,
    provider_connections::revoke::ROUTE,
    provider_connections::authorize::ROUTE,
    provider_connections::callback::ROUTE,
    resources::list::ROUTE,
    resources::create::ROUTE,
    resources::read::ROUTE,
    resources::update::ROUTE,
    resources::archive::ROUTE,
    subject_issuers::list::ROUTE,
    subject_issuers::create::ROUTE,
    subject_issuers::read::ROUTE,
    subject_issuers::update::ROUTE,
    subject_issuers::archive::ROUTE,
    subjects::list::ROUTE,
    subjects::overview::ROUTE,
    subjects::revoke::ROUTE,
    policies::validate::ROUTE,
    policies::templates::ROUTE,
    policies::list::ROUTE,
    policies::create::ROUTE,
    policies::read::ROUTE,
    policies::add_version::ROUTE,
    policies::archive::ROUTE,
    policy_sets::list::ROUTE,
    policy_sets::create::ROUTE,
    policy_sets::read::ROUTE,
    policy_sets::add_version::ROUTE,
    policy_sets::list_versions::ROUTE,
    policy_sets::read_version::ROUTE,
    policy_sets::activate::ROUTE,
    policy_sets::activation_status::ROUTE,
    policy_sets::archive::ROUTE,
    policy_sets::simulate::ROUTE,
    grants::list::ROUTE,
    grants::create::ROUTE,
    grants::read::ROUTE,
    grants::revoke::ROUTE,
    approvals::list::ROUTE,
    approvals::counts::ROUTE,
    approvals::read::ROUTE,
    approvals::decide::APPROVE,
    approvals::decide::REJECT,
    notification_sinks::list::ROUTE,
    notification_sinks::create::ROUTE,
    notification_sinks::read::ROUTE,
    notification_sinks::update::ROUTE,
    notification_sinks::remove::ROUTE,
    notification_sinks::rotate_secret::ROUTE,
    notification_sinks::deliveries::ROUTE,
    mint_rate_limit::read::ROUTE,
    mint_rate_limit::set::ROUTE,
    audit_retention::read::ROUTE,
    audit_retention::set::ROUTE,
    admin_tokens::list::ROUTE,
    admin_tokens::create::ROUTE,
    admin_tokens::revoke::ROUTE,
    audit::list::ROUTE,
    audit::by_request::ROUTE,
    audit::explain::ROUTE,
    admin_audit::list::ROUTE,
    admin_audit::list_zoneless::ROUTE,
    authority_records::list::ROUTE,
    sessions::list::ROUTE,
    ledger::LOG_KEY,
    ledger::CHECKPOINT,
    ledger::TILE,
];

/// One operation as an inventory sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// The method.
    pub method: http::Method,
    /// The path with `{…}` for what varies; `{zone}` is the zone it is confined to.
    pub path: &'static str,
    /// What a token must be able to do.
    pub needs: Needs,
    /// Whether it belongs to one zone.
    pub in_zone: bool,
    /// Whether anybody may call it, without a token.
    pub is_public: bool,
    /// Whether tokens of any zone may call it, because it is the same for everybody.
    pub for_everybody: bool,
}

/// Every operation under `/v1`: for tests that walk all of them, and for the inventory of the threat model.
pub fn route_list() -> Vec<RouteInfo> {
    let info = |route: &Route| RouteInfo {
        method: route.method.clone(),
        path: route.path,
        needs: route.needs,
        in_zone: matches!(route.reach, Reach::Zone(_) | Reach::Public(_)),
        is_public: matches!(route.reach, Reach::Public(_)),
        for_everybody: matches!(route.reach, Reach::Catalogue(_)),
    };
    ROUTES.iter().map(info).collect()
}
