<<<<<<< HEAD
"""Use cases. They own the transaction: no S3 or Kubernetes call happens inside one."""
=======
"""Use cases. They own the transactions; no call to the store or the cluster happens inside one."""
>>>>>>> a71e384a577f8864aece5e4b2cb34ad7fb9d2fbd
