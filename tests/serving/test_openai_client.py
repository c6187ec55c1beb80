"""The `openai` package against our server: a client that nobody here wrote."""

import asyncio

import pytest

from geex_jax.serving import Settings
from tests.serving.fakes import served
from tests.serving.servers import running

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def url():
    with running([served("geex"), served("geex-int8")], Settings(api_keys=("sesame",))) as client:
        yield f"{client.base_url}/v1"


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=url, api_key="sesame", max_retries=0) as client:
        yield client


def test_completions(client):
    answer = client.completions.create(
        model="geex", prompt=["a", "b"], n=2, max_tokens=4, logprobs=1, echo=True, seed=1,
        extra_body={"top_k": 5, "language": "python"},
    )  # fmt: skip
    assert [c.text[-4:] for c in answer.choices] == ["bcde", "cdef"] * 2
    assert answer.choices[0].logprobs.token_logprobs[0] is None
    assert answer.usage.completion_tokens == 16
    assert answer.choices[0].finish_reason == "length"


def test_streams(client):
    chunks = list(
        client.completions.create(
            model="geex", prompt="a", max_tokens=6, stream=True,
            stream_options={"include_usage": True},
        )
    )  # fmt: skip
    assert "".join(c.choices[0].text for c in chunks if c.choices) == "abcdef"
    assert chunks[-1].usage.total_tokens == 7
    with client.chat.completions.stream(
        model="geex-int8", messages=[{"role": "user", "content": "hi"}], stop="d"
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "abc"


def test_chat_and_models(client):
    answer = client.chat.completions.create(
        model="geex", messages=[{"role": "user", "content": "hi"}], max_tokens=3, logprobs=True,
        top_logprobs=1,
    )  # fmt: skip
    assert answer.choices[0].message.content == "abc"
    assert answer.choices[0].logprobs.content[0].top_logprobs[0].token == "a"
    assert [m.id for m in client.models.list()] == ["geex", "geex-int8"]
    assert client.models.retrieve("geex-int8").id == "geex-int8"


def test_errors_become_the_packages_own(client, url):
    with pytest.raises(openai.NotFoundError) as error:
        client.completions.create(model="gpt-3", prompt="a")
    assert error.value.code == "model_not_found" and error.value.param == "model"
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model="geex", prompt="a", max_tokens=9999)
    assert error.value.code == "context_length_exceeded"
    stranger = openai.OpenAI(base_url=url, api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_asynchronously_and_with_streams_left_early(url):
    async def run():
        async with openai.AsyncOpenAI(base_url=url, api_key="sesame", max_retries=0) as client:
            ask = client.completions.create
            stream = await ask(model="geex", prompt="a", max_tokens=3000, stream=True)
            async for _ in stream:
                await stream.close()
                break
            answers = await asyncio.gather(
                *(ask(model="geex", prompt="a", max_tokens=3, seed=i) for i in range(8))
            )
            return [a.choices[0].text for a in answers]

    assert asyncio.run(run())[:3] == ["abc", "bcd", "cde"]
