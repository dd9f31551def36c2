"""What lies on disk beside the ledger: devices, requests, copies; uploads, models, the pool.

The participant's tables and the coordinator's never import each other.
"""
