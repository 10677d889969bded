"""Protocols: a dataset, a search, and the figures it is judged by."""
