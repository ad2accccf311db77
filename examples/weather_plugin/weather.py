"""A plugin: the weather of the cities in a file, asked from a service. All that it reaches, it reaches by effects."""

import json

from fxcell import FX, EffectFailed, run


def main(cities: str, service: str) -> dict:
    """The report. cities: path of a file with a name on each line; service: where its weather is asked for."""
    started = FX.Now() | run
    names = (FX.ReadFile(path=cities) | run).decode().split()
    token = (FX.RandomBytes(count=8) | run).hex()
    report = {name: weather_in(name, service, token) for name in names}
    warmest = max(report, key=report.get)
    FX.Print(content=f"{len(report)} cities, warmest is {warmest}") | run
    return {"at": started, "request": token, "degrees": report, "warmest": warmest}


def weather_in(name: str, service: str, token: str) -> float:
    """Degrees in one city; the service is asked once more where it has no time at first."""
    answer = ask(f"{service}/{name}?request={token}")
    if answer["status"] == 503:
        FX.Log(message="the service is busy", level="warning", data={"city": name}) | run
        FX.Sleep(seconds=0.05) | run
        answer = ask(f"{service}/{name}?request={token}")
    return json.loads(answer["body"])["degrees"]


def ask(url: str) -> dict:
    """One request, with what a service answers as the answer to no connection."""
    try:
        return FX.HTTPRequest(url=url, headers={"Accept": "application/json"}) | run
    except EffectFailed as failed:
        return {"status": 503, "body": json.dumps({"error": failed.kind}).encode()}
