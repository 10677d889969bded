"""Measures of rankings against ground truth, in NumPy alone; one module per protocol."""
