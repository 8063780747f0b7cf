"""The options that say which model answers, and how it is reached."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vsre.errors import VsreError

if TYPE_CHECKING:
    from vsre.diagnose import Decoding, Engine

Server = Annotated[
    str | None,
    typer.Option(
        help="Ask MODEL on this OpenAI-compatible server, as http://localhost:8000/v1, instead of loading it."
    ),
]
KeyEnv = Annotated[str, typer.Option(help="The environment variable that holds the server's key.")]
Concurrency = Annotated[int, typer.Option(help="Requests to the server at once.")]
PriceIn = Annotated[float | None, typer.Option(help="The server's price of a million prompt tokens, for the cost.")]
PriceOut = Annotated[float | None, typer.Option(help="... and of a million answer tokens.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")]
Quantization = Annotated[str | None, typer.Option(help="4bit or 8bit, by bitsandbytes on a GPU.")]
DeviceMap = Annotated[str | None, typer.Option(help="auto spreads the model over all GPUs (accelerate).")]
RemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the code that comes with the model. Only for whom you trust.")
]
Cache = Annotated[
    Path | None, typer.Option(help="Keep answers in this file: the same model, picture and prompt are asked once.")
]


def open_engine(
    model: str,
    *,
    server: str | None = None,
    key_env: str = "OPENAI_API_KEY",
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
) -> Engine:
    """The engine that these options ask for; raises VsreError for options that do not go together."""
    from vsre.diagnose import TransformersEngine
    from vsre.diagnose.cache import CachedEngine

    if server is not None:
        from vsre.diagnose.server import ServerEngine

        loading = {"--revision": revision, "--quantization": quantization, "--device-map": device_map}
        if given := [name for name, value in loading.items() if value]:
            raise VsreError(f"{', '.join(given)}: how a model is loaded is the server's own business. Leave it out.")
        if cache is not None:
            raise VsreError(
                "--cache keeps answers by a model's weights, and a server tells none: another model under the same "
                "name would be answered from it. Leave it out; the run folder itself is resumed without it."
            )
        return ServerEngine(
            server,
            model,
            key_env=key_env,
            concurrency=concurrency,
            price_in=price_in,
            price_out=price_out,
            pictures=picture == "shown",
            decoding=decoding,
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
