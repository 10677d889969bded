"""`delg evaluate gldv2-retrieval` and `delg evaluate gldv2-recognition`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from opendelg.cli.evaluate import SaveRunOption, finish
from opendelg.cli.opening import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    ProfileOption,
    ThreadsOption,
    kept_or_temporary,
    read_config,
    writable,
)
from opendelg.cli.progress import progress

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
    from opendelg.evaluation.landmark_retrieval import write_retrieval_predictions
    from opendelg.evaluation.protocols import LandmarkRetrieval
    from opendelg.search import SearchConfig
    from opendelg.verification import VerificationSettings

    settings = read_config(config, profile)
    search = SearchConfig(rerank=rerank, verification=VerificationSettings(mode=verification))
    benchmark = open_retrieval(folder, solution, subset, collection)
    with kept_or_temporary(collection, model, profile, device, threads, settings) as opened:
        run = LandmarkRetrieval(benchmark, search).run(*opened, progress)
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
    from opendelg.evaluation.landmark_recognition import VoteConfig, write_recognition_predictions
    from opendelg.evaluation.protocols import LandmarkRecognition
    from opendelg.search import SearchConfig
    from opendelg.verification import VerificationSettings

    settings = read_config(config, profile)
    search = SearchConfig(rerank=rerank, verification=VerificationSettings(mode=verification))
    vote = VoteConfig(neighbours=neighbours)
    benchmark = open_recognition(folder, solution, images, subset, collection)
    with kept_or_temporary(collection, model, profile, device, threads, settings) as opened:
        run = LandmarkRecognition(benchmark, search, vote).run(*opened, progress)
    if submission is not None:
        write_recognition_predictions(submission, benchmark, run)
    finish(run, save_run, json)
