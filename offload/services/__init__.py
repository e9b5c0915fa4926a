"""One module a use case. They own the transactions; no store or API call happens inside one."""
