"""The published Python client, unmodified, against freshly started systems: one process on the embedded store, then two
of everything on PostgreSQL and Redis.

    python flows.py --caracal PATH_TO_BINARY --postgres URL_OF_A_SUPERUSER --redis URL

What is shown is what its users rely on: calls through `application_transport`, a governed `session`, a child that
`Authority.narrow` bounds, `fetch`, users of an identity provider, and that nothing is left of any of it once a session has ended. Ends with exit
code 0 and one line `N passed, N failed`.
"""

import asyncio
import contextvars
import secrets
import sys
import time
from importlib.metadata import version

import httpx
from caracalai import (
    AccessDenied,
    ApprovalRequired,
    Authority,
    Caracal as Client,
    CaracalError,
    CoordinatorError,
    DelegationConstraints,
    ResourceBinding,
)

from checks import Check, on_every_system, say
from identity_provider import IdentityProvider
from system import Caracal, LosesAnswers, Replicated, Upstream, Zone, admit_another_application, hold_for_operators, provision

PUBLISHED = "1.0.0"


class World:
    """What every flow works with."""

    def __init__(self, system: Caracal, upstream: Upstream, key: str, check: Check):
        self.system, self.upstream, self.key, self.check = system, upstream, key, check
        self.zone = provision(system, upstream, key, lambda text: say(f"        {text}"))

    def client(self, seen_by: Zone | None = None, coordinator: str | None = None) -> Client:
        """Built as the client's documentation says; no option but the addresses and an application's credentials."""
        zone = seen_by or self.zone
        return Client.from_client_secret(
            sts_url=self.system.urls["sts"],
            coordinator_url=coordinator or self.system.urls["coordinator"],
            gateway_url=self.system.urls["gateway"],
            zone_id=zone.id,
            application_id=zone.application,
            client_secret=zone.client_secret,
            resources=[ResourceBinding(zone.resource, zone.upstream)],
        )

    def coordinator(self, url: str) -> httpx.AsyncClient:
        """The Coordinator without the client, as an application that speaks to it by itself."""
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "zone_id": self.zone.id,
            "application_id": self.zone.application,
            "client_secret": self.zone.client_secret,
            "resource": self.zone.resource,
            "scope": "agent:lifecycle",
        }
        minted = httpx.post(f"{self.system.urls['sts']}/oauth/2/token", data=form).raise_for_status().json()
        bearer = {"Authorization": f"Bearer {minted['access_token']}"}
        return httpx.AsyncClient(base_url=f"{url}/zones/{self.zone.id}", headers=bearer)

    def check_last_call(self, method: str, target: str) -> None:
        """The upstream got the real key and nothing of Caracal's."""
        seen = self.upstream.received[-1]
        self.check.that((seen.method, seen.path) == (method, target), f"the upstream received {method} {target}", seen)
        self.check.that(seen.header("X-Desk-Key") == [self.key], "with the key that was injected, once", seen)
        self.check.that(not seen.header("Authorization"), "without the mandate", seen)
        text = repr(seen)
        self.check.that("eyJ" not in text, "without anything that looks like a token", seen)
        ours = [name for name, _ in seen.headers if name.lower().startswith("x-caracal-")]
        self.check.that(not ours, "without headers of ours", seen)

    async def refused_mint(self, what: str, call, code: str | None = None) -> CaracalError:
        """The STS refuses before anything reaches the Gateway, and the upstream hears nothing."""
        before = len(self.upstream.received)
        try:
            response = await call
        except CaracalError as error:
            text = f"{what}: {error.http_status} {error.code} ({error.request_id})"
            expected = error.http_status in (400, 401, 403) and (code is None or error.code == code)
            self.check.that(expected and bool(error.request_id), text, repr(error))
            self.check.that(len(self.upstream.received) == before, "the upstream heard nothing")
            return error
        raise AssertionError(f"{what}: was not refused: {response!r} {getattr(response, 'text', '')}")

    async def refused_by_gateway(self, what: str, call, status: int, code: str) -> None:
        before = len(self.upstream.received)
        response = await call
        body = response.json()
        seen = (response.status_code, body.get("error"))
        expected = {(status, code)} if self.system.told_at_once else {(status, code), (403, "access_denied")}
        self.check.that(seen in expected, f"{what}: {status} {code} ({response.headers.get('x-request-id')})", body)
        self.check.that(len(self.upstream.received) == before, "the upstream heard nothing")


