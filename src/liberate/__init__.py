"""A federated recommender whose every flow of data can be traced and proved."""

__version__ = "0.1.0"
