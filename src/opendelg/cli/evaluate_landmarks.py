"""`delg evaluate gldv2-retrieval` and `delg evaluate gldv2-recognition`."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from opendelg.cli.evaluate import SaveRunOption, finish
from opendelg.cli.opening import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    ProfileOption,
    ThreadsOption,
    open_with_extractor,
    read_config,
    writable,
)
from opendelg.cli.progress import progress

if TYPE_CHECKING:
    from opendelg.delf_config import DelfConfig
    from opendelg.evaluation.landmark_data import LandmarkBenchmark
    from opendelg.evaluation.landmark_search import LandmarkSearch
    from opendelg.extraction import Extractor

GPU_BATCH = 16  # images of equal size that a GPU takes at a time

FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of the dataset as downloaded.")
]
SolutionOption = Annotated[
    Path | None, typer.Option("--solution", help="Solution .csv, if it is not in the folder.")
]
SubsetOption = Annotated[
    bool, typer.Option("--subset", help="Take the images that are there: not comparable.")
]
SubmissionOption = Annotated[
    Path | None,
    typer.Option(
        "--submission", callback=writable, help="Write predictions as the challenge wants: .csv"
    ),
]
CollectionOption = Annotated[
    Path | None,
    typer.Option("--collection", help="Keep the features here, to go on or for the next time."),
]
VerificationOption = Annotated[
    Literal["standard", "paper"], typer.Option("--verification", help="How they are verified.")
]


def gldv2_retrieval(
    folder: FolderArgument,
    solution: SolutionOption = None,
    subset: SubsetOption = False,
    submission: SubmissionOption = None,
    collection: CollectionOption = None,
    model: ModelOption = None,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    rerank: Annotated[
        int, typer.Option("--rerank", min=0, help="Candidates verified; 0: none.")
    ] = 100,
    verification: VerificationOption = "standard",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    save_run: SaveRunOption = None,
    json: JsonOption = False,
) -> None:
    """Evaluate Google Landmarks v2 retrieval: mAP@100 of the public and the private queries.

    The folder holds index/ and test/ with their images, in tars or unpacked, index.csv, test.csv
    and retrieval_solution_v2.1.csv.

    \b
    delg evaluate gldv2-retrieval gldv2/ --collection gldv2.delg
    delg evaluate gldv2-retrieval gldv2/ --collection gldv2.delg --rerank 0 --submission found.csv
    """
    from opendelg.evaluation.landmark_data import open_retrieval
    from opendelg.evaluation.landmark_retrieval import (
        evaluate_landmark_retrieval,
        write_retrieval_predictions,
    )
    from opendelg.search import SearchConfig
    from opendelg.verification import VerificationSettings

    settings = read_config(config, profile)
    search = SearchConfig(rerank=rerank, verification=VerificationSettings(mode=verification))
    benchmark = open_retrieval(folder, solution, subset, collection)
    with _opened(benchmark, collection, (model, profile, device, threads, settings)) as (
        opened,
        extractor,
    ):
        run = evaluate_landmark_retrieval(benchmark, opened, extractor, search)
    if submission is not None:
        write_retrieval_predictions(submission, benchmark, run)
    finish(run, save_run, json)


def gldv2_recognition(
    folder: FolderArgument,
    solution: SolutionOption = None,
    images: Annotated[
        Literal["train_clean.csv", "train.csv"],
        typer.Option("--list", help="Which training images are the database."),
    ] = "train_clean.csv",
    subset: SubsetOption = False,
    submission: SubmissionOption = None,
    collection: CollectionOption = None,
    model: ModelOption = None,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    rerank: Annotated[
        int, typer.Option("--rerank", min=0, help="Neighbours verified; 0: none.")
    ] = 10,
    neighbours: Annotated[
        int, typer.Option("--neighbours", min=1, help="Best of them, which vote for a landmark.")
    ] = 3,
    verification: VerificationOption = "standard",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    save_run: SaveRunOption = None,
    json: JsonOption = False,
) -> None:
    """Evaluate Google Landmarks v2 recognition: global average precision (GAP).

    The folder holds train/ and test/ with their images, in tars or unpacked, train_clean.csv,
    test.csv and recognition_solution_v2.1.csv.

    \b
    delg evaluate gldv2-recognition gldv2/ --collection gldv2.delg
    delg evaluate gldv2-recognition gldv2/ --collection gldv2.delg --submission predictions.csv
    """
    from opendelg.evaluation.landmark_data import open_recognition
    from opendelg.evaluation.landmark_recognition import (
        VoteConfig,
        evaluate_landmark_recognition,
        write_recognition_predictions,
    )
    from opendelg.search import SearchConfig
    from opendelg.verification import VerificationSettings

    settings = read_config(config, profile)
    search = SearchConfig(rerank=rerank, verification=VerificationSettings(mode=verification))
    vote = VoteConfig(neighbours=neighbours)
    benchmark = open_recognition(folder, solution, images, subset, collection)
    with _opened(benchmark, collection, (model, profile, device, threads, settings)) as (
        opened,
        extractor,
    ):
        run = evaluate_landmark_recognition(benchmark, opened, extractor, search, vote)
    if submission is not None:
        write_recognition_predictions(submission, benchmark, run)
    finish(run, save_run, json)


@contextmanager
def _opened(
    benchmark: "LandmarkBenchmark",
    collection: Path | None,
    named: tuple[
        str | None, str | None, Literal["auto", "cpu", "cuda"], int | None, "DelfConfig | None"
    ],
) -> Iterator[tuple["LandmarkSearch", "Extractor"]]:
    """What searches a benchmark with the model, profile, device, threads and settings named."""
    from opendelg.evaluation.landmark_search import LandmarkSearch, Workload

    with ExitStack() as stack:
        kept = collection or Path(stack.enter_context(TemporaryDirectory(prefix="delg-")))
        opened, extractor = open_with_extractor(kept, *named)
        stack.enter_context(opened)
        batch_size = GPU_BATCH if extractor.runtime.device == "cuda" else 1
        workload = Workload(batch_size=batch_size)
        yield LandmarkSearch(benchmark, opened, extractor, progress, workload), extractor
