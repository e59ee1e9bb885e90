"""The expiry path: deadlines -> pacemaker -> Redis -> expired event -> listener -> reaper; the sweep behind
all of them.
"""
