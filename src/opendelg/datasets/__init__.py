"""Ground truth of datasets: which images are queries, and which database images they should find.

One module per protocol.
"""
