"""The commands that have a name."""

COMMANDS = {
    "rules": "Which firewall rules are Docker's, and what for.",
    "sniffers": "Who listens, on the host and in every container.",
}
"""The commands beside the first, which judges a log: each is a module here with an `app` of its own, and
is imported only when it is asked for. A log of such a name is written ./NAME."""
