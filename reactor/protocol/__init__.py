"""The words on the wire and the rules of one connection and one room: pure, without a socket or Redis."""
