"""From a request to outcomes in the store: planning, crafting, judging."""
