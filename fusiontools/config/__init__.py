"""Everything a person can say: options, models, endpoints, recipes, chain text; and what holds when they disagree."""
