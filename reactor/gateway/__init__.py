"""Third step: sockets. Bytes in become intents, messages become bytes out, and nobody waits for another."""
