"""Many workers of one policy behind one object, which outlives all of them.

Reading order: pool (run, submit, map, aio), mapping (many calls at once, cut into batches), progress (its bar), sending (to a
free worker), workers (who is there, who is started, who is let go), farewell (how those end), breaker (when starts fail),
quarantine (inputs that crash), arguments (checks of them), executor (concurrent.futures).
"""