async def application_transport(world: World) -> None:
    """Calls as the application itself: two sessions, one delegation, a fresh mandate per request."""
    client = world.client()
    events = []
    client.on_event(events.append)
    transport = client.application_transport(world.zone.resource, scopes=["tickets:read", "tickets:write"])
    response = await transport.get(f"{world.zone.upstream}/tickets?state=open")
    world.check.that(response.status_code == 200, "a GET through application_transport", response.text)
    world.check_last_call("GET", "/tickets?state=open")
    response = await transport.post(f"{world.zone.upstream}/tickets", json={"title": "printer"})
    world.check.that(response.status_code == 200, "a POST with a body, on the same authority", response.text)
    world.check_last_call("POST", "/tickets")
    world.check.that(world.upstream.received[-1].body == b'{"title":"printer"}', "the body arrived byte for byte")
    answers = await asyncio.gather(*(transport.get(f"{world.zone.upstream}/tickets") for _ in range(8)))
    world.check.that({answer.status_code for answer in answers} == {200}, "eight at once, each with its own mandate")
    response = await transport.get(f"{world.zone.upstream}/not-an-operation")
    world.check.that(response.status_code == 403, "an operation that is not declared is refused", response.text)
    narrow = client.application_transport(world.zone.resource, scopes=["tickets:read"])
    before = len(world.upstream.received)
    response = await narrow.post(f"{world.zone.upstream}/tickets", json={})
    world.check.that(response.status_code == 403, "POST with tickets:read only is refused", response.text)
    world.check.that(len(world.upstream.received) == before, "the upstream heard nothing")
    failed = [event for event in events if not event.ok]
    world.check.that(not failed, "every control-plane call of the client succeeded", failed)
    await transport.aclose()
    await narrow.aclose()
    await client.aclose()


async def sync_application_transport(world: World) -> None:
    """The same without an event loop."""

    def call() -> httpx.Response:
        client = world.client()
        with client.sync_application_transport(world.zone.resource, scopes=["tickets:read"]) as transport:
            return transport.get(f"{world.zone.upstream}/tickets")

    response = await asyncio.to_thread(call)
    world.check.that(response.status_code == 200, "a GET through sync_application_transport", response.text)
    world.check_last_call("GET", "/tickets")


async def session(world: World) -> None:
    """A governed session alone carries no authority over resources; what it hands to a child does."""
    client = world.client()
    async with client.session(labels=["clerk"], task="answer a ticket", ttl_seconds=600) as root:
        world.check.that(bool(root.session_id), f"session {root.session_id}")
        world.check.that(root.delegation_id is None, "it holds no delegation")
        keyed = {"labels": ["clerk"], "ttl_seconds": 600, "idempotency_key": "ticket-7"}
        both = asyncio.Barrier(2)

        async def start() -> str:
            async with client.session(**keyed) as started:
                await both.wait()
                return started.session_id

        ids = set(await asyncio.gather(start(), start()))
        world.check.that(len(ids) == 1, "the same idempotency key starts one session, not two", ids)
        try:
            await start()
        except CoordinatorError as refusal:
            text = f"and once that has ended, none: {refusal.status} {refusal.code}"
            world.check.that((refusal.status, refusal.code) == (409, "idempotency_result_inactive"), text, repr(refusal))
        await world.refused_mint(
            "a session without a delegation mints nothing",
            client.fetch(world.zone.resource, "/tickets", scopes=["tickets:read"]),
            "access_denied",
        )
    await client.aclose()


