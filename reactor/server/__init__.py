"""The server process: builds a node, runs it, and the ports and metrics around it."""
