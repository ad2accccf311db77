@0xb3f0c5d9147ae826;
# One recorded run, as `fxcell run --record` writes it and `fxcell replay` reads it (host/records.py).
#
# File: 8 bytes "FXCELLR1", 8 bytes little-endian length, 32 bytes SHA-256, then that many bytes: this message, packed.
# The SHA-256 is of the packed bytes. It finds damage, not forgery: whoever can write the file can write the sum as well.
# A value is MessagePack in a Data field (policies/values.py says which types), buffers included.

struct Record {
  fxcell @0 :Text;              # version that wrote it
  startedUnixS @1 :Float64;
  policyName @2 :Text;
  policyDigest @3 :Text;        # SHA-256, hex; that of `policy` in the version that wrote it
  policy @4 :Data;              # MessagePack table, as Policy.to_data gives it
  pluginName @5 :Text;          # "" when the command was no plugin
  pluginDigest @6 :Text;        # SHA-256, hex, of its files and its entry
  commands @7 :List(Command);   # to one worker, in order
}

struct Command {
  value @0 :Data;               # as FX.from_bytes reads it: with the code of the calls in it, which only workers load
  effects @1 :List(Effect);     # in the order in which they were asked for
  outcome @2 :Outcome;
  stdoutTail @3 :Text;          # the last that the worker wrote to the stream, 8 KiB at most
  stderrTail @4 :Text;
}

struct Effect {
  asked @0 :Data;               # a value: the effect; header values that look like secrets are "[redacted]"
  outcome @1 :Text;             # done | denied | failed | cancelled
  answer @2 :Data;              # done: the result, a value, redacted likewise; denied, failed: MessagePack table, its fields
  performed @3 :Bool;           # it was handed to a handler: a denial after that is not the policy's rules alone
  startedS @4 :Float64;         # seconds after the command began
  seconds @5 :Float64;          # from the question to the answer
}

struct Outcome {
  kind @0 :Text;                # value | PluginError | EffectDenied | EffectFailed | WorkerCrash | interrupted
  data @1 :Data;                # value: a value; otherwise MessagePack table, as to_dict() gives it
}
