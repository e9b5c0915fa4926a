"""The embedded default: stores that run beside the service on one host. Only the command line knows it."""
