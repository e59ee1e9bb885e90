"""One Redis, whatever its shape: connections, scripts, subscriptions. Knows nothing of presence."""
