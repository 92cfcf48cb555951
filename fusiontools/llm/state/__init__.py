"""What several processes and machines share: finished calls, turns at calls, limits, money."""
