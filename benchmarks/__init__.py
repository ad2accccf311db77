"""Peers side by side, as ratios of one run: `make bench`, or `python -m benchmarks [--quick] [row ...]`.

    __main__ --asks in turn--> side process: fxcell            every library has a process of its own: none pays for
             --asks in turn--> side process: a peer            what another has loaded, and one that hangs is ended
             --asks in turn--> side process: another peer      without taking the run with it

Figures are medians; only ratios are judged, against the limits of the design.

Reading order: rows/ (one file for each line of the design's table of limits, and `audit`), curves/ (how figures grow),
peers/ (what runs in the side processes: fxcell, pools, jails), work (what is called), clock and placing (how it is timed and
where it runs), sides and side (both ends of a side process), rounds (asking in turn), results (a judged row), machine,
report and plot (what is written).
"""
