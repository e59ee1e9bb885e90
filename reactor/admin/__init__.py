"""The admin port: an HTTP API for operators and back ends, a live page, metrics. Off unless it is set."""
