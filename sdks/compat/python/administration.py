"""The published Python admin client, unmodified, against freshly started systems: one process on the embedded store, then two
of everything on PostgreSQL and Redis.

    python administration.py --caracal PATH_TO_BINARY --postgres URL_OF_A_SUPERUSER --redis URL

It provisions a zone twice over by its `ensure_` functions, reads everything that it can read, rotates secrets, decides an
approval that a call by the published SDK waits for, and takes authority away again. Ends with exit code 0 and one line `N
passed, N failed`.
"""

import asyncio
import secrets
import sys

import httpx
from caracalai import ApprovalRequired, Authority
from caracalai import Caracal as Client
from caracalai import ResourceBinding
from caracalai_admin import (
    AdminApiError,
    AdminClient,
    ResourceGrant,
    ensure_api_key_provider,
    ensure_application,
    ensure_client_credentials_provider,
    ensure_grants,
    ensure_resource,
)

from checks import Check, on_every_system, say
from system import Caracal, Upstream, Zone, hold_for_operators

SCOPES = ["tickets:read", "tickets:write"]
OPERATIONS = [
    {"method": "GET", "path": "/tickets", "scope": "tickets:read"},
    {"method": "POST", "path": "/tickets", "scope": "tickets:write"},
]


def items(answer: object) -> list:
    """Lists come as pages from some calls, and as all of it from others."""
    return answer["items"] if isinstance(answer, dict) else list(answer)


def refused(check: Check, status: int, code: str, call) -> None:
    try:
        answer = call()
    except AdminApiError as error:
        check.that((error.status, error.code) == (status, code), f"refused: {error.status} {error.code}", repr(error))
        return
    raise AssertionError(f"not refused with {code}: {answer!r}")


def provisions(admin: AdminClient, upstream: Upstream, check: Check) -> tuple[Zone, str]:
    """A zone is made what it should be, and nothing happens when it is that already."""
    zone = admin.zones.create({"name": "Administration"})["id"]
    check.that(zone in [one["id"] for one in items(admin.zones.list())], "a zone is made and listed")
    admin.zones.patch(zone, {"dcr_enabled": True})
    check.that(admin.zones.dcr_status(zone)["dcr_enabled"] is True, "and changed")
    secret, key = "cs_" + secrets.token_hex(24), "desk-" + secrets.token_hex(16)
    made = []
    for round in ("made", "found as it should be"):
        application = ensure_application(admin, zone, name="desk-agent", traits=["agent"], client_secret=secret)
        provider = ensure_api_key_provider(
            admin,
            zone,
            name="Ticket desk",
            identifier="provider://ticket-desk",
            public_config={"auth_location": "header", "header_name": "X-Desk-Key"},
            api_key=key,
        )
        resource = ensure_resource(
            admin,
            zone,
            name="Tickets",
            identifier="resource://tickets",
            scopes=SCOPES,
            upstream_url=upstream.url,
            credential_provider_id=provider,
            operations=OPERATIONS,
            operation_enforcement="enforced",
        )
        ensure_client_credentials_provider(
            admin,
            zone,
            name="Elsewhere",
            identifier="provider://elsewhere",
            public_config={"token_endpoint": "https://idp.example/token", "client_id": "us"},
            client_secret=secret,
        )
        grant = ResourceGrant(application_id=application, resource_identifier="resource://tickets", scopes=SCOPES)
        ensure_grants(admin, zone, grants=[grant])
        kept = {**resource, "updated_at": None, "updated_by": None}
        made.append((application, provider, kept, len(items(admin.providers.list(zone)))))
        say(f"        application, providers, resource and grants are {round}")
    check.that(made[0] == made[1], "the second time nothing new was made", made)
    sets = items(admin.policy_sets.list(zone))
    check.that(len(sets) == 1 and sets[0]["active_version_id"], "one policy set decides", sets)
    versions = items(admin.policy_sets.list_versions(zone, sets[0]["id"]))
    check.that(len(versions) == 1, "of which there is one version", versions)
    shown = [admin.providers.get(zone, provider), admin.applications.get(zone, application), resource]
    check.that(key not in repr(shown) and secret not in repr(shown), "no secret is in an answer")
    return Zone(zone, application, secret, "resource://tickets", upstream.url, SCOPES), provider


