"""From a turn to a grounded reply."""
