"""The command line. Each command is a module of its own that is imported only when it runs."""
