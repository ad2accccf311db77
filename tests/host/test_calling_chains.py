"""CallPlugin through other plugins: a chain that comes back or is too long is refused, and every other ends."""

from fxcell import FX, run
from fxcell.host import callees
from tests.host.calling import ask, calls, double, failure, nest, send
from tests.host.calling import nobody_registered as nobody_registered  # noqa: PLC0414 - the fixture


def test_chain_that_comes_back_is_refused_with_the_chain():
    callees.register("a", nest, policy=calls("b"))
    callees.register("b", nest, policy=calls("c"))
    callees.register("c", nest, policy=calls("a"))
    refused = failure(nest(["a", "b", "c", "a"]), calls("a"))
    assert (refused.kind, refused.message) == ("cycle", "'a' is waiting for this call already: a -> b -> c -> a")


def test_plugin_that_calls_itself_is_refused_also_under_the_name_its_worker_was_started_for():
    callees.register("a", nest, policy=calls("a"))
    assert failure(nest(["a", "a"]), calls("a")).message == "'a' is waiting for this call already: a -> a"
    assert failure(nest(["a"]), calls("a"), plugin="a").message == "'a' is waiting for this call already: a -> a"


def test_the_same_plugin_twice_but_not_below_itself_is_no_cycle():
    callees.register("double", double, policy="compute")
    assert send([ask("double", {"value": 1}), ask("double", {"value": 2})], calls("double")) == [2, 4]


def test_chain_of_eight_works_and_of_nine_is_refused():
    names = [f"p{number}" for number in range(1, 10)]
    for name, after in zip(names, [*names[1:], "p1"], strict=True):
        callees.register(name, nest, policy=calls(after))
    assert send(nest(names[:8]), calls("p1")) == 9
    refused = failure(nest(names), calls("p1"))
    assert refused.kind == "depth"
    assert refused.message.endswith(" -> ".join(names))


def test_depth_of_a_rule_counts_below_its_worker_and_holds_for_all_below():
    callees.register("a", nest, policy=calls("b", max_depth=8))
    callees.register("b", nest, policy=calls("c", max_depth=8))
    callees.register("c", nest, policy="compute")
    assert send(nest(["a", "b", "c"]), calls("a", max_depth=3)) == 4
    assert failure(nest(["a", "b", "c"]), calls("a", max_depth=2)).kind == "depth"
    assert send(nest(["a"]), calls("a", max_depth=1)) == 2


def test_many_chains_at_once_all_end():
    names = ["a", "b", "c"]
    for name, after in zip(names, ["b", "c", "a"], strict=True):
        callees.register(name, nest, policy=calls(after))
    workers = [FX.StartWorkerProcess(policy=calls("a")) | run for _ in range(6)]
    futures = [run.submit(FX.SendCommandToWorkerProcess(process=worker, command=nest(names))) for worker in workers]
    assert [future.result(60) for future in futures] == [4] * 6
    for worker in workers:
        FX.StopWorkerProcess(process=worker) | run
