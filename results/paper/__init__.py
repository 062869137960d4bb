"""The tables of the founding papers, as data."""
