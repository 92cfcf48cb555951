"""What graded records say: which system is better, by how much, at what cost, and how sure that is.

Reads   grades, calls; analysis.ranking, answer.by, meta, epoch, error
Adds    nothing

A task is the unit: its repetitions are averaged first, and resampling draws whole tasks (cluster bootstrap).

Source  Wilson 1927 (interval of a share); Efron 1979 (bootstrap); Bonett and Price 2012 (the imaginary pair in the
        interval of a difference); McNemar 1947, exact; Fisher 1935 (sign flips); Holm 1979; Berger 1982 (the best of
        several rivals, without paying for the choice); Connor 1987 (how many tasks); Miller 2024, arXiv:2411.00640
        (paired and clustered comparisons of language models)
"""
