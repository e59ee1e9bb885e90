"""Expiry: what makes a member depart when its presence key expires.

deadlines -> pacemaker -> Redis -> `expired` event -> listener -> reaper. The sweep repairs what they missed.
"""
