"""What may happen: the effect vocabulary, values, policies and outcomes. Pure values: no sockets, no processes.

Reading order: errors, values (the codec: encoding, decoding; hash_flood, array_keys and decoded_size guard it),
effects (FX), calls (zef_function), builtin (the shipped effects), limits, words, policy, rules (is this effect
granted?) with its kinds http_rule, under_rule (file_rule, write_rule), environment_rule, state_rule, call_rule and
plain_rule, plugin_names, suggestions (the line that would grant it), rates and secret_refs, vocabulary (effects of
one's own, told to workers), loader (TOML), profiles/ (the shipped policies), crash (WorkerCrash), running (`| run`).
"""