def reads(admin: AdminClient, zone: Zone, provider: str, check: Check) -> None:
    """Everything that can be read, in the types that the client hands on."""
    for what, listed in {
        "applications": admin.applications.list(zone.id),
        "providers": admin.providers.list(zone.id),
        "resources": admin.resources.list(zone.id),
        "policies": admin.policies.list(zone.id),
        "policy sets": admin.policy_sets.list(zone.id),
        "policy templates": admin.policy_templates.list(),
        "admin audit": admin.admin_audit.list(zone.id),
    }.items():
        check.that(len(items(listed)) > 0, f"{what} are listed")
    for what, listed in {
        "grants": admin.grants.list(zone.id),
        "workloads": admin.workloads.list(zone.id),
        "subject issuers": admin.subject_issuers.list(zone.id),
        "approvals": admin.approvals.list(zone.id),
    }.items():
        check.that(items(listed) == [], f"there are no {what}")
    records = items(admin.admin_audit.list(zone.id, {"limit": 5}))
    check.that(all(type(row["chain_seq"]) is int for row in records), "positions in the chain are numbers", records[:1])
    resource = items(admin.resources.list(zone.id))[0]["id"]
    grant = {"application_id": zone.application, "user_id": "ann", "resource_id": resource, "scopes": ["tickets:read"]}
    granted = admin.grants.create(zone.id, grant)["id"]
    check.that(admin.grants.get(zone.id, granted)["user_id"] == "ann", "a grant is recorded and read")
    admin.grants.revoke(zone.id, granted)
    check.that(admin.grants.get(zone.id, granted)["status"] == "revoked", "and revoked")
    issuer = {"issuer": "https://idp.example", "jwks_url": "https://idp.example/keys", "audience": "desk"}
    issuer = admin.subject_issuers.create(zone.id, issuer)["id"]
    changed = admin.subject_issuers.patch(zone.id, issuer, {"audience": "other"})
    check.that(changed["audience"] == "other", "an identity provider is registered and changed")
    admin.subject_issuers.delete(zone.id, issuer)
    refused(check, 404, "subject_issuer_not_found", lambda: admin.subject_issuers.get(zone.id, issuer))
    refused(check, 400, "invalid_application", lambda: admin.applications.create(zone.id, {"name": "", "foo": 1}))
    refused(check, 404, "provider_not_found", lambda: admin.providers.get(zone.id, "absent"))
    refused(check, 400, "provider_connection_unsupported", lambda: admin.provider_connections.create(
        zone.id, {"provider_id": provider, "access_token": "t"}))


def rotates(admin: AdminClient, zone: Zone, check: Check) -> None:
    """Secrets are shown once, revealed on record, and replaced."""
    made = admin.applications.create(zone.id, {"name": "other", "registration_method": "managed"})
    revealed = admin.applications.get_client_secret(zone.id, made["id"])
    check.that(revealed["client_secret"] == made["client_secret"], "an application's secret is revealed")
    rotated = admin.applications.rotate_secret(zone.id, made["id"])
    check.that(rotated["client_secret"] != made["client_secret"], "and rotated")
    admin.applications.delete(zone.id, made["id"])
    refused(check, 404, "application_not_found", lambda: admin.applications.get(zone.id, made["id"]))
    job = admin.workloads.create(zone.id, {"name": "job"})
    check.that(admin.workloads.get_secret(zone.id, job["id"])["secret"] == job["secret"], "a workload's is revealed")
    check.that(admin.workloads.rotate_secret(zone.id, job["id"])["secret"] != job["secret"], "and rotated")
    bound = admin.workloads.update(zone.id, job["id"], {"bindings": [{"env": "DESK", "resource": zone.resource}]})
    check.that(bound["bindings"][0]["env"] == "DESK", "it is bound to a resource", bound)
    admin.workloads.delete(zone.id, job["id"])
    own = admin.applications.dcr(zone.id, {"name": "self", "expires_in": 60})
    check.that(own["registration_method"] == "dcr" and own["client_secret"], "an application registers itself")


