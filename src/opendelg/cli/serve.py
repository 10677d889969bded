"""`delg serve`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from opendelg.cli.opening import (
    CollectionArgument,
    DeviceOption,
    ModelOption,
    ThreadsOption,
    shown,
)

MEGA = 1_000_000


def serve(
    collection: CollectionArgument,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; others than this need a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port; 0: any that is free.")
    ] = 8000,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File whose first line clients must send.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="Name of a proxy in front, if there is no token."),
    ] = None,
    writable: Annotated[
        bool, typer.Option("--writable", help="Clients may add and remove photos.")
    ] = False,
    max_megabytes: Annotated[
        int, typer.Option("--max-megabytes", min=1, help="Of a photo that is sent.")
    ] = 32,
    max_megapixels: Annotated[
        int, typer.Option("--max-megapixels", min=1, help="Of a photo that is sent, decoded.")
    ] = 64,
    max_requests: Annotated[
        int, typer.Option("--max-requests", min=1, help="Running and waiting at a time.")
    ] = 64,
    max_per_client: Annotated[
        int, typer.Option("--max-per-client", min=1, help="Of these from one address.")
    ] = 16,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, help="Seconds that a request may take.")
    ] = 30,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Search a collection from browsers and programs.

    Open the printed address.  Ctrl-C or SIGTERM stops it, after it has finished what runs.

    \b
    delg serve photos.delg
    delg serve photos.delg --writable --port 9000
    delg serve photos.delg --host 0.0.0.0 --token-file token.txt
    """
    from opendelg.collection import Collection
    from opendelg.recipes import extractor_for
    from opendelg.server import ServerSettings, create_app, make_server, read_token

    settings = ServerSettings(
        host=host,
        port=port,
        token=None if token_file is None else read_token(token_file),
        allowed_hosts=tuple(allow_host or ()),
        is_writable=writable,
        max_bytes=max_megabytes * 2**20,
        max_pixels=max_megapixels * MEGA,
        max_draft_pixels=max(200, max_megapixels) * MEGA,
        max_requests=max_requests,
        max_per_client=max_per_client,
        timeout=timeout,
    )
    if writable:
        with Collection.open(collection) as opened:  # refused now, not at the first photo
            _ = opened.folder  # that photos are kept in
    opened = Collection.open(collection, read_only=True)
    extractor = extractor_for(opened, device, threads, model)
    settings = dataclasses.replace(settings, batch_size=extractor.batch_size)
    name, num_images = shown(collection), len(opened)

    def tell(url: str) -> None:
        print(f"serving {name} ({num_images} images) on {url}", flush=True)

    make_server(create_app(opened, extractor, settings), settings, tell).run()
