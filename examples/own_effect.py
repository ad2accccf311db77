"""An effect of your own: the plugin asks for it by name, the host performs it, the policy says with which arguments and how often.

python examples/own_effect.py
"""

import asyncio

from fxcell import *


class Translate(Effect):
    """Answer the text in another language."""

    text: str
    to: str = "en"


WORDS = {("hello", "de"): "hallo", ("hello", "fr"): "bonjour"}


@handles(Translate)
async def translate(effect):
    await asyncio.sleep(0.01)  # a database, a service: other workers' effects go on meanwhile
    return WORDS.get((effect.text, effect.to), effect.text)


@zef_function
def greet(language):
    word = FX.Translate(text="hello", to=language) | run
    return f"{word}!"


POLICY = Policy(name="greeter", effects={"Translate": {"to": ["de", "fr"], "rate": "10/s", "max_total_bytes": 100_000}})

if __name__ == "__main__":
    worker = FX.StartWorkerProcess(policy=POLICY) | run
    for language in ("de", "fr", "es"):
        print(language, run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=greet(language))))
    FX.StopWorkerProcess(process=worker) | run
