"""How programs talk to focusd: JSON-RPC 2.0 requests and numbered events over ZeroMQ (docs/reference/protocol.md)."""
