"""Copies of ratings handed from one participant to another or to a pool, under consents.

May import `store` and `wire`.
"""
