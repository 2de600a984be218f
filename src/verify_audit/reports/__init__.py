"""Findings as text for people and as lines for machines. Every report is a string; nothing here prints."""
