"""`geex bench serve`: its figures are what the server did, faults and leaks included."""

import argparse
import asyncio
import threading

import pytest

from geex_jax.benchmark import serve_bench, serve_process
from geex_jax.cli import main
from geex_jax.errors import GeexError
from geex_jax.inference import Request, SamplingParams
from tests.serving.fakes import FakeEngine, served
from tests.serving.servers import running


class Stand(serve_process.Server):
    """A server that runs in this process already."""

    def __init__(self, port):
        self.port, self.about = port, "ready: here"

    def memory(self):
        return 12.0


def settings(*words):
    parser = argparse.ArgumentParser()
    serve_bench.add_arguments(parser)
    return parser.parse_args(["--prompt", "4-9", "--tokens", "3-30", *words])


def test_the_figures_add_up():
    args = settings("--clients", "8", "--requests", "40", "--alone", "5", "--cancel", "0.3")
    asks = serve_bench.mix(args)
    assert asks == serve_bench.mix(args) and any(a.leave for a in asks)
    engine = FakeEngine(slots=4, pause=0.001)
    with running([served(engine=engine)]) as client:
        result = asyncio.run(serve_bench.measure(Stand(client.port), args))
    assert len(engine.seen) == 5 + 2 * (5 + 5) + 40
    lengths = sorted(len(r.prompt) for r in engine.seen[-40:])
    assert lengths == sorted(len(a.prompt) for a in asks)
    alone, together, many = (result[key] for key in ("alone", "together", "many"))
    assert alone["tokens"] == together["tokens"] == sum(a.tokens for a in asks[:5])
    assert alone["left"] == together["left"] == 0
    assert result["ratio"] == together["tokens_per_second"] / alone["tokens_per_second"] > 1
    assert many["tokens"] == sum(a.tokens for a in asks if not a.leave)
    assert many["left"] == sum(a.leave is not None for a in asks)
    assert many["errors"] == alone["errors"] == together["errors"] == 0
    assert 0 < many["first_ms"][0] <= many["first_ms"][1]
    assert (result["slots_busy"], result["queue"]) == (0, 0)
    text = "\n".join(serve_bench.lines(result))
    assert (
        "8 clients" in text
        and "5 at once" in text
        and "12 MB before" in text
        and "slots still busy: 0" in text
    )


def test_faults_and_leaks_are_seen():
    args = settings("--clients", "2", "--requests", "4", "--alone", "1", "--cancel", "0")
    with running([served(fail_at=2)]) as client:
        result = asyncio.run(serve_bench.measure(Stand(client.port), args))
    assert result["many"]["errors"] == 4 and "caught fire" in result["many"]["first_error"]
    engine = FakeEngine(gate=threading.Event())  # one that does not end its requests
    with running([served(engine=engine)]) as client:
        ticket = engine.submit(Request((65,), SamplingParams(max_new_tokens=5)))
        left = asyncio.run(Stand(client.port).leftovers(seconds=0.2))
        assert left == {"slots_busy": 1.0, "queue": 0.0}
        ticket.cancel()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--clients", "0"], "not positive"),
        (["--tokens", "9-3"], "write 16-128"),
        (["--preset", "geex-9z"], "unknown model preset"),
        (["--checkpoint", "nowhere"], "no checkpoint folder"),
    ],
)
def test_refusals_are_one_line(flags, message, capsys):
    assert main(["bench", "serve", *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_server_that_does_not_start_says_why(tmp_path):
    start = serve_process.start(tmp_path / "none")
    with pytest.raises(GeexError, match=r"did not start: .*no checkpoint folder"), start:
        pass
