"""Collections on a cluster: descriptors and catalogue in Milvus, local features in an S3 store."""

from opendelg.collection.cluster.address import is_cluster
from opendelg.collection.cluster.opening import Cluster

__all__ = ["Cluster", "is_cluster"]
