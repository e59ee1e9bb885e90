"""One Redis, whatever its shape: a single server, a primary behind Sentinels, or a cluster.

`connect.open_backend` opens it and `interface.Backend` is the contract. Nothing here knows about presence:
the caller passes in the scripts.
"""
