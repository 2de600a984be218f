from __future__ import annotations

import subprocess
import sys

from tests.probe_samples import reply


def test_what_pyroute2_logs_of_a_reply_that_it_cannot_read_does_not_come_out() -> None:
    script = (
        "import sys; from verify_audit.probes.pyroute2_parts import *\n"
        "try:\n"
        "    with reading('it'): decoded(part('netlink.rtnl.ifinfmsg').ifinfmsg, bytes.fromhex(sys.argv[1]))\n"
        "except NetlinkError: sys.exit(7)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, reply("link lo")[:50].hex()],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (7, b"")
