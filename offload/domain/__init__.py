"""The rules, pure: standard library only, no I/O, and the time is always an argument."""
