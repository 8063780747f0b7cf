"""The options for which model answers, and how it is reached."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vsre.errors import VsreError

if TYPE_CHECKING:
    from vsre.diagnose import Decoding, Engine

Server = Annotated[
    str | None,
    typer.Option(
        help="Ask MODEL on this OpenAI-compatible server, such as http://localhost:8000/v1, instead of loading it."
    ),
]
KeyEnv = Annotated[str, typer.Option(help="The environment variable that holds the server's key.")]
NoKey = Annotated[bool, typer.Option("--no-key", help="Send no key to the server, whatever the environment holds.")]
MaxTokens = Annotated[
    int | None,
    typer.Option(help="Maximum tokens per answer, for models that think first; default: 16 short, 64 full."),
]
Temperature = Annotated[
    str | None, typer.Option(help="For the server, 0 by default; none leaves it out, for models that refuse it.")
]
Body = Annotated[
    str | None,
    typer.Option(metavar="JSON", help='Extra fields for server requests, such as \'{"reasoning_effort": "low"}\'.'),
]
NoLogprobs = Annotated[bool, typer.Option("--no-logprobs", help="Ask the server for no likelihoods.")]
Concurrency = Annotated[int, typer.Option(help="Concurrent requests to the server.")]
PriceIn = Annotated[float | None, typer.Option(help="The server's price per million prompt tokens, for the cost.")]
PriceOut = Annotated[float | None, typer.Option(help="... and per million answer tokens.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")]
Quantization = Annotated[str | None, typer.Option(help="4bit or 8bit, with bitsandbytes on a GPU.")]
DeviceMap = Annotated[str | None, typer.Option(help="auto spreads the model over all GPUs (accelerate).")]
RemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the code that comes with the model. Only if you trust it.")
]
Cache = Annotated[
    Path | None, typer.Option(help="Cache answers in this file: the same model, picture and prompt are asked once.")
]


KEY_ENV = "OPENAI_API_KEY"


def open_engine(
    model: str,
    *,
    server: str | None = None,
    key_env: str = KEY_ENV,
    no_key: bool = False,
    temperature: str | None = None,
    body: str | None = None,
    no_logprobs: bool = False,
    concurrency: int = 8,
    price_in: float | None = None,
    price_out: float | None = None,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    quantization: str | None = None,
    device_map: str | None = None,
    trust_remote_code: bool = False,
    picture: Literal["shown", "none"] = "shown",
    cache: Path | None = None,
    decoding: Decoding | None = None,
    max_tokens: int | None = None,
) -> Engine:
    """The engine for these options; raises VsreError for options that do not go together. `max_tokens` limits answers
    of every style, in place of a `decoding`."""
    from vsre.diagnose import Decoding, TransformersEngine
    from vsre.diagnose.cache import CachedEngine

    if max_tokens is not None:
        if max_tokens < 1:
            raise VsreError(f"--max-tokens {max_tokens}: an answer needs 1 or more.")
        decoding = Decoding(max_tokens, max_tokens)

    if server is not None:
        from vsre.diagnose.server import ServerEngine

        loading = {"--revision": revision, "--quantization": quantization, "--device-map": device_map}
        if given := [name for name, value in loading.items() if value]:
            raise VsreError(f"{', '.join(given)}: how the model is loaded is up to the server. Leave it out.")
        if cache is not None:
            raise VsreError(
                "--cache identifies models by their weights, which a server does not tell: another model of the same "
                "name would get its answers. Leave it out; the run folder is resumed without it."
            )
        if no_key and key_env != KEY_ENV:
            raise VsreError(f"--no-key and --key-env {key_env}: give one of the two.")
        return ServerEngine(
            server,
            model,
            key_env=None if no_key else key_env,
            temperature=_temperature(temperature),
            body=_fields(body),
            logprobs="off" if no_logprobs else "auto",
            concurrency=concurrency,
            price_in=price_in,
            price_out=price_out,
            pictures=picture == "shown",
            decoding=decoding,
        )
    asked = {"--temperature": temperature, "--body": body, "--no-logprobs": no_logprobs, "--no-key": no_key}
    if given := [name for name, value in asked.items() if value not in (None, False)]:
        raise VsreError(
            f"{', '.join(given)}: only for a server, but none is named. Give one (--server), or leave this out; a "
            "model in this process is asked greedily."
        )
    if quantization not in (None, "4bit", "8bit"):
        raise VsreError(f"--quantization {quantization}: give 4bit or 8bit.")
    engine = TransformersEngine(
        model,
        device=device,
        dtype=dtype,
        revision=revision,
        quantization=quantization,  # type: ignore[arg-type]  # checked above
        device_map=device_map,
        trust_remote_code=trust_remote_code,
        picture=picture,
        decoding=decoding,
    )
    return engine if cache is None else CachedEngine(engine, cache)


def _temperature(said: str | None) -> float | None:
    """The value of --temperature; None for "none"."""
    if said is None:
        return 0.0
    if said.strip().casefold() == "none":
        return None
    try:
        value = float(said)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise VsreError(f"--temperature {said}: give a number, 0 or more, or none to leave it to the server.")
    return value


def _fields(body: str | None) -> dict[str, Any]:
    """The value of --body."""
    if body is None:
        return {}
    try:
        found = json.loads(body)
    except ValueError as error:
        raise VsreError(f"--body: not JSON ({error}). {_AS_IN}") from None
    if not isinstance(found, dict):
        raise VsreError(f"--body: JSON, but not an object of fields ({type(found).__name__}). {_AS_IN}")
    return found


_AS_IN = """As in --body '{"chat_template_kwargs": {"enable_thinking": false}}', in single quotes for the shell."""