async def narrowed_child(world: World) -> None:
    """A child gets a part of what its parent may do, can do that part, and can neither do nor pass on more."""
    client = world.client()
    narrow = Authority.narrow(
        ["tickets:read"],
        ttl_seconds=300,
        resource_id=world.zone.resource,
        constraints=DelegationConstraints(resources=[world.zone.resource], max_hops=2),
    )
    async with client.session(labels=["clerk"], ttl_seconds=600):
        async with client.session(authority=narrow, labels=["clerk"], ttl_seconds=300) as child:
            world.check.that(bool(child.delegation_id), f"child {child.session_id} holds {child.delegation_id}")
            response = await client.fetch(world.zone.resource, "/tickets?by=child", scopes=["tickets:read"])
            world.check.that(response.status_code == 200, "the child reads", response.text)
            world.check_last_call("GET", "/tickets?by=child")
            error = await world.refused_mint(
                "the child can't write",
                client.fetch(
                    world.zone.resource, "/tickets", method="POST", json={}, scopes=["tickets:write"]
                ),
            )
            await show_trace(world, error)
            wider = Authority.narrow(["tickets:write"], ttl_seconds=60, resource_id=world.zone.resource)
            try:
                async with client.session(authority=wider, labels=["clerk"], ttl_seconds=60):
                    raise AssertionError("the child passed on more than it holds")
            except CoordinatorError as refusal:
                text = f"the child can't pass on more: {refusal.status} {refusal.code} ({refusal.request_id})"
                world.check.that((refusal.status, refusal.code) == (403, "delegation_exceeds_parent_authority"), text, repr(refusal))
            same = Authority.narrow(["tickets:read"], ttl_seconds=60, resource_id=world.zone.resource)
            async with client.session(authority=same, labels=["reader"], ttl_seconds=60):
                response = await client.fetch(world.zone.resource, "/tickets?by=grandchild", scopes=["tickets:read"])
                world.check.that(response.status_code == 200, "a grandchild within the child's bounds reads", response.text)
            async with client.session(labels=["reader"], ttl_seconds=60) as heir:
                world.check.that(bool(heir.delegation_id), "a child that inherits gets the narrowed delegation")
                response = await client.fetch(world.zone.resource, "/tickets?by=heir", scopes=["tickets:read"])
                world.check.that(response.status_code == 200, "and reads under it", response.text)
                await world.refused_mint(
                    "but can't write either",
                    client.fetch(world.zone.resource, "/tickets", method="POST", json={}, scopes=["tickets:write"]),
                )
    await client.aclose()


async def show_trace(world: World, error: CaracalError) -> None:
    """An operator can look up why."""
    path = f"/v1/zones/{world.zone.id}/audit/by-request/{error.request_id}/explain"
    answer = world.system.admin("GET", path)
    denied = answer.body.get("denied") if isinstance(answer.body, dict) else None
    world.check.that(answer.status == 200 and bool(denied), "the refusal can be explained by its request id", answer)
    say(f"        {denied[0]['event_type']}: {denied[0]['evaluation_status']} {denied[0]['diagnostics']}")


async def peer_delegation(world: World) -> None:
    """One session lends to another of the same application, which checks and presents what it was lent."""
    client = world.client()
    lender = world.client()
    lent = asyncio.Future()
    async with client.session(labels=["reader"], ttl_seconds=600) as worker:

        async def lend():
            async with lender.session(labels=["clerk"], ttl_seconds=600):
                delegation = await lender.delegate(
                    to_session_id=worker.session_id,
                    scopes=["tickets:read"],
                    ttl_seconds=300,
                    resource_id=world.zone.resource,
                )
                lent.set_result(delegation)
                await done.wait()

        done = asyncio.Event()
        # A context of its own: what lends must not be taken for a child of what is lent to.
        lending = asyncio.create_task(lend(), context=contextvars.Context())
        await asyncio.wait({lending, asyncio.ensure_future(lent)}, return_when=asyncio.FIRST_COMPLETED)
        if lending.done():
            await lending
        delegation = lent.result()
        world.check.that(delegation.scopes == ("tickets:read",), f"delegation {delegation.delegation_id}", delegation)
        async with client.accept_delegation(delegation.delegation_id, validate=True):
            response = await client.fetch(world.zone.resource, "/tickets?by=peer", scopes=["tickets:read"])
            world.check.that(response.status_code == 200, "the peer reads on what it was lent", response.text)
            world.check_last_call("GET", "/tickets?by=peer")
            done.set()
            await lending
            await world.refused_mint(
                "and no more once the lender's session has ended",
                client.fetch(world.zone.resource, "/tickets", scopes=["tickets:read"]),
            )
    await client.aclose()
    await lender.aclose()


