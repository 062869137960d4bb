"""One file a change of the schema, named by its place in the history."""
