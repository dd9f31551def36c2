"""Learning to predict ratings under noise: statistics of bounded norm, and what becomes of their sums.

May import the model's statistics and solvers; draws no noise itself.
"""
