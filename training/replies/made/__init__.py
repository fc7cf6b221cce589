"""Examples made by rule where copying one entry is not enough; see `examples`."""
