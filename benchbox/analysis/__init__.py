"""Evidence in, numbers out: worst cases, intervals, ranks, comparisons. No tensors, no database."""