async def peer_of_another_application(world: World) -> None:
    """A session lends to one of another application, which accepts it as its own; taken back, it is nobody's any more."""
    other = admit_another_application(world.system, world.zone, lambda text: say(f"        {text}"))
    lender, receiver = world.client(), world.client(other)
    async with receiver.session(labels=["reader"], ttl_seconds=600) as worker:

        async def lend():
            async with lender.session(labels=["clerk"], ttl_seconds=600):
                delegation = await lender.delegate(
                    to_session_id=worker.session_id,
                    to_application_id=other.application,
                    scopes=["tickets:read"],
                    ttl_seconds=300,
                    resource_id=world.zone.resource,
                )
                lent.set_result(delegation)
                await accepted.wait()
                await lender.revoke_delegation(delegation.delegation_id)

        lent, accepted = asyncio.Future(), asyncio.Event()
        lending = asyncio.create_task(lend(), context=contextvars.Context())
        await asyncio.wait({lending, asyncio.ensure_future(lent)}, return_when=asyncio.FIRST_COMPLETED)
        if lending.done():
            await lending
        delegation = lent.result()
        async with receiver.accept_delegation(delegation.delegation_id, validate=True) as context:
            world.check.that(context.session_id == worker.session_id, "the other application's session holds it", context)
        try:
            await receiver.revoke_delegation(delegation.delegation_id)
            raise AssertionError("its receiver took a delegation back")
        except CoordinatorError as refusal:
            text = "its receiver can't take it back"
            world.check.that((refusal.status, refusal.code) == (403, "issuer_ownership_required"), text, repr(refusal))
        accepted.set()
        await lending
        try:
            async with receiver.accept_delegation(delegation.delegation_id, validate=True):
                raise AssertionError("a delegation that was taken back was accepted")
        except (CoordinatorError, RuntimeError) as refusal:
            world.check.that(True, f"what was taken back is not accepted: {type(refusal).__name__}")
        # A revoked delegation ends the session that it led to, so that nothing is left to close.
    await lender.aclose()
    await receiver.aclose()


async def lost_answers(world: World) -> None:
    """An answer that is lost on its way costs nothing: what is asked for once more under its key is there once."""
    way = LosesAnswers(world.system.urls["coordinator"])
    client, lender = world.client(), world.client(coordinator=way.url)
    replayed = []
    lender.on_event(lambda event: replayed.append(event.path) if getattr(event, "replayed", False) else None)
    async with client.session(labels=["reader"], ttl_seconds=600) as worker, world.coordinator(way.url) as raw:

        async def items(path: str) -> list:
            answer = await raw.get(path)
            return answer.raise_for_status().json()["items"]

        async def lend():
            way.lose_the_next()
            async with lender.session(labels=["clerk"], ttl_seconds=600) as clerk:
                started = await items("/agents?label=clerk&status=active")
                ids = [session["agent_session_id"] for session in started]
                world.check.that(ids == [clerk.session_id], "the answer to a start was lost, and one session started", ids)
                way.lose_the_next()
                delegation = await lender.delegate(
                    to_session_id=worker.session_id,
                    scopes=["tickets:read"],
                    ttl_seconds=300,
                    resource_id=world.zone.resource,
                )
                lent = await items(f"/delegations/inbound/{worker.session_id}")
                ids = [edge["id"] for edge in lent]
                world.check.that(ids == [delegation.delegation_id], "the answer to a delegation was lost, and one was made", ids)
                zone = f"/zones/{world.zone.id}"
                expected = [f"{zone}/agents", f"{zone}/delegations"]
                world.check.that(replayed == expected, "and the client was told that both were repetitions", replayed)

        await asyncio.create_task(lend(), context=contextvars.Context())
        endpoint = {"application_id": world.zone.application, "endpoint_url": "https://worker.example"}
        service = (await raw.post("/agent-services", json=endpoint)).raise_for_status().json()["id"]
        asked = {"service_id": service, "idempotency_key": "ticket-7", "method": "print"}
        way.lose_the_next()
        try:
            answer = await raw.post("/invocations", json=asked)
            raise AssertionError(f"an answer was not lost: {answer}")
        except httpx.TransportError as error:
            world.check.that(True, f"the answer to an invocation was lost: {type(error).__name__}")
        again, once_more = await raw.post("/invocations", json=asked), await raw.post("/invocations", json=asked)
        told = [(answer.status_code, answer.headers.get("idempotency-replayed")) for answer in (again, once_more)]
        world.check.that(told == [(201, "true")] * 2, "under its key it is answered as it was then", told)
        world.check.that(again.json() == once_more.json(), "each time the same", again.text)
        ids = [invocation["id"] for invocation in await items("/invocations")]
        world.check.that(ids == [again.json()["id"]], "and there is one", ids)
        other = await raw.post("/invocations", json=asked | {"method": "shred"})
        seen = (other.status_code, other.json()["error"])
        world.check.that(seen == (409, "idempotency_key_conflict"), "another request under that key is refused", seen)
    await client.aclose()
    await lender.aclose()