async def approves(system: Caracal, admin: AdminClient, zone: Zone, upstream: Upstream, check: Check) -> None:
    """A call waits for an operator, who is found, says yes, and later no."""
    hold_for_operators(system, zone, "tickets:write", lambda text: say(f"        {text}"))
    client = Client.from_client_secret(
        sts_url=system.urls["sts"],
        coordinator_url=system.urls["coordinator"],
        gateway_url=system.urls["gateway"],
        zone_id=zone.id,
        application_id=zone.application,
        client_secret=zone.client_secret,
        resources=[ResourceBinding(zone.resource, zone.upstream)],
    )
    write = Authority.narrow(["tickets:write"], ttl_seconds=300, resource_id=zone.resource)
    async with client.session(labels=["clerk"], ttl_seconds=600):
        async with client.session(authority=write, labels=["clerk"], ttl_seconds=300):

            async def call(approval_id: str | None = None) -> httpx.Response:
                return await client.fetch(
                    zone.resource, "/tickets", method="POST", scopes=["tickets:write"], approval_id=approval_id, json={}
                )

            async def held() -> str:
                try:
                    await call()
                except ApprovalRequired as hold:
                    return hold.approval_id
                raise AssertionError("the call went out before anybody approved it")

            first = await held()
            waiting = await asyncio.to_thread(admin.approvals.get, zone.id, first)
            check.that((waiting["state"], waiting["tier"]) == ("pending", "desk"), "an approval is read", waiting)
            check.that(first in [one["id"] for one in items(admin.approvals.list(zone.id))], "and listed")
            decided = await asyncio.to_thread(admin.approvals.approve, zone.id, first, "seen")
            check.that(decided["state"] == "approved", "it is approved", decided)
            response = await call(first)
            check.that(response.status_code == 200, "and the call goes out", response.text)
            refused(check, 409, "approval_not_decidable", lambda: admin.approvals.approve(zone.id, first))
            second = await held()
            rejected = await asyncio.to_thread(admin.approvals.reject, zone.id, second, "not today")
            check.that(rejected["state"] == "rejected", "the next is rejected", rejected)
            running = items(await asyncio.to_thread(admin.sessions.list, zone.id, {"status": "active"}))
            check.that(len(running) > 0, "its sessions are listed", running)
    await client.aclose()


def revokes(admin: AdminClient, zone: Zone, check: Check) -> None:
    """All that the application holds ends, and then all that the zone has."""
    live = items(admin.authority_records.list(zone.id, {"status": "active"}))
    check.that(len(live) > 0, "authority was granted")
    events = items(admin.audit.list(zone.id, {"limit": 50}))
    check.that(len(events) > 0, "decisions are on record")
    explained = admin.audit.explain(zone.id, events[0]["request_id"])
    check.that(explained["events"], "and explained")
    ended = admin.subjects.revoke(zone.id, {"subject_id": zone.application, "reason": "the end"})
    check.that(ended["authority_records"] >= 1, "the kill switch ends what the application holds", ended)
    left = items(admin.authority_records.list(zone.id, {"status": "active", "subject_id": zone.application}))
    check.that(left == [], "and nothing of it is left", left)
    again = admin.subjects.revoke(zone.id, {"subject_id": zone.application})
    check.that(again["authority_records"] == 0, "asked again there is nothing to end")
    for resource in items(admin.resources.list(zone.id)):
        admin.resources.delete(zone.id, resource["id"])
    admin.zones.delete(zone.id)
    refused(check, 404, "zone_not_found", lambda: admin.zones.get(zone.id))


def every_flow(system: Caracal, upstream: Upstream, check: Check) -> None:
    took = system.start()
    say(f"ready after {took:.2f} s")
    admin = AdminClient(api_url=system.urls["api"], admin_token=system.admin_token, coordinator_url=system.urls["coordinator"])
    try:
        zone, provider = provisions(admin, upstream, check)
        reads(admin, zone, provider, check)
        rotates(admin, zone, check)
        asyncio.run(approves(system, admin, zone, upstream, check))
        revokes(admin, zone, check)
    except Exception:  # noqa: BLE001 — whatever the client raises is a failure of this flow
        check.note_failure("administration")
    check.that(system.stop() == 0, "it drained and ended well")


if __name__ == "__main__":
    sys.exit(on_every_system(__doc__, ("caracalai-admin", "httpx"), every_flow, every_flow))
