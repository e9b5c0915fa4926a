"""Use cases. They own the transaction: no S3 or Kubernetes call happens inside one."""
