"""The HTTP service. A route parses, calls one service and answers a schema. Alone knows FastAPI."""
