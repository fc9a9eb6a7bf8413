"""A whole system for one run: the built binary on free ports, once on the embedded store and once as two of everything on
PostgreSQL and Redis, an upstream that writes down what reaches it, and the management API to provision a zone with.

Nothing here comes from the client under test; the standard library is enough.
"""

import json
import os
import queue
import random
import secrets
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

IDENTITY_PROVIDER = Path(__file__).with_name("identity_provider.pem")
PORTS = {"api": 3000, "coordinator": 4000, "sts": 8080, "gateway": 8081, "audit": 9090}
START_DEADLINE = 60.0
STOP_DEADLINE = 30.0


class SystemFailure(Exception):
    """The system under test did not do what it says it does."""


@dataclass
class Answer:
    """What the management API answered."""

    status: int
    body: object
    request_id: str


class Caracal:
    """A running `caracal up`."""

    # Whether a Gateway knows of a revocation before whoever made it has an answer. In another process it hears of it a
    # moment later; until then the STS, which knows, refuses instead.
    told_at_once = True

    def __init__(self, binary: Path, place: Path):
        self.binary = binary
        self.data_dir = place / "data"
        self.log = place / "caracal.log"
        self.port_offset = free_port_offset()
        self.process: subprocess.Popen | None = None
        self.urls: dict[str, str] = {}
        self.admin_token = ""

    def start(self) -> float:
        """Starts it and waits for its line of JSON. Returns the seconds it took."""
        began = time.monotonic()
        command = [self.binary, "up", "--data-dir", self.data_dir, "--port-offset", str(self.port_offset), "--json"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=bare_environment()
            )
        line = first_line(self.process, START_DEADLINE)
        took = time.monotonic() - began
        try:
            ready = json.loads(line)
        except ValueError as error:
            raise SystemFailure(f"not a line of JSON: {line!r}") from error
        if ready.get("ready") is not True:
            raise SystemFailure(f"not ready: {line!r}")
        self.urls = ready["urls"]
        self.admin_token = Path(ready["admin_token_file"]).read_text().strip()
        return took

    def stop(self) -> int:
        """Asks it to drain and end, as an operator would. Returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_DEADLINE)

    def end(self) -> None:
        """Whatever happened, leaves no process behind."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        """Runs another command of the same binary."""
        return subprocess.run(
            [self.binary, *arguments], env=bare_environment(), capture_output=True, text=True, timeout=60
        )

    def admin(self, method: str, path: str, body: object = None) -> Answer:
        """One call of the management API."""
        headers = {"Authorization": f"Bearer {self.admin_token}"}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        request = urllib.request.Request(self.urls["api"].rstrip("/") + path, data, headers, method=method)
        try:
            response = urllib.request.urlopen(request, timeout=30)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            text = response.read().decode()
            parsed = json.loads(text) if text else None
            return Answer(response.status, parsed, response.headers.get("X-Request-Id", ""))

    def must(self, method: str, path: str, body: object, expected: int) -> dict:
        """One call that has to answer with this status."""
        answer = self.admin(method, path, body)
        if answer.status != expected:
            raise SystemFailure(
                f"{method} {path} answered {answer.status}, not {expected}\n"
                f"  sent:     {json.dumps(body)}\n  received: {json.dumps(answer.body)}"
            )
        return answer.body


class Replicated(Caracal):
    """Two of everything on one PostgreSQL and one Redis. Clients speak to balancers that take turns, so that two calls
    one after the other meet different processes, and what one did has to be true for the other."""

    told_at_once = False
    SERVED = (("api", "sts", "coordinator", "audit"), ("gateway",))

    def __init__(self, binary: Path, place: Path, postgres: str, redis: str):
        super().__init__(binary, place)
        self.place, self.postgres = place, postgres
        self.database = f"compat_{os.getpid()}"
        self.admin_token = secrets.token_hex(32)
        keys = ("SECRET_STORE_KEK", "AUDIT_HMAC_KEY", "GATEWAY_STS_HMAC_KEY", "IDEMPOTENCY_HMAC_KEY")
        keys += ("ADMIN_TOKEN_HMAC_KEY", "STREAMS_HMAC_KEY", "CARACAL_COORDINATOR_TOKEN")
        self.environment = bare_environment() | {name: secrets.token_hex(32) for name in keys}
        self.environment["CARACAL_ADMIN_TOKEN"] = self.admin_token
        self.environment["DATABASE_URL"] = postgres.rsplit("/", 1)[0] + "/" + self.database
        self.environment["REDIS_URL"] = redis
        self.processes: list[subprocess.Popen] = []
        self.balancers = {service: Balancer() for service in PORTS}

    def start(self) -> float:
        began = time.monotonic()
        self.sql(f"DROP DATABASE IF EXISTS {self.database} WITH (FORCE)")
        self.sql(f"CREATE DATABASE {self.database} TEMPLATE template0 ENCODING 'UTF8'")
        self.environment["ISSUER_URL"] = self.balancers["sts"].url
        self.environment["STS_URL"] = self.balancers["sts"].url
        for roles in self.SERVED:
            # Both at once, on a database that is empty the first time.
            started = [self.launch(roles, number) for number in range(2)]
            for process in started:
                ready = json.loads(first_line(process, START_DEADLINE))
                for service, url in ready["urls"].items():
                    self.balancers[service].targets.append(url.removeprefix("http://"))
        self.urls = {service: balancer.url for service, balancer in self.balancers.items()}
        return time.monotonic() - began

    def launch(self, roles: tuple[str, ...], number: int) -> subprocess.Popen:
        command = [self.binary, "serve", "--roles", ",".join(roles), "--port-offset", str(free_port_offset()), "--json"]
        command += ["--data-dir", self.place / f"{roles[0]}-{number}"]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=self.environment
            )
        self.processes.append(process)
        return process

    def stop(self) -> int:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        return max(process.wait(STOP_DEADLINE) for process in self.processes)

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        self.sql(f"DROP DATABASE IF EXISTS {self.database} WITH (FORCE)")

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [self.binary, *arguments], env=self.environment, capture_output=True, text=True, timeout=60
        )

    def sql(self, statement: str) -> None:
        subprocess.run(["psql", self.postgres, "-qX", "-c", statement], check=True, capture_output=True)


class Balancer:
    """Passes each connection on to the next of its targets."""

    def __init__(self):
        self.targets: list[str] = []
        self.turn = 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            client, _ = self.socket.accept()
            self.turn += 1
            host, port = self.targets[self.turn % len(self.targets)].rsplit(":", 1)
            try:
                server = socket.create_connection((host, int(port)))
            except OSError:
                client.close()
                continue
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self.pipe, args=(source, sink), daemon=True).start()

    def pipe(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            sink.close()


class LosesAnswers(Balancer):
    """The way to one address, on which an answer is lost when that is asked for: the request has arrived by then."""

    def __init__(self, url: str):
        super().__init__()
        self.targets.append(url.removeprefix("http://").rstrip("/"))
        self.losing = threading.Semaphore(0)

    def lose_the_next(self) -> None:
        self.losing.release()

    def pipe(self, source: socket.socket, sink: socket.socket) -> None:
        is_answers = source.getpeername()[1] == int(self.targets[0].rsplit(":", 1)[1])
        if not is_answers:
            super().pipe(source, sink)
            return
        try:
            while data := source.recv(65536):
                if self.losing.acquire(blocking=False):
                    break
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)
            source.shutdown(socket.SHUT_RDWR)
        except OSError:
            source.close()
            sink.close()


@dataclass
class Received:
    """One request as the upstream saw it."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Upstream:
    """A real HTTP server on loopback that writes down every request and answers with JSON."""

    def __init__(self):
        self.received: list[Received] = []
        self.release = threading.Semaphore(0)
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(handler):
                length = int(handler.headers.get("Content-Length") or 0)
                body = handler.rfile.read(length)
                seen = Received(handler.command, handler.path, list(handler.headers.items()), body)
                with lock:
                    self.received.append(seen)
                    number = len(self.received)
                if "stream" in seen.path:
                    return handler.stream()
                text = json.dumps({"number": number, "path": seen.path, "body": body.decode()}).encode()
                handler.send_response(200)
                handler.send_header("Content-Type", "application/json")
                handler.send_header("Content-Length", str(len(text)))
                handler.end_headers()
                handler.wfile.write(text)

            def stream(handler):
                """Three events, each sent when the test asks for it, so that nobody can hold them back unseen."""
                handler.send_response(200)
                handler.send_header("Content-Type", "text/event-stream")
                handler.send_header("Transfer-Encoding", "chunked")
                handler.end_headers()
                try:
                    for number in range(3):
                        event = f"data: {number}\n\n".encode()
                        handler.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                        handler.wfile.flush()
                        if not self.release.acquire(timeout=20):
                            raise TimeoutError
                    handler.wfile.write(b"0\r\n\r\n")
                except (OSError, TimeoutError):
                    # Whoever listened went away, as a Gateway does whose caller lost its authority.
                    handler.close_connection = True

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(handler, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@dataclass
class Zone:
    """What was provisioned."""

    id: str
    application: str
    client_secret: str
    resource: str
    upstream: str
    scopes: list[str] = field(default_factory=list)


def provision(system: Caracal, upstream: Upstream, upstream_key: str, say) -> Zone:
    """A zone, an application, a provider with a real key, a guarded resource, and a policy in force."""
    zone = system.must("POST", "/v1/zones", {"name": "Compatibility"}, 201)["id"]
    base = f"/v1/zones/{zone}"
    say(f"zone {zone}")
    made = {"name": "desk-agent", "registration_method": "managed"}
    application = system.must("POST", f"{base}/applications", made, 201)
    say(f"application {application['id']}")
    provider = system.must(
        "POST",
        f"{base}/providers",
        {
            "identifier": "provider://ticket-desk",
            "kind": "api_key",
            "config_json": {"auth_location": "header", "header_name": "X-Desk-Key", "api_key": upstream_key},
        },
        201,
    )
    say(f"provider {provider['identifier']}, its key sealed")
    if upstream_key in json.dumps(provider):
        raise SystemFailure("the answer to the provider's creation shows its key")
    scopes = ["tickets:read", "tickets:write"]
    resource = system.must(
        "POST",
        f"{base}/resources",
        {
            "identifier": "resource://tickets",
            "upstream_url": upstream.url,
            "scopes": scopes,
            "credential_provider_id": provider["id"],
            "operations": [
                {"method": "GET", "path": "/tickets", "scope": "tickets:read"},
                {"method": "POST", "path": "/tickets", "scope": "tickets:write"},
            ],
        },
        201,
    )
    say(f"resource {resource['identifier']} at {upstream.url}")
    document = policy_document(application["id"], resource["identifier"], scopes)
    put_in_force(system, zone, "application-grants", document, say)
    return Zone(zone, application["id"], application["client_secret"], resource["identifier"], upstream.url, scopes)


def put_in_force(system: Caracal, zone: str, name: str, document: str, say) -> None:
    """Makes `document` the zone's whole policy."""
    base = f"/v1/zones/{zone}"
    policy = system.must("POST", f"{base}/policies", {"name": f"{name}-policy", "content": document}, 201)
    policy_set = system.must("POST", f"{base}/policy-sets", {"name": name}, 201)
    at_set = f"{base}/policy-sets/{policy_set['id']}"
    manifest = {"manifest": [{"policy_version_id": policy["version_id"]}]}
    version = system.must("POST", f"{at_set}/versions", manifest, 201)["version_id"]
    activation = system.must("POST", f"{at_set}/activate", {"version_id": version}, 202)
    wait_until_loaded(system, activation["status_url"])
    say(f"policy set version {version} in force")


def hold_for_operators(system: Caracal, zone: Zone, scope: str, say) -> None:
    """From now on `scope` is minted only after an operator has agreed."""
    tiers = f'risk := [{{"scope": "{scope}", "tier": "desk"}}]\napproval_tiers := [{{"tier": "desk"}}]\n'
    document = policy_document(zone.application, zone.resource, zone.scopes) + tiers
    put_in_force(system, zone.id, "held-grants", document, say)


def admit_another_application(system: Caracal, zone: Zone, say) -> Zone:
    """The same zone as seen by another application, which owns another resource and holds nothing of the first one."""
    base = f"/v1/zones/{zone.id}"
    made = {"name": "reading-agent", "registration_method": "managed"}
    other = system.must("POST", f"{base}/applications", made, 201)
    provider = system.must("POST", f"{base}/providers", {"identifier": "provider://open", "kind": "none"}, 201)
    scopes = ["archive:read"]
    archive = {"identifier": "resource://archive", "scopes": scopes, "credential_provider_id": provider["id"]}
    archive |= {"upstream_url": zone.upstream, "operations": [{"method": "GET", "path": "/archive", "scope": scopes[0]}]}
    resource = system.must("POST", f"{base}/resources", archive, 201)["identifier"]
    document = policy_document(zone.application, zone.resource, zone.scopes, {resource: other["id"]})
    put_in_force(system, zone.id, "grants-beside-another", document, say)
    return Zone(zone.id, other["id"], other["client_secret"], resource, zone.upstream, scopes)


def policy_document(application: str, resource: str, scopes: list[str], others: dict[str, str] | None = None) -> str:
    """What the published helpers author: roles are session labels; the default label is the application's id."""
    grants = {resource: {"application": application, "roles": {application: scopes, "reader": scopes[:1], "clerk": scopes}}}
    grants |= {owned: {"application": owner, "roles": {}} for owned, owner in (others or {}).items()}
    applications = [application, *(others or {}).values()]
    compact = {"separators": (",", ":"), "sort_keys": True}
    return (
        "# caracal:data-document\npackage caracal.authz\nimport rego.v1\n"
        f"app_ids := {json.dumps({name: name for name in applications}, **compact)}\n"
        f"grants := {json.dumps(grants, **compact)}\n"
    )


def wait_until_loaded(system: Caracal, status_url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        status = system.must("GET", status_url, None, 200)
        if status["propagation_status"] == "loaded":
            return
        if status["propagation_status"] == "failed" or time.monotonic() > deadline:
            raise SystemFailure(f"the policy set is not in force: {json.dumps(status)}")
        time.sleep(0.02)


def bare_environment() -> dict[str, str]:
    """The environment without any setting but whom to trust: the system runs on its defaults."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT", "TMPDIR") if name in os.environ}
    return kept | {"CARACAL_TLS_EXTRA_CA_FILE": str(IDENTITY_PROVIDER)}


def free_port_offset() -> int:
    """An offset with all five ports free. Another process may take one before the system binds it; it then says so."""
    for offset in random.sample(range(10_000, 50_000), 50):
        if all(is_free(port + offset) for port in PORTS.values()):
            return offset
    raise SystemFailure("no free ports")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def first_line(process: subprocess.Popen, seconds: float) -> str:
    """The first line of standard output; what follows is read and dropped, so that the process never blocks on it."""
    lines: queue.Queue[bytes] = queue.Queue()

    def read():
        for line in process.stdout:
            lines.put(line)
        lines.put(b"")

    threading.Thread(target=read, daemon=True).start()
    try:
        line = lines.get(timeout=seconds)
    except queue.Empty:
        raise SystemFailure(f"not ready after {seconds:.0f} s") from None
    if not line:
        raise SystemFailure(f"ended with exit code {process.wait(5)} before it was ready")
    return line.decode()
