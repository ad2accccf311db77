@0xd4f1c37a92be6805;
# Every message between host, template process, supervisor and worker.
#
# Framing (wire.py): 4 bytes "FXC1", 4 bytes little-endian length, then one Cap'n Proto message (stream framing).
# A value is MessagePack in a Data field (policies/values.py says which types). Buffers of 64 KiB and more are not in it,
# `buffers` says how long each is: with arrays among them they are one after another in one sealed memfd that comes with the
# frame (SCM_RIGHTS); others follow the frame on the socket as they are, and a 0 comes before their lengths.
#
# Who sends what:
#   host -> template    open, spawn
#   template -> host    opened | failure, spawned | failure, reaped
#   worker -> host      hello, effect, output, result | failure
#   host -> worker      vocabulary, define, run, area, batch, effectResult | failure, stop
#   supervisor -> host  listening, ended          host -> supervisor  kill
# A worker and the host take turns: after `run` or `batch` the worker speaks until `result` or `failure` of that id; each `effect` is
# answered before anything else. Whatever breaks the turn is a protocol violation.

struct Message {
  id @0 :UInt64;
  # The command's number; in effect and effectResult the number of the effect. A command's cannot be guessed; effects count up from 1.

  union {
    open @1 :Data;            # MessagePack table: policy, spin (template.py)
    opened @2 :Data;          # MessagePack table: probe, namespaces (template.py)
    spawn @3 :Void;          # a worker, please; with descriptors: the doors of the group for the one after it
    spawned @4 :Spawned;
    reaped @5 :Reaped;

    hello @6 :Hello;
    define @7 :Define;
    run @8 :Value;
    effect @9 :Value;
    effectResult @10 :Value;
    result @11 :Value;
    failure @12 :Failure;
    output @13 :Output;
    stop @14 :Void;

    listening @15 :Void;      # the supervisor holds the seccomp listener
    kill @16 :Kill;
    ended @17 :Ended;

    vocabulary @18 :Data;     # effects of the host's own that the policy grants (policies/vocabulary.py); before the first define
    batch @19 :Value;         # many calls of one function (batches.py); answered as `run`, by the last of them that was made
    area @20 :Void;           # before the first batch, with a descriptor: where results are kept meanwhile (area.py)
  }
}

struct Value {
  body @0 :Data;              # MessagePack
  buffers @1 :List(UInt64);   # lengths in bytes, in order; first a 0 when they follow the frame
  # After a first length of 0 no memfd came: the parts are at the end of the body, where the kernel took no descriptor.
}

struct Spawned {
  # Three descriptors come with it: the supervisor's pidfd, the worker's channel, the supervisor's report socket.
  pid @0 :Int32;              # of the supervisor, as the template and the host see it
}

struct Reaped {
  pid @0 :Int32;
  status @1 :Int32;           # as wait(2) gives it
  use @2 :Use;
}

struct Use {
  userS @0 :Float64;          # CPU seconds in user mode
  systemS @1 :Float64;        # CPU seconds in the kernel
  peakBytes @2 :UInt64;       # largest resident set of any one process
}

struct Hello {
  protocol @0 :UInt16;        # 1
  enforced @1 :Data;          # MessagePack table: layer -> what was read back after it was applied (enforced.py)
}

struct Define {
  digest @0 :Text;            # SHA-256 of code, hex
  name @1 :Text;
  code @2 :Data;              # cloudpickle or a packed plugin (sandbox/code.py); large code in several messages, in order
}

struct Failure {
  kind @0 :Text;              # plugin | denied | failed | memory | isolation | setup | in_flight | internal
  typeName @1 :Text;
  message @2 :Text;
  traceback @3 :Text;
  details @4 :Data;           # MessagePack table; for denied: effect, field, rule, policy, suggestion, value
}

struct Output {
  stream @0 :UInt8;           # 1 stdout, 2 stderr
  data @1 :Data;
}

struct Kill {
  withStack @0 :Bool;         # ask for the Python stacks first (at most 200 ms)
}

struct Ended {
  # What the supervisor saw of the worker's end.
  status @0 :Int32;           # as wait(2) gives it
  use @1 :Use;
  deniedNumber @2 :Int32 = -1; # system call that ended it, -1 for none
  deniedArchitecture @3 :UInt32;
  deniedArguments @4 :List(UInt64);
  stack @5 :Text;             # what faulthandler wrote
  stdoutTail @6 :Data;        # last bytes written to descriptor 1 and 2 directly
  stderrTail @7 :Data;
  cause @8 :Text;             # what the supervisor acted on first: "" (nothing), denied_syscall, output_limit, stack_limit, host
}
