"""The checks: what is read from the evidence."""
