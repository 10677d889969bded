"""What a search found, as JSON and as evidence: the same from command line and service."""

from pathlib import Path
from typing import Any

import numpy as np

from opendelg.evidence import Evidence, Side
from opendelg.extraction import Box, profile_name
from opendelg.features import ImageFeatures
from opendelg.search import Searcher, SearchResponse, SearchResult


def response_as_dict(
    response: SearchResponse, path: str, image_id: int | None, box: Box | None
) -> dict[str, Any]:
    """An answer as the command line and the service report it.

    Args:
        response: The answer.
        path: What to call the query.
        image_id: Its id if it is in the collection.
        box: The part of it that was searched with.
    """
    added = response.expanded_with
    return {
        "query": {
            "path": path,
            "id": image_id,
            "size": list(response.query.size),
            "box": None if box is None else list(box),
            "num_keypoints": len(response.query.local),
            "expanded_with": None if added is None else list(added),
        },
        "results": [result_as_dict(result) for result in response.results],
        "seconds": dict(response.seconds),
    }


def result_as_dict(result: SearchResult) -> dict[str, Any]:
    """A result as the command line and the service report it."""
    verification, expanded = result.candidate.verification, result.candidate.expanded_similarity
    transform = None if verification is None else verification.database_from_query
    return {
        "rank": result.rank,
        "id": result.image.id,
        "path": str(result.image.path),
        "size": list(result.image.size),
        "similarity": round(result.candidate.similarity, 6),
        "expanded_similarity": None if expanded is None else round(expanded, 6),
        "num_matches": 0 if verification is None else len(verification.matches),
        "num_inliers": result.candidate.num_inliers,
        "same": None if result.candidate.same is None else round(result.candidate.same, 6),
        "database_from_query": None if transform is None else transform.tolist(),
        "region": {
            "query": result.query_region.tolist(),
            "database": result.database_region.tolist(),
        },
    }


def result_evidence(result: SearchResult, query: ImageFeatures, side: Side) -> Evidence:
    """What is drawn of a result; `side` names the query photo."""
    verification, image = result.candidate.verification, result.image
    matches = np.zeros((0, 2), np.int64) if verification is None else verification.matches
    return Evidence(
        query=side,
        database=Side(image.path.name, image.path, image.size),
        rank=result.rank,
        similarity=result.candidate.similarity,
        num_matches=len(matches),
        num_inliers=result.candidate.num_inliers,
        same=result.candidate.same,
        query_points=query.local.keypoints[matches[:, 0]],
        database_points=result.local.keypoints[matches[:, 1]],
        inliers=np.zeros(0, bool) if verification is None else verification.inliers,
        query_region=result.query_region,
        database_region=result.database_region,
    )


def query_side(path: Path, query: ImageFeatures) -> Side:
    """The query's side of its evidence."""
    return Side(path.name, path, query.size)


def evidence_settings(searcher: Searcher, collection_name: str) -> dict[str, str]:
    """What a search was made with, for the page of evidence."""
    return {
        "Model": searcher.extractor.weights.name,
        "Profile": profile_name(searcher.extractor.config),
        "Collection": f"{collection_name}, {len(searcher.collection)} images",
        "Verified candidates": str(searcher.config.rerank),
    }