async def service_session(world: World) -> None:
    """One process at a time runs a service; who attaches to it takes it over, and the one before is fenced off."""
    client, successor = world.client(), world.client()
    held = await client.start_session(labels=["reader"], heartbeat_interval=0)
    world.check.that(held.lease_generation == 1, f"service {held.session_id} under generation 1", held.lease_generation)
    await held.heartbeat()
    world.check.that(held.status == "active", "its heartbeat is heard", held.status)
    taken = await successor.attach_session(held.session_id, heartbeat_interval=0)
    world.check.that(taken.lease_generation == 2, "another process takes it over under generation 2", taken.lease_generation)
    try:
        await held.heartbeat()
        raise AssertionError("a stale holder was heard")
    except CoordinatorError as refusal:
        text = "the one before is fenced off"
        world.check.that((refusal.status, refusal.code) == (409, "session_lease_fenced"), text, repr(refusal))
    await held.aclose()
    await taken.heartbeat("degraded")
    world.check.that(taken.status == "active", "its end ended nothing: the successor still runs it", taken.status)
    await taken.aclose()
    try:
        await client.attach_session(held.session_id, heartbeat_interval=0)
        raise AssertionError("a service that ended was taken over")
    except CoordinatorError as refusal:
        text = "what has ended is taken over by nobody"
        world.check.that((refusal.status, refusal.code) == (409, "session_not_live"), text, repr(refusal))
    await client.aclose()
    await successor.aclose()


async def streams(world: World) -> None:
    """Events reach the agent as they are sent, and stop when its authority is taken back."""
    client = world.client()
    narrow = Authority.narrow(["tickets:read"], ttl_seconds=300, resource_id=world.zone.resource)
    async with client.session(labels=["clerk"], ttl_seconds=600):
        async with client.session(authority=narrow, labels=["reader"], ttl_seconds=300) as child:
            transport = client.transport(scopes=["tickets:read"])
            url = f"{world.zone.upstream}/tickets?stream"
            async with transport.stream("GET", url) as response:
                lines = response.aiter_lines()
                for number in range(3):
                    while (line := await anext(lines)) == "":
                        pass
                    world.check.that(line == f"data: {number}", f"event {number} arrived before the next was sent", line)
                    world.upstream.release.release()
                world.check.that([line async for line in lines if line] == [], "the stream came to its end")
            async with transport.stream("GET", url) as response:
                lines = response.aiter_lines()
                world.check.that(await anext(lines) == "data: 0", "a second stream has begun")
                await client.revoke_delegation(child.delegation_id)
                revoked = time.monotonic()
                rest = [line async for line in lines if line]
                took = time.monotonic() - revoked
                # The upstream says nothing meanwhile, and nothing else would end the stream before a minute is over.
                held = rest == [] and took < 2
                world.check.that(held, f"a revocation ends it within {took:.3f} s, while the upstream is silent", rest)
            world.upstream.release.release(2)
            await transport.aclose()
    await client.aclose()


