"""A verifier of transparency logs that knows C2SP's formats and nothing of Caracal, against freshly started systems: one
process on the embedded store, then two of everything on PostgreSQL and Redis.

    python transparency.py --caracal PATH_TO_BINARY --postgres URL_OF_A_SUPERUSER --redis URL

It reads keys, checkpoints, tiles, entries and proofs as they are served and written, and signs as a witness; what an entry
is made of is all that it is told of Caracal (docs/transparency.md). Ends with exit code 0 and one line `N passed, N failed`.
"""

import hashlib
import json
import secrets
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64decode
from pathlib import Path

from aics_tlog import (
    Note,
    audit_tiles,
    cosignature_vkey,
    format_vkey,
    leaf_hash,
    parse_checkpoint,
    parse_note,
    parse_vkey,
    sign_cosignature,
    verify_checkpoint,
    verify_consistency,
    verify_inclusion,
)
from aics_tlog.tiles import entry_bundle_path, tile_path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from checks import Check, on_every_system, say
from system import Caracal, Replicated, SystemFailure, Upstream, Zone, provision

WITNESS = "witness.example/w1"
COLUMNS = ("id", "zone_id", "event_type", "request_id", "decision", "policy_set_id", "policy_set_version_id")
COLUMNS += ("manifest_sha", "evaluation_status", "determining_policies_json", "diagnostics_json", "metadata_json")


