"""From checked pairs to arrays of one size: duplicates, split, summary."""