async def one_shot_mandates(world: World) -> None:
    """A mandate opens the Gateway once."""
    client = world.client()
    narrow = Authority.narrow(["tickets:read"], ttl_seconds=300, resource_id=world.zone.resource)
    async with client.session(labels=["clerk"], ttl_seconds=600):
        async with client.session(authority=narrow, labels=["reader"], ttl_seconds=300) as child:
            mandate = await asyncio.to_thread(client.mint_mandate, world.zone.resource, ["tickets:read"], ctx=child)
            target = client.gateway_request(world.zone.resource, "/tickets?by=mandate")
            headers = {**target.headers, "Authorization": f"Bearer {mandate.token}"}
            async with httpx.AsyncClient() as plain:
                response = await plain.get(target.url, headers=headers)
                world.check.that(response.status_code == 200, "a minted mandate opens the Gateway", response.text)
                world.check_last_call("GET", "/tickets?by=mandate")
                await world.refused_by_gateway(
                    "the same mandate again", plain.get(target.url, headers=headers), 401, "invalid_token"
                )
                bare = {"X-Caracal-Resource": world.zone.resource}
                response = await plain.get(target.url, headers=bare)
                world.check.that(response.status_code == 401, "no mandate, no call", response.text)
    await client.aclose()


async def ended_session(world: World) -> None:
    """Once a session has ended, nothing that hung on it works: no mint, no mandate minted before, no old context."""
    client = world.client()
    narrow = Authority.narrow(["tickets:read"], ttl_seconds=300, resource_id=world.zone.resource)
    async with client.session(labels=["clerk"], ttl_seconds=600):
        async with client.session(authority=narrow, labels=["reader"], ttl_seconds=300) as child:
            response = await client.fetch(world.zone.resource, "/tickets?by=soon-gone", scopes=["tickets:read"])
            world.check.that(response.status_code == 200, "while the session lives its calls are let through", response.text)
            mandate = await asyncio.to_thread(client.mint_mandate, world.zone.resource, ["tickets:read"], ctx=child)
        await world.refused_mint(
            "after its end nothing is minted for it",
            client.fetch(world.zone.resource, "/tickets", scopes=["tickets:read"], ctx=child),
        )
        target = client.gateway_request(world.zone.resource, "/tickets")
        async with httpx.AsyncClient() as plain:
            await world.refused_by_gateway(
                "and a mandate minted before is worth nothing",
                plain.get(target.url, headers={**target.headers, "Authorization": f"Bearer {mandate.token}"}),
                401,
                "invalid_token",
            )
    await client.aclose()


async def revoked_delegation(world: World) -> None:
    """The parent takes back what it gave, while the child lives."""
    client = world.client()
    narrow = Authority.narrow(["tickets:read"], ttl_seconds=300, resource_id=world.zone.resource)
    async with client.session(labels=["clerk"], ttl_seconds=600):
        async with client.session(authority=narrow, labels=["reader"], ttl_seconds=300) as child:
            await client.revoke_delegation(child.delegation_id)
            await world.refused_mint(
                "after revocation the child mints nothing",
                client.fetch(world.zone.resource, "/tickets", scopes=["tickets:read"]),
            )
    await client.aclose()


