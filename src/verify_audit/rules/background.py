"""What every report tells whatever the event is: the engine, and its definitions in the firewall."""

from __future__ import annotations

from verify_audit.findings.evidence import Bearing, Evidence, Step, Weight
from verify_audit.findings.words import clock
from verify_audit.host.facts import Product
from verify_audit.host.observation import Observed, Unobservable
from verify_audit.rules.layout import Layout
from verify_audit.rules.picture import Picture
from verify_audit.rules.statement import evidence


def background(picture: Picture) -> tuple[Evidence, ...]:
    """The evidence for both, which points neither way."""
    return _engine(picture), _firewall(picture.layout)


def _engine(picture: Picture) -> Evidence:
    """Is the engine running, and since when."""
    engine, daemon = picture.engine, picture.daemon
    by_hand = "docker version; systemctl status docker"
    since = ""
    if isinstance(daemon, Observed):
        process = daemon.fact.process
        since = f", as process {process.identity.pid} since {clock(process.started_at)}"
    if isinstance(engine, Observed):
        name = "Docker" if engine.fact.product is Product.DOCKER else engine.fact.product.value
        statement = f"{name} {engine.fact.version} answers{since}"
        return evidence(Bearing.NEUTRAL, Weight.SUPPORTING, Step.ENGINE, statement, engine, by_hand)
    reason = engine.reason if isinstance(engine, Unobservable) else "it gave no answer"
    statement = f"the engine could not be asked ({reason}){since and '; it runs' + since}"
    return evidence(Bearing.NEUTRAL, Weight.SUPPORTING, Step.ENGINE, statement, engine, by_hand)


def _firewall(layout: Layout) -> Evidence:
    """Are Docker's definitions in the firewall."""
    return evidence(
        Bearing.NEUTRAL,
        Weight.SUPPORTING,
        Step.FIREWALL,
        layout.summary,
        layout.firewall,
        "iptables -S; iptables -t nat -S; nft list ruleset",
        layout.unexplained,
    )
