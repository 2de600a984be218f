from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.firewall_samples import legacy_copy, sample, words
from verify_audit.host.firewall import Backend, Firewall
from verify_audit.probes import legacy


def saved_and_decoded(name: str) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    saved = [(place, *words(line)) for place, lines in sample(name)["saved"].items() for line in lines]
    decoded = [
        (f"{rule.family} {rule.table}", *words(f"-A {rule.chain} {rule.spec}"))
        for rule in legacy.parse(legacy_copy(name)).rules
    ]
    return sorted(saved), sorted(decoded)


def test_what_docker_made_reads_as_iptables_save_writes_it() -> None:
    saved, decoded = saved_and_decoded("docker-20.10-legacy")
    assert len(saved) == 36
    assert decoded == saved


def test_of_one_rule_of_each_kind_only_those_not_understood_differ_and_all_of_them_are_opaque() -> None:
    saved, decoded = saved_and_decoded("iptables-legacy")
    different = {rule for rule in decoded if rule not in saved}
    opaque = {
        (f"{rule.family} {rule.table}", *words(f"-A {rule.chain} {rule.spec}"))
        for rule in legacy.parse(legacy_copy("iptables-legacy")).rules
        if rule.spec.opaque
    }
    assert len(saved) == len(decoded) > 40
    assert different == opaque
    # tcp flags, ICMP type, multiport, limit, MARK
    assert len(opaque) == 5


def test_chains_and_policies() -> None:
    firewall = legacy.parse(legacy_copy("docker-20.10-legacy"))
    (forward,) = firewall.chain("ip", "filter", "FORWARD")
    assert (forward.backend, forward.hook, forward.policy) == (Backend.LEGACY, "forward", "DROP")
    (docker,) = firewall.chain("ip", "filter", "DOCKER")
    assert (docker.hook, docker.policy) == (None, None)
    assert firewall.nft_generation is None


def _entries() -> list[legacy.Entry]:
    tables = legacy_copy("iptables-legacy").tables
    return [
        entry for table in tables if table.family == "ip" for chain in table.chains for entry in chain.entries
    ]


@given(data=st.data())
def test_a_cut_or_changed_entry_is_a_legacy_error_or_read_but_nothing_else(data: st.DataObject) -> None:
    entry = data.draw(st.sampled_from(_entries()))
    raw = bytearray(entry.raw)
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    changed = replace(entry, raw=bytes(raw))
    chain = legacy.CopiedChain("INPUT", "ACCEPT", (changed,))
    try:
        legacy.parse(legacy.Copy(1, (legacy.CopiedTable("ip", "filter", (chain,)),)))
    except legacy.LegacyError as error:
        assert error.remedy
        return
    assert len(raw) == len(entry.raw)


def test_without_a_legacy_table_python_iptables_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legacy, "_python_iptables", None)
    (tmp_path / "ip6_tables_names").write_text("")
    assert legacy.parse(legacy.read(3, tmp_path)) == Firewall(3)


def test_python_iptables_missing_is_said_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ip_tables_names").write_text("filter\n")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.delitem(sys.modules, "iptc", raising=False)
    with pytest.raises(legacy.LegacyError, match="not installed") as caught:
        legacy.read(1, tmp_path)
    assert "pip install" in caught.value.remedy


def test_libraries_missing_are_said_with_a_remedy_and_nothing_half_imported_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ip_tables_names").write_text("filter\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == "iptc"]:
        monkeypatch.delitem(sys.modules, name)
    if importlib.util.find_spec("iptc") is None:
        pytest.skip("python-iptables is not installed here")
    monkeypatch.setattr(legacy, "_LIBRARIES", {"c": ("libc.so.6",)})
    with pytest.raises(legacy.LegacyError, match="does not load") as caught:
        legacy.read(1, tmp_path)
    assert "libxtables" in caught.value.remedy
    assert "iptc" not in sys.modules


def test_a_list_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "ip_tables_names").mkdir()
    with pytest.raises(legacy.LegacyError):
        legacy.read(1, tmp_path)


NO_CHILD = """
import sys
starts = ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.exec", "os.system", "os.forkpty")
def hook(event, _arguments):
    if event in starts:
        sys.stderr.write(event)
        sys.exit(9)
from verify_audit.probes import legacy
sys.addaudithook(hook)
try:
    legacy._python_iptables()
except legacy.LegacyError as error:
    sys.exit(77 if "install" in error.remedy else 1)
assert "iptc.easy" not in sys.modules
import os
assert "XTABLES_LIBDIR" not in os.environ
assert sys.modules.get("distutils", 1) is not None
"""


def test_the_import_starts_no_process() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", NO_CHILD],
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if ended.returncode == 77:
        pytest.skip("python-iptables or its libraries are not installed here")
    assert ended.returncode == 0, ended.stderr
