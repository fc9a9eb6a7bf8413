"""Every operation of the management API, called with what its own description allows and with what it does not, by a
property-based tester that knows nothing of Caracal but that description.

    python api_properties.py --caracal PATH_TO_BINARY --postgres URL_OF_A_SUPERUSER --redis URL [--examples N]

The description is read from `/docs/openapi.json` of a freshly started process. Objects are provisioned first, so that
operations have something to find, and are named to the tester; what it deletes are others of their kind. No answer may be a
5xx, and each must have a status, a media type and a body that are described; a request that is not described has to be
refused, and so has whoever comes without a token. Ends with exit code 0 and one line `N passed, N failed`.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path

import system as systems
from checks import Check, say
from system import Caracal, Upstream, policy_document, provision

SEED = 20261127
PATIENCE = 300.0
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "ignored_auth",
)
# How what is not described is refused. 429 may come first; 431 is the transport's, for a query longer than it reads.
REFUSED = ["400", "401", "403", "404", "409", "414", "415", "422", "429", "431"]
METHODS = ("get", "put", "post", "delete", "patch")


def collection(path: str) -> str | None:
    """The path of what `{id}` is a member of."""
    found = re.match(r"^(/v1/.*?)/\{id\}", path)
    return found and found.group(1)


class Objects:
    """What there is to be found, and what may be deleted."""

    def __init__(self, system: Caracal, upstream: Upstream):
        self.system = system
        self.kept = provision(system, upstream, "desk-0123456789abcdef", lambda text: say(f"        {text}"))
        self.doomed_zone = self.make("/v1/zones", {"name": "Doomed"})
        # An import may prune what is there.
        self.imported_zone = self.make("/v1/zones", {"name": "Imported"})
        self.members: dict[str, tuple[str, str]] = {}
        application = self.kept.application
        for name, body in {
            "applications": {"name": "other", "registration_method": "managed"},
            "workloads": {"name": "job"},
            "providers": {"identifier": "provider://other", "kind": "none"},
            "subject-issuers": {"issuer": "https://idp.example", "jwks_url": "https://idp.example/k", "audience": "a"},
            "notification-sinks": {"name": "desk", "url": "http://127.0.0.1:9/none"},
            "policy-sets": {"name": "other"},
            "policies": {"name": "other", "content": policy_document(application, self.kept.resource, self.kept.scopes)},
        }.items():
            self.two_of(name, body)
        self.two_of("resources", {"name": "plain", "scopes": ["a:read"], **self.route()})
        resource = self.members["resources"][0]
        grant = {"application_id": application, "user_id": "u1", "resource_id": resource, "scopes": ["a:read"]}
        self.two_of("grants", grant)

    def route(self) -> dict:
        return {"upstream_url": "http://127.0.0.1:9/", "credential_provider_id": self.members["providers"][0]}

    def make(self, path: str, body: dict) -> str:
        return self.system.must("POST", path, body, 201)["id"]

    def two_of(self, name: str, body: dict) -> None:
        """One to keep and one to delete, of the same make."""
        path = f"/v1/zones/{self.kept.id}/{name}"

        def numbered(number: int) -> dict:
            varied = {}
            for key, value in body.items():
                is_name = key in ("name", "identifier", "issuer", "user_id")
                varied[key] = f"{value}-{number}" if is_name and number else value
            return varied

        self.members[name] = (self.make(path, numbered(0)), self.make(path, numbered(1)))

    def parameters(self, method: str, path: str) -> dict[str, str]:
        """What the ids in this operation's path are to be."""
        named = {}
        if "{zone}" in path:
            ends_zone = method == "delete" and path == "/v1/zones/{zone}"
            other = self.imported_zone if path.endswith("/import") else self.kept.id
            named["path.zone"] = self.doomed_zone if ends_zone else other
        kind = collection(path)
        if kind and kind.rsplit("/", 1)[1] in self.members:
            kept, doomed = self.members[kind.rsplit("/", 1)[1]]
            named["path.id"] = doomed if method == "delete" else kept
        return named


