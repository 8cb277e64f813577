"""Read the features of pairs, in one pass per reading, by the code that scores.

    python -m training extract --pairs labelled.jsonl --output work/features

Pairs are read in windows of rows; each window's features become one shard as soon as they are there, so memory stays
bounded and a run that was stopped, however, goes on where it was. Batches never cross a window's border: the shards are
the same whether or not a run was interrupted. A folder that already holds all that is asked for is used as it is; one
that holds something else is never overwritten.
"""

from ..features.extract import extract
from ..features.plan import ExtractConfig as Config


def run(config: Config) -> None:
    """Run the stage: pairs -> a folder of features, which `load_features` opens.

    Raises:
        InspectorError: See `extract`.
    """
    extract(config)