class Log:
    """A zone's log as it is served."""

    def __init__(self, system: Caracal, zone: Zone):
        self.prefix = system.urls["api"].rstrip("/") + f"/v1/zones/{zone.id}/ledger/"
        self.headers = {"Authorization": f"Bearer {system.admin_token}"}

    def get(self, path: str) -> bytes | None:
        try:
            with urllib.request.urlopen(urllib.request.Request(self.prefix + path, headers=self.headers)) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def read_tile(self, level: int, index: int, width: int | None) -> bytes | None:
        return self.get(tile_path(level, index, width))

    def read_entry_bundle(self, index: int, width: int | None) -> bytes | None:
        return self.get(entry_bundle_path(index, width))

    def checkpoint_of(self, size: int) -> str:
        """The newest checkpoint, once it has so many events: that takes about a second."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            note = self.get("checkpoint")
            if note and parse_checkpoint(parse_note(note).text).size >= size:
                return note.decode()
            time.sleep(0.1)
        raise SystemFailure(f"no checkpoint of {size} events within 20 s")


def denials(system: Caracal, zone: Zone, count: int) -> list[str]:
    """Asks for what nobody grants, and tells the ids of the requests."""
    metadata = system.urls["sts"].rstrip("/") + f"/.well-known/oauth-authorization-server/zones/{zone.id}"
    with urllib.request.urlopen(metadata) as answer:
        url = json.load(answer)["token_endpoint"]
    form = {
        "grant_type": "client_credentials",
        "client_id": zone.application,
        "client_secret": zone.client_secret,
        "resource": zone.resource,
        "scope": "nobody:grants",
    }
    ids = []
    for _ in range(count):
        try:
            urllib.request.urlopen(url, urllib.parse.urlencode(form).encode()).close()
        except urllib.error.HTTPError as refused:
            ids.append(refused.headers["X-Request-Id"])
            refused.close()
    return ids


def entry_of(proven: dict) -> bytes:
    """The entry of an event, made of nothing but the event and its link."""
    event, link = proven["event"], proven["link"]
    hashed = "".join(event[name] + "\x1f" for name in COLUMNS) + str(event["occurred_at_micros"] * 1000)
    content = hashlib.sha256(hashed.encode()).hexdigest()
    lines = ["caracal.ledger.event/1", event["zone_id"], link["chain_seq"], proven["ingested_at_micros"], content]
    lines += [link["prev_content_sha256"] or "", link["chain_hmac"]]
    return "".join(f"{line}\n" for line in lines).encode()


def the_log(system: Caracal, zone: Zone, place: Path, check: Check) -> None:
    denied = denials(system, zone, 12)
    check.that(len(denied) == 12, "twelve requests are denied", denied)
    log = Log(system, zone)
    before = log.checkpoint_of(12)
    key = parse_vkey(log.get("log-key").decode().strip())
    check.that(key.name == f"caracal/ledger/{zone.id}", "the key carries the log's name", key)
    check.that(verify_checkpoint(parse_note(before), key, expected_origin=key.name).ok, "the checkpoint is its own")

    denied += denials(system, zone, 12)
    after = log.checkpoint_of(24)
    old, new = (parse_checkpoint(parse_note(note).text) for note in (before, after))
    check.that(verify_checkpoint(parse_note(after), key, expected_origin=key.name).ok, "so is a later one")
    report = audit_tiles(log, new.size, new.root)
    check.that(report.bundles == 1 and report.size == new.size, "all tiles and entries follow from it", report)

    held, cosigned = place / "held.checkpoint", place / "cosigned.checkpoint"
    held.write_text(before)
    witness_key = Ed25519PrivateKey.generate()
    _, line = sign_cosignature(witness_key, WITNESS, int(time.time()), new.origin, new.size, new.root)
    note = parse_note(after)
    cosigned.write_text(Note(text=note.text, signatures=(*note.signatures, line)).serialise())
    witness = format_vkey(cosignature_vkey(WITNESS, witness_key.public_key()))

    file = place / "denial.evidence.json"
    flags = ["--since", str(held), "--checkpoint", str(cosigned), "--out", str(file)]
    made = system.run("audit", "prove", denied[3], *flags, *at(system))
    check.that(made.returncode == 0, "a file is made", made.stderr)
    content = json.loads(file.read_text())
    for proven in content["events"]:
        head, checkpoint = proven["proof"].split("\n\n", 1)
        first, index, *hashes = head.split("\n")
        check.that(first == "c2sp.org/tlog-proof@v1", "its proof is a tlog-proof", head)
        result = verify_checkpoint(parse_note(checkpoint), key, [cosignature_vkey(WITNESS, witness_key.public_key())], 1)
        check.that(result.ok, "with the cosigned checkpoint", result)
        place_in_log = int(index.removeprefix("index "))
        proof = [b64decode(hash_) for hash_ in hashes]
        leaf = leaf_hash(entry_of(proven))
        check.that(verify_inclusion(leaf, place_in_log, new.size, proof, new.root), "and shows the event in the log")
        changed = proven | {"event": proven["event"] | {"decision": "allow"}}
        shown = verify_inclusion(leaf_hash(entry_of(changed)), place_in_log, new.size, proof, new.root)
        check.that(not shown, "and no other event in its place")
    proof = [b64decode(hash_) for hash_ in content["consistency"]["proof"]]
    check.that(content["consistency"]["from_size"] == old.size, "it continues the checkpoint that was held")
    check.that(verify_consistency(old.size, new.size, old.root, new.root, proof), "and that is shown, too")

    wanted = ["--log-key", log.get("log-key").decode().strip(), "--since", str(held), "--witness", witness, "--json"]
    verified = system.run("audit", "verify", str(file), *wanted)
    check.that(verified.returncode == 0, "our own verifier agrees, on the witness as well", verified.stdout)
    told = json.loads(verified.stdout)
    check.that(told["witnesses"][0]["witness"] == WITNESS and told["continues"] == old.size, "and says so", told)
    check.that(told["events"][0]["decision"] == "deny", "the request was denied", told)
    file.write_text(file.read_text().replace('"decision": "deny"', '"decision": "allow"'))
    refused = system.run("audit", "verify", str(file), *wanted)
    check.that(refused.returncode == 1 and not json.loads(refused.stdout)["verified"], "a forgery is refused")


def at(system: Caracal) -> list[str]:
    """Where the command line finds the ledger: on servers by its environment."""
    return [] if isinstance(system, Replicated) else ["--data-dir", str(system.data_dir)]


def every_flow(system: Caracal, upstream: Upstream, check: Check) -> None:
    took = system.start()
    say(f"ready after {took:.2f} s")
    zone = provision(system, upstream, "desk-" + secrets.token_hex(16), lambda text: say(f"        {text}"))
    place = system.log.parent
    try:
        the_log(system, zone, place, check)
    except Exception:  # noqa: BLE001 — whatever the library raises is a failure of this flow
        check.note_failure("the log")
    last = denials(system, zone, 1)
    check.that(system.stop() == 0, "it drained and ended well")
    made = system.run("audit", "prove", last[0], "--out", str(place / "last.evidence.json"), *at(system))
    check.that(made.returncode == 0, "what happened last can be proved, too", made.stderr)
    verified = system.run("audit", "verify", *at(system))
    check.that(verified.returncode == 0, "and its ledger verifies", verified.stdout + verified.stderr)


if __name__ == "__main__":
    sys.exit(on_every_system(__doc__, ("aics-tlog",), every_flow, every_flow))
