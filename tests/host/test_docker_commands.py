from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verify_audit.host.docker_commands import never_dockers
from verify_audit.host.iptables_command import parse_command


def reason(line: str, *, cut: bool = False) -> str:
    command = parse_command([word.encode() for word in line.split()], truncated=cut)
    assert command is not None
    return never_dockers(command)


@pytest.mark.parametrize(
    "line",
    [
        "/usr/sbin/iptables --wait -t nat -N DOCKER",
        "/usr/sbin/iptables --wait -t filter -I FORWARD -j DOCKER-USER",
        "/usr/sbin/iptables --wait -t filter -P FORWARD DROP",
        "/usr/sbin/iptables --wait -t nat -A DOCKER -p tcp -d 0/0 --dport 80 -j DNAT --to-destination 172.17.0.2:80",
        "/usr/sbin/ip6tables --wait -D FORWARD -i br-0123456789ab -j ACCEPT",
        "/usr/sbin/iptables --wait -t nat -F DOCKER_OUTPUT",
        "/usr/sbin/iptables --wait -t mangle -A POSTROUTING -p sctp --sport 80 -j CHECKSUM --checksum-fill",
        "nft -f -",
    ],
)
def test_what_docker_gives_is_not_ruled_out(line: str) -> None:
    assert reason(line) == ""


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("iptables-restore -n", "never runs iptables-restore"),
        ("ebtables -A FORWARD -j DROP", "never runs ebtables"),
        ("iptables -N ufw-before-input", "chain ufw-before-input"),
        ("iptables -w --table filter --insert LIBVIRT_FWI --jump ACCEPT", "chain LIBVIRT_FWI"),
        (
            "iptables -t nat -A POSTROUTING -s 10.88.0.2 -j CNI-51e2 -m comment --comment x",
            "goes to CNI-51e2",
        ),
        ("iptables -A FORWARD -j LOG", "goes to LOG"),
        ("iptables -F", "empties a whole table"),
        ("iptables -P INPUT DROP", "policy of INPUT"),
    ],
)
def test_what_docker_never_gives_is_told_from_it(line: str, why: str) -> None:
    assert why in reason(line)


def test_what_is_cut_may_be_dockers() -> None:
    assert reason("iptables -t nat -A POSTROUTING -j MASQU", cut=True) == ""
    assert reason("iptables -t nat -A POSTROUTING -j DOCKER-", cut=True) == ""
    assert reason("iptables -t nat -A DOCK", cut=True) == ""
    assert reason("iptables -t", cut=True) == ""
    assert reason("iptables -t nat -A CNI-51e23340248282da29492a60 -d 10.88", cut=True) != ""


@given(
    st.sampled_from(["DOCKER", "DOCKER-USER", "FORWARD", "DOCKER_OUTPUT"]),
    st.sampled_from(["-A", "-I", "-D", "-N", "-F", "-X"]),
    st.integers(3, 60),
)
def test_no_cut_makes_one_of_dockers_somebody_elses(chain: str, action: str, length: int) -> None:
    line = f"iptables --wait -t nat {action} {chain} -i docker0 -j MASQUERADE"
    assert reason("iptables " + line.partition(" ")[2][:length], cut=True) == ""
