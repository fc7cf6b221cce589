"""Examples made by rule, where copying one entry is not enough; `mixing` joins the kinds."""