async def federated_user(world: World) -> None:
    """A user whom an identity provider vouches for: a login, a session that acts for that user, and its end."""
    client = world.client()
    provider = IdentityProvider()
    try:
        issuers = f"/v1/zones/{world.zone.id}/subject-issuers"
        registered = {"issuer": provider.url, "jwks_url": f"{provider.url}/keys", "audience": "ticket-desk"}
        issuer = world.system.must("POST", issuers, registered, 201)
        id_token = provider.token("ada@analytical.example", "ticket-desk")
        user = await asyncio.to_thread(client.federate_subject, id_token, ttl_seconds=120)
        world.check.that(bool(user.subject_authority_record_id), f"the user's record {user.subject_authority_record_id}")
        left = user.expires_in_seconds
        world.check.that(110 <= left <= 120, "for as long as was asked", left)
        brief = await asyncio.to_thread(client.federate_subject, provider.token("ada", "ticket-desk", seconds=30))
        world.check.that(brief.expires_in_seconds <= 30, "and never for longer than its token", brief.expires_in_seconds)
        for_user = {"subject_authority_record_id": user.subject_authority_record_id, "labels": ["clerk"]}
        try:
            async with client.session(**for_user, ttl_seconds=100):
                raise AssertionError("a session for a user was started without the user's mandate")
        except CoordinatorError as refusal:
            text = f"without the user's mandate nobody acts for the user: {refusal.status} {refusal.code}"
            world.check.that(refusal.code == "invalid_subject_proof", text, repr(refusal))
        narrow = Authority.narrow(["tickets:read"], ttl_seconds=100, resource_id=world.zone.resource)
        async with client.session(**for_user, subject_authority_record_token=user.token, ttl_seconds=100):
            async with client.session(authority=narrow, labels=["reader"], ttl_seconds=100):
                response = await client.fetch(world.zone.resource, "/tickets?for=ada", scopes=["tickets:read"])
                world.check.that(response.status_code == 200, "a call for that user", response.text)
                world.check_last_call("GET", "/tickets?for=ada")
        elsewhere = provider.token("ada@analytical.example", "another-application")
        await world.refused_mint(
            "a token for another audience", asyncio.to_thread(client.federate_subject, elsewhere), "invalid_token"
        )
        gone = world.system.admin("DELETE", f"{issuers}/{issuer['id']}")
        world.check.that(gone.status == 204, "the registration is archived", gone)
        await world.refused_mint(
            "and nobody is taken in any more", asyncio.to_thread(client.federate_subject, id_token), "invalid_token"
        )
    finally:
        provider.close()
    await client.aclose()


async def wrong_secret(world: World) -> None:
    """Who can't prove to be the application gets nothing."""
    client = Client.from_client_secret(
        sts_url=world.system.urls["sts"],
        coordinator_url=world.system.urls["coordinator"],
        gateway_url=world.system.urls["gateway"],
        zone_id=world.zone.id,
        application_id=world.zone.application,
        client_secret="x" * 43,
        resources=[ResourceBinding(world.zone.resource, world.zone.upstream)],
    )
    try:
        async with client.session(ttl_seconds=60):
            raise AssertionError("a wrong client secret was accepted")
    except (AccessDenied, CaracalError) as error:
        world.check.that(error.http_status in (401, 403), f"a wrong secret: {error.http_status} {error.code}", repr(error))
    await client.aclose()


