"""A real engine, a real audit log and a real firewall: what unit tests cannot know.

lab.py brings a host of its own up, scenarios.py does things to it, and the tests judge what the kernel
wrote. Needs root. Run with `pytest -m live`.
"""
