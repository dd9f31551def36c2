"""What became of a participant's data, and what a model was made of, each step with its proof.

May import `queries`-free rooms below it only: the log's interface, rules and format.
"""
