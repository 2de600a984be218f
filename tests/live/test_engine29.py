"""Engine 29, of which there is no package: its firewall made to the letter of its source, read and attributed."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from tests.live import moby29
from verify_audit.host.attribution import Attribution, attribute
from verify_audit.host.docker_layout import expected_rules
from verify_audit.probes.firewall import read_firewall
from verify_audit.probes.namespace import own_netns

Answer = TypeVar("Answer")
_CLONE_NEWNET = 0x40000000
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LAYOUTS = [("nftables", ""), ("iptables", "nft"), ("iptables", "legacy")]


def in_a_namespace(look: Callable[[], Answer]) -> Answer:
    """What `look` returns in a network namespace that ends with it."""
    if os.geteuid() != 0 or not shutil.which("nft", path=_PATH):
        sentence = "this needs root and nft"
        pytest.fail(sentence) if os.environ.get("CI") == "true" else pytest.skip(sentence)

    def enter_and_look() -> Answer:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        return look()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter_and_look).result()


def run(command: str, script: str | None = None) -> None:
    """Run a command in the thread's namespace."""
    done = subprocess.run(
        command.split(), input=script, capture_output=True, text=True, check=False, env={"PATH": _PATH}
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"


def make(firewall: str, suffix: str, *, proxy: bool) -> None:
    """The firewall of the engine."""
    if firewall == "nftables":
        run("nft -f -", moby29.nft_script(proxy=proxy))
        return
    for program, words in moby29.iptables_commands(proxy=proxy):
        run(f"{program}-{suffix} --wait {words}")


def attributed(firewall: str, proxy: bool | None) -> Attribution:
    """What the thread's namespace has, held against what the engine would set up."""
    expected = expected_rules(
        moby29.VERSION, moby29.networks(), moby29.containers(), firewall=firewall, userland_proxy=proxy
    )
    return attribute(read_firewall(own_netns()), expected, moby29.VERSION)


def found(firewall: str, suffix: str, *more: str, proxy: bool = True, known: bool = True) -> Attribution:
    """The same for a firewall made here, with more commands after it."""

    def look() -> Attribution:
        make(firewall, suffix, proxy=proxy)
        for command in more:
            run(command)
        return attributed(firewall, proxy if known else None)

    return in_a_namespace(look)


@pytest.mark.parametrize("known", [True, False], ids=["", "proxy not known"])
@pytest.mark.parametrize("proxy", [True, False], ids=["proxy", "no proxy"])
@pytest.mark.parametrize(("firewall", "suffix"), LAYOUTS)
def test_all_of_it_is_explained(firewall: str, suffix: str, proxy: bool, known: bool) -> None:
    attribution = found(firewall, suffix, proxy=proxy, known=known)
    assert [str(rule) for rule in attribution.unexplained] == []
    assert [f"{rule.chain} {rule.spec}" for rule in attribution.missing] == []
    assert attribution.foreign_chains == ()
    assert len(attribution.explained) > 60


NFT = "nft add {} ip docker-bridges "


@pytest.mark.parametrize(
    "strange",
    [
        NFT.format("rule") + "filter-FORWARD ip saddr 203.0.113.7 accept",
        NFT.format("rule") + "filter-forward-in__docker0 tcp dport 22 accept",
        NFT.format("rule") + "nat-prerouting-and-output tcp dport 22 dnat to 172.17.0.2:22",
        NFT.format("rule") + "nat-postrouting-in__br-user fib saddr type local counter masquerade",
        NFT.format("element") + "filter-forward-in-jumps { eth9 : accept }",
        NFT.format("element") + "nat-postrouting-out-jumps { eth9 : jump filter-forward-in__docker0 }",
        "nft insert rule ip docker-bridges raw-PREROUTING ip daddr 172.30.8.2 iifname != "
        "{ br-trust, eth0, eth1, eth2 } counter drop comment DROP",
    ],
)
def test_a_strange_rule_in_the_nftables_layout_is_not(strange: str) -> None:
    attribution = found("nftables", "", strange)
    assert len(attribution.unexplained) == 1
    assert attribution.missing == ()


def test_traffic_that_is_led_elsewhere_by_an_element() -> None:
    """A verdict map holds one element for a bridge, so Docker's own has to go for it."""
    place = "element ip docker-bridges filter-forward-in-jumps"
    attribution = found(
        *("nftables", "", f"nft delete {place} {{ docker0 }}"), f"nft add {place} {{ docker0 : accept }}"
    )
    assert [str(rule.spec) for rule in attribution.unexplained] == ["[docker0] -j ACCEPT"]
    assert [str(rule.spec) for rule in attribution.missing] == ["[docker0] -j filter-forward-in__docker0"]


@pytest.mark.parametrize("suffix", ["nft", "legacy"])
@pytest.mark.parametrize(
    "strange",
    [
        "-I DOCKER-USER -s 203.0.113.7 -j ACCEPT",
        "-I DOCKER-INTERNAL -j ACCEPT",
        "-I DOCKER -d 172.17.0.2 -p tcp --dport 22 -j ACCEPT",
        "-t nat -A DOCKER -p tcp --dport 22 -j DNAT --to-destination 172.17.0.2:22",
        "-I INPUT -j DOCKER-FORWARD",
    ],
)
def test_a_strange_rule_in_the_iptables_layout_is_not(suffix: str, strange: str) -> None:
    attribution = found("iptables", suffix, f"iptables-{suffix} --wait {strange}")
    assert len(attribution.unexplained) == 1
    assert attribution.missing == ()


def test_a_chain_of_an_older_engine_is_foreign() -> None:
    attribution = found("iptables", "nft", "iptables-nft -N DOCKER-ISOLATION-STAGE-1")
    assert [chain.name for chain in attribution.foreign_chains] == ["DOCKER-ISOLATION-STAGE-1"]
