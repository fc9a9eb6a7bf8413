//! Where a resource's calls go and with which credential. Only the control resource, which no call goes to, needs
//! neither.

use caracal_authority::ProviderId;
use caracal_store::{ZoneRead, providers};

use crate::problem::Refusal;
use crate::reserved;

/// The provider that a body names: a live one of this zone, else 404.
pub(super) async fn provider(
    tx: &mut ZoneRead<'_>,
    named: &Option<Option<String>>,
) -> Result<Option<Option<ProviderId>>, Refusal> {
    let missing = || Refusal::missing("provider_not_found");
    match named {
        None => Ok(None),
        Some(None) => Ok(Some(None)),
        Some(Some(id)) => {
            let id = ProviderId::parse(id).map_err(|_| missing())?;
            let found = providers::lookup(tx, &id).await?.filter(|provider| provider.archived_at.is_none());
            found.map(|provider| Some(Some(provider.id))).ok_or_else(missing)
        }
    }
}

/// A reserved provider's credential goes only where the bootstrap token sends it: whoever may choose the upstream of a
/// resource receives what is injected there.
pub(super) async fn guard_provider(
    tx: &mut ZoneRead<'_>,
    provider: Option<&ProviderId>,
    may_reserve: bool,
) -> Result<(), Refusal> {
    let (false, Some(id)) = (may_reserve, provider) else { return Ok(()) };
    let row = providers::lookup(tx, id).await?;
    let identifier = row.map(|provider| provider.identifier).unwrap_or_default();
    reserved::guard(may_reserve, &identifier, reserved::PROVIDER)
}

/// Whether what the resource will have is enough to be called.
pub(super) fn check(provider: Option<&ProviderId>, upstream_url: Option<&str>) -> Result<(), Refusal> {
    if provider.is_none() {
        return Err(Refusal::invalid("credential_provider_required"));
    }
    if upstream_url.is_none() {
        return Err(Refusal::invalid("upstream_url_required"));
    }
    Ok(())
}
