"""The published revocation client of resource servers, unmodified, on the Redis that two of everything share.

    python revocation.py --caracal PATH_TO_BINARY --postgres URL_OF_A_SUPERUSER --redis URL

A resource server that asks no service of ours follows both feeds, requires their signatures, and knows what was taken back; one
that comes later learns it from the history. Ends with exit code 0 and one line `N passed, N failed`.
"""

import argparse
import asyncio
import os
import secrets
import sys
import time
from importlib.metadata import version
from pathlib import Path

import redis
from caracalai import Authority
from caracalai_revocation_redis import (
    RedisDelegationInvalidationConsumer,
    RedisRevocationConsumer,
    RedisRevocationStore,
)

from checks import Check, against, say
from flows import World
from system import Replicated, Upstream

LIBRARIES = ("caracalai-sdk", "caracalai-revocation-redis", "redis")
STREAMS = ("caracal.sessions.revoke", "caracal.delegations.invalidate")
# What is published reaches a reader that waits for it at once; a loaded machine takes its time.
DEADLINE = 20.0


class ResourceServer:
    """Somebody else's, with the streams key, groups of its own, and keys of its own for what it learns."""

    def __init__(self, system: Replicated, name: str):
        self.server = redis.Redis.from_url(system.environment["REDIS_URL"])
        self.group = f"{name}-{os.getpid()}-{secrets.token_hex(4)}"
        self.store = RedisRevocationStore(self.server, key_prefix=f"{self.group}:")
        options = {
            "consumer": name,
            "group": self.group,
            "block_ms": 100,
            "stream_hmac_key": bytes.fromhex(system.environment["STREAMS_HMAC_KEY"]),
            "require_signature": True,
        }
        self.consumers = (
            RedisRevocationConsumer(self.server, self.store, **options),
            RedisDelegationInvalidationConsumer(self.server, self.store, **options),
        )
        for consumer in self.consumers:
            consumer.ensure_group()

    def follow_until(self, holds) -> bool:
        """Reads both feeds until that holds. Whether it did in time."""
        ends = time.monotonic() + DEADLINE
        while not holds():
            if time.monotonic() > ends:
                return False
            for consumer in self.consumers:
                consumer.poll_once()
        return True

    def is_past(self, stream: str, entry: bytes) -> bool:
        """Whether this group was given the entry, and came to an end with it."""
        groups = self.server.xinfo_groups(stream)
        mine = next(group for group in groups if group["name"] == self.group.encode())
        place = lambda given: tuple(int(part) for part in given.split(b"-"))  # noqa: E731
        return place(mine["last-delivered-id"]) >= place(entry) and mine["pending"] == 0

    def put_aside(self, text: str) -> list[dict]:
        """Dead letters that have this in them: others may use the same server, under keys of their own."""
        entries = [fields for stream in STREAMS for _, fields in self.server.xrange(f"{stream}.dead")]
        return [fields for fields in entries if text.encode() in fields[b"payload"]]

    def close(self) -> None:
        for stream in STREAMS:
            self.server.xgroup_destroy(stream, self.group)
        for key in self.server.scan_iter(f"{self.group}:*"):
            self.server.delete(key)
        self.server.close()


async def feeds(world: World) -> None:
    """A delegation is revoked, then a session ends; each is known to a resource server, and nothing else is."""
    check, zone = world.check, world.zone
    client = world.client()
    early = ResourceServer(world.system, "early")
    store = early.store
    narrow = Authority.narrow(["tickets:read"], ttl_seconds=300, resource_id=zone.resource)
    async with client.session(labels=["clerk"], ttl_seconds=600) as bystander:
        async with client.session(labels=["clerk"], ttl_seconds=600) as parent:
            async with client.session(authority=narrow, labels=["reader"], ttl_seconds=300) as child:
                delegation = child.delegation_id
                check.that(not store.is_revoked(delegation), f"delegation {delegation} is good")
                before = store.current_delegation_epoch(zone.id)
                await client.revoke_delegation(delegation)
                known = await asyncio.to_thread(early.follow_until, lambda: store.is_revoked(delegation))
                check.that(known, "revoked, the feed says so")
                higher = lambda: store.current_delegation_epoch(zone.id) > before  # noqa: E731
                check.that(await asyncio.to_thread(early.follow_until, higher), "and the zone's epoch is higher than it was")
                check.that(not store.is_revoked(parent.session_id), "the session that lent is good")
        gone = await asyncio.to_thread(early.follow_until, lambda: store.is_revoked(parent.session_id))
        check.that(gone, f"session {parent.session_id} has ended, the feed says so")
        check.that(not store.is_revoked(bystander.session_id), "the application's other session is good")

        # The signature of another key, over what would end that session.
        forged = {"outbox_id": secrets.token_hex(8), "zone_id": zone.id, "agent_session_id": bystander.session_id}
        entry = early.server.xadd(STREAMS[0], forged | {"reason": "forged", "_sig": "00" * 32})
        past = await asyncio.to_thread(early.follow_until, lambda: early.is_past(STREAMS[0], entry))
        check.that(past and early.put_aside(forged["outbox_id"]), "what nobody of ours signed is put aside")
        check.that(not store.is_revoked(bystander.session_id), "and ends nothing")
        refused = early.put_aside(zone.id)
        reasons = {fields[b"reason"] for fields in refused if forged["outbox_id"].encode() not in fields[b"payload"]}
        check.that(not reasons, "all that is ours was taken as it came", reasons)

        late = ResourceServer(world.system, "late")
        both = lambda: late.store.is_revoked(delegation) and late.store.is_revoked(parent.session_id)  # noqa: E731
        check.that(await asyncio.to_thread(late.follow_until, both), "a resource server that comes later learns both")
        epochs = (store.current_delegation_epoch(zone.id), late.store.current_delegation_epoch(zone.id))
        same = lambda: late.store.current_delegation_epoch(zone.id) == epochs[0]  # noqa: E731
        check.that(await asyncio.to_thread(late.follow_until, same), "and the same epoch", epochs)
        check.that(not late.store.is_revoked(bystander.session_id), "and nothing of the session that lives")
        late.close()
    early.close()
    await client.aclose()


def on_replicas(system: Replicated, upstream: Upstream, check: Check) -> None:
    say(f"two of everything are ready after {system.start():.2f} s")
    world = World(system, upstream, "desk-" + secrets.token_hex(16), check)
    say(f"feeds: {feeds.__doc__}")
    try:
        asyncio.run(asyncio.wait_for(feeds(world), 120))
    except Exception:  # noqa: BLE001 — whatever the client raises is a failure of this flow
        check.note_failure("feeds")
    check.that(system.stop() == 0, "all of them drained and ended well")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--caracal", required=True, type=Path, help="the built binary")
    parser.add_argument("--postgres", required=True, help="a PostgreSQL server, as its superuser")
    parser.add_argument("--redis", required=True, help="a Redis server")
    arguments = parser.parse_args()
    check = Check()
    say(", ".join([f"{name} {version(name)}" for name in LIBRARIES] + [f"Python {sys.version.split()[0]}"]))
    binary = arguments.caracal.resolve()
    against(lambda place: Replicated(binary, place, arguments.postgres, arguments.redis), on_replicas, check)
    print(f"{check.passed} passed, {check.failed} failed", flush=True)
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
