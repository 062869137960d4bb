"""Data sets: which there are, where they are read from, and the images they hand out."""
