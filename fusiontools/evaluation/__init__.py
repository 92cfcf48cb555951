"""Is the fusion better? Tasks in; grades, statistics, reports and diffs out."""
