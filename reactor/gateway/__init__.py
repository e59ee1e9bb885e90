"""The gateway: WebSocket connections, their authentication and admission, and the messages sent to them."""
