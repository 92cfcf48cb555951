"""Learn from graded panels: which sub-panel, how many samples, whose vote counts how much, what is worth a panel."""
