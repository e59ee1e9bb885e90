"""Presence in Redis: keys, transitions, diffs, departures."""
