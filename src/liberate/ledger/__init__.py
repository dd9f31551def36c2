"""Who did what: signed facts, the rules they must obey, the log that keeps them, and its re-check.

Adds integers and stores digests; never sees a model or a rating. May import crypto and the ground below it only.
"""
