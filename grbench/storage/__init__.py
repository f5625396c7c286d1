"""Data in other places than the local disk: on shared file systems and in S3-compatible storage."""
