"""A wall clock that jumps while a process makes calls: monotonic clocks are all that may matter."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import grpclb_core as lb
from support.dns import FaultyDns
from support.load import Load
from support.servers import CHANNEL_OPTIONS

from . import PATIENCE_S, Report, all_ready, report_of, servers_on_one_port

NAME = "greeter.test"
TTL_S = 1
JUMPS = ("+30d", "-30d", "+0")  # as libfaketime writes offsets from the true time
CHILD_WITHIN_S = 60.0
DAY_S = 86_400

JUMPED = "days that the clock jumped, there and back"


def library() -> str | None:
    """Return the path of libfaketime; None where it is not installed (Debian: faketime)."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return str(found[0]) if found else None


async def clock_jumps(folder: Path, each_s: float) -> Report:
    """Have the wall clock of a process jump a month ahead, two months back and to the right time, seconds apart.

    `recovered_s` is the time from a change of DNS after that to the first call of the server that came.
    """
    preload = library()
    assert preload is not None
    offset = folder / "offset"
    offset.write_text("+0")
    environment = os.environ | {
        "LD_PRELOAD": preload,
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    command = [sys.executable, "-m", "support.scenarios.clock", str(offset), str(each_s)]
    timeout_s = CHILD_WITHIN_S + len(JUMPS) * each_s
    run = partial(subprocess.run, capture_output=True, text=True, timeout=timeout_s)
    # From the folder of the tests, where `-m` finds `support`, and no package that is not installed.
    done = await asyncio.to_thread(run, command, env=environment, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    report = Report(**json.loads(done.stdout))
    return report._replace(codes=frozenset(report.codes))


async def _calls_meanwhile(offset: Path, each_s: float) -> Report:
    clock = asyncio.get_running_loop().time
    async with servers_on_one_port(3) as (a, b, c):
        with FaultyDns() as dns:
            dns.set(NAME, a.host, b.host, ttl_s=TTL_S)
            channel = lb.insecure_channel(f"dns://{dns.address}/{NAME}.:{a.port}", options=CHANNEL_OPTIONS)
            async with channel, Load(channel).running() as load:
                await all_ready(channel)
                jumped_s = 0.0
                for jump in JUMPS:
                    jumped_s += _jump(offset, jump)
                    await asyncio.sleep(each_s)
                dns.set(NAME, a.host, b.host, c.host, ttl_s=TTL_S)
                added_s = await load.wait_for("c", clock(), PATIENCE_S)
    return report_of(load, added_s, {JUMPED: round(jumped_s / DAY_S)})


def _jump(offset: Path, jump: str) -> float:
    """Have the wall clock jump, and return by how many seconds it did."""
    before_s = time.time()
    offset.write_text(jump)
    return abs(time.time() - before_s)


if __name__ == "__main__":
    told = asyncio.run(_calls_meanwhile(Path(sys.argv[1]), float(sys.argv[2])))
    print(json.dumps(told._replace(codes=sorted(told.codes))._asdict()))  # type: ignore[arg-type]
