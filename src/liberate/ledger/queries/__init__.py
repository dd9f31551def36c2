"""Questions that a coordinator asks in every round: which copies may be used, and what they weigh.

May import the log's interface and lookups, the rules and the format.
"""
