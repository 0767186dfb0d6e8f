"""Keys that choose rows of a large table, sent to every executor where they are few."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

# About 200 bytes each in every JVM.
_MOST_KEYS_SENT = 500_000


def sent_if_few(keys: DataFrame, n_keys: int) -> DataFrame:
    """Keys that every executor gets, so that the rows they meet need not be shuffled.

    Args:
        keys: to be joined with.
        n_keys: how many they are; about, or at most, is enough.
    """
    return F.broadcast(keys) if n_keys <= _MOST_KEYS_SENT else keys
