"""Presence in Redis: keys, scripts, diffs, departures."""
