"""Find every photo that shows the same place, building or object, and see why (DELG)."""

__version__ = "0.1.0"
