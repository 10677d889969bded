import json
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from opendelg.cli import main
from opendelg.collection import Collection
from opendelg.extraction import ExtractionConfig, Extractor
from opendelg.image import DecodedImage
from opendelg.indexing import IndexReport, index_photos, plan_indexing
from opendelg.model import Delg, ModelConfig
from opendelg.recipes import make_extractor, recipe_of
from opendelg.runtime import Runtime, choose_runtime
from opendelg.same import SameModel
from opendelg.weights import Weights, read_weights, write_weights
from tests.cluster_services import Services

TINY = ModelConfig(
    layout="torchvision",
    block="basic",
    units=(1, 1, 1, 1),
    widths=(8, 8, 8, 8),
    stem_width=8,
    local_stride=16,
    num_global_dimensions=16,
    num_local_dimensions=8,
    attention_width=8,
    resize_rule="half_pixel",
)


@pytest.fixture(scope="session")
def make_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Weights]:
    """Write and read back seeded weights of any shape, batch norms included."""

    def make(config: ModelConfig, same: SameModel | None = None) -> Weights:
        generator = torch.Generator().manual_seed(7)
        with torch.random.fork_rng():
            torch.manual_seed(7)
            network = Delg(config)
        for name, tensor in network.state_dict().items():
            if name.endswith(("running_var", "running_mean")) or ".bn" in name:
                low = 0.5 if name.endswith(("weight", "running_var")) else -0.5
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + low)
        path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
        state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        write_weights(path, "tiny", state, config, score_threshold=0.0, same=same)
        return read_weights(path)

    return make


@pytest.fixture(scope="session")
def tiny_weights(make_weights: Callable[[ModelConfig], Weights]) -> Weights:
    """Weights of a network of 8 channels, as read from a file."""
    return make_weights(TINY)


@pytest.fixture(scope="session")
def tiny_runtime(tiny_weights: Weights) -> Runtime:
    """The tiny network on one CPU thread."""
    return choose_runtime(tiny_weights, "cpu", threads=1)


def draw_image(size: tuple[int, int], seed: int = 0) -> DecodedImage:
    """Rectangles of random colours."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", size, (120, 130, 140))
    canvas = ImageDraw.Draw(image)
    for _ in range(40):
        x, y = random.integers(0, size[0]), random.integers(0, size[1])
        width, height = random.integers(3, max(size) // 4 + 4, 2)
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        canvas.rectangle((int(x), int(y), int(x + width), int(y + height)), fill=colour)
    return DecodedImage(np.asarray(image), size)


@pytest.fixture(scope="session")
def drawn() -> Callable[..., DecodedImage]:
    """Draw an image: ``drawn((width, height), seed)``."""
    return draw_image


@pytest.fixture(scope="session")
def drawn_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six PNG files of three sizes."""
    folder = tmp_path_factory.mktemp("drawn")
    paths = []
    for number, size in enumerate([(96, 64), (64, 96), (80, 80)] * 2):
        paths.append(folder / f"{number}.png")
        Image.fromarray(draw_image(size, number).pixels).save(paths[-1])
    return paths


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Weights) -> Path:
    """Photos `0.png` to `9.png`, and the collection `c` of them; not to be changed."""
    folder = tmp_path_factory.mktemp("served")
    for number in range(10):
        Image.fromarray(draw_image((192, 128), number).pixels).save(folder / f"{number}.png")
    extractor = make_extractor(str(tiny_weights.path), device="cpu", threads=1)
    with Collection.create(folder / "c", recipe_of(extractor)) as made:
        index_photos(made, extractor, plan_indexing(made, [folder]))
    return folder


@pytest.fixture
def extractor(tiny_weights: Weights, tiny_runtime: Runtime) -> Extractor:
    """The tiny network with small images and one scale."""
    return Extractor(tiny_weights, ExtractionConfig(max_size=96, scales=(1.0,)), tiny_runtime)


@pytest.fixture
def collection(tmp_path: Path, extractor: Extractor) -> Iterator[Collection]:
    """An empty collection in the folder `c`, open for writing."""
    with Collection.create(tmp_path / "c", recipe_of(extractor)) as made:
        yield made


@pytest.fixture
def index(collection: Collection, extractor: Extractor) -> Callable[..., IndexReport]:
    """Index photos into it: ``index(path, ..., update=False)``."""

    def run(*paths: Path, update: bool = False) -> IndexReport:
        return index_photos(collection, extractor, plan_indexing(collection, paths), update)

    return run


@pytest.fixture
def delg(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., SimpleNamespace]:
    """Run the command in this process: ``delg("index", ...)`` gives code, out, err and json."""

    def run(*arguments: object) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["delg", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        values = json.loads(out) if out.startswith("{") else None
        return SimpleNamespace(code=stopped.value.code or 0, out=out, err=err, json=values)

    return run


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Milvus and an S3 store; tests that use them are marked `needs_cluster`."""
    started = Services(tmp_path_factory.mktemp("milvus"))
    yield started
    started.stop()


@pytest.fixture
def address(services: Services) -> str:
    """Where nothing is yet."""
    return services.address(f"t{uuid.uuid4().hex}")


@pytest.fixture
def file_address(services: Services, tmp_path: Path) -> str:
    """Where nothing is yet, in a file of Milvus Lite."""
    return services.file_address(tmp_path / "catalogue.db", f"t{uuid.uuid4().hex}")
