"""The wire protocol: messages, and the state of one connection and of one room; no I/O and no clock. PURE."""
