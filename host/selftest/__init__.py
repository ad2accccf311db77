"""The selftest: attacks that the package carries, tried for real against a policy on this machine.

    tried = trial.perform(load_policy("compute"))      what each of table.ATTACKS came to; `tried.held` is the verdict

attacks/     what runs inside workers: a plugin folder
table*.py    each attack: what it tries, how it may end, which sentinels it is about
sentinels.py what must stay unseen and untouched outside
trial.py     the workers that attacks run in;  judgement.py  the verdict on each
"""
