"""A witness: cosigns what continues the checkpoint it cosigned before, and keeps evidence of what does not.

May import `evidence` and what is below it.
"""
