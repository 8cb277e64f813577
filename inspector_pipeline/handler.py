"""What a Hugging Face Inference Endpoint runs for a judge: `EndpointHandler`, in every judge's repo as `handler.py`.

An endpoint loads this file by itself, outside any package, so it uses nothing but transformers: the judge's own code
comes with the judge.
"""

from collections.abc import Mapping
from typing import Any

from transformers import pipeline

PARAMETERS = ("batch_size", "columns", "strict")


class EndpointHandler:
    """Score the pairs of a request.

    Example:
        >>> handler = EndpointHandler("path/to/judge")  # doctest: +SKIP
        >>> handler({"inputs": {"question": "2 + 2?", "prediction": "4"}})[0]["total_score"]  # doctest: +SKIP
        21
    """

    def __init__(self, path: str = "", **kwargs: Any) -> None:
        """Load the judge.

        Args:
            path: Folder of the judge's repo.
            **kwargs: Ignored; endpoints pass the task's name.
        """
        self.judge = pipeline("inspector-judge", model=path, trust_remote_code=True, dtype="auto")

    def __call__(self, data: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Score one pair or a list of pairs.

        Args:
            data: `inputs`, a pair (`question` and `prediction`, or a row of another tool) or a list of pairs, and where
                wanted `parameters` with `batch_size`, `columns` and `strict`, as a call of the pipeline takes them.

        Returns:
            One result a pair, in order.

        Raises:
            ValueError: The request is not of this form, or a pair cannot be scored; the message says which.
        """
        if not isinstance(data, Mapping) or "inputs" not in data:
            raise ValueError('A request expects {"inputs": ...}, a pair or a list of pairs, but got no inputs.')
        inputs, parameters = data["inputs"], data.get("parameters") or {}
        if not isinstance(inputs, (Mapping, list)):
            raise ValueError(f"inputs expects a pair or a list of pairs, but got {type(inputs).__name__}.")
        if not isinstance(parameters, Mapping):
            raise ValueError(f"parameters expects a JSON object, but got {type(parameters).__name__}.")
        unknown = sorted(set(parameters) - set(PARAMETERS))
        if unknown:
            raise ValueError(f"parameters knows {', '.join(PARAMETERS)}, but got {', '.join(unknown)}.")
        pairs = [inputs] if isinstance(inputs, Mapping) else inputs
        results: list[dict[str, Any]] = self.judge(pairs, **parameters) if pairs else []
        return results
