"""What the clients' flows share: lines with a clock, a count of what held, and one run against one system."""

import argparse
import sys
import tempfile
import time
import traceback
from importlib.metadata import version
from pathlib import Path

from system import Caracal, Replicated, SystemFailure, Upstream

BEGAN = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGAN:6.2f} s] {text}", flush=True)


class Check:
    """Counts what held and what did not; a failed one ends its flow."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def that(self, holds: bool, text: str, otherwise: object = "") -> None:
        if not holds:
            raise AssertionError(f"{text}\n{otherwise}" if otherwise != "" else text)
        self.passed += 1
        say(f"  ok    {text}")

    def note_failure(self, name: str) -> None:
        self.failed += 1
        say(f"  FAIL  {name}")
        traceback.print_exc(file=sys.stdout)


def against(make, run, check: Check) -> None:
    """Everything once, against one system."""
    upstream = Upstream()
    failed = check.failed
    with tempfile.TemporaryDirectory(prefix="caracal-compat-") as place:
        system = make(Path(place))
        try:
            run(system, upstream, check)
        except (SystemFailure, AssertionError, OSError, TimeoutError, ValueError):
            check.note_failure("the system")
        finally:
            system.end()
            upstream.close()
        if check.failed > failed and system.log.exists():
            print("---- last lines of the system's log ----")
            print("\n".join(system.log.read_text(errors="replace").splitlines()[-60:]))


def on_every_system(description: str, libraries: tuple[str, ...], on_one_process, on_replicas) -> int:
    """The flows of a file that is run by itself, once against each kind of system. Returns its exit code."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--caracal", required=True, type=Path, help="the built binary")
    parser.add_argument("--postgres", required=True, help="a PostgreSQL server, as its superuser")
    parser.add_argument("--redis", required=True, help="a Redis server")
    arguments = parser.parse_args()
    check = Check()
    say(", ".join([f"{name} {version(name)}" for name in libraries] + [f"Python {sys.version.split()[0]}"]))
    binary = arguments.caracal.resolve()
    against(lambda place: Caracal(binary, place), on_one_process, check)
    against(lambda place: Replicated(binary, place, arguments.postgres, arguments.redis), on_replicas, check)
    print(f"{check.passed} passed, {check.failed} failed", flush=True)
    return 1 if check.failed else 0
