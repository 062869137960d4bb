"""Published results: what `benchbox publish` wrote, read by `benchbox report --published`."""
