"""What runs in the side processes: generators that give the samples of one turn at each step.

Reading order: pools (every pool behind one interface), ours (fxcell behind it too, and what only fxcell has), calls (what is
asked of any pool), jails (programs that start a confined interpreter), raw (a socketpair, plain processes, imports).
"""
