"""Rolling restarts under load: workers, gateways and the server, each in its turn."""
