"""The engines that labs run: the machine's own, and those that `scripts/engines` has made a root directory for.

Another engine runs in a mount namespace of its own with that directory as its root, read-only but for what
is mounted over it. All else of a lab (client, tools, attackers) is the machine's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

VARIABLE = "VERIFY_AUDIT_ENGINE_ROOTS"
"""Root directories, with colons between them; set by `scripts/test --engines all`."""

BACKENDS = ("nft", "legacy", "both")
"""Firewalls: iptables-nft, iptables-legacy, and an engine that was moved from the second to the first, whose old
rules still stand."""


class Kind(NamedTuple):
    """A kind of lab.

    root: the engine's root directory, None for the machine's own; backend: one of BACKENDS; bare: whether
    events come without SYSCALL and PROCTITLE.
    """

    root: Path | None
    backend: str
    bare: bool

    @property
    def name(self) -> str:
        """As a test is named: `testing-nft-bare`."""
        engine = [self.root.name] if self.root is not None else []
        return "-".join([*engine, self.backend, "bare" if self.bare else "companions"])


def roots() -> list[Path | None]:
    """Every engine that is to be tested, the machine's own first."""
    return [None, *(Path(path) for path in os.environ.get(VARIABLE, "").split(":") if path)]


KINDS = [
    Kind(root, backend, bare)
    for root in roots()
    for bare in (False, True)
    for backend in BACKENDS
    if root is None or not bare or backend != "both"
]
"""A mixed firewall without companions on the machine's own engine only: it adds least, and takes as long."""

# $1 is the root directory, $2 the lab's directory; the rest is the command. pivot_root and not chroot(1): the
# kernel lets nobody in a chroot make a user namespace.
_ENTER = """
set -e
root=$1 lab=$2
shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
for each in run tmp etc/docker var/lib; do mount -t tmpfs tmpfs "$root/$each"; done
mkdir -p "$root$lab" "$root/tmp/old"
mount --bind "$lab" "$root$lab"
cd "$root"
pivot_root . tmp/old
umount -l /tmp/old
exec "$@"
"""


def inside(root: Path | None, lab: Path, command: Sequence[str]) -> list[str]:
    """The command, to be run where that engine is; `lab` is the one directory that it shares with the machine."""
    if root is None:
        return list(command)
    private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "sh"]
    return [*private, str(root), str(lab), *command]
