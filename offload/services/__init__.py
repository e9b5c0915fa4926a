"""Use cases. They own the transactions; no call to the store or the cluster happens inside one."""
