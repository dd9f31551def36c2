"""What became of a participant's data, and what a model was made of, each step with its proof.

May import the log's interface and lookups, the rules and the format.
"""
