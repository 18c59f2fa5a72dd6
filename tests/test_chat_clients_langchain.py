"""LangChain's ChatOpenAI: with an upstream that jitters, and with a local model."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, Literal

import httpx2
import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

from tests.chat_served import BOTH, UPSTREAM, Served, chat_gateway


class Report(BaseModel):
    """Where the ship is."""

    planet: Literal["Mars", "Venus"]
    days: Annotated[int, Field(ge=0, le=99)]
    landed: bool


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with chat_gateway(tmp_path_factory.mktemp("chat")) as served:
        yield served


@pytest.fixture(params=BOTH)
def model(request: pytest.FixtureRequest) -> str:
    """Each of the models."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def chat_openai(served: Served) -> Iterator[Callable[..., ChatOpenAI]]:
    """Return a function that makes LangChain's client of a model, with a seed."""
    options: Any = {"base_url": served.base_url, "api_key": "any", "seed": 5, "max_tokens": 200}
    make = partial(ChatOpenAI, **options)
    with make(model=UPSTREAM).root_client:  # whose connections all of them share, and none closes
        yield make


@pytest.fixture
def langchain(chat_openai: Callable[..., ChatOpenAI], model: str) -> ChatOpenAI:
    """LangChain with nothing set but where the gateway is, and the model with its seed."""
    return chat_openai(model=model)


def test_langchain_talks_and_streams(langchain: ChatOpenAI) -> None:
    """`invoke` and `stream` have one text for one seed, and tokens and fingerprint beside it."""
    answer = langchain.invoke("What did the crew see?")
    assert answer.text
    assert answer.usage_metadata is not None
    assert answer.response_metadata["system_fingerprint"]
    parts = list(langchain.stream("What did the crew see?"))
    assert answer.text == "".join(part.text for part in parts)
    assert len(parts) > 3


def test_langchain_remembers(langchain: ChatOpenAI, served: Served) -> None:
    """A conversation goes on with all that was said; what was said changes the answer."""
    said: list[BaseMessage] = [HumanMessage("My name is Ada.")]
    for question in ("Where are we?", "What is my name?"):
        said += [langchain.invoke(said), HumanMessage(question)]
    last = langchain.invoke(said)
    assert last.text
    alone = langchain.invoke("What is my name?")
    assert alone.text != last.text
    if langchain.model_name == UPSTREAM:
        sent = served.fake.chat.calls[-2].request.body["messages"]
        assert [message.text for message in said] == [message["content"] for message in sent]


def test_langchain_calls_tools(langchain: ChatOpenAI) -> None:
    """`bind_tools` has a call with arguments of the function's signature, heard afterwards."""

    @tool
    def distance(planet: Literal["Mars", "Venus"], landed: bool) -> str:
        """Tell how far a planet is away."""
        return f"{planet}: 225 million kilometres ({landed})"

    bound = langchain.bind_tools([distance], tool_choice="distance", parallel_tool_calls=False)
    asked = HumanMessage("How far is Mars?")
    answer = bound.invoke([asked])
    assert isinstance(answer, AIMessage)
    (call,) = answer.tool_calls
    assert call["name"] == "distance"
    heard = distance.invoke(call)
    assert isinstance(heard, ToolMessage)
    assert langchain.invoke([asked, answer, heard]).text


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_has_structured_answers(langchain: ChatOpenAI, method: Any) -> None:
    """`with_structured_output` gives an object of the class, by a schema or by a tool."""
    structured = langchain.with_structured_output(Report, method=method)
    assert isinstance(structured.invoke("Where is the ship?"), Report)


def test_langchain_is_async_too(chat_openai: Callable[..., ChatOpenAI], model: str) -> None:
    """`ainvoke` and `astream` have the text of `invoke`."""

    async def both() -> tuple[str, str]:
        async with httpx2.AsyncClient() as http:
            langchain = chat_openai(model=model, http_async_client=http)
            answer = await langchain.ainvoke("What did the crew see?")
            parts = [part.text async for part in langchain.astream("What did the crew see?")]
            return answer.text, "".join(parts)

    text = chat_openai(model=model).invoke("What did the crew see?").text
    assert (text, text) == asyncio.run(both())
