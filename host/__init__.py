"""Who asks, supervises and judges: everything on the trusted side, in the user's own process.

Reading order: runtime (`| run`), pool/ (many workers behind one object), registry (handles to sessions), unfinished
(what the end of the program waits for), sessions (one worker), greeting (its start), exchange (one command),
templates, template_process and launcher (where workers come from), cgroups, broker and effects/ (what workers may ask
for), gates (rates, budgets), asking, asked_text and secrets (what rules need beside the fields), log_text, diagnose
(why one died), plugins (files and folders as calls), callees and calling (plugins that call each other), recording,
replaying and learning (tapes between a session and its broker), explain and difference (what a policy means, and two
of them), commands/ (the command line).
"""


def shutdown() -> None:
    """Stop every worker and template of this process and wait until nothing is left. The next use starts afresh."""
    from fxcell.host import registry

    registry.shutdown()
