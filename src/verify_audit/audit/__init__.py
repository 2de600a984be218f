"""Audit records and events: from the lines of a log to typed values. Pure: nothing here reads the host."""
