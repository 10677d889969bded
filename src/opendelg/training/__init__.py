"""Training DELG: photos to views, losses, teachers, and a run that ends in a weights file."""
