"""What changed between two runs: records, numbers, words."""