async def approvals(world: World) -> None:
    """A human has to agree first: an operator approves one call, and rejects another."""
    hold_for_operators(world.system, world.zone, "tickets:write", lambda text: say(f"        {text}"))
    at = f"/v1/zones/{world.zone.id}/approvals"
    client = world.client()
    write = Authority.narrow(["tickets:write"], ttl_seconds=300, resource_id=world.zone.resource)

    async def decide(verb: str) -> str:
        """An operator who takes the one approval that waits."""
        for _ in range(400):
            waiting = await asyncio.to_thread(world.system.must, "GET", f"{at}?state=pending", None, 200)
            if waiting["items"]:
                item = waiting["items"][0]
                decided = await asyncio.to_thread(
                    world.system.must, "POST", f"{at}/{item['id']}/{verb}", {"reason": "seen"}, 200
                )
                return decided["id"]
            await asyncio.sleep(0.02)
        raise AssertionError("nothing waits for an operator")

    async with client.session(labels=["clerk"], ttl_seconds=600):
        async with client.session(authority=write, labels=["clerk"], ttl_seconds=300):

            async def call(approval_id: str | None = None) -> httpx.Response:
                return await client.fetch(
                    world.zone.resource, "/tickets", method="POST", scopes=["tickets:write"], approval_id=approval_id, json={}
                )

            before = len(world.upstream.received)
            try:
                await call()
                raise AssertionError("the call went out before anybody approved it")
            except ApprovalRequired as hold:
                first = hold
            world.check.that(
                (first.state, first.tier, len(first.binding)) == ("pending", "desk", 64),
                f"the client's ApprovalRequired names the approval {first.approval_id}",
                repr(first),
            )
            world.check.that(len(world.upstream.received) == before, "the upstream heard nothing")
            began = time.monotonic()
            waited = asyncio.create_task(client.with_approval(call, timeout_seconds=30))
            decided = await decide("approve")
            response = await waited
            took = time.monotonic() - began
            world.check.that(response.status_code == 200, f"with_approval called once it was approved, {took:.2f} s", response.text)
            world.check.that(decided == first.approval_id, "the retry had waited for the same approval")
            world.check.that(took < 10, "and was woken by the decision")
            world.check_last_call("POST", "/tickets")
            try:
                await call()
                raise AssertionError("one approval let a second call out")
            except ApprovalRequired as hold:
                world.check.that(hold.approval_id != first.approval_id, "the next call waits for a new approval")
                waited = asyncio.create_task(
                    asyncio.to_thread(client.wait_for_approval, hold.approval_id, timeout_seconds=30)
                )
                await decide("reject")
                state = await waited
                world.check.that(state == "rejected", "wait_for_approval is told of a rejection", state)
            await world.refused_mint("what was rejected stays refused", call(), "access_denied")
    await client.aclose()


FLOWS = [
    application_transport,
    sync_application_transport,
    session,
    narrowed_child,
    peer_delegation,
    peer_of_another_application,
    lost_answers,
    service_session,
    streams,
    one_shot_mandates,
    ended_session,
    revoked_delegation,
    federated_user,
    wrong_secret,
    # The last: it changes the zone's policy.
    approvals,
]


def main() -> int:
    installed = version("caracalai-sdk")
    if installed != PUBLISHED:
        print(f"caracalai-sdk {installed} is installed, not {PUBLISHED}")
        return 2
    return on_every_system(__doc__, ("caracalai-sdk", "httpx"), on_one_process, on_replicas)


def on_one_process(system: Caracal, upstream: Upstream, check: Check) -> None:
    took = system.start()
    say(f"caracal up is ready after {took:.2f} s, ports offset by {system.port_offset}")
    ready = system.run("status", "--ready", "--port-offset", str(system.port_offset))
    check.that(ready.returncode == 0, "caracal status --ready", ready)
    every_flow(system, upstream, check)
    say("stopping the system and verifying its ledger")
    code = system.stop()
    check.that(code == 0, "it drained and ended well", f"exit code {code}")
    verified = system.run("audit", "verify", "--data-dir", str(system.data_dir))
    check.that(verified.returncode == 0, "caracal audit verify", verified)


def on_replicas(system: Replicated, upstream: Upstream, check: Check) -> None:
    took = system.start()
    say(f"two of everything are ready after {took:.2f} s")
    every_flow(system, upstream, check)
    say("stopping the processes and verifying the ledger in the database")
    code = system.stop()
    check.that(code == 0, "all of them drained and ended well", f"exit code {code}")
    verified = system.run("audit", "verify")
    check.that(verified.returncode == 0, "caracal audit verify", verified)


def every_flow(system: Caracal, upstream: Upstream, check: Check) -> None:
    say("provisioning a zone over the management API")
    world = World(system, upstream, "desk-" + secrets.token_hex(16), check)
    for flow in FLOWS:
        say(f"{flow.__name__}: {flow.__doc__}")
        try:
            asyncio.run(asyncio.wait_for(flow(world), 60))
        except Exception:  # noqa: BLE001 — one flow's failure must not hide the others'
            check.note_failure(flow.__name__)


if __name__ == "__main__":
    sys.exit(main())
