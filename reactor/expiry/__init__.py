"""The expiry path: deadlines -> pacemaker -> Redis -> expired event -> listener -> reaper.

The sweep behind all of them.
"""
