"""The probes: what is asked of a defence itself."""
