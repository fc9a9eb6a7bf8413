"""What a million live sessions of a zone change: nothing. Measures the median latency of starting, renewing, reading and ending a
service before and after as many sessions stand beside it, on the embedded store and on PostgreSQL, and prints their ratios.

    python crowd.py --caracal PATH_TO_BINARY --postgres URL_OF_A_SUPERUSER --redis URL

CARACAL_CROWD names another number of sessions. They are written past the Coordinator, into its tables, which only a measurement
may do.
"""

import os
import sqlite3
import statistics
import subprocess
import sys
import time

import httpx

import system
from checks import Check, on_every_system, say
from system import Caracal, Replicated, Upstream, provision

CROWD = int(os.environ.get("CARACAL_CROWD", "1000000"))
CYCLES = 60
STEPS = ("start", "heartbeat", "read", "end")
WITHOUT_LIMITS = {
    "MAX_AGENTS_PER_ZONE": "4000000000",
    "MAX_AGENTS_PER_APP": "4000000000",
    "COORDINATOR_RATE_LIMIT_PER_MIN": "0",
}
# More than the noise of a busy machine, and far less than a look at every session would cost.
TOLERATED = 2.0

bare = system.bare_environment
system.bare_environment = lambda: bare() | WITHOUT_LIMITS


def rows(numbers: str, zone: str, application: str) -> str:
    """Half of them tasks, half of them services, all of them alive for a day."""
    now = int(time.time() * 1_000_000)
    day = now + 86_400_000_000
    service = "n % 2 = 0"
    return f"""
      INSERT INTO agent_sessions (zone_id, id, application_id, subject_record_id, lifecycle, labels, metadata, status, depth,
        ttl_seconds, started_at, last_active_at, last_heartbeat_at, heartbeat_deadline_at, lease_generation, updated_at, capacity_until)
      SELECT '{zone}', 'crowd-' || n, '{application}', 'crowd', CASE WHEN {service} THEN 'service' ELSE 'task' END, '[]', '{{}}',
        'active', 0, CASE WHEN {service} THEN NULL ELSE 86400 END, {now}, {now}, CASE WHEN {service} THEN {now} END,
        CASE WHEN {service} THEN {day} END, CASE WHEN {service} THEN 1 ELSE 0 END, {now}, {day} FROM {numbers};
      INSERT INTO session_counts (zone_id, application_id, running) VALUES ('{zone}', '', {CROWD}), ('{zone}', '{application}', {CROWD})
        ON CONFLICT (zone_id, application_id) DO UPDATE SET running = session_counts.running + {CROWD};
    """


def medians(served: Caracal, zone: system.Zone) -> dict[str, float]:
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "zone_id": zone.id,
        "application_id": zone.application,
        "client_secret": zone.client_secret,
        "resource": zone.resource,
        "scope": "agent:lifecycle",
    }
    minted = httpx.post(f"{served.urls['sts']}/oauth/2/token", data=form).raise_for_status().json()
    took = {step: [] for step in STEPS}
    headers = {"Authorization": f"Bearer {minted['access_token']}"}
    with httpx.Client(base_url=f"{served.urls['coordinator']}/zones/{zone.id}", headers=headers, timeout=30) as client:

        def timed(step: str, method: str, path: str, body: object = None) -> httpx.Response:
            began = time.perf_counter()
            answer = client.request(method, path, json=body)
            took[step].append(time.perf_counter() - began)
            return answer.raise_for_status()

        for _ in range(CYCLES):
            wanted = {"application_id": zone.application, "lifecycle": "service"}
            path = f"/agents/{timed('start', 'POST', '/agents', wanted).json()['agent_session_id']}"
            timed("heartbeat", "POST", f"{path}/heartbeat", {"lease_generation": 1})
            timed("read", "GET", path)
            timed("end", "DELETE", path, {"lease_generation": 1})
    return {step: statistics.median(took[step]) for step in STEPS}


def compare(served: Caracal, upstream: Upstream, check: Check, gather) -> None:
    served.start()
    zone = provision(served, upstream, "crowd", lambda text: None)
    medians(served, zone)
    alone = medians(served, zone)
    gather(zone)
    medians(served, zone)
    crowded = medians(served, zone)
    for step in STEPS:
        ratio = crowded[step] / alone[step]
        check.that(ratio < TOLERATED, f"{step} beside {CROWD:,} sessions takes {ratio:.2f} of what it took alone")
    check.that(served.stop() == 0, "it drained and ended well")


def on_one_process(served: Caracal, upstream: Upstream, check: Check) -> None:
    def gather(zone: system.Zone) -> None:
        served.stop()
        with sqlite3.connect(served.data_dir / "caracal.db") as connection:
            numbers = f"(WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < {CROWD}) SELECT n FROM r)"
            connection.executescript(rows(numbers, zone.id, zone.application))
        connection.close()
        served.start()

    say("one process on the embedded store")
    compare(served, upstream, check, gather)


def on_replicas(served: Replicated, upstream: Upstream, check: Check) -> None:
    def gather(zone: system.Zone) -> None:
        text = rows(f"generate_series(1, {CROWD}) n", zone.id, zone.application) + "\nANALYZE agent_sessions;"
        url = served.environment["DATABASE_URL"]
        subprocess.run(["psql", url, "-qX", "-v", "ON_ERROR_STOP=1"], input=text, text=True, check=True, capture_output=True)

    say("two of everything on PostgreSQL")
    compare(served, upstream, check, gather)


if __name__ == "__main__":
    sys.exit(on_every_system(__doc__, ("httpx",), on_one_process, on_replicas))
