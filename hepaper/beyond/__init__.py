"""Beyond the paper: what a score is worth at the bedside, and what it would take to trust it."""