def configuration(system: Caracal, document: dict, objects: Objects) -> str:
    """The tester's configuration, as TOML."""
    quote = json.dumps
    lines = [f"seed = {SEED}", "continue-on-failure = true", 'headers = { Authorization = "Bearer ' + system.admin_token + '" }']
    lines += ["[generation]", 'database = "none"', "allow-extra-parameters = false", "[phases.stateful]", "enabled = false", "[phases.examples]"]
    lines += ["enabled = false", "[checks]", "enabled = false"]
    for name in CHECKS:
        lines += [f"[checks.{name}]", "enabled = true"]
        if name == "negative_data_rejection":
            lines += [f"expected-statuses = {quote(REFUSED)}"]
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method not in methods:
                continue
            named = objects.parameters(method, path)
            if not named:
                continue
            lines += ["[[operations]]", f"include-operation-id = {quote(methods[method]['operationId'])}"]
            values = ", ".join(f"{quote(name)} = {quote(value)}" for name, value in named.items())
            lines += [f"parameters = {{ {values} }}"]
    return "\n".join(lines) + "\n"


def refuses_without_token(system: Caracal, document: dict, check: Check) -> None:
    """Every operation that says it needs a token refuses to be called without, and with one that is none."""
    base = system.urls["api"].rstrip("/")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if not operation["security"]:
                continue
            for token in (None, "Bearer cat_none"):
                headers = {"Content-Type": "application/json"} | ({"Authorization": token} if token else {})
                url = base + re.sub(r"\{\w+\}", "x", path)
                data = b"{}" if method != "get" else None
                request = urllib.request.Request(url, data, headers, method=method.upper())
                try:
                    status = urllib.request.urlopen(request, timeout=30).status
                except urllib.error.HTTPError as error:
                    status = error.code
                if status != 401:
                    raise AssertionError(f"{method} {path} answered {status} without a token")
    check.that(True, "every operation refuses who brings no token, or a wrong one")


def run(binary: Path, examples: int, check: Check) -> None:
    upstream = Upstream()
    with tempfile.TemporaryDirectory(prefix="caracal-api-") as place:
        place = Path(place)
        system = Caracal(binary, place)
        plain = systems.bare_environment
        # The tester is one address that asks as fast as it can, and is told that it has no token a thousand times.
        limits = ("API_V1_RATE_LIMIT_PER_MIN", "ADMIN_AUTH_FAIL_LIMIT_PER_MIN")
        systems.bare_environment = lambda: plain() | dict.fromkeys(limits, "0")
        try:
            say(f"ready after {system.start():.2f} s")
            base = system.urls["api"].rstrip("/")
            with urllib.request.urlopen(base + "/docs/openapi.json") as answer:
                document = json.load(answer)
            objects = Objects(system, upstream)
            refuses_without_token(system, document, check)
            (place / "schemathesis.toml").write_text(configuration(system, document, objects))
            (place / "openapi.json").write_text(json.dumps(document))
            count = sum(len(methods) for methods in document["paths"].values())
            say(f"{count} operations, {examples} examples of each beside those at its borders, seed {SEED}")
            tester = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(place / "schemathesis.toml"), "run"]
            tester += [str(place / "openapi.json"), "--url", base, "--phases", "coverage,fuzzing", "--no-color"]
            tester += ["--max-examples", str(examples), "--workers", "2", "--no-shrink", "--warnings", "off"]
            tester += ["--suppress-health-check", "all", "--request-timeout", "20"]
            code = subprocess.run(tester, cwd=place, timeout=PATIENCE).returncode
            check.that(code == 0, f"the tester found nothing in {count} operations", f"its exit code was {code}")
            check.that(system.stop() == 0, "the process drained and ended well")
        except Exception:  # noqa: BLE001 — whatever goes wrong is a failure
            check.note_failure("the description and what is served")
            if system.log.exists():
                print("\n".join(system.log.read_text(errors="replace").splitlines()[-30:]))
        finally:
            systems.bare_environment = plain
            system.end()
            upstream.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--caracal", required=True, type=Path, help="the built binary")
    parser.add_argument("--postgres", help="not used: what is described does not depend on the engine")
    parser.add_argument("--redis", help="not used")
    parser.add_argument("--examples", type=int, default=10, help="so many for each operation")
    arguments = parser.parse_args()
    check = Check()
    say(f"schemathesis {version('schemathesis')}, Python {sys.version.split()[0]}")
    run(arguments.caracal.resolve(), arguments.examples, check)
    print(f"{check.passed} passed, {check.failed} failed", flush=True)
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
