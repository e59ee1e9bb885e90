"""Memberships of this node's connections: intents to store calls, reconciliation, recovery."""
