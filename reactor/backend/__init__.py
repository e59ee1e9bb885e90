"""One Redis, whatever its shape: a single server, a primary behind Sentinels, or a cluster.

`connect.open_backend` opens it and `interface.Backend` is the contract. Nothing here knows about presence,
except that `scripts` reads the Lua files of `reactor.presence`.
"""
