"""What calls cost, and a limit that accepted work never exceeds."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from inspector_pipeline.errors import EndpointError, SettingsError

MESSAGE_TOKENS = 64  # what a chat template may add around one message


@dataclass(frozen=True)
class Prices:
    """Prices and limit, all in one currency.

    Attributes:
        prompt: Price of a million prompt tokens.
        completion: Price of a million completion tokens.
        max_cost: What may be spent in all, over every run of the same job; none where absent.
    """

    prompt: float = 0.0
    completion: float = 0.0
    max_cost: float | None = None

    def __post_init__(self) -> None:
        """Refuse a limit that could never be reached.

        Raises:
            SettingsError: There is a limit but no price.
        """
        if self.max_cost is not None and not self.prompt + self.completion > 0:
            raise SettingsError("prices.max_cost expects prices.prompt or prices.completion above 0, but both are 0.")

    def cost(self, usage: Mapping[str, int]) -> float:
        """Price the tokens of some calls."""
        prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        return (prompt * self.prompt + completion * self.completion) / 1e6


class Ledger:
    """Tokens used so far, and room kept for calls in flight.

    Args:
        prices: Prices and limit.
        used: Usage of earlier runs.
    """

    def __init__(self, prices: Prices, used: Iterable[Mapping[str, int]]) -> None:
        """Begin with what was used before."""
        self.prices = prices
        self.used: Counter[str] = Counter()
        for usage in used:
            self.used.update(usage)
        self._kept: list[float] = []
        self._settled = asyncio.Condition()

    @property
    def cost(self) -> float:
        """What was spent so far."""
        return self.prices.cost(self.used)

    @asynccontextmanager
    async def room_for(self, most: Mapping[str, int]) -> AsyncIterator[None]:
        """Keep room for calls while they are in flight, waiting for others to end where there is not enough yet.

        Args:
            most: Upper bound on their usage.

        Raises:
            EndpointError: The limit could be exceeded, even with nothing else in flight.
        """
        limit, price = self.prices.max_cost, self.prices.cost(most)
        async with self._settled:
            while limit is not None and self.cost + sum(self._kept) + price > limit:
                if not self._kept:
                    raise EndpointError(
                        f"The next call could cost {price:.6g}, and {self.cost:.6g} of prices.max_cost {limit:g} is "
                        "spent. Everything answered is kept; run again with a higher prices.max_cost to go on."
                    )
                await self._settled.wait()
            self._kept.append(price)
        try:
            yield
        finally:
            async with self._settled:
                self._kept.remove(price)
                self._settled.notify_all()

    def summary(self) -> str:
        """Say what was used, for people."""
        tokens = f"{self.used['prompt_tokens']} prompt and {self.used['completion_tokens']} completion tokens"
        return f"{self.used['calls']} calls, {tokens}, at a cost of {self.cost:.6g}"

    def add(self, usage: Mapping[str, int]) -> None:
        """Count the usage of a call."""
        self.used.update(usage)


def most_tokens(messages: Iterable[Mapping[str, str]]) -> int:
    """Bound the tokens of messages from above: no byte-level tokenizer makes more tokens than there are bytes."""
    return sum(len(message["content"].encode()) + MESSAGE_TOKENS for message in messages)
