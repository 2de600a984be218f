"""Every rule there is."""

from __future__ import annotations

from verify_audit.rules.firewall import FirewallRule
from verify_audit.rules.interface import Rule
from verify_audit.rules.promiscuous import PromiscuousRule

RULES: tuple[type[Rule], ...] = (PromiscuousRule, FirewallRule)
